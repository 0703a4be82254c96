//! A member of a classic group, as a state machine without IO: it takes answers and the time, and
//! gives actions.
//!
//! Under the eager protocol a member gives up everything before it joins. Under the cooperative one
//! (KIP-429) it keeps what it owns while it joins, gives up only what the new assignment takes
//! away, and then joins once more, so that others can have it.
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
//! * Eager: partitions are owned in `Stable` and `Revoking` only. Nothing is joined while something
//!   is owned, so that no partition ever has two owners.
//! * Cooperative: what is owned stays owned in every state but `Outside`, `Parked` and `Ended`.
//!   JoinGroup says what it is and in which generation it came (KIP-792); the leader gives none of
//!   it to others before its owner has joined without it. As the coordinator may forget us while we
//!   join, heartbeats go on then too, and the session runs.
//! * Every request carries a ticket, and only the answer to the awaited ticket counts. An answer to
//!   an earlier generation's heartbeat therefore cannot end the generation that followed.
//! * Heartbeats go on through `Revoking`, whatever the reader does. Where nothing is owned none are
//!   sent during a JoinGroup: the coordinator keeps a member that waits there.
//! * The session is counted from when an answered SyncGroup or heartbeat was *sent*: the
//!   coordinator cannot have seen it earlier, so it never thinks us gone before we do.
//!
//! Sans-IO.

mod actions;
mod errors;
pub(super) mod group_task;
mod joining;
pub(crate) mod member_metadata;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_tests;
pub(super) mod requests;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

use errors::PATIENCE;

pub(crate) use actions::{
    Action, AttemptId, Identity, JoinAnswer, JoinOutcome, JoinedMember, MemberSnapshot, Owned, SyncAnswer,
};

use crate::consumer::group::{
    GroupSettings,
    assignor::{Assignor, GroupMember, LastAssignment, PartitionRacks, RebalanceProtocol},
    failed_memberships::FailedMemberships,
};
use crate::{
    cluster::Backoff,
    error::{Error, ErrorCode, ErrorKind, clean},
    log::{Limiter, Outage, event, several},
    record::TopicPartition,
};

/// What classic consumer groups call their protocol in JoinGroup and SyncGroup.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// The partitions of each topic.
pub(crate) type TopicPartitions = BTreeMap<Arc<str>, Vec<PartitionRacks>>;

