//! A member of a group of the consumer protocol, as a state machine: its inputs are responses and
//! the time, its outputs are actions.
//!
//! ```text
//!             subscribe          epoch 1 or more
//!  Unsubscribed ─────► Joining ─────────────────► Member ──┐ heartbeats, reconciliation
//!     ▲                 ▲   ▲                     │    ▲───┘
//!     │        Backoff ─┘   └──── fenced, forgotten, or no response for a session: the owned
//!     │ unsubscribed  ▲           partitions are lost
//!     │               │ polled    Backoff: after any temporary error
//!     └── AwaitPoll ──┘ ◄──── the poll interval passed, or an error that only the user can correct
//! ```
//!
//! Rules that are easy to break:
//! * The coordinator's last assignment (`target`) is kept by topic id, whether or not the topic's
//!   name is known yet, because the coordinator does not repeat it by itself.
//! * The coordinator is told of a revocation only when the reader has completed the delivered
//!   records. Until then heartbeats leave out the owned partitions, or (if they send all fields)
//!   include the revoked ones.
//! * One heartbeat is outstanding at a time. One that failed may have been processed, so the next
//!   one sends all fields; the coordinator answers that with all fields.
//! * A member that joins owns nothing: the coordinator refuses a join with owned partitions.
//! * The member generates its id and keeps it for as long as it lives (KIP-1082), so that a join
//!   with a lost response leaves no dead member behind. A late leave with this id would remove the
//!   next membership, so the member joins only after its leave has ended.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use super::{
    Action, AttemptId, HeartbeatFields, HeartbeatResponse, OwnedPartition, PartitionsByTopicId, TopicsToSubscribe,
    errors::REPORTED_AFTER,
};
use crate::{
    cluster::Backoff,
    consumer::group::{
        GroupSettings,
        classic::{self, Identity, MemberSnapshot},
        failed_memberships::FailedMemberships,
    },
    error::{Error, ErrorCode, ErrorKind, clean},
    log::{Lasting, Limiter, Outage, event},
    record::TopicPartition,
};

/// Epoch of a heartbeat that leaves the group.
const LEAVE: i32 = -1;
/// Epoch by which a static member leaves its place to its next incarnation.
const LEAVE_FOR_A_WHILE: i32 = -2;
/// Heartbeat interval until the coordinator sends one (`group.consumer.heartbeat.interval.ms`).
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// Brokers do not report the session timeout: assume its default of 45 s
/// (`group.consumer.session.timeout.ms`), or nine heartbeat intervals if longer.
const USUAL_SESSION: Duration = Duration::from_secs(45);
const HEARTBEATS_IN_A_SESSION: u32 = 9;

pub(crate) struct ConsumerMembership {
    pub(super) settings: GroupSettings,
    pub(super) backoff: Backoff,
    pub(super) heartbeat_backoff: Backoff,
    pub(super) rng: StdRng,
    pub(super) state: MemberState,
    pub(super) subscribed: bool,
    /// The current subscription.
    wanted: TopicsToSubscribe,
    pub(super) member_id: Arc<str>,
    /// The member's epoch; 0 outside of the group.
    pub(super) epoch: i32,
    /// True if the coordinator may have a member of this id.
    pub(super) may_be_member: bool,
    /// Number of leaves that may still arrive.
    pending_leaves: u32,
    /// All partitions that the member may own, by the coordinator's last response.
    pub(super) target: PartitionsByTopicId,
    /// The names of topics in `target` and `owned`, as far as they are known.
    pub(super) names: BTreeMap<Uuid, Arc<str>>,
    pub(super) owned: BTreeMap<TopicPartition, OwnedPartition>,
    /// `owned` in the form that the handles see.
    shown: Arc<classic::Owned>,
    pub(super) ownerships: u64,
    pub(super) revoking: Option<PendingRevocation>,
    /// Earliest time since which the coordinator waits for revoked partitions: several revocations
    /// may follow each other before a heartbeat reports that none is pending.
    pub(super) revoking_since: Option<Instant>,
    /// The consumer unsubscribed, and may have dropped any of the owned partitions: all of them are
    /// given up, and then the member leaves the group unless it has subscribed again by then.
    pub(super) leaving: bool,
    /// True until the consumer has received this membership's first assignment.
    pub(super) unannounced: bool,
    pub(super) quick_retries: u32,
    pub(super) setbacks: FailedMemberships,
    /// Time since which joins have failed with temporary errors, and true if the reader was told.
    pub(super) failing_since: Option<(Instant, bool)>,
    /// Failed joins and heartbeats, for the log.
    pub(super) join_outage: Outage,
    pub(super) heartbeat_outage: Outage,
    /// Errors that only the user can correct, by code.
    pub(super) raised_errors: Limiter<Option<ErrorCode>>,
    last_ticket: u64,
    pub(super) heartbeat: Heartbeat,
    pub(super) last_poll: Instant,
    pub(super) actions: VecDeque<Action>,
}

