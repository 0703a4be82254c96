//! A member that is out of its group, and its way back: failed joins, memberships that the
//! coordinator has ended, readers that do not poll, errors that only the user can correct.
//!
//! Sans-IO.

use std::time::Instant;

use crate::{
    consumer::group::consumer_protocol::{
        actions::{Action, LeavingHeartbeat},
        consumer_membership::{ConsumerMembership, MemberState},
        errors::{JoinErrorAction, explain, join_error_action},
    },
    error::{Error, clean},
    log::event,
};

/// Epoch of a heartbeat that leaves the group.
const LEAVE: i32 = -1;
/// Epoch by which a static member leaves its place to its next incarnation.
const LEAVE_FOR_A_WHILE: i32 = -2;

impl ConsumerMembership {
    // ---- failed joins

    pub(super) fn join_failed(&mut self, now: Instant, error: Error) {
        match join_error_action(&error) {
            JoinErrorAction::EndGroupIsFull => self.end_group_is_full(error),
            JoinErrorAction::End => self.end(error),
            JoinErrorAction::JoinAgain => {
                self.retry_soon(now);
                self.report_retriable(now, &error);
            }
            JoinErrorAction::ReleaseInstanceId => {
                self.leave_group();
                self.retry_later(now);
                self.report_retriable(now, &error);
            }
            JoinErrorAction::JoinAfterBackoff => {
                self.retry_later(now);
                self.report_retriable(now, &error);
            }
            JoinErrorAction::AwaitPoll => self.raise_error(now, explain(error, &self.settings.group_id)),
        }
    }

    /// Reports a temporary error to the log and the reader if joins fail for long.
    fn report_retriable(&mut self, now: Instant, error: &Error) {
        let failure = self.retries.failed(now, &self.settings.group_id, error);
        if let Some(lasting) = failure.log {
            self.log().join_fails(error, lasting);
        }
        if let Some(error) = failure.report {
            self.actions.report(error);
        }
    }

    /// Joins again at once, or after a wait if that has been done a few times.
    fn retry_soon(&mut self, now: Instant) {
        if let Some(until) = self.retries.not_before(now) {
            self.state = MemberState::Backoff { until };
        } else if self.retries.admit_quick() {
            self.join(now);
        } else {
            self.retry_later(now);
        }
    }

    fn retry_later(&mut self, now: Instant) {
        self.state = MemberState::Backoff { until: self.retries.next_join(now, &mut self.rng) };
    }

    // ---- the loss of the membership

    pub(super) fn session_ended(&mut self, now: Instant) {
        let ms = self.heartbeats.session().as_millis();
        let cause = format!(
            "no heartbeat was answered for {ms} ms, about as long as the coordinator waits for one \
             (group.consumer.session.timeout.ms of the brokers, session.timeout.ms of the group)"
        );
        self.lose_partitions(now, &cause);
    }

    /// Handles an error by which the coordinator has removed the member. If it removes all of them
    /// before it has answered a second heartbeat, joins are delayed longer each time, and the error
    /// is reported to the reader once.
    pub(super) fn member_removed(&mut self, now: Instant, error: &Error) {
        let report = self.retries.membership_failed(now, &mut self.rng, &self.settings.group_id, error);
        if let Some(error) = report {
            self.actions.report(error);
        }
        let cause = format!(
            "the coordinator has removed the member ({error}): it received no heartbeat for the session timeout \
             (group.consumer.session.timeout.ms of the brokers, session.timeout.ms of the group), waited longer \
             than max.poll.interval.ms ({} ms) for partitions, or the group was deleted",
            self.settings.max_poll_interval.as_millis()
        );
        self.lose_partitions(now, &cause);
    }

    /// Gives up the partitions without waiting for the consumer, because other members may own them
    /// already, and joins again.
    pub(super) fn lose_partitions(&mut self, now: Instant, cause: &str) {
        event!(
            DEBUG,
            self.settings.origin,
            member = &*clean(&self.identity.member_id),
            generation = self.identity.generation,
            cause,
            "the member is no longer in the group"
        );
        self.report_lost(cause);
        self.reset();
        if self.subscribed { self.retry_soon(now) } else { self.leave() }
    }

    /// Reports all partitions as lost, perhaps to other members.
    fn report_lost(&mut self, cause: &str) {
        let partitions = self.reconciliation.lose_all();
        if !partitions.is_empty() {
            self.log().lost(&partitions, cause);
            self.actions.push(Action::Lost { partitions });
        }
    }

    // ---- out of the group

    pub(super) fn poll_interval_passed(&mut self, now: Instant) {
        let cause = self.poll_timer.expiry_cause();
        if self.reconciliation.owned().is_empty() && self.subscribed {
            self.log().left(&cause);
        }
        self.report_lost(&cause);
        self.leave();
        if self.subscribed {
            self.await_poll(now, self.poll_timer.expiry_error(&self.settings.group_id));
        }
    }

    /// Reports an error that a retry does not fix, and stops until the reader polls again.
    fn raise_error(&mut self, now: Instant, error: Error) {
        if let Some(suppressed) = self.raised_errors.admit(error.code(), now) {
            self.log().awaits_poll(&error, suppressed);
        }
        self.report_lost(&error.to_string());
        self.reset();
        let not_before = self.retries.next_join(now, &mut self.rng);
        self.await_poll(not_before, error);
    }

    fn await_poll(&mut self, not_before: Instant, error: Error) {
        self.state = MemberState::AwaitPoll { not_before };
        self.actions.report_and_await_poll(error);
    }

    pub(super) fn end_group_is_full(&mut self, error: Error) {
        let group = &self.settings.group_id;
        self.end(
            error.context(format_args!(
                "group {group} has as many members as the brokers allow (group.consumer.max.size)"
            )),
        );
    }

    pub(super) fn end(&mut self, error: Error) {
        self.log().ended(&error);
        self.report_lost(&error.to_string());
        self.reset();
        self.state = MemberState::Ended(error.clone());
        self.actions.push(Action::Error { error, fatal: true });
    }

    pub(super) fn leave(&mut self) {
        self.leave_group();
        self.reset();
        self.state = MemberState::Unsubscribed;
    }

    /// Leaves the group. A static member only reports that it is away: it may return with its
    /// instance id and get its partitions back (KIP-345).
    fn leave_group(&mut self) {
        if std::mem::take(&mut self.may_be_member) {
            let stays = self.settings.group_instance_id.is_some();
            let epoch = if stays { LEAVE_FOR_A_WHILE } else { LEAVE };
            self.pending_leaves += 1;
            let member_id = self.identity.member_id.clone();
            self.actions.push(Action::Leave(LeavingHeartbeat { member_id, epoch }));
        }
    }

    /// Returns to the state before the first heartbeat.
    fn reset(&mut self) {
        self.identity.generation = 0;
        self.reconciliation.reset();
        self.heartbeats.reset();
        self.heartbeat_failures.allow_report();
    }
}
