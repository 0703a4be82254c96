//! A member of a classic group, as a state machine: its inputs are responses and the time, its
//! outputs are actions.
//!
//! Under the eager protocol a member gives up all partitions before it joins. Under the cooperative
//! one (KIP-429) it keeps its partitions while it joins, gives up only those that the new
//! assignment takes away, and then joins once more, so that other members can have them.
//!
//! ```text
//!             subscribe      leads                     counted
//!  Unsubscribed ────► Joining ─────► CountingPartitions ─────► Syncing ─────► Stable
//!     ▲                ▲   ▲ │ follows                            ▲             │ rebalance, or a
//!     │                │   │ └────────────────────────────────────┘             │ new subscription
//!     │        Backoff ┘   └────────── given up, or too late ──── Revoking ◄────┘
//!     │ unsubscribed  ▲ Backoff: after any temporary error
//!     │               │ polled
//!     └── AwaitPoll ──┘ ◄──── the poll interval passed, or an error that only the user can correct
//! ```
//!
//! Rules that are easy to break:
//! * Eager: partitions are owned in `Stable` and `Revoking` only. A member never joins while it
//!   owns partitions, so that no partition ever has two owners.
//! * Cooperative: partitions stay owned in every state but `Unsubscribed`, `AwaitPoll` and `Ended`.
//!   JoinGroup names them and the generation in which they came (KIP-792); the leader assigns none
//!   of them to other members before their owner has joined without them. The coordinator may
//!   forget the member while it joins, so heartbeats continue then too, and the session runs.
//! * Every request carries an attempt id, and only the response to the awaited attempt counts. So a
//!   response to an earlier generation's heartbeat cannot end the generation that followed.
//! * Heartbeats continue through `Revoking`, whatever the reader does. A member without partitions
//!   sends none during a JoinGroup, because the coordinator keeps a member that waits there.
//! * The session is counted from the time at which an answered SyncGroup or heartbeat was *sent*.
//!   The coordinator cannot have seen it earlier, so it never ends the session before the member
//!   does.
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

use errors::REPORTED_AFTER;

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

/// Protocol type of classic consumer groups in JoinGroup and SyncGroup.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// The partitions of each topic.
pub(crate) type TopicPartitions = BTreeMap<Arc<str>, Vec<PartitionRacks>>;

