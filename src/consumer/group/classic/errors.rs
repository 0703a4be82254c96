//! The meaning of each error for a member, by the rules of Kafka's Java client.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::group::classic::{Action, MemberState, Membership};
use crate::{
    error::{Error, ErrorCode, ErrorKind, clean},
    log::{Lasting, event, several},
    record::TopicPartition,
};

/// Time for which joins fail before the error is reported to the reader: longer than a coordinator
/// takes to move.
pub(super) const REPORTED_AFTER: Duration = Duration::from_secs(10);

impl Membership {
    /// Handles a failed JoinGroup or SyncGroup.
    pub(super) fn join_failed(&mut self, now: Instant, error: Error) {
        if error.code() == Some(ErrorCode::GROUP_MAX_SIZE_REACHED) {
            // Like Java's client: another attempt would find the group full as well.
            let group = &self.settings.group_id;
            let what = format_args!("group {group} has as many members as the brokers allow (group.max.size)");
            return self.end(error.context(what));
        }
        if error.is_fatal() {
            return self.end(error);
        }
        event!(DEBUG, self.settings.origin, %error, "joining failed");
        self.join_unconfirmed = true;
        match error.code() {
            Some(ErrorCode::UNKNOWN_MEMBER_ID) => {
                let cause = self.unknown_member_message(&error);
                self.lose_partitions(now, true, "the coordinator did not know the member", &cause);
                self.report_retriable(now, error);
            }
            Some(ErrorCode::ILLEGAL_GENERATION) => {
                self.generation = -1;
                self.retry_because(now, "the generation was over");
                self.report_retriable(now, error);
            }
            Some(ErrorCode::REBALANCE_IN_PROGRESS) => {
                self.retry_because(now, "the group rebalances again");
                self.report_retriable(now, error);
            }
            _ if error.is_retriable() => {
                self.retry_later(now);
                self.report_retriable(now, error);
            }
            _ => self.raise_error(now, error),
        }
    }

