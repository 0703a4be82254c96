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

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    consumer::group::{
        GroupSettings,
        actions::{ActionQueue, AttemptId},
        assignor::{Assignor, PartitionRacks, RebalanceProtocol},
        classic::{
            actions::{Action, ClassicRequest, LeaveGroup},
            errors::{MemberErrorAction, member_error_action},
            leader::Leader,
            member_state::{AfterRevocation, MemberState},
            owned_partitions::OwnedPartitions,
            session::Session,
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

pub(crate) struct ClassicMembership {
    pub(super) settings: GroupSettings,
    /// True if owned partitions are kept over rebalances, because all assignors support it.
    pub(super) cooperative: bool,
    pub(super) rng: StdRng,
    pub(super) state: MemberState,
    /// Topics of the current subscription; `None` while not subscribed.
    pub(super) topics: Option<BTreeSet<Arc<str>>>,
    /// Topics sent with the last JoinGroup.
    pub(super) joined_topics: BTreeSet<Arc<str>>,
    /// Reason of the next JoinGroup (KIP-800).
    pub(super) reason: String,
    /// The id is empty if the coordinator does not know the member, the generation −1 if there is
    /// none.
    pub(super) identity: Identity,
    pub(super) owned: OwnedPartitions,
    pub(super) leader: Leader,
    pub(super) session: Session,
    poll_timer: PollTimer,
    pub(super) retries: JoinRetries,
    heartbeat_failures: HeartbeatFailures,
    /// Errors that only the user can correct, by code.
    pub(super) raised_errors: Limiter<Option<ErrorCode>>,
    pub(super) actions: ActionQueue<ClassicRequest, LeaveGroup>,
}

impl Membership for ClassicMembership {
    type Request = ClassicRequest;
    type Leave = LeaveGroup;

    fn next_action(&mut self) -> Option<Action> {
        self.actions.next()
    }

    fn next_wake(&self) -> Option<Instant> {
        let session = self.session.next_wake(self.state.in_generation());
        let alive = session.min(self.poll_timer.expires_at());
        match &self.state {
            MemberState::Unsubscribed | MemberState::AwaitPoll { .. } | MemberState::Ended(_) => None,
            // Without partitions, a member that is not in a generation has no session to keep, and
            // its reader does not have to poll before it has its assignment.
            MemberState::Joining { .. } if self.owned.is_empty() => None,
            MemberState::Backoff { until } if self.owned.is_empty() => Some(*until),
            MemberState::CountingPartitions { .. } | MemberState::Syncing { .. } if self.owned.is_empty() => {
                Some(session)
            }
            MemberState::Backoff { until } => Some(alive.min(*until)),
            MemberState::Revoking { deadline, .. } => Some(alive.min(*deadline)),
            MemberState::Joining { .. }
            | MemberState::CountingPartitions { .. }
            | MemberState::Syncing { .. }
            | MemberState::Stable => Some(alive),
        }
    }

    /// Handles all that is due by `now`. The order is that of the consequences: a member that has
    /// lost its place does not revoke, and sends no heartbeat.
    fn tick(&mut self, now: Instant) {
        if let MemberState::Backoff { until } = self.state
            && now >= until
        {
            self.send_join(now);
        }
        if !self.is_counted_on() {
            return;
        }
        let must_poll = self.state.is_assigned() || !self.owned.is_empty();
        if self.session.is_timed_out(now) {
            self.session_timed_out(now);
        } else if self.session.has_missed_rebalance(now, self.state.in_generation()) {
            self.rebalance_missed(now);
        } else if must_poll && self.poll_timer.is_expired(now) {
            self.poll_interval_passed(now);
        } else if self.is_revocation_overdue(now) {
            self.finish_revocation(now, true);
        } else if self.session.is_heartbeat_due(now) {
            let attempt = self.actions.send(ClassicRequest::Heartbeat { identity: self.identity.clone() });
            self.session.heartbeat_sent(now, attempt);
        }
    }

    fn snapshot(&self) -> MemberSnapshot {
        let (identity, owned) = (self.identity.clone(), self.owned.shown());
        match &self.state {
            MemberState::Unsubscribed => MemberSnapshot::NoGroup,
            MemberState::AwaitPoll { .. } => MemberSnapshot::Fenced,
            MemberState::Ended(error) => MemberSnapshot::Ended(error.clone()),
            MemberState::Stable | MemberState::Revoking { .. } => MemberSnapshot::Member { identity, owned },
            MemberState::Backoff { .. }
            | MemberState::Joining { .. }
            | MemberState::CountingPartitions { .. }
            | MemberState::Syncing { .. } => MemberSnapshot::Rebalancing { identity, owned },
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
        match &self.state {
            MemberState::Revoking { attempt: awaited, .. } if *awaited == attempt => self.finish_revocation(now, false),
            _ => {}
        }
    }

    fn commit_refused(&mut self, now: Instant, identity: &Identity, error: &Error) {
        if !self.is_counted_on() || *identity != self.identity {
            return;
        }
        match member_error_action(error, self.state.in_generation()) {
            MemberErrorAction::Rebalance => self.rebalance_found(now, error),
            MemberErrorAction::AwaitJoin | MemberErrorAction::Stay => {}
            MemberErrorAction::End => self.end(error.clone()),
            MemberErrorAction::JoinAsNewMember => self.member_removed(now, error),
            MemberErrorAction::LosePartitions => self.generation_missed(now, error),
        }
    }

    /// Does nothing: a member that leaves drops its id, so that no later join has to wait.
    fn leave_ended(&mut self, _now: Instant) {}

    fn close(&mut self) {
        if !matches!(self.state, MemberState::Ended(_)) {
            self.actions.clear();
            self.leave("the consumer closed");
            self.state = MemberState::Ended(Error::new(ErrorKind::Closed, "the consumer is closed"));
        }
    }
}

impl ClassicMembership {
    pub(crate) fn new(settings: GroupSettings, retry_backoff: (Duration, Duration), seed: u64, now: Instant) -> Self {
        let cooperates = |assignor: &Arc<dyn Assignor>| assignor.protocol() == RebalanceProtocol::Cooperative;
        Self {
            cooperative: settings.assignors.iter().all(cooperates),
            rng: StdRng::seed_from_u64(seed),
            state: MemberState::Unsubscribed,
            topics: None,
            joined_topics: BTreeSet::new(),
            reason: String::new(),
            identity: Identity { generation: -1, member_id: "".into() },
            owned: OwnedPartitions::default(),
            leader: Leader::new(settings.client_rack.is_some()),
            session: Session::new(&settings, now),
            poll_timer: PollTimer::new(now, settings.max_poll_interval),
            retries: JoinRetries::new(retry_backoff, settings.session_timeout),
            heartbeat_failures: HeartbeatFailures::new(retry_backoff),
            raised_errors: Limiter::default(),
            actions: ActionQueue::new(),
            settings,
        }
    }

    pub(super) fn log(&self) -> MemberLog<'_> {
        MemberLog::new(&self.settings.origin, &self.identity)
    }

    /// Returns true if the coordinator has to know that the member is alive, because of its place
    /// in a generation or of partitions that it keeps while it joins the next one.
    fn is_counted_on(&self) -> bool {
        self.state.in_generation() || !self.owned.is_empty()
    }

    // ---- the subscription, and the topics of the leader

    /// Changes the subscribed topics; `None` leaves the group.
    pub(crate) fn subscribe(&mut self, now: Instant, topics: Option<BTreeSet<Arc<str>>>) {
        if topics == self.topics || matches!(self.state, MemberState::Ended(_)) {
            return;
        }
        let wanted = topics.is_some();
        self.topics = topics;
        if !wanted {
            self.owned.unsubscribed();
        }
        let next = if wanted { AfterRevocation::Join } else { AfterRevocation::Leave };
        match &mut self.state {
            MemberState::Unsubscribed if wanted => {
                self.poll_timer.restart(now);
                self.join(now, "the consumer subscribed");
            }
            MemberState::Revoking { then, .. } => *then = next,
            MemberState::Stable => self.give_up(now, next, "subscription changed"),
            // The topics of the join are compared with the subscription when the join is complete.
            _ if wanted => {}
            _ => self.give_up(now, next, "the consumer unsubscribed"),
        }
    }

    /// Handles new metadata; `look` returns a topic's current partitions.
    pub(crate) fn metadata_changed(&mut self, now: Instant, look: impl Fn(&str) -> Option<Vec<PartitionRacks>>) {
        if matches!(self.state, MemberState::Stable) && self.leader.sees_change(look) {
            self.give_up(now, AfterRevocation::Join, "the leader saw the partitions of a topic change");
        }
    }

    // ---- heartbeats

    pub(crate) fn heartbeat_answered(&mut self, now: Instant, attempt: AttemptId, answer: Result<(), Error>) {
        let Some(sent) = self.session.heartbeat_ended(attempt) else { return };
        if !self.is_counted_on() {
            return;
        }
        match answer {
            Ok(()) => {
                self.session.confirm_generation(sent);
                self.retries.heartbeat_answered();
                if let Some(lasting) = self.heartbeat_failures.answered(now) {
                    self.log().heartbeats_answered_again(lasting);
                }
            }
            Err(error) => self.heartbeat_failed(now, sent, error),
        }
        self.tick(now);
    }

    fn heartbeat_failed(&mut self, now: Instant, sent: Instant, error: Error) {
        match member_error_action(&error, self.state.in_generation()) {
            MemberErrorAction::Rebalance => {
                self.session.confirm_alive(sent);
                self.rebalance_found(now, &error);
            }
            MemberErrorAction::AwaitJoin => {
                self.session.confirm_alive(sent);
                if self.session.doubt_join() && matches!(self.state, MemberState::Joining { .. }) {
                    self.join(now, "the response to the last join did not arrive");
                }
            }
            MemberErrorAction::End => self.end(error),
            MemberErrorAction::JoinAsNewMember => self.member_removed(now, &error),
            MemberErrorAction::LosePartitions => self.generation_missed(now, &error),
            MemberErrorAction::Stay => {
                let wait = self.heartbeat_failures.next_wait(&mut self.rng);
                self.session.repeat_heartbeat(now, wait);
                self.report_heartbeat_error(now, error);
            }
        }
    }

    /// Reports an error of a heartbeat to the reader if a retry may not help, but not at every
    /// heartbeat.
    fn report_heartbeat_error(&mut self, now: Instant, error: Error) {
        match self.heartbeat_failures.failed(now) {
            Some(lasting) => event!(
                WARN, self.settings.origin, member = &*clean(&self.identity.member_id),
                generation = self.identity.generation, %error, outage_s = lasting.duration.as_secs(),
                attempts = lasting.attempts, session_timeout_ms = %self.settings.session_timeout.as_millis(),
                "heartbeats fail; when none is answered for session.timeout.ms, the partitions are lost"
            ),
            None => event!(DEBUG, self.settings.origin, %error, "heartbeat failed"),
        }
        if self.heartbeat_failures.admit_report(&error) {
            self.actions.report(error);
        }
    }

    // ---- revocation

    fn rebalance_found(&mut self, now: Instant, error: &Error) {
        if matches!(self.state, MemberState::Stable) {
            self.count_failed_membership(now, error);
            self.give_up(now, AfterRevocation::Join, "the group rebalances");
        }
    }

    /// Revokes the partitions that have to be given up before the next step.
    fn give_up(&mut self, now: Instant, then: AfterRevocation, reason: &str) {
        reason.clone_into(&mut self.reason);
        let keeps = self.cooperative && then == AfterRevocation::Join;
        let partitions = self.owned.select_for_revocation(self.topics.as_ref().filter(|_| keeps));
        self.revoke(now, partitions, then);
    }

    /// Revokes these partitions, and continues when the consumer has given them up.
    pub(super) fn revoke(&mut self, now: Instant, partitions: BTreeSet<TopicPartition>, then: AfterRevocation) {
        if partitions.is_empty() {
            return match then {
                AfterRevocation::Join => self.send_join(now),
                AfterRevocation::Leave => self.leave("the consumer unsubscribed"),
            };
        }
        let deadline = self.session.revocation_deadline(now);
        let revoked: Vec<TopicPartition> = partitions.iter().cloned().collect();
        self.log().revoked(&revoked, &self.reason);
        let attempt = self.actions.revoke(revoked);
        self.state = MemberState::Revoking { attempt, partitions, deadline, then };
    }

    fn is_revocation_overdue(&self, now: Instant) -> bool {
        matches!(self.state, MemberState::Revoking { deadline, .. } if now >= deadline)
    }

    /// Removes the revoked partitions; `too_late` if the consumer did not answer in time.
    fn finish_revocation(&mut self, now: Instant, too_late: bool) {
        let MemberState::Revoking { partitions, then, .. } = std::mem::replace(&mut self.state, MemberState::Stable)
        else {
            return;
        };
        self.owned.remove(&partitions);
        if too_late {
            let partitions: Vec<TopicPartition> = partitions.into_iter().collect();
            self.log().lost(&partitions, &self.poll_timer.expiry_cause());
            self.actions.push(Action::Lost { partitions });
        }
        let reason = self.reason.clone();
        self.give_up(now, then, &reason);
    }

    // ---- the loss of the place in a generation

    fn session_timed_out(&mut self, now: Instant) {
        let ms = self.settings.session_timeout.as_millis();
        let cause = format!(
            "no heartbeat was answered for session.timeout.ms ({ms} ms), after which the coordinator removes a member"
        );
        self.lose_partitions(now, false, "the session timed out", &cause);
    }

    fn rebalance_missed(&mut self, now: Instant) {
        let ms = self.settings.max_poll_interval.as_millis();
        let cause = format!(
            "no JoinGroup was answered for max.poll.interval.ms ({ms} ms), after which the group rebalances without a \
             member"
        );
        self.lose_partitions(now, false, "the rebalance may have ended without the member", &cause);
    }

    /// Handles a generation that the coordinator began without the member.
    fn generation_missed(&mut self, now: Instant, error: &Error) {
        self.count_failed_membership(now, error);
        let cause = format!(
            "the group had begun another generation without the member ({error}): a rebalance did not wait for it \
             longer than max.poll.interval.ms ({} ms)",
            self.settings.max_poll_interval.as_millis()
        );
        self.lose_partitions(now, false, "the generation was over", &cause);
    }

    fn member_removed(&mut self, now: Instant, error: &Error) {
        self.count_failed_membership(now, error);
        self.join_as_new_member(now, error);
    }

    /// Handles an error by which the coordinator does not know the member.
    pub(super) fn join_as_new_member(&mut self, now: Instant, error: &Error) {
        let cause = format!(
            "the coordinator does not know the member ({error}): it received no heartbeat for session.timeout.ms ({} ms), or \
             the group was deleted",
            self.settings.session_timeout.as_millis()
        );
        self.lose_partitions(now, true, "the coordinator did not know the member", &cause);
    }

    /// Counts a generation that the coordinator ended. If it ends all of them before it has
    /// answered a heartbeat, joins are delayed longer each time, and the error is reported to the
    /// reader once.
    fn count_failed_membership(&mut self, now: Instant, error: &Error) {
        let report = self.retries.membership_failed(now, &mut self.rng, &self.settings.group_id, error);
        if let Some(error) = report {
            self.actions.report(error);
        }
    }

    /// Gives up the partitions without waiting for the consumer, because other members may own them
    /// already, and joins again. The member keeps its id unless the coordinator has forgotten it,
    /// so that no dead member of that id stays in the group.
    ///
    /// `reason` is sent with the next join, `cause` is logged.
    fn lose_partitions(&mut self, now: Instant, forgotten: bool, reason: &str, cause: &str) {
        event!(
            DEBUG,
            self.settings.origin,
            member = &*clean(&self.identity.member_id),
            generation = self.identity.generation,
            cause,
            "the member is no longer in the generation"
        );
        let leaving = self.state.is_leaving();
        self.report_lost(cause);
        let member_id = self.identity.member_id.clone();
        self.reset();
        if !forgotten {
            self.identity.member_id = member_id;
        }
        if leaving {
            return self.leave("the consumer unsubscribed");
        }
        self.retry_because(now, reason);
    }

    /// Reports all partitions as lost, perhaps to other members.
    pub(super) fn report_lost(&mut self, cause: &str) {
        let partitions = self.owned.lose_all();
        if !partitions.is_empty() {
            self.log().lost(&partitions, cause);
            self.actions.push(Action::Lost { partitions });
        }
    }

    // ---- out of the group

    fn poll_interval_passed(&mut self, now: Instant) {
        self.leave_group("the reader did not ask for records within max.poll.interval.ms");
        let cause = self.poll_timer.expiry_cause();
        if self.owned.is_empty() {
            self.log().left(&cause);
        }
        self.report_lost(&cause);
        self.reset();
        if self.topics.is_none() {
            self.state = MemberState::Unsubscribed;
            return;
        }
        "the reader polls again".clone_into(&mut self.reason);
        self.await_poll(now, self.poll_timer.expiry_error(&self.settings.group_id));
    }

    /// Reports an error that a retry does not fix, and stops until the reader polls again.
    pub(super) fn raise_error(&mut self, now: Instant, error: Error) {
        if let Some(suppressed) = self.raised_errors.admit(error.code(), now) {
            self.log().awaits_poll(&error, suppressed);
        }
        self.report_lost(&error.to_string());
        self.identity.generation = -1;
        let not_before = self.retries.next_join(now, &mut self.rng);
        self.await_poll(not_before, error);
    }

    fn await_poll(&mut self, not_before: Instant, error: Error) {
        self.state = MemberState::AwaitPoll { not_before };
        self.session.forget_heartbeat();
        self.actions.report_and_await_poll(error);
    }

    pub(super) fn end(&mut self, error: Error) {
        self.log().ended(&error);
        self.report_lost(&error.to_string());
        self.reset();
        self.state = MemberState::Ended(error.clone());
        self.actions.push(Action::Error { error, fatal: true });
    }

    pub(super) fn leave(&mut self, reason: &'static str) {
        self.leave_group(reason);
        self.reset();
        self.state = MemberState::Unsubscribed;
    }

    /// Leaves the group. A static member does not: it may return with its instance id and get its
    /// partitions back (KIP-345).
    fn leave_group(&mut self, reason: &'static str) {
        if self.settings.group_instance_id.is_none() && !self.identity.member_id.is_empty() {
            self.actions.push(Action::Leave(LeaveGroup { member_id: self.identity.member_id.clone(), reason }));
        }
    }

    fn reset(&mut self) {
        self.identity = Identity { generation: -1, member_id: "".into() };
        self.leader.stop();
        self.session.forget_heartbeat();
        self.heartbeat_failures.allow_report();
    }
}
