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
mod errors;
mod joining;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

pub(crate) use actions::{Action, Identity, JoinAnswer, Joined, JoinedMember, Standing, SyncAnswer, Ticket};

use super::{
    GroupSettings,
    assignor::{Assignor, Member},
};
use crate::{
    cluster::Backoff,
    error::{Error, ErrorCode, ErrorKind},
    record::TopicPartition,
};

/// What classic consumer groups call their protocol in JoinGroup and SyncGroup.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

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
    /// Since when joining has failed for reasons that may pass, and whether the reader was told.
    troubled_since: Option<(Instant, bool)>,
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
            troubled_since: None,
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
}
