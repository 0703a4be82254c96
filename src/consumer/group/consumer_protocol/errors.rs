//! The meaning of each error for a member.
//!
//! Kafka's Java client ends for good at errors that its user has to correct; here the error is
//! reported to the reader, and the member tries again on the reader's next poll, as in the classic
//! protocol.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use super::{Action, ConsumerMembership, membership::MemberState};
use crate::{
    consumer::group::classic::Identity,
    error::{Error, ErrorCode, ErrorKind, clean},
    log::{Lasting, event, several},
    record::TopicPartition,
};

/// Time for which joins fail before the error is reported to the reader: longer than a coordinator
/// takes to move.
pub(super) const REPORTED_AFTER: Duration = Duration::from_secs(10);
/// Number of joins without a wait: these errors ask for a new join at once, but it must not go on
/// forever.
const QUICK_RETRIES: u32 = 3;

/// Returns true if the coordinator says that the member is no longer one.
fn is_fenced(error: &Error) -> bool {
    let code = error.code();
    code.is_some_and(|code| {
        matches!(
            code,
            ErrorCode::FENCED_MEMBER_EPOCH
                | ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::STALE_MEMBER_EPOCH
                // The group was deleted, and its members with it.
                | ErrorCode::GROUP_ID_NOT_FOUND
        )
    })
}

impl ConsumerMembership {
    /// Handles a failed heartbeat, which the coordinator may have processed or not.
    pub(super) fn heartbeat_failed(&mut self, now: Instant, error: Error) {
        self.resend_all_fields();
        event!(DEBUG, self.settings.origin, generation = self.epoch, %error, "heartbeat failed");
        if error.code() == Some(ErrorCode::GROUP_MAX_SIZE_REACHED) {
            // Like Java's client: another attempt would find the group full as well.
            let group = &self.settings.group_id;
            let what = format_args!("group {group} has as many members as the brokers allow (group.consumer.max.size)");
            return self.end(error.context(what));
        }
        if error.is_fatal() {
            return self.end(error);
        }
        match self.state {
            MemberState::Joining => self.join_failed(now, error),
            _ if is_fenced(&error) => {
                self.count_failed_membership(now, &error);
                let cause = format!(
                    "the coordinator has removed the member ({error}): it received no heartbeat for the session timeout \
                     (group.consumer.session.timeout.ms of the brokers, session.timeout.ms of the group), waited longer \
                     than max.poll.interval.ms ({} ms) for partitions, or the group was deleted",
                    self.settings.max_poll_interval.as_millis()
                );
                self.lose_partitions(now, &cause);
            }
            _ => {
                let pause = self.heartbeat_backoff.next(&mut self.rng);
                self.heartbeat.due = now + pause;
                self.report_heartbeat_error(now, error);
            }
        }
    }

    fn join_failed(&mut self, now: Instant, error: Error) {
        match error.code() {
            Some(ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::STALE_MEMBER_EPOCH) => {
                self.retry_soon(now);
                self.report_retriable(now, error);
            }
            Some(ErrorCode::UNRELEASED_INSTANCE_ID) => {
                // The instance id belongs to another member, which may time out; or to this one,
                // which was fenced, or which joined without receiving the response: then this
                // releases it.
                self.leave_group();
                self.retry_later(now);
                self.report_retriable(now, error);
            }
            _ if error.is_retriable() => {
                self.retry_later(now);
                self.report_retriable(now, error);
            }
            _ => {
                let error = self.explained(error);
                self.raise_error(now, error);
            }
        }
    }

    fn explained(&self, error: Error) -> Error {
        let group = &self.settings.group_id;
        match error.kind() {
            ErrorKind::UnsupportedVersion => error.context(format_args!(
                "group {group} cannot be joined by the consumer protocol, which the cluster does not have or has switched \
                 off; use group.protocol=classic"
            )),
            _ if error.code() == Some(ErrorCode::GROUP_ID_NOT_FOUND) => error.context(format_args!(
                "group {group} is of another type, and cannot be moved to the consumer protocol while it has members"
            )),
            _ => error,
        }
    }

