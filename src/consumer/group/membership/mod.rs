//! A member of a classic group, as a state machine without IO: it takes answers and the time, and gives actions.
//!
//! ```text
//!           subscribe            answered, leads            counted
//!  Outside ──────────► Joining ─────────────────► Counting ─────────► Syncing ─────► Stable
//!     ▲                 ▲   ▲ │   answered, follows                      ▲             │ the group rebalances,
//!     │                 │   │ └──────────────────────────────────────────┘             │ or what we want changed
//!     │        Waiting ─┘   └──────────────── given up, or too late ──── Revoking ◄────┘
//!     │ unsubscribed  ▲ backoff, after any error that may pass
//!     │               │ polled
//!     └── Parked ─────┘ ◄──── the poll interval passed, or an error that only the user can mend
//! ```
//!
//! Rules that are easy to break:
//! * Partitions are owned in `Stable` and `Revoking` only. Nothing is joined while something is owned: the eager protocol
//!   gives up everything first, so that no partition ever has two owners.
//! * Every request carries a ticket, and only the answer to the awaited ticket counts. An answer to an earlier
//!   generation's heartbeat therefore cannot end the generation that followed.
//! * Heartbeats go on through `Revoking`, whatever the reader does; the coordinator keeps the member while it waits in
//!   JoinGroup.
//! * The session is counted from when an answered SyncGroup or heartbeat was *sent*: the coordinator cannot have seen it
//!   earlier, so it never thinks us gone before we do.

mod actions;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_tests;
mod raise;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

pub(crate) use actions::{Action, Identity, JoinAnswer, Joined, JoinedMember, Standing, SyncAnswer, Ticket};

use super::{
    GroupSettings,
    assignor::{Assignor, Member},
    protocol::{self, MemberSubscription},
};
use crate::{
    cluster::Backoff,
    error::{Error, ErrorCode, ErrorKind},
    record::TopicPartition,
};

/// What classic consumer groups call their protocol in JoinGroup and SyncGroup.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// Retries that are not paced: each of these answers asks to come again at once, but not for ever.
const QUICK_RETRIES: u32 = 3;

