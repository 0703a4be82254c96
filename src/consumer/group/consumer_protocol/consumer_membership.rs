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
//! * The coordinator is told of a revocation only when the reader has completed the delivered
//!   records. Until then heartbeats leave out the owned partitions, or (if they send all fields)
//!   include the revoked ones.
//! * A member that joins owns nothing: the coordinator refuses a join with owned partitions.
//! * The member generates its id and keeps it for as long as it lives (KIP-1082), so that a join
//!   with a lost response leaves no dead member behind. A late leave with this id would remove the
//!   next membership, so the member joins only after its leave has ended.
//!
//! Sans-IO.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};
use uuid::Uuid;

use crate::{
    consumer::group::{
        GroupSettings,
        actions::{ActionQueue, AttemptId},
        consumer_protocol::{
            actions::{Action, HeartbeatFields, HeartbeatResponse, LeavingHeartbeat, TopicsToSubscribe},
            errors::{MemberErrorAction, commit_error_action, heartbeat_error_action},
            heartbeats::{Heartbeats, InFlight, ReportedFields, USUAL_SESSION},
            reconciliation::Reconciliation,
        },
        heartbeat_failures::HeartbeatFailures,
        join_retries::JoinRetries,
        member_log::MemberLog,
        member_snapshot::{Identity, MemberSnapshot},
        membership::Membership,
        poll_timer::PollTimer,
    },
    error::{Error, ErrorCode, ErrorKind, clean},
    log::{Limiter, event},
    record::TopicPartition,
};

pub(crate) struct ConsumerMembership {
    pub(super) settings: GroupSettings,
    pub(super) rng: StdRng,
    pub(super) state: MemberState,
    pub(super) subscribed: bool,
    /// The current subscription.
    wanted: TopicsToSubscribe,
    /// The member's id, and its epoch; 0 outside of the group.
    pub(super) identity: Identity,
    /// True if the coordinator may have a member of this id.
    pub(super) may_be_member: bool,
    /// Number of leaves that may still arrive.
    pub(super) pending_leaves: u32,
    pub(super) reconciliation: Reconciliation,
    pub(super) heartbeats: Heartbeats,
    pub(super) heartbeat_failures: HeartbeatFailures,
    pub(super) poll_timer: PollTimer,
    pub(super) retries: JoinRetries,
    /// Errors that only the user can correct, by code.
    pub(super) raised_errors: Limiter<Option<ErrorCode>>,
    pub(super) actions: ActionQueue<HeartbeatFields, LeavingHeartbeat>,
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

impl Membership for ConsumerMembership {
    type Request = HeartbeatFields;
    type Leave = LeavingHeartbeat;

    fn next_action(&mut self) -> Option<Action> {
        self.actions.next()
    }

    fn next_wake(&self) -> Option<Instant> {
        let heartbeat = self.heartbeats.due_at();
        match &self.state {
            MemberState::Unsubscribed | MemberState::AwaitPoll { .. } | MemberState::Ended(_) => None,
            MemberState::Backoff { until } => Some(*until),
            MemberState::Joining => heartbeat.filter(|_| self.pending_leaves == 0),
            MemberState::Member => {
                let revocation = self.reconciliation.revoking.as_ref().map(|revoking| revoking.deadline);
                let (poll, session) = (self.poll_timer.expires_at(), self.heartbeats.session_ends());
                [heartbeat, revocation, Some(poll), Some(session)].into_iter().flatten().min()
            }
        }
    }

    /// Handles all that is due by `now`. The order is that of the consequences: a member that has
    /// lost its place does not revoke, and sends no heartbeat.
    fn tick(&mut self, now: Instant) {
        if let MemberState::Backoff { until } = self.state
            && now >= until
        {
            self.join(now);
        }
        if matches!(self.state, MemberState::Member) {
            if now >= self.heartbeats.session_ends() {
                return self.session_ended(now);
            }
            if self.poll_timer.is_expired(now) {
                return self.poll_interval_passed(now);
            }
            self.enforce_revocation_deadline(now);
        }
        let may_send = match self.state {
            MemberState::Joining => self.pending_leaves == 0,
            MemberState::Member => true,
            _ => false,
        };
        if may_send && self.heartbeats.is_due(now) {
            self.send_heartbeat(now);
        }
    }

    fn snapshot(&self) -> MemberSnapshot {
        match &self.state {
            MemberState::Unsubscribed => MemberSnapshot::NoGroup,
            MemberState::AwaitPoll { .. } => MemberSnapshot::Fenced,
            MemberState::Ended(error) => MemberSnapshot::Ended(error.clone()),
            MemberState::Backoff { .. } | MemberState::Joining => MemberSnapshot::Rebalancing {
                identity: Identity { generation: -1, member_id: self.identity.member_id.clone() },
                owned: Arc::default(),
            },
            MemberState::Member => {
                let (identity, owned) = (self.identity.clone(), self.reconciliation.shown());
                if self.reconciliation.is_complete() {
                    MemberSnapshot::Member { identity, owned }
                } else {
                    MemberSnapshot::Rebalancing { identity, owned }
                }
            }
        }
    }