    /// Reports a temporary error to the reader once if it lasts, because it is retried without end
    /// and the reader receives nothing.
    fn report_retriable(&mut self, now: Instant, error: Error) {
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

    /// Counts a membership that the coordinator ended. If it ends all of them before it has
    /// answered a second heartbeat, joins are delayed longer each time, and the error is reported
    /// to the reader once.
    fn count_failed_membership(&mut self, now: Instant, error: &Error) {
        if self.setbacks.record(now, &mut self.rng) {
            let error = error.clone().context(self.setbacks.describe(&self.settings.group_id));
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    fn retry_soon(&mut self, now: Instant) {
        if let Some(until) = self.setbacks.join_not_before(now) {
            self.state = MemberState::Backoff { until };
            return;
        }
        if self.quick_retries < QUICK_RETRIES {
            self.quick_retries += 1;
            self.join(now);
        } else {
            self.retry_later(now);
        }
    }

    fn retry_later(&mut self, now: Instant) {
        self.state = MemberState::Backoff { until: now + self.backoff.next(&mut self.rng) };
    }

    /// Gives up the partitions without waiting for the consumer, because other members may own them
    /// already, and joins again.
    pub(super) fn lose_partitions(&mut self, now: Instant, cause: &str) {
        event!(
            DEBUG,
            self.settings.origin,
            member = &*clean(&self.member_id),
            generation = self.epoch,
            cause,
            "the member is no longer in the group"
        );
        self.report_lost(cause);
        self.reset();
        if self.subscribed { self.retry_soon(now) } else { self.leave() }
    }

    pub(super) fn poll_interval_passed(&mut self, now: Instant) {
        let interval = self.settings.max_poll_interval;
        if self.owned.is_empty() && self.subscribed {
            event!(
                WARN,
                self.settings.origin,
                member = &*clean(&self.member_id),
                generation = self.epoch,
                cause = self.poll_interval_message(),
                "the member left its group; it joins again on its reader's next poll"
            );
        }
        self.report_lost(&self.poll_interval_message());
        self.leave();
        if !self.subscribed {
            return;
        }
        let message = format!(
            "group {}: the reader did not poll for {interval:?} (max.poll.interval.ms), so the consumer left \
             the group; it joins again on the reader's next poll. Handle records faster, ask for fewer at a time \
             (max.poll.records), or raise max.poll.interval.ms",
            self.settings.group_id
        );
        self.await_poll(now, Error::new(ErrorKind::NotAssigned, message));
    }

    /// Reports an error that a retry does not fix, and stops until the reader polls again.
    fn raise_error(&mut self, now: Instant, error: Error) {
        if let Some(suppressed) = self.raised_errors.admit(error.code(), now) {
            event!(
                WARN, self.settings.origin, member = &*clean(&self.member_id), %error, suppressed,
                "the consumer is out of its group; it tries to join on its reader's next poll"
            );
        }
        self.report_lost(&error.to_string());
        self.reset();
        let not_before = now + self.backoff.next(&mut self.rng);
        self.await_poll(not_before, error);
    }

    fn await_poll(&mut self, not_before: Instant, error: Error) {
        self.state = MemberState::AwaitPoll { not_before };
        // In this order, because the reader may poll again as soon as it has the error.
        self.actions.push_back(Action::AwaitPoll);
        self.actions.push_back(Action::Error { error, fatal: false });
    }

    /// Reports an error of a heartbeat to the reader if a retry may not help, but not at every
    /// heartbeat.
    fn report_heartbeat_error(&mut self, now: Instant, error: Error) {
        if let Some(Lasting { duration, attempts }) = self.heartbeat_outage.failed(now) {
            let outage_s = duration.as_secs();
            event!(
                WARN, self.settings.origin, member = &*clean(&self.member_id), generation = self.epoch, %error, outage_s, attempts,
                "heartbeats fail; when none is answered for a session, the partitions are lost"
            );
        }
        if !error.is_retriable() && !self.heartbeat.complained {
            self.heartbeat.complained = true;
            self.actions.push_back(Action::Error { error, fatal: false });
        }
    }

    /// Returns the cause of the loss of partitions after the reader did not poll.
    pub(super) fn poll_interval_message(&self) -> String {
        format!(
            "the reader did not complete its records and poll within max.poll.interval.ms ({} ms): handle records \
             faster, ask for fewer at a time (max.poll.records), or raise max.poll.interval.ms",
            self.settings.max_poll_interval.as_millis()
        )
    }

    pub(super) fn warn_of_loss(&self, partitions: &[TopicPartition], cause: &str) {
        event!(
            WARN, self.settings.origin, member = &*clean(&self.member_id), generation = self.epoch, cause,
            partitions = %several(partitions), count = partitions.len(),
            "partitions are lost, perhaps to other members: records read but not committed are read again"
        );
    }

    fn end(&mut self, error: Error) {
        event!(
            ERROR, self.settings.origin, member = &*clean(&self.member_id), generation = self.epoch, %error,
            "the consumer is out of its group for good and has ended: close it, and create a new one when the cause is fixed"
        );
        self.report_lost(&error.to_string());
        self.reset();
        self.state = MemberState::Ended(error.clone());
        self.actions.push_back(Action::Error { error, fatal: true });
    }

    /// Handles a refused commit of that member and epoch.
    pub(crate) fn commit_refused(&mut self, now: Instant, identity: &Identity, error: &Error) {
        if !self.is_current_member(identity) {
            return;
        }
        match error.code() {
            _ if error.is_fatal() => self.end(error.clone()),
            Some(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND) => {
                let cause = format!("the coordinator did not know the member when it committed ({error})");
                self.lose_partitions(now, &cause);
            }
            // The epoch is over: the next heartbeat brings the new one.
            _ => {
                self.resend_all_fields();
                self.heartbeat.due = now;
                self.tick(now);
            }
        }
    }
}