pub(crate) struct Membership {
    settings: GroupSettings,
    /// What is owned is kept over rebalances: all of the assignors know how.
    cooperative: bool,
    backoff: Backoff,
    heartbeat_backoff: Backoff,
    rng: StdRng,
    state: MemberState,
    /// What is wanted now; `None` while not subscribed.
    topics: Option<BTreeSet<Arc<str>>>,
    /// What the last JoinGroup said that we want.
    joined_topics: BTreeSet<Arc<str>>,
    /// Empty where the coordinator does not know us.
    member_id: Arc<str>,
    /// −1 where there is none.
    generation: i32,
    owned: Arc<Owned>,
    /// How many assignments were taken.
    assignments: u64,
    /// The last one, for assignors that remember, and the generation in which what is owned was
    /// confirmed.
    last: LastAssignment,
    /// As the leader: the partitions that the assignment was made from.
    counts: Option<TopicPartitions>,
    /// Why the next JoinGroup is sent (KIP-800).
    reason: String,
    /// The consumer unsubscribed, and may have let go of anything that is owned: whatever it wants
    /// since, all of it is given up first.
    revokes_all: bool,
    quick_retries: u32,
    /// The coordinator may not have our JoinGroup, and then begins the next generation without us
    /// when the rebalance times out. What we keep while joining is kept until then at the longest.
    join_unconfirmed: bool,
    /// Since when joining has failed for reasons that may pass, and whether the reader was told.
    failing_since: Option<(Instant, bool)>,
    setbacks: FailedMemberships,
    /// Joins that fail, and heartbeats, as the log is told of them.
    join_outage: Outage,
    heartbeat_outage: Outage,
    /// Errors that only the user can mend, by code.
    raised_errors: Limiter<Option<ErrorCode>>,
    last_ticket: u64,
    heartbeat: Heartbeat,
    last_poll: Instant,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
enum MemberState {
    Unsubscribed,
    Backoff {
        until: Instant,
    },
    AwaitPoll {
        not_before: Instant,
    },
    Joining {
        ticket: AttemptId,
        sent: Instant,
    },
    CountingPartitions {
        ticket: AttemptId,
        assignor: Arc<dyn Assignor>,
        members: Vec<GroupMember>,
        keep: bool,
        topics: BTreeSet<Arc<str>>,
    },
    Syncing {
        ticket: AttemptId,
        sent: Instant,
        protocol: Arc<str>,
    },
    Stable,
    Revoking {
        ticket: AttemptId,
        partitions: BTreeSet<TopicPartition>,
        deadline: Instant,
        then: AfterRevocation,
    },
    Ended(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterRevocation {
    Join,
    Leave,
}

#[derive(Debug)]
struct Heartbeat {
    due: Instant,
    in_flight: Option<(AttemptId, Instant)>,
    /// When the coordinator last heard of us, at the latest.
    alive: Instant,
    /// When it had not begun another rebalance yet, as far as is known.
    settled: Instant,
    /// Whether the reader was told of an error since the last success.
    complained: bool,
}

impl Membership {
    pub(crate) fn new(settings: GroupSettings, retry_backoff: (Duration, Duration), seed: u64, now: Instant) -> Self {
        let (initial, max) = retry_backoff;
        let cooperates = |assignor: &Arc<dyn Assignor>| assignor.protocol() == RebalanceProtocol::Cooperative;
        Self {
            cooperative: settings.assignors.iter().all(cooperates),
            setbacks: FailedMemberships::new(initial, settings.session_timeout),
            settings,
            backoff: Backoff::new(initial, max),
            heartbeat_backoff: Backoff::new(initial, max),
            rng: StdRng::seed_from_u64(seed),
            state: MemberState::Unsubscribed,
            topics: None,
            joined_topics: BTreeSet::new(),
            member_id: "".into(),
            generation: -1,
            owned: Arc::default(),
            assignments: 0,
            last: LastAssignment::default(),
            counts: None,
            reason: String::new(),
            revokes_all: false,
            quick_retries: 0,
            join_unconfirmed: false,
            failing_since: None,
            join_outage: Outage::after(PATIENCE),
            heartbeat_outage: Outage::after(PATIENCE),
            raised_errors: Limiter::default(),
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
        let mut lives = heartbeat.min(poll);
        if self.join_unconfirmed && !self.in_generation() {
            lives = lives.min(self.rebalance_ends());
        }
        let kept = |wake: Option<Instant>| {
            if self.owned.is_empty() { wake } else { Some(wake.map_or(lives, |wake| wake.min(lives))) }
        };
        match &self.state {
            MemberState::Unsubscribed | MemberState::AwaitPoll { .. } | MemberState::Ended(_) => None,
            MemberState::Joining { .. } => kept(None),
            MemberState::Backoff { until } => kept(Some(*until)),
            MemberState::CountingPartitions { .. } | MemberState::Syncing { .. } => kept(Some(heartbeat)),
            MemberState::Stable => Some(lives),
            MemberState::Revoking { deadline, .. } => Some(lives.min(*deadline)),
        }
    }

    pub(crate) fn standing(&self) -> MemberSnapshot {
        match &self.state {
            MemberState::Unsubscribed => MemberSnapshot::NoGroup,
            MemberState::AwaitPoll { .. } => MemberSnapshot::Fenced,
            MemberState::Ended(error) => MemberSnapshot::Ended(error.clone()),
            MemberState::Stable | MemberState::Revoking { .. } => {
                MemberSnapshot::Member { identity: self.identity(), owned: self.owned.clone() }
            }
            MemberState::Backoff { .. }
            | MemberState::Joining { .. }
            | MemberState::CountingPartitions { .. }
            | MemberState::Syncing { .. } => {
                MemberSnapshot::Rebalancing { identity: self.identity(), owned: self.owned.clone() }
            }
        }
    }

    // ---- what the consumer does

    /// These topics are wanted from now on; `None` for nothing, which leaves the group.
    pub(crate) fn subscribe(&mut self, now: Instant, topics: Option<BTreeSet<Arc<str>>>) {
        if topics == self.topics || matches!(self.state, MemberState::Ended(_)) {
            return;
        }
        let wanted = topics.is_some();
        self.topics = topics;
        self.revokes_all |= !wanted && !self.owned.is_empty();
        match &mut self.state {
            MemberState::Unsubscribed if wanted => {
                self.last_poll = now;
                self.join(now, "the consumer subscribed");
            }
            MemberState::Revoking { then, .. } => {
                *then = if wanted { AfterRevocation::Join } else { AfterRevocation::Leave }
            }
            MemberState::Stable => self.give_up(
                now,
                if wanted { AfterRevocation::Join } else { AfterRevocation::Leave },
                "subscription changed",
            ),
            // What was joined with is compared with what is wanted when the join is through.
            _ if wanted => {}
            _ => self.give_up(now, AfterRevocation::Leave, "the consumer unsubscribed"),
        }
    }

    /// The reader asked for records, by `now` at the latest.
    pub(crate) fn polled(&mut self, now: Instant) {
        self.last_poll = now;
        if let MemberState::AwaitPoll { not_before } = self.state {
            self.state = MemberState::Backoff { until: not_before.max(now) };
            self.tick(now);
        }
    }

    /// The consumer has given up what it was asked to.
    pub(crate) fn revoked(&mut self, now: Instant, ticket: AttemptId) {
        match &self.state {
            MemberState::Revoking { ticket: awaited, .. } if *awaited == ticket => self.given_up(now, false),
            _ => {}
        }
    }

    /// The consumer closes: leaves if there is something to leave, and tells the consumer nothing
    /// more.
    pub(crate) fn close(&mut self) {
        if !matches!(self.state, MemberState::Ended(_)) {
            self.actions.clear();
            self.leave("the consumer closed");
            self.state = MemberState::Ended(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
    }

    // ---- what time does

    pub(crate) fn tick(&mut self, now: Instant) {
        if let MemberState::Backoff { until } = self.state
            && now >= until
        {
            self.send_join(now);
        }
        if !self.is_counted_on() {
            return;
        }
        if now >= self.heartbeat.alive + self.settings.session_timeout {
            let ms = self.settings.session_timeout.as_millis();
            let cause = format!(
                "no heartbeat was answered for session.timeout.ms ({ms} ms), after which the coordinator gives a member up"
            );
            self.lose_partitions(now, false, "the session timed out", &cause);
            return;
        }
        if self.join_unconfirmed && !self.in_generation() && now >= self.rebalance_ends() {
            let ms = self.settings.max_poll_interval.as_millis();
            let cause = format!(
                "no JoinGroup was answered for max.poll.interval.ms ({ms} ms), after which the group rebalances without a \
                 member"
            );
            self.lose_partitions(now, false, "the rebalance may be over without us", &cause);
            return;
        }
        let reads = matches!(self.state, MemberState::Stable | MemberState::Revoking { .. }) || !self.owned.is_empty();
        if reads && now >= self.last_poll + self.settings.max_poll_interval {
            self.poll_interval_passed(now);
            return;
        }
        if let MemberState::Revoking { deadline, .. } = self.state
            && now >= deadline
        {
            self.given_up(now, true);
            return;
        }
        if self.heartbeat.in_flight.is_none() && now >= self.heartbeat.due {
            let ticket = self.ticket();
            self.heartbeat.in_flight = Some((ticket, now));
            self.heartbeat.due = now + self.settings.heartbeat_interval;
            self.actions.push_back(Action::Heartbeat { ticket, identity: self.identity() });
        }
    }

    /// The cluster looks different; `look` says which partitions a topic has now.
    pub(crate) fn metadata_changed(&mut self, now: Instant, look: impl Fn(&str) -> Option<Vec<PartitionRacks>>) {
        let Some(counts) = &self.counts else { return };
        // Where replicas are matters to those who want to read nearby (KIP-881).
        let near = self.settings.client_rack.is_some();
        let differ = |before: &Vec<PartitionRacks>, now: Vec<PartitionRacks>| {
            before.len() != now.len() || (near && *before != now)
        };
        let changed = counts.iter().any(|(topic, before)| differ(before, look(topic).unwrap_or_default()));
        if changed && matches!(self.state, MemberState::Stable) {
            self.give_up(now, AfterRevocation::Join, "the leader saw the partitions of a topic change");
        }
    }

    // ---- what the coordinator says

    pub(crate) fn heartbeat_answered(&mut self, now: Instant, ticket: AttemptId, answer: Result<(), Error>) {
        let sent = match self.heartbeat.in_flight {
            Some((awaited, sent)) if awaited == ticket => sent,
            _ => return,
        };
        self.heartbeat.in_flight = None;
        if !self.is_counted_on() {
            return;
        }
        match answer {
            Ok(()) => {
                self.heartbeat.alive = self.heartbeat.alive.max(sent);
                self.heartbeat.settled = self.heartbeat.settled.max(sent);
                self.heartbeat.complained = false;
                self.heartbeat_backoff.reset();
                self.setbacks.clear();
                self.log_heartbeats_recovered(now);
            }
            Err(error) if error.code() == Some(ErrorCode::REBALANCE_IN_PROGRESS) => {
                self.heartbeat.alive = self.heartbeat.alive.max(sent);
                self.rebalance_found(now, &error);
            }
            // The coordinator knows us: it has begun the generation that we are on the way into.
            // Where the answer that says so does not come, it is asked for again.
            Err(error) if error.code() == Some(ErrorCode::ILLEGAL_GENERATION) && !self.in_generation() => {
                self.heartbeat.alive = self.heartbeat.alive.max(sent);
                if std::mem::replace(&mut self.join_unconfirmed, true)
                    && matches!(self.state, MemberState::Joining { .. })
                {
                    self.join(now, "the answer to the last join did not come");
                }
            }
            Err(error) => {
                if !self.expelled(now, &error) {
                    let pause = self.heartbeat_backoff.next(&mut self.rng);
                    self.heartbeat.due = now + pause.min(self.settings.heartbeat_interval);
                    self.report_heartbeat_error(now, error);
                }
            }
        }
        self.tick(now);
    }

    /// A commit of that identity was refused.
    pub(crate) fn commit_refused(&mut self, now: Instant, identity: &Identity, error: &Error) {
        if !self.is_counted_on() || *identity != self.identity() {
            return;
        }
        match error.code() {
            Some(ErrorCode::REBALANCE_IN_PROGRESS) => self.rebalance_found(now, error),
            // Of course: the next generation has begun, and we are on the way into it.
            Some(ErrorCode::ILLEGAL_GENERATION) if !self.in_generation() => {}
            _ => _ = self.expelled(now, error),
        }
    }

    // ---- steps

    fn identity(&self) -> Identity {
        Identity { generation: self.generation, member_id: self.member_id.clone() }
    }

    /// Whether the coordinator counts us into a generation, so that heartbeats are due.
    fn in_generation(&self) -> bool {
        matches!(
            self.state,
            MemberState::CountingPartitions { .. }
                | MemberState::Syncing { .. }
                | MemberState::Stable
                | MemberState::Revoking { .. }
        )
    }

    /// Whether something depends on the coordinator's knowing that we live: our place in a
    /// generation, or what we keep while we join the next.
    fn is_counted_on(&self) -> bool {
        self.in_generation() || !self.owned.is_empty()
    }

    /// When a rebalance may end without us: one may have begun at any time since the last answer
    /// that found none, even where we do not know of one.
    fn rebalance_ends(&self) -> Instant {
        self.heartbeat.settled + self.settings.max_poll_interval
    }

    fn ticket(&mut self) -> AttemptId {
        self.last_ticket += 1;
        AttemptId(self.last_ticket)
    }

    fn join(&mut self, now: Instant, reason: &str) {
        reason.clone_into(&mut self.reason);
        self.send_join(now);
    }

    fn rebalance_found(&mut self, now: Instant, error: &Error) {
        if matches!(self.state, MemberState::Stable) {
            self.count_failed_membership(now, error);
            self.give_up(now, AfterRevocation::Join, "the group rebalances");
        }
    }

    /// Asks the consumer for what has to be given up before going on, if it has anything of it.
    fn give_up(&mut self, now: Instant, then: AfterRevocation, reason: &str) {
        reason.clone_into(&mut self.reason);
        let parts_from_all = std::mem::take(&mut self.revokes_all);
        let kept = |partition: &TopicPartition| {
            self.cooperative
                && then == AfterRevocation::Join
                && !parts_from_all
                && self.topics.as_ref().is_some_and(|topics| topics.contains(&partition.topic))
        };
        let partitions = self.owned.keys().filter(|partition| !kept(partition)).cloned().collect();
        self.revoke(now, partitions, then);
    }

    /// Asks the consumer for these, and goes on when it has given them up.
    fn revoke(&mut self, now: Instant, partitions: BTreeSet<TopicPartition>, then: AfterRevocation) {
        if partitions.is_empty() {
            return match then {
                AfterRevocation::Join => self.send_join(now),
                AfterRevocation::Leave => self.leave("the consumer unsubscribed"),
            };
        }
        // Never so short that a reader has no chance, whatever the settings.
        let deadline = self.rebalance_ends().max(now + self.settings.max_poll_interval / 2);
        let ticket = self.ticket();
        let revoked: Vec<TopicPartition> = partitions.iter().cloned().collect();
        event!(
            INFO, self.settings.origin, member = &*clean(&self.member_id), generation = self.generation, reason = self.reason,
            partitions = %several(&revoked), count = revoked.len(),
            "partitions are revoked: the reader is asked to finish with them"
        );
        self.actions.push_back(Action::Revoke { ticket, partitions: revoked });
        self.state = MemberState::Revoking { ticket, partitions, deadline, then };
    }

    /// What was asked for is ours no longer; `too_late` if the consumer did not answer in time.
    fn given_up(&mut self, now: Instant, too_late: bool) {
        let MemberState::Revoking { partitions, then, .. } = std::mem::replace(&mut self.state, MemberState::Stable)
        else {
            return;
        };
        let owned = Arc::make_mut(&mut self.owned);
        owned.retain(|partition, _| !partitions.contains(partition));
        if too_late {
            let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
            self.warn_of_loss(&partitions, &self.poll_interval_message());
            self.actions.push_back(Action::Lost { partitions });
        }
        let reason = self.reason.clone();
        self.give_up(now, then, &reason);
    }

    fn leave(&mut self, reason: &'static str) {
        self.say_goodbye(reason);
        self.reset();
        self.state = MemberState::Unsubscribed;
    }

    /// A static member does not leave: it may come back under its instance id and have its
    /// partitions again (KIP-345).
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