    fn polled(&mut self, now: Instant) {
        self.poll_timer.restart(now);
        if let MemberState::AwaitPoll { not_before } = self.state {
            self.state = MemberState::Backoff { until: not_before.max(now) };
            self.tick(now);
        }
    }

    fn revoked(&mut self, now: Instant, attempt: AttemptId) {
        if self.reconciliation.finish_revocation(attempt) {
            self.report_and_reconcile(now);
        }
    }

    fn commit_refused(&mut self, now: Instant, identity: &Identity, error: &Error) {
        if !matches!(self.state, MemberState::Member) || *identity != self.identity {
            return;
        }
        match commit_error_action(error) {
            MemberErrorAction::EndGroupIsFull | MemberErrorAction::End => self.end(error.clone()),
            MemberErrorAction::LosePartitions => {
                let cause = format!("the coordinator did not know the member when it committed ({error})");
                self.lose_partitions(now, &cause);
            }
            MemberErrorAction::Stay => {
                self.heartbeats.resend_all_fields();
                self.heartbeats.schedule(now);
                self.tick(now);
            }
        }
    }

    fn leave_ended(&mut self, now: Instant) {
        self.pending_leaves = self.pending_leaves.saturating_sub(1);
        self.tick(now);
    }

    fn close(&mut self) {
        if !matches!(self.state, MemberState::Ended(_)) {
            self.actions.clear();
            self.leave();
            self.state = MemberState::Ended(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
    }
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
        Self {
            rng: StdRng::seed_from_u64(seed),
            state: MemberState::Unsubscribed,
            subscribed: false,
            wanted: TopicsToSubscribe::default(),
            identity: Identity { generation: 0, member_id },
            may_be_member: false,
            pending_leaves: 0,
            reconciliation: Reconciliation::new(),
            heartbeats: Heartbeats::new(now),
            heartbeat_failures: HeartbeatFailures::new(retry_backoff),
            poll_timer: PollTimer::new(now, settings.max_poll_interval),
            retries: JoinRetries::new(retry_backoff, USUAL_SESSION),
            raised_errors: Limiter::default(),
            actions: ActionQueue::new(),
            settings,
        }
    }

    pub(super) fn log(&self) -> MemberLog<'_> {
        MemberLog::new(&self.settings.origin, &self.identity)
    }

    // ---- the subscription, and the names of topics

    /// Changes the subscription; `None` leaves the group.
    pub(crate) fn subscribe(&mut self, now: Instant, wanted: Option<TopicsToSubscribe>) {
        if matches!(self.state, MemberState::Ended(_))
            || (self.subscribed, Some(&self.wanted)) == (true, wanted.as_ref())
        {
            return;
        }
        let Some(wanted) = wanted else { return self.unsubscribe(now) };
        self.subscribed = true;
        self.wanted = wanted;
        match self.state {
            MemberState::Unsubscribed => {
                self.poll_timer.restart(now);
                self.join(now);
            }
            MemberState::Member => {
                self.heartbeats.schedule(now);
                self.reconcile(now);
            }
            // It is sent when the member joins, or in the next heartbeat.
            _ => {}
        }
        self.tick(now);
    }

    fn unsubscribe(&mut self, now: Instant) {
        self.subscribed = false;
        match self.state {
            MemberState::Member => {
                self.reconciliation.begin_leaving();
                self.reconcile(now);
            }
            MemberState::Unsubscribed => {}
            _ => self.leave(),
        }
    }

    /// Returns the ids of assigned topics without a known name.
    pub(crate) fn unresolved(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.reconciliation.unresolved()
    }

    /// Handles new metadata; `name_of` returns a topic's name, if it is known.
    pub(crate) fn names_known(&mut self, now: Instant, name_of: impl Fn(Uuid) -> Option<Arc<str>>) {
        if self.reconciliation.add_names(name_of) {
            self.reconcile(now);
            self.tick(now);
        }
    }

    // ---- heartbeats

    pub(super) fn join(&mut self, now: Instant) {
        if !self.subscribed {
            return self.leave();
        }
        self.state = MemberState::Joining;
        self.heartbeats.forget_in_flight();
        self.heartbeats.schedule(now);
        self.tick(now);
    }

    fn send_heartbeat(&mut self, now: Instant) {
        let joins = matches!(self.state, MemberState::Joining);
        let reports = ReportedFields { wanted: self.wanted.clone(), owned: self.reconciliation.owned_by_id() };
        let fields = self.heartbeats.compose(&self.identity, joins, &reports);
        let attempt = self.actions.send(fields);
        self.heartbeats.sent(now, attempt, reports);
        self.may_be_member = true;
    }

    pub(crate) fn handle_response(
        &mut self,
        now: Instant,
        attempt: AttemptId,
        answer: Result<HeartbeatResponse, Error>,
    ) {
        let Some(heartbeat) = self.heartbeats.ended(attempt) else { return };
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
            Ok(answer) => self.apply_response(now, heartbeat, answer),
            Err(error) => self.heartbeat_failed(now, error),
        }
        self.tick(now);
    }