pub(crate) struct Membership {
    settings: GroupSettings,
    assignors: Vec<Arc<dyn Assignor>>,
    backoff: Backoff,
    heartbeat_backoff: Backoff,
    rng: StdRng,
    state: State,
    /// What is wanted now; `None` while not subscribed.
    topics: Option<BTreeSet<Arc<str>>>,
    /// What the last JoinGroup said that we want.
    joined_topics: BTreeSet<Arc<str>>,
    /// Empty where the coordinator does not know us.
    member_id: Arc<str>,
    /// −1 where there is none.
    generation: i32,
    owned: Arc<BTreeSet<TopicPartition>>,
    /// As the leader: the partition counts that the assignment was made from.
    counts: Option<BTreeMap<Arc<str>, usize>>,
    /// Why the next JoinGroup is sent (KIP-800).
    reason: String,
    quick_retries: u32,
    last_ticket: u64,
    heartbeat: Heartbeat,
    last_poll: Instant,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum State {
    Outside,
    Waiting {
        until: Instant,
    },
    Parked {
        not_before: Instant,
    },
    Joining {
        ticket: Ticket,
    },
    Counting {
        ticket: Ticket,
        assignor: Arc<dyn Assignor>,
        members: Vec<Member>,
        keep: bool,
        topics: BTreeSet<Arc<str>>,
    },
    Syncing {
        ticket: Ticket,
        protocol: &'static str,
    },
    Stable,
    Revoking {
        ticket: Ticket,
        deadline: Instant,
        then: Then,
    },
    Ended(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Join,
    Leave,
}

#[derive(Debug)]
struct Heartbeat {
    due: Instant,
    in_flight: Option<(Ticket, Instant)>,
    /// When the coordinator last heard of us, at the latest.
    alive: Instant,
    /// When it last said that the generation stands.
    settled: Instant,
    /// Whether the reader was told of an error since the last success.
    complained: bool,
}

impl Membership {
    pub(crate) fn new(
        settings: GroupSettings,
        assignors: Vec<Arc<dyn Assignor>>,
        retry_backoff: (Duration, Duration),
        seed: u64,
        now: Instant,
    ) -> Self {
        let (initial, max) = retry_backoff;
        Self {
            settings,
            assignors,
            backoff: Backoff::new(initial, max),
            heartbeat_backoff: Backoff::new(initial, max),
            rng: StdRng::seed_from_u64(seed),
            state: State::Outside,
            topics: None,
            joined_topics: BTreeSet::new(),
            member_id: "".into(),
            generation: -1,
            owned: Arc::default(),
            counts: None,
            reason: String::new(),
            quick_retries: 0,
            last_ticket: 0,
            heartbeat: Heartbeat { due: now, in_flight: None, alive: now, settled: now, complained: false },
            last_poll: now,
            actions: VecDeque::new(),
        }
    }

    /// The next thing to do, until there is none.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When [`tick`](Self::tick) has something to do, if nothing else happens before.
    pub(crate) fn next_wake(&self) -> Option<Instant> {
        let session = self.heartbeat.alive + self.settings.session_timeout;
        let heartbeat = if self.heartbeat.in_flight.is_none() { self.heartbeat.due.min(session) } else { session };
        let poll = self.last_poll + self.settings.max_poll_interval;
        match &self.state {
            State::Outside | State::Parked { .. } | State::Joining { .. } | State::Ended(_) => None,
            State::Waiting { until } => Some(*until),
            State::Counting { .. } | State::Syncing { .. } => Some(heartbeat),
            State::Stable => Some(heartbeat.min(poll)),
            State::Revoking { deadline, .. } => Some(heartbeat.min(poll).min(*deadline)),
        }
    }

    pub(crate) fn standing(&self) -> Standing {
        match &self.state {
            State::Outside => Standing::Alone,
            State::Parked { .. } => Standing::Out,
            State::Ended(error) => Standing::Ended(error.clone()),
            State::Stable | State::Revoking { .. } => {
                Standing::Member { identity: self.identity(), owned: self.owned.clone() }
            }
            State::Waiting { .. } | State::Joining { .. } | State::Counting { .. } | State::Syncing { .. } => {
                Standing::Rebalancing
            }
        }
    }

    // ---- what the consumer does

    /// These topics are wanted from now on; `None` for nothing, which leaves the group.
    pub(crate) fn subscribe(&mut self, now: Instant, topics: Option<BTreeSet<Arc<str>>>) {
        if topics == self.topics || matches!(self.state, State::Ended(_)) {
            return;
        }
        let wanted = topics.is_some();
        self.topics = topics;
        match &mut self.state {
            State::Outside if wanted => {
                self.last_poll = now;
                self.join(now, "the consumer subscribed");
            }
            State::Revoking { then, .. } => *then = if wanted { Then::Join } else { Then::Leave },
            State::Stable => self.give_up(now, if wanted { Then::Join } else { Then::Leave }, "subscription changed"),
            // What was joined with is compared with what is wanted when the join is through.
            _ if wanted => {}
            _ => self.leave("the consumer unsubscribed"),
        }
    }

    /// The reader asked for records, by `now` at the latest.
    pub(crate) fn polled(&mut self, now: Instant) {
        self.last_poll = now;
        if let State::Parked { not_before } = self.state {
            self.state = State::Waiting { until: not_before.max(now) };
            self.tick(now);
        }
    }

    /// The consumer has given up what it was asked to.
    pub(crate) fn revoked(&mut self, now: Instant, ticket: Ticket) {
        match self.state {
            State::Revoking { ticket: awaited, then, .. } if awaited == ticket => {
                self.owned = Arc::default();
                self.go_on(now, then);
            }
            _ => {}
        }
    }

    /// The consumer closes: leaves if there is something to leave, and tells the consumer nothing more.
    pub(crate) fn close(&mut self) {
        if !matches!(self.state, State::Ended(_)) {
            self.actions.clear();
            self.leave("the consumer closed");
            self.state = State::Ended(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
    }

    // ---- what time does

    pub(crate) fn tick(&mut self, now: Instant) {
        if let State::Waiting { until } = self.state
            && now >= until
        {
            self.send_join(now);
        }
        if !self.in_generation() {
            return;
        }
        if now >= self.heartbeat.alive + self.settings.session_timeout {
            tracing::warn!(
                group = %self.settings.group_id,
                "no heartbeat was answered for the session timeout: the partitions count as lost"
            );
            self.lose(now, false, "the session timed out");
            return;
        }
        if matches!(self.state, State::Stable | State::Revoking { .. })
            && now >= self.last_poll + self.settings.max_poll_interval
        {
            self.poll_interval_passed(now);
            return;
        }
        if let State::Revoking { deadline, then, .. } = self.state
            && now >= deadline
        {
            tracing::warn!(
                group = %self.settings.group_id,
                "the reader did not finish with its records before the rebalance timeout: they may be read again"
            );
            self.tell_lost();
            self.go_on(now, then);
            return;
        }
        if self.heartbeat.in_flight.is_none() && now >= self.heartbeat.due {
            let ticket = self.ticket();
            self.heartbeat.in_flight = Some((ticket, now));
            self.heartbeat.due = now + self.settings.heartbeat_interval;
            self.actions.push_back(Action::Heartbeat { ticket, identity: self.identity() });
        }
    }

    /// The cluster looks different; `count` says how many partitions a topic has now.
    pub(crate) fn metadata_changed(&mut self, now: Instant, count: impl Fn(&str) -> Option<usize>) {
        let Some(counts) = &mut self.counts else { return };
        let changed = counts.iter().any(|(topic, &before)| count(topic).unwrap_or(0) != before);
        if changed && matches!(self.state, State::Stable) {
            self.give_up(now, Then::Join, "the leader saw the partitions of a topic change");
        }
    }

    // ---- what the coordinator says

    pub(crate) fn joined(&mut self, now: Instant, ticket: Ticket, joined: Joined) {
        if !matches!(self.state, State::Joining { ticket: awaited } if awaited == ticket) {
            return self.joined_in_vain(joined);
        }
        match joined {
            Joined::In(answer) => self.enter(now, answer),
            Joined::MemberIdRequired(member_id) => {
                let first = self.member_id.is_empty();
                self.member_id = member_id.into();
                if first { self.send_join(now) } else { self.retry_later(now) }
            }
            Joined::Failed(error) => self.join_failed(now, error),
        }
    }

    /// An answer that came after we had turned away: the name that it gave us would hold the group up until its session
    /// lapses.
    fn joined_in_vain(&mut self, joined: Joined) {
        let member_id: Arc<str> = match joined {
            Joined::In(answer) => answer.member_id.into(),
            Joined::MemberIdRequired(member_id) => member_id.into(),
            Joined::Failed(_) => return,
        };
        if member_id != self.member_id && self.settings.group_instance_id.is_none() {
            self.actions
                .push_back(Action::Leave { member_id, reason: "the consumer turned away while it was joining" });
        }
    }

    fn enter(&mut self, now: Instant, answer: JoinAnswer) {
        self.member_id = answer.member_id.into();
        self.generation = answer.generation;
        let assignor =
            self.assignors.iter().find(|assignor| Some(assignor.name()) == answer.protocol.as_deref()).cloned();
        let known_type = answer.protocol_type.as_deref().is_none_or(|name| name == PROTOCOL_TYPE);
        let (Some(assignor), true) = (assignor, known_type) else {
            let context = format!("join group {}: protocol {:?} was chosen", self.settings.group_id, answer.protocol);
            return self.raise(now, Error::broker(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, context));
        };
        self.heartbeat.in_flight = None;
        self.heartbeat.alive = now;
        self.heartbeat.settled = now;
        self.heartbeat.due = now + self.settings.heartbeat_interval;
        self.counts = None;
        if !answer.leads {
            return self.send_sync(now, assignor.name(), Vec::new());
        }
        let members: Vec<Member> = answer.members.into_iter().map(|member| self.read_member(member)).collect();
        let topics: BTreeSet<Arc<str>> =
            members.iter().flat_map(|member| member.subscription.topics.iter().cloned()).collect();
        let ticket = self.ticket();
        self.actions.push_back(Action::Count { ticket, topics: topics.clone() });
        self.state = State::Counting { ticket, assignor, members, keep: answer.skip_assignment, topics };
    }

    /// A member whose subscription cannot be read gets nothing; the others must not suffer for it.
    fn read_member(&self, member: JoinedMember) -> Member {
        let subscription = MemberSubscription::decode(&member.metadata).unwrap_or_else(|error| {
            tracing::warn!(group = %self.settings.group_id, member = member.id, %error, "a member gets no partitions");
            MemberSubscription::default()
        });
        Member { id: member.id, instance_id: member.instance_id, subscription }
    }

    /// How many partitions the topics have that the leader asked for; those that do not exist are missing.
    pub(crate) fn counted(&mut self, now: Instant, ticket: Ticket, counts: BTreeMap<Arc<str>, usize>) {
        if !matches!(&self.state, State::Counting { ticket: awaited, .. } if *awaited == ticket) {
            return;
        }
        let State::Counting { assignor, members, keep, topics, .. } = mem::replace(&mut self.state, State::Outside)
        else {
            return;
        };
        let assignments = if keep { Ok(Vec::new()) } else { share_out(&*assignor, &members, &counts) };
        self.counts =
            Some(topics.into_iter().map(|topic| (topic.clone(), counts.get(&topic).copied().unwrap_or(0))).collect());
        match assignments {
            Ok(assignments) => self.send_sync(now, assignor.name(), assignments),
            Err(error) => self.raise(now, error),
        }
    }

    pub(crate) fn synced(&mut self, now: Instant, ticket: Ticket, answer: Result<SyncAnswer, Error>) {
        let protocol = match self.state {
            State::Syncing { ticket: awaited, protocol } if awaited == ticket => protocol,
            _ => return,
        };
        match answer {
            Ok(answer) => {
                let consistent = answer.protocol_type.as_deref().is_none_or(|name| name == PROTOCOL_TYPE)
                    && answer.protocol.as_deref().is_none_or(|name| name == protocol);
                if !consistent {
                    let context = format!("sync group {}: protocol {:?}", self.settings.group_id, answer.protocol);
                    return self.raise(now, Error::broker(ErrorCode::INCONSISTENT_GROUP_PROTOCOL, context));
                }
                match protocol::decode_assignment(&answer.assignment) {
                    Ok(partitions) => self.settle(now, partitions.into_iter().collect()),
                    Err(error) => self.raise(now, error.context(format_args!("group {}", self.settings.group_id))),
                }
            }
            Err(error) => self.join_failed(now, error),
        }
    }

    fn settle(&mut self, now: Instant, assigned: BTreeSet<TopicPartition>) {
        if self.topics.as_ref() != Some(&self.joined_topics) {
            "subscription changed while joining".clone_into(&mut self.reason);
            return self.retry_soon(now);
        }
        let foreign: BTreeSet<&str> =
            assigned.iter().map(|p| &*p.topic).filter(|&topic| !self.joined_topics.contains(topic)).collect();
        if !foreign.is_empty() {
            tracing::warn!(
                group = %self.settings.group_id, ?foreign,
                "the leader assigned topics that are not subscribed to: the assignment is not taken"
            );
            "assigned topics that are not subscribed to".clone_into(&mut self.reason);
            return self.retry_later(now);
        }
        tracing::debug!(
            group = %self.settings.group_id, member = %self.member_id, generation = self.generation,
            partitions = assigned.len(), leader = self.counts.is_some(), "joined"
        );
        self.state = State::Stable;
        self.backoff.reset();
        self.quick_retries = 0;
        self.actions.push_back(Action::Assigned { partitions: assigned.iter().cloned().collect() });
        self.owned = Arc::new(assigned);
    }

    pub(crate) fn heartbeat_answered(&mut self, now: Instant, ticket: Ticket, answer: Result<(), Error>) {
        let sent = match self.heartbeat.in_flight {
            Some((awaited, sent)) if awaited == ticket => sent,
            _ => return,
        };
        self.heartbeat.in_flight = None;
        if !self.in_generation() {
            return;
        }
        match answer {
            Ok(()) => {
                self.heartbeat.alive = self.heartbeat.alive.max(sent);
                self.heartbeat.settled = self.heartbeat.settled.max(sent);
                self.heartbeat.complained = false;
                self.heartbeat_backoff.reset();
            }
            Err(error) if error.code() == Some(ErrorCode::REBALANCE_IN_PROGRESS) => {
                self.heartbeat.alive = self.heartbeat.alive.max(sent);
                self.rebalance_found(now);
            }
            Err(error) => {
                if !self.expelled(now, &error) {
                    let pause = self.heartbeat_backoff.next(&mut self.rng);
                    self.heartbeat.due = now + pause.min(self.settings.heartbeat_interval);
                    self.complain(error);
                }
            }
        }
        self.tick(now);
    }

    /// A commit of that identity was refused.
    pub(crate) fn commit_refused(&mut self, now: Instant, identity: &Identity, error: &Error) {
        if self.in_generation() && *identity == self.identity() {
            if error.code() == Some(ErrorCode::REBALANCE_IN_PROGRESS) {
                self.rebalance_found(now);
            } else {
                self.expelled(now, error);
            }
        }
    }

    // ---- steps

    fn identity(&self) -> Identity {
        Identity { generation: self.generation, member_id: self.member_id.clone() }
    }

    /// Whether the coordinator counts us into a generation, so that heartbeats are due.
    fn in_generation(&self) -> bool {
        matches!(self.state, State::Counting { .. } | State::Syncing { .. } | State::Stable | State::Revoking { .. })
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    fn join(&mut self, now: Instant, reason: &str) {
        reason.clone_into(&mut self.reason);
        self.send_join(now);
    }

    fn send_join(&mut self, now: Instant) {
        let Some(topics) = &self.topics else { return };
        let subscription = MemberSubscription {
            topics: topics.iter().cloned().collect(),
            user_data: None,
            owned: Vec::new(),
            generation: self.generation,
            rack: self.settings.client_rack.clone(),
        };
        let encoded = match subscription.encode() {
            Ok(encoded) => encoded,
            Err(error) => return self.raise(now, error),
        };
        self.joined_topics.clone_from(topics);
        let protocols = self.assignors.iter().map(|assignor| (assignor.name(), encoded.clone())).collect();
        let ticket = self.ticket();
        self.state = State::Joining { ticket };
        self.heartbeat.in_flight = None;
        self.actions.push_back(Action::Join {
            ticket,
            member_id: self.member_id.clone(),
            protocols,
            reason: self.reason.clone(),
        });
    }

    fn send_sync(&mut self, now: Instant, protocol: &'static str, assignments: Vec<(String, bytes::Bytes)>) {
        // Whatever it gives us, it gives after now.
        self.heartbeat.alive = now;
        self.heartbeat.settled = now;
        let ticket = self.ticket();
        self.state = State::Syncing { ticket, protocol };
        self.actions.push_back(Action::Sync { ticket, identity: self.identity(), protocol, assignments });
    }

    fn rebalance_found(&mut self, now: Instant) {
        if matches!(self.state, State::Stable) {
            self.give_up(now, Then::Join, "the group rebalances");
        }
    }

    /// Asks the consumer for everything back, if it has anything, before going on.
    fn give_up(&mut self, now: Instant, then: Then, reason: &str) {
        reason.clone_into(&mut self.reason);
        if self.owned.is_empty() {
            return self.go_on(now, then);
        }
        let timeout = self.settings.max_poll_interval;
        // A rebalance may have begun at any time since the last answer that found none, even where we do not know of one.
        // Never so short that a reader has no chance, whatever the settings.
        let deadline = (self.heartbeat.settled + timeout).max(now + timeout / 2);
        let ticket = self.ticket();
        self.state = State::Revoking { ticket, deadline, then };
        self.actions.push_back(Action::Revoke { ticket, partitions: self.owned.iter().cloned().collect() });
    }

    fn go_on(&mut self, now: Instant, then: Then) {
        match then {
            Then::Join => self.send_join(now),
            Then::Leave => self.leave("the consumer unsubscribed"),
        }
    }

    fn leave(&mut self, reason: &'static str) {
        self.say_goodbye(reason);
        self.reset();
        self.state = State::Outside;
    }

    /// A static member does not leave: it may come back under its instance id and have its partitions again (KIP-345).
    fn say_goodbye(&mut self, reason: &'static str) {
        if self.settings.group_instance_id.is_none() && !self.member_id.is_empty() {
            self.actions.push_back(Action::Leave { member_id: self.member_id.clone(), reason });
        }
    }

    fn reset(&mut self) {
        self.member_id = "".into();
        self.generation = -1;
        self.counts = None;
        self.heartbeat.in_flight = None;
        self.heartbeat.complained = false;
    }

    fn retry_soon(&mut self, now: Instant) {
        if self.quick_retries < QUICK_RETRIES {
            self.quick_retries += 1;
            self.send_join(now);
        } else {
            self.retry_later(now);
        }
    }

    fn retry_later(&mut self, now: Instant) {
        self.state = State::Waiting { until: now + self.backoff.next(&mut self.rng) };
    }
}

/// Lets the strategy decide and writes down each member's part. Every member is named, with nothing where it gets nothing.
fn share_out(
    assignor: &dyn Assignor,
    members: &[Member],
    counts: &BTreeMap<Arc<str>, usize>,
) -> Result<Vec<(String, bytes::Bytes)>, Error> {
    let mut shares = assignor.assign(members, counts);
    members
        .iter()
        .map(|member| {
            let share = shares.remove(&member.id).unwrap_or_default();
            Ok((member.id.clone(), protocol::encode_assignment(&share)?))
        })
        .collect()
}