#[derive(Debug)]
pub(super) enum MemberState {
    Unsubscribed,
    Backoff {
        until: Instant,
    },
    AwaitPoll {
        not_before: Instant,
    },
    /// A heartbeat that joins is due or outstanding.
    Joining,
    Member,
    Ended(Error),
}

/// Partitions that the consumer has to give up.
#[derive(Debug)]
pub(super) struct PendingRevocation {
    pub(super) attempt: AttemptId,
    pub(super) partitions: Vec<TopicPartition>,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Heartbeat {
    pub(super) due: Instant,
    in_flight: Option<InFlight>,
    interval: Duration,
    /// Earliest time at which the coordinator can have last heard from the member: the time at
    /// which the last answered heartbeat was sent.
    pub(super) alive: Instant,
    /// Time at which the first heartbeat was sent that may have been processed without a response.
    unheard_since: Option<Instant>,
    /// `unheard_since` before the last response: the coordinator cannot have decided that
    /// response's assignment earlier.
    pub(super) decided: Instant,
    /// The fields that the coordinator is known to have; `None` after an error.
    known: Option<PendingHeartbeat>,
    /// True if the coordinator may have a regular expression that is no longer subscribed to.
    may_know_regex: bool,
    /// The broker that answered last.
    node: Option<i32>,
    /// True if the reader was told of an error since the last success.
    pub(super) complained: bool,
}

#[derive(Debug)]
struct InFlight {
    attempt: AttemptId,
    sent: Instant,
    says: PendingHeartbeat,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct PendingHeartbeat {
    wanted: TopicsToSubscribe,
    owned: PartitionsByTopicId,
}

impl ConsumerMembership {
    /// Creates a membership; `member_id` has to be unique.
    pub(crate) fn new(
        settings: GroupSettings,
        member_id: Arc<str>,
        retry_backoff: (Duration, Duration),
        seed: u64,
        now: Instant,
    ) -> Self {
        let (initial, max) = retry_backoff;
        Self {
            settings,
            backoff: Backoff::new(initial, max),
            heartbeat_backoff: Backoff::new(initial, max),
            rng: StdRng::seed_from_u64(seed),
            state: MemberState::Unsubscribed,
            subscribed: false,
            wanted: TopicsToSubscribe::default(),
            member_id,
            epoch: 0,
            may_be_member: false,
            pending_leaves: 0,
            target: PartitionsByTopicId::new(),
            names: BTreeMap::new(),
            owned: BTreeMap::new(),
            shown: Arc::default(),
            ownerships: 0,
            revoking: None,
            revoking_since: None,
            leaving: false,
            unannounced: true,
            quick_retries: 0,
            setbacks: FailedMemberships::new(initial, USUAL_SESSION),
            failing_since: None,
            join_outage: Outage::after(REPORTED_AFTER),
            heartbeat_outage: Outage::after(REPORTED_AFTER),
            raised_errors: Limiter::default(),
            last_ticket: 0,
            heartbeat: Heartbeat {
                due: now,
                in_flight: None,
                interval: USUAL_INTERVAL,
                alive: now,
                unheard_since: None,
                decided: now,
                known: None,
                may_know_regex: false,
                node: None,
                complained: false,
            },
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
        let heartbeat = self.heartbeat.in_flight.is_none().then_some(self.heartbeat.due);
        match &self.state {
            MemberState::Unsubscribed | MemberState::AwaitPoll { .. } | MemberState::Ended(_) => None,
            MemberState::Backoff { until } => Some(*until),
            MemberState::Joining => heartbeat.filter(|_| self.pending_leaves == 0),
            MemberState::Member => {
                let given_up = self.revoking.as_ref().map(|giving_up| giving_up.deadline);
                let poll = self.last_poll + self.settings.max_poll_interval;
                [heartbeat, given_up, Some(poll), Some(self.session_ends())].into_iter().flatten().min()
            }
        }
    }

    pub(crate) fn snapshot(&self) -> MemberSnapshot {
        match &self.state {
            MemberState::Unsubscribed => MemberSnapshot::NoGroup,
            MemberState::AwaitPoll { .. } => MemberSnapshot::Fenced,
            MemberState::Ended(error) => MemberSnapshot::Ended(error.clone()),
            MemberState::Backoff { .. } | MemberState::Joining => MemberSnapshot::Rebalancing {
                identity: Identity { generation: -1, member_id: self.member_id.clone() },
                owned: Arc::default(),
            },
            MemberState::Member => {
                let (identity, owned) = (self.identity(), self.shown.clone());
                let settled = self.revoking.is_none() && !self.leaving && self.unresolved().next().is_none();
                if settled {
                    MemberSnapshot::Member { identity, owned }
                } else {
                    MemberSnapshot::Rebalancing { identity, owned }
                }
            }
        }
    }

    // ---- inputs of the consumer

    /// Changes the subscription; `None` leaves the group.
    pub(crate) fn subscribe(&mut self, now: Instant, wanted: Option<TopicsToSubscribe>) {
        if matches!(self.state, MemberState::Ended(_))
            || (self.subscribed, Some(&self.wanted)) == (true, wanted.as_ref())
        {
            return;
        }
        let Some(wanted) = wanted else {
            self.subscribed = false;
            match self.state {
                MemberState::Member => {
                    self.leaving = true;
                    self.reconcile(now);
                }
                MemberState::Unsubscribed => {}
                _ => self.leave(),
            }
            return;
        };
        self.subscribed = true;
        self.wanted = wanted;
        match self.state {
            MemberState::Unsubscribed => {
                self.last_poll = now;
                self.join(now);
            }
            MemberState::Member => {
                self.heartbeat.due = now;
                self.reconcile(now);
            }
            // It is sent when the member joins, or in the next heartbeat.
            _ => {}
        }
        self.tick(now);
    }

    /// Records that the reader polled, by `now` at the latest.
    pub(crate) fn polled(&mut self, now: Instant) {
        self.last_poll = now;
        if let MemberState::AwaitPoll { not_before } = self.state {
            self.state = MemberState::Backoff { until: not_before.max(now) };
            self.tick(now);
        }
    }

    /// Closes the membership: leaves the group if it is a member, and sends the consumer no more
    /// events.
    pub(crate) fn close(&mut self) {
        if !matches!(self.state, MemberState::Ended(_)) {
            self.actions.clear();
            self.leave();
            self.state = MemberState::Ended(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
    }

    /// Records that a leave has ended, with or without success: it is not retried.
    pub(crate) fn leave_ended(&mut self, now: Instant) {
        self.pending_leaves = self.pending_leaves.saturating_sub(1);
        self.tick(now);
    }

    // ---- inputs of the clock

    pub(crate) fn tick(&mut self, now: Instant) {
        if let MemberState::Backoff { until } = self.state
            && now >= until
        {
            self.join(now);
        }
        if matches!(self.state, MemberState::Member) {
            if now >= self.session_ends() {
                let ms = self.session_ends().saturating_duration_since(self.heartbeat.alive).as_millis();
                let cause = format!(
                    "no heartbeat was answered for {ms} ms, about as long as the coordinator waits for one \
                     (group.consumer.session.timeout.ms of the brokers, session.timeout.ms of the group)"
                );
                return self.lose_partitions(now, &cause);
            }
            if now >= self.last_poll + self.settings.max_poll_interval {
                return self.poll_interval_passed(now);
            }
            self.enforce_revocation_deadline(now);
        }
        let may_speak = match self.state {
            MemberState::Joining => self.pending_leaves == 0,
            MemberState::Member => true,
            _ => false,
        };
        if may_speak && self.heartbeat.in_flight.is_none() && now >= self.heartbeat.due {
            self.send(now);
        }
    }

    fn session_ends(&self) -> Instant {
        self.heartbeat.alive + USUAL_SESSION.max(self.heartbeat.interval.saturating_mul(HEARTBEATS_IN_A_SESSION))
    }

    fn send(&mut self, now: Instant) {
        let joins = matches!(self.state, MemberState::Joining);
        let says = PendingHeartbeat { wanted: self.wanted.clone(), owned: self.owned_by_id() };
        let known = self.heartbeat.known.take().filter(|_| !joins);
        let news = |changed: fn(&PendingHeartbeat, &PendingHeartbeat) -> bool| {
            known.as_ref().is_none_or(|known| changed(known, &says))
        };
        let names = news(|known, says| known.wanted.names != says.wanted.names);
        let regex = news(|known, says| known.wanted.regex != says.wanted.regex)
            && (says.wanted.regex.is_some() || self.heartbeat.may_know_regex);
        let owned = news(|known, says| known.owned != says.owned);
        self.heartbeat.may_know_regex |= says.wanted.regex.is_some();
        let beat = HeartbeatFields {
            member_id: self.member_id.clone(),
            epoch: if joins { 0 } else { self.epoch },
            full: known.is_none(),
            names: names.then(|| says.wanted.names.clone()),
            regex: regex.then(|| says.wanted.regex.clone().unwrap_or_default()),
            owned: owned.then(|| says.owned.clone()),
        };
        let attempt = self.attempt();
        self.may_be_member = true;
        self.heartbeat.in_flight = Some(InFlight { attempt, sent: now, says });
        self.heartbeat.unheard_since.get_or_insert(now);
        self.heartbeat.due = now + self.heartbeat.interval;
        self.actions.push_back(Action::Heartbeat { attempt, beat });
    }

    // ---- inputs of the coordinator

    pub(crate) fn handle_response(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        answer: Result<HeartbeatResponse, Error>,
    ) {
        let Some(in_flight) = self.heartbeat.in_flight.take_if(|in_flight| in_flight.attempt == attempt) else {
            return;
        };
        if !matches!(self.state, MemberState::Joining | MemberState::Member) {
            return;
        }
        match answer {
            // Such an epoch must not be adopted, because a heartbeat with it leaves or joins the
            // group.
            Ok(answer) if answer.epoch <= 0 => {
                let message =
                    format!("heartbeat of group {}: invalid member epoch {}", self.settings.group_id, answer.epoch);
                self.heartbeat_failed(now, Error::new(ErrorKind::Protocol, message));
            }
            Ok(answer) => self.apply_response(now, in_flight, answer),
            Err(error) => self.heartbeat_failed(now, error),
        }
        self.tick(now);
    }

    fn apply_response(&mut self, now: Instant, in_flight: InFlight, answer: HeartbeatResponse) {
        let heartbeat = &mut self.heartbeat;
        heartbeat.alive = in_flight.sent;
        heartbeat.decided = heartbeat.unheard_since.take().unwrap_or(in_flight.sent);
        heartbeat.interval = answer.interval.unwrap_or(heartbeat.interval);
        if heartbeat.due > now {
            heartbeat.due = in_flight.sent + heartbeat.interval;
        }
        heartbeat.complained = false;
        if let Some(Lasting { duration, attempts }) = self.heartbeat_outage.ended(now) {
            event!(
                INFO,
                self.settings.origin,
                outage_s = duration.as_secs(),
                attempts,
                "heartbeats are answered again"
            );
        }
        heartbeat.may_know_regex = in_flight.says.wanted.regex.is_some();
        // A new coordinator receives all fields once.
        let moved = heartbeat.node.replace(answer.node).is_some_and(|node| node != answer.node);
        heartbeat.known = (!moved).then_some(in_flight.says);
        self.heartbeat_backoff.reset();
        self.backoff.reset();
        self.failing_since = None;
        if let Some(id) = answer.member_id.filter(|id| !id.is_empty() && *id != *self.member_id) {
            // Brokers of the protocol's first version may assign the member id.
            self.member_id = id.into();
        }
        if matches!(self.state, MemberState::Joining) {
            if let Some(Lasting { duration, attempts }) = self.join_outage.ended(now) {
                event!(
                    INFO,
                    self.settings.origin,
                    outage_s = duration.as_secs(),
                    attempts,
                    "the group can be joined again"
                );
            }
            event!(
                INFO,
                self.settings.origin,
                member = &*clean(&self.member_id),
                generation = answer.epoch,
                "joined the group by the consumer protocol; its generation is the member's epoch"
            );
            self.state = MemberState::Member;
        } else {
            self.quick_retries = 0;
            self.setbacks.clear();
        }
        self.epoch = answer.epoch;
        if let Some(mut assignment) = answer.assignment {
            assignment.retain(|id, partitions| {
                partitions.retain(|partition| *partition >= 0);
                !id.is_nil() && !partitions.is_empty()
            });
            self.target = assignment;
        }
        if self.heartbeat.known.as_ref().is_some_and(|known| known.wanted != self.wanted) {
            self.heartbeat.due = now;
        }
        self.reconcile(now);
    }

    // ---- steps

    fn identity(&self) -> Identity {
        Identity { generation: self.epoch, member_id: self.member_id.clone() }
    }

    pub(super) fn attempt(&mut self) -> AttemptId {
        self.last_ticket += 1;
        AttemptId(self.last_ticket)
    }

    pub(super) fn join(&mut self, now: Instant) {
        if !self.subscribed {
            return self.leave();
        }
        self.state = MemberState::Joining;
        self.heartbeat.in_flight = None;
        self.heartbeat.due = now;
        self.tick(now);
    }

    pub(super) fn is_current_member(&self, identity: &Identity) -> bool {
        matches!(self.state, MemberState::Member) && *identity == self.identity()
    }

    /// Makes the next heartbeat send all fields, because the coordinator may not have received the
    /// last ones.
    pub(super) fn resend_all_fields(&mut self) {
        self.heartbeat.known = None;
    }

    /// Returns true if the coordinator does not know the owned partitions yet.
    pub(super) fn must_report_owned(&self) -> bool {
        self.heartbeat.known.as_ref().is_none_or(|known| known.owned != self.owned_by_id())
    }

    pub(super) fn own(&mut self, change: impl FnOnce(&mut BTreeMap<TopicPartition, OwnedPartition>)) {
        change(&mut self.owned);
        self.shown = Arc::new(self.owned.iter().map(|(partition, owned)| (partition.clone(), owned.since)).collect());
    }

    fn owned_by_id(&self) -> PartitionsByTopicId {
        let mut held = PartitionsByTopicId::new();
        for (partition, owned) in &self.owned {
            held.entry(owned.topic_id).or_default().insert(partition.partition);
        }
        held
    }

    pub(super) fn leave(&mut self) {
        self.leave_group();
        self.reset();
        self.state = MemberState::Unsubscribed;
    }

    /// Leaves the group. A static member only reports that it is away: it may return with its
    /// instance id and get its partitions back (KIP-345).
    pub(super) fn leave_group(&mut self) {
        if std::mem::take(&mut self.may_be_member) {
            let stays = self.settings.group_instance_id.is_some();
            let epoch = if stays { LEAVE_FOR_A_WHILE } else { LEAVE };
            self.pending_leaves += 1;
            self.actions.push_back(Action::Leave { member_id: self.member_id.clone(), epoch });
        }
    }

    /// Returns to the state before the first heartbeat.
    pub(super) fn reset(&mut self) {
        self.epoch = 0;
        self.target.clear();
        self.names.clear();
        self.own(BTreeMap::clear);
        self.revoking = None;
        self.revoking_since = None;
        self.leaving = false;
        self.unannounced = true;
        self.heartbeat.in_flight = None;
        self.heartbeat.unheard_since = None;
        self.heartbeat.known = None;
        self.heartbeat.complained = false;
    }
}