    fn apply_response(&mut self, now: Instant, heartbeat: InFlight, answer: HeartbeatResponse) {
        self.heartbeats.answered(now, heartbeat, &answer);
        if let Some(lasting) = self.heartbeat_failures.answered(now) {
            self.log().heartbeats_answered_again(lasting);
        }
        self.retries.coordinator_answered();
        if let Some(id) = answer.member_id.filter(|id| !id.is_empty() && *id != *self.identity.member_id) {
            // Brokers of the protocol's first version may assign the member id.
            self.identity.member_id = id.into();
        }
        self.identity.generation = answer.epoch;
        if matches!(self.state, MemberState::Joining) {
            self.become_member(now);
        } else {
            self.retries.allow_quick();
            self.retries.heartbeat_answered();
        }
        if let Some(assignment) = answer.assignment {
            self.reconciliation.set_target(assignment);
        }
        if self.heartbeats.knows_other_topics(&self.wanted) {
            self.heartbeats.schedule(now);
        }
        self.reconcile(now);
    }

    fn become_member(&mut self, now: Instant) {
        if let Some(lasting) = self.retries.joined(now) {
            self.log().join_succeeds_again(lasting);
        }
        event!(
            INFO,
            self.settings.origin,
            member = &*clean(&self.identity.member_id),
            generation = self.identity.generation,
            "joined the group by the consumer protocol; its generation is the member's epoch"
        );
        self.state = MemberState::Member;
    }

    /// Handles a failed heartbeat, which the coordinator may have processed or not.
    fn heartbeat_failed(&mut self, now: Instant, error: Error) {
        self.heartbeats.resend_all_fields();
        event!(DEBUG, self.settings.origin, generation = self.identity.generation, %error, "heartbeat failed");
        if matches!(self.state, MemberState::Joining) {
            return self.join_failed(now, error);
        }
        match heartbeat_error_action(&error) {
            MemberErrorAction::EndGroupIsFull => self.end_group_is_full(error),
            MemberErrorAction::End => self.end(error),
            MemberErrorAction::LosePartitions => self.member_removed(now, &error),
            MemberErrorAction::Stay => {
                let wait = self.heartbeat_failures.next_wait(&mut self.rng);
                self.heartbeats.schedule(now + wait);
                self.report_heartbeat_error(now, error);
            }
        }
    }

    /// Reports an error of a heartbeat to the reader if a retry may not help, but not at every
    /// heartbeat.
    fn report_heartbeat_error(&mut self, now: Instant, error: Error) {
        if let Some(lasting) = self.heartbeat_failures.failed(now) {
            event!(
                WARN, self.settings.origin, member = &*clean(&self.identity.member_id),
                generation = self.identity.generation, %error, outage_s = lasting.duration.as_secs(),
                attempts = lasting.attempts,
                "heartbeats fail; when none is answered for a session, the partitions are lost"
            );
        }
        if self.heartbeat_failures.admit_report(&error) {
            self.actions.report(error);
        }
    }

    // ---- reconciliation

    /// Reconciles as far as possible. It is called again when something that it waits for (the
    /// reader, a topic's name) is there.
    fn reconcile(&mut self, now: Instant) {
        if self.reconciliation.revoking.is_some() || !matches!(self.state, MemberState::Member) {
            return;
        }
        let partitions = self.reconciliation.to_revoke();
        if !partitions.is_empty() {
            return self.revoke(partitions);
        }
        if self.reconciliation.end_revocations() && !self.subscribed {
            return self.leave();
        }
        if let Some(partitions) = self.reconciliation.take_assigned() {
            if !partitions.is_empty() {
                self.log().assigned(&partitions);
            }
            self.actions.push(Action::Assigned { partitions });
        }
        let is_reported = self.heartbeats.knows_owned(&self.reconciliation.owned_by_id());
        if !is_reported && self.reconciliation.is_resolved() {
            self.heartbeats.schedule(now);
        }
    }

    fn revoke(&mut self, partitions: Vec<TopicPartition>) {
        let unsubscribed = self.reconciliation.is_leaving();
        let reason = if unsubscribed { "the consumer unsubscribed" } else { "the coordinator assigns them to others" };
        self.log().revoked(&partitions, reason);
        let attempt = self.actions.revoke(partitions.clone());
        // The coordinator may have decided this in a response that was lost.
        let decided = self.heartbeats.decided();
        self.reconciliation.begin_revocation(attempt, partitions, decided, self.settings.max_poll_interval);
    }

    /// Drops partitions that the reader has not completed in time, before the coordinator removes
    /// the member.
    fn enforce_revocation_deadline(&mut self, now: Instant) {
        if let Some(partitions) = self.reconciliation.expire_revocation(now) {
            self.log().lost(&partitions, &self.poll_timer.expiry_cause());
            self.actions.push(Action::Lost { partitions });
            self.report_and_reconcile(now);
        }
    }

    /// Sends a heartbeat at once, because other members may wait for the partitions that were given
    /// up.
    fn report_and_reconcile(&mut self, now: Instant) {
        self.heartbeats.schedule(now);
        self.reconcile(now);
        self.tick(now);
    }
}