pub(crate) struct Membership {
    settings: GroupSettings,
    /// True if owned partitions are kept over rebalances, because all assignors support it.
    cooperative: bool,
    backoff: Backoff,
    heartbeat_backoff: Backoff,
    rng: StdRng,
    state: MemberState,
    /// Topics of the current subscription; `None` while not subscribed.
    topics: Option<BTreeSet<Arc<str>>>,
    /// Topics sent with the last JoinGroup.
    joined_topics: BTreeSet<Arc<str>>,
    /// Empty if the coordinator does not know the member.
    member_id: Arc<str>,
    /// −1 if there is none.
    generation: i32,
    owned: Arc<Owned>,
    /// Number of accepted assignments.
    assignments: u64,
    /// The last assignment, for assignors that remember it, and the generation in which the owned
    /// partitions were confirmed.
    last: LastAssignment,
    /// As the leader: the partitions that the assignment was made from.
    counts: Option<TopicPartitions>,
    /// Reason of the next JoinGroup (KIP-800).
    reason: String,
    /// The consumer unsubscribed, and may have dropped any of the owned partitions: all of them are
    /// given up first, even if it has subscribed again since.
    revokes_all: bool,
    quick_retries: u32,
    /// The coordinator may not have received the JoinGroup, and then begins the next generation
    /// without the member when the rebalance times out. Partitions that are kept while joining are
    /// kept until then at most.
    join_unconfirmed: bool,
    /// Time since which joins have failed with temporary errors, and true if the reader was told.
    failing_since: Option<(Instant, bool)>,
    setbacks: FailedMemberships,
    /// Failed joins and heartbeats, for the log.
    join_outage: Outage,
    heartbeat_outage: Outage,
    /// Errors that only the user can correct, by code.
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
        attempt: AttemptId,
        sent: Instant,
    },
    CountingPartitions {
        attempt: AttemptId,
        assignor: Arc<dyn Assignor>,
        members: Vec<GroupMember>,
        keep: bool,
        topics: BTreeSet<Arc<str>>,
    },
    Syncing {
        attempt: AttemptId,
        sent: Instant,
        protocol: Arc<str>,
    },
    Stable,
    Revoking {
        attempt: AttemptId,
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
    /// Earliest time at which the coordinator can have last heard from the member: the time at
    /// which the last answered request was sent.
    alive: Instant,
    /// Latest time at which the coordinator is known not to have begun another rebalance.
    settled: Instant,
    /// True if the reader was told of an error since the last success.
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
            join_outage: Outage::after(REPORTED_AFTER),
            heartbeat_outage: Outage::after(REPORTED_AFTER),
            raised_errors: Limiter::default(),
            last_ticket: 0,
            heartbeat: Heartbeat { due: now, in_flight: None, alive: now, settled: now, complained: false },
            last_poll: now,
            actions: VecDeque::new(),
        }
    }

    /// Returns the next action, or `None` if there is none.
    pub(crate) fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Returns the time at which [`tick`](Self::tick) has something to do, if nothing else happens
    /// before.
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

    pub(crate) fn snapshot(&self) -> MemberSnapshot {
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

    // ---- inputs of the consumer

    /// Changes the subscribed topics; `None` leaves the group.
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
            // The topics of the join are compared with the subscription when the join is complete.
            _ if wanted => {}
            _ => self.give_up(now, AfterRevocation::Leave, "the consumer unsubscribed"),
        }
    }

    /// Records that the reader polled, by `now` at the latest.
    pub(crate) fn polled(&mut self, now: Instant) {
        self.last_poll = now;
        if let MemberState::AwaitPoll { not_before } = self.state {
            self.state = MemberState::Backoff { until: not_before.max(now) };
            self.tick(now);
        }
    }

    /// Records that the consumer has given up the revoked partitions.
    pub(crate) fn revoked(&mut self, now: Instant, attempt: AttemptId) {
        match &self.state {
            MemberState::Revoking { attempt: awaited, .. } if *awaited == attempt => self.given_up(now, false),
            _ => {}
        }
    }

    /// Closes the membership: leaves the group if it is a member, and sends the consumer no more
    /// events.
    pub(crate) fn close(&mut self) {
        if !matches!(self.state, MemberState::Ended(_)) {
            self.actions.clear();
            self.leave("the consumer closed");
            self.state = MemberState::Ended(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
    }

    // ---- inputs of the clock

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
                "no heartbeat was answered for session.timeout.ms ({ms} ms), after which the coordinator removes a member"
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
            self.lose_partitions(now, false, "the rebalance may have ended without the member", &cause);
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
            let attempt = self.attempt();
            self.heartbeat.in_flight = Some((attempt, now));
            self.heartbeat.due = now + self.settings.heartbeat_interval;
            self.actions.push_back(Action::Heartbeat { attempt, identity: self.identity() });
        }
    }

    /// Handles new metadata; `look` returns a topic's current partitions.
    pub(crate) fn metadata_changed(&mut self, now: Instant, look: impl Fn(&str) -> Option<Vec<PartitionRacks>>) {
        let Some(counts) = &self.counts else { return };
        // The places of replicas matter to members with a rack (KIP-881).
        let near = self.settings.client_rack.is_some();
        let differ = |before: &Vec<PartitionRacks>, now: Vec<PartitionRacks>| {
            before.len() != now.len() || (near && *before != now)
        };
        let changed = counts.iter().any(|(topic, before)| differ(before, look(topic).unwrap_or_default()));
        if changed && matches!(self.state, MemberState::Stable) {
            self.give_up(now, AfterRevocation::Join, "the leader saw the partitions of a topic change");
        }
    }

    // ---- inputs of the coordinator

    pub(crate) fn heartbeat_answered(&mut self, now: Instant, attempt: AttemptId, answer: Result<(), Error>) {
        let sent = match self.heartbeat.in_flight {
            Some((awaited, sent)) if awaited == attempt => sent,
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
            // The coordinator knows the member: it has begun the generation that the member is
            // joining. If the response to the join does not arrive, the member joins again.
            Err(error) if error.code() == Some(ErrorCode::ILLEGAL_GENERATION) && !self.in_generation() => {
                self.heartbeat.alive = self.heartbeat.alive.max(sent);
                if std::mem::replace(&mut self.join_unconfirmed, true)
                    && matches!(self.state, MemberState::Joining { .. })
                {
                    self.join(now, "the response to the last join did not arrive");
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

    /// Handles a refused commit of that member and generation.
    pub(crate) fn commit_refused(&mut self, now: Instant, identity: &Identity, error: &Error) {
        if !self.is_counted_on() || *identity != self.identity() {
            return;
        }
        match error.code() {
            Some(ErrorCode::REBALANCE_IN_PROGRESS) => self.rebalance_found(now, error),
            // Expected: the next generation has begun, and the member is joining it.
            Some(ErrorCode::ILLEGAL_GENERATION) if !self.in_generation() => {}
            _ => _ = self.expelled(now, error),
        }
    }

    // ---- steps

    fn identity(&self) -> Identity {
        Identity { generation: self.generation, member_id: self.member_id.clone() }
    }

    /// Returns true if the coordinator counts the member in a generation, so that heartbeats are
    /// due.
    fn in_generation(&self) -> bool {
        matches!(
            self.state,
            MemberState::CountingPartitions { .. }
                | MemberState::Syncing { .. }
                | MemberState::Stable
                | MemberState::Revoking { .. }
        )
    }

    /// Returns true if the coordinator has to know that the member is alive, because of its place
    /// in a generation or of partitions that it keeps while it joins the next one.
    fn is_counted_on(&self) -> bool {
        self.in_generation() || !self.owned.is_empty()
    }

    /// Returns the time at which a rebalance may end without the member: one that is not known here
    /// may have begun at any time since the last response that reported none.
    fn rebalance_ends(&self) -> Instant {
        self.heartbeat.settled + self.settings.max_poll_interval
    }

    fn attempt(&mut self) -> AttemptId {
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

    /// Revokes the partitions that have to be given up before the next step.
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

    /// Revokes these partitions, and continues when the consumer has given them up.
    fn revoke(&mut self, now: Instant, partitions: BTreeSet<TopicPartition>, then: AfterRevocation) {
        if partitions.is_empty() {
            return match then {
                AfterRevocation::Join => self.send_join(now),
                AfterRevocation::Leave => self.leave("the consumer unsubscribed"),
            };
        }
        // Leaves the reader half of `max.poll.interval.ms` at least, whatever the settings.
        let deadline = self.rebalance_ends().max(now + self.settings.max_poll_interval / 2);
        let attempt = self.attempt();
        let revoked: Vec<TopicPartition> = partitions.iter().cloned().collect();
        event!(
            INFO, self.settings.origin, member = &*clean(&self.member_id), generation = self.generation, reason = self.reason,
            partitions = %several(&revoked), count = revoked.len(),
            "partitions are revoked: the consumer waits until the reader has completed their records"
        );
        self.actions.push_back(Action::Revoke { attempt, partitions: revoked });
        self.state = MemberState::Revoking { attempt, partitions, deadline, then };
    }

    /// Removes the revoked partitions; `too_late` if the consumer did not answer in time.
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

    /// Leaves the group. A static member does not: it may return with its instance id and get its
    /// partitions back (KIP-345).
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