    /// Reports a temporary error to the reader once if it lasts, because it is retried without end
    /// and the reader receives nothing.
    pub(super) fn report_retriable(&mut self, now: Instant, error: Error) {
        if let Some(Lasting { duration, attempts }) = self.join_outage.failed(now) {
            let outage_s = duration.as_secs();
            event!(
                WARN, self.settings.origin, member = &*clean(&self.member_id), %error, outage_s, attempts,
                "the group cannot be joined; the consumer tries again, after retry.backoff.max.ms at the latest"
            );
        }
        let (since, told) = self.failing_since.get_or_insert((now, false));
        let lasted = now.saturating_duration_since(*since);
        if lasted >= REPORTED_AFTER && !std::mem::replace(told, true) {
            let (group, secs) = (&self.settings.group_id, lasted.as_secs());
            let error = error
                .context(format_args!("group {group} could not be joined for {secs} s; the consumer keeps trying"));
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    /// Counts a generation that the coordinator ended. If it ends all of them before it has
    /// answered a heartbeat, joins are delayed longer each time, and the error is reported to the
    /// reader once.
    pub(super) fn count_failed_membership(&mut self, now: Instant, error: &Error) {
        if self.setbacks.record(now, &mut self.rng) {
            let error = error.clone().context(self.setbacks.describe(&self.settings.group_id));
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    fn retry_because(&mut self, now: Instant, reason: &str) {
        reason.clone_into(&mut self.reason);
        self.retry_soon(now);
    }

    /// Handles an error that says that the member is no longer in the generation; returns false for
    /// other errors.
    pub(super) fn expelled(&mut self, now: Instant, error: &Error) -> bool {
        match error.code() {
            _ if error.is_fatal() => self.end(error.clone()),
            // From OffsetCommit v9 on the second code is returned if the group is unknown.
            Some(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND) => {
                self.count_failed_membership(now, error);
                let cause = self.unknown_member_message(error);
                self.lose_partitions(now, true, "the coordinator did not know the member", &cause);
            }
            Some(ErrorCode::ILLEGAL_GENERATION) => {
                self.count_failed_membership(now, error);
                let cause = format!(
                    "the group had begun another generation without the member ({error}): a rebalance did not wait for it \
                     longer than max.poll.interval.ms ({} ms)",
                    self.settings.max_poll_interval.as_millis()
                );
                self.lose_partitions(now, false, "the generation was over", &cause);
            }
            _ => return false,
        }
        true
    }

    /// Gives up the partitions without waiting for the consumer, because other members may own them
    /// already, and joins again. The member keeps its id unless the coordinator has forgotten it,
    /// so that no dead member of that id stays in the group.
    ///
    /// `reason` is sent with the next join, `cause` is logged.
    pub(super) fn lose_partitions(&mut self, now: Instant, forgotten: bool, reason: &str, cause: &str) {
        event!(
            DEBUG,
            self.settings.origin,
            member = &*clean(&self.member_id),
            generation = self.generation,
            cause,
            "the member is no longer in the generation"
        );
        let leaving = matches!(
            self.state,
            MemberState::Revoking { then: crate::consumer::group::classic::AfterRevocation::Leave, .. }
        );
        self.report_lost(cause);
        let member_id = self.member_id.clone();
        self.reset();
        if !forgotten {
            self.member_id = member_id;
        }
        if leaving {
            return self.leave("the consumer unsubscribed");
        }
        self.retry_because(now, reason);
    }

    pub(super) fn poll_interval_passed(&mut self, now: Instant) {
        let interval = self.settings.max_poll_interval;
        let unsubscribed = self.topics.is_none();
        self.say_goodbye("the reader did not ask for records within max.poll.interval.ms");
        self.warn_of_leaving(&self.poll_interval_message());
        self.report_lost(&self.poll_interval_message());
        self.reset();
        if unsubscribed {
            self.state = MemberState::Unsubscribed;
            return;
        }
        let message = format!(
            "group {}: the reader did not poll for {interval:?} (max.poll.interval.ms), so the consumer left \
             the group; it joins again on the reader's next poll. Handle records faster, ask for fewer at a time \
             (max.poll.records), or raise max.poll.interval.ms",
            self.settings.group_id
        );
        "the reader polls again".clone_into(&mut self.reason);
        self.await_poll(now, Error::new(ErrorKind::NotAssigned, message));
    }

    /// Reports an error that a retry does not fix, and stops until the reader polls again.
    pub(super) fn raise_error(&mut self, now: Instant, error: Error) {
        if let Some(suppressed) = self.raised_errors.admit(error.code(), now) {
            event!(
                WARN, self.settings.origin, member = &*clean(&self.member_id), %error, suppressed,
                "the consumer is out of its group; it tries to join on its reader's next poll"
            );
        }
        self.report_lost(&error.to_string());
        self.generation = -1;
        let not_before = now + self.backoff.next(&mut self.rng);
        self.await_poll(not_before, error);
    }

    fn await_poll(&mut self, not_before: Instant, error: Error) {
        self.state = MemberState::AwaitPoll { not_before };
        self.heartbeat.in_flight = None;
        // In this order, because the reader may poll again as soon as it has the error.
        self.actions.push_back(Action::AwaitPoll);
        self.actions.push_back(Action::Error { error, fatal: false });
    }

    /// Reports any other error of a heartbeat to the reader if a retry may not help, but not at
    /// every heartbeat.
    pub(super) fn report_heartbeat_error(&mut self, now: Instant, error: Error) {
        match self.heartbeat_outage.failed(now) {
            Some(Lasting { duration, attempts }) => {
                let (outage_s, session_ms) = (duration.as_secs(), self.settings.session_timeout.as_millis());
                event!(
                    WARN, self.settings.origin, member = &*clean(&self.member_id), generation = self.generation, %error, outage_s,
                    attempts, session_timeout_ms = %session_ms,
                    "heartbeats fail; when none is answered for session.timeout.ms, the partitions are lost"
                );
            }
            None => event!(DEBUG, self.settings.origin, %error, "heartbeat failed"),
        }
        if error.is_retriable() {
            return;
        }
        if !self.heartbeat.complained {
            self.heartbeat.complained = true;
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    /// Logs that heartbeats are answered again after a failure.
    pub(super) fn log_heartbeats_recovered(&mut self, now: Instant) {
        if let Some(Lasting { duration, attempts }) = self.heartbeat_outage.ended(now) {
            let outage_s = duration.as_secs();
            event!(INFO, self.settings.origin, outage_s, attempts, "heartbeats are answered again");
        }
    }

    fn end(&mut self, error: Error) {
        event!(
            ERROR, self.settings.origin, member = &*clean(&self.member_id), generation = self.generation, %error,
            "the consumer is out of its group for good and has ended: close it, and create a new one when the cause is fixed"
        );
        self.report_lost(&error.to_string());
        self.reset();
        self.state = MemberState::Ended(error.clone());
        self.actions.push_back(Action::Error { error, fatal: true });
    }

    /// Returns the cause of the loss of a member that the coordinator does not know.
    fn unknown_member_message(&self, error: &Error) -> String {
        format!(
            "the coordinator does not know the member ({error}): it received no heartbeat for session.timeout.ms ({} ms), or \
             the group was deleted",
            self.settings.session_timeout.as_millis()
        )
    }

    /// Returns the cause of the loss of partitions after the reader did not poll.
    pub(super) fn poll_interval_message(&self) -> String {
        format!(
            "the reader did not complete its records and poll within max.poll.interval.ms ({} ms): handle records \
             faster, ask for fewer at a time (max.poll.records), or raise max.poll.interval.ms",
            self.settings.max_poll_interval.as_millis()
        )
    }

    /// Logs the leave of a member without partitions, which reports no lost partitions.
    fn warn_of_leaving(&self, cause: &str) {
        if self.owned.is_empty() {
            event!(
                WARN,
                self.settings.origin,
                member = &*clean(&self.member_id),
                generation = self.generation,
                cause,
                "the member left its group; it joins again on its reader's next poll"
            );
        }
    }

    pub(super) fn warn_of_loss(&self, partitions: &[TopicPartition], cause: &str) {
        event!(
            WARN, self.settings.origin, member = &*clean(&self.member_id), generation = self.generation, cause,
            partitions = %several(partitions), count = partitions.len(),
            "partitions are lost, perhaps to other members: records read but not committed are read again"
        );
    }

    pub(super) fn report_lost(&mut self, cause: &str) {
        let partitions: Vec<_> = self.owned.keys().cloned().collect();
        if !partitions.is_empty() {
            self.warn_of_loss(&partitions, cause);
        }
        self.owned = Default::default();
        self.revokes_all = false;
        if !partitions.is_empty() {
            self.actions.push_back(Action::Lost { partitions });
        }
    }
}
