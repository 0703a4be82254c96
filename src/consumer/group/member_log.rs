//! The log lines of a member, the same in both group protocols.
//!
//! Sans-IO.

use crate::{
    consumer::group::member_snapshot::Identity,
    error::{Error, clean},
    log::{Lasting, Origin, event, several},
    record::TopicPartition,
};

/// Writes the lines of one member. In the consumer protocol `generation` is the member's epoch.
pub(super) struct MemberLog<'a> {
    origin: &'a Origin,
    identity: &'a Identity,
}

impl<'a> MemberLog<'a> {
    pub(super) fn new(origin: &'a Origin, identity: &'a Identity) -> Self {
        Self { origin, identity }
    }

    pub(super) fn assigned(&self, partitions: &[TopicPartition]) {
        event!(
            INFO, *self.origin, member = &*clean(&self.identity.member_id), generation = self.identity.generation,
            partitions = %several(partitions), count = partitions.len(), "partitions are assigned"
        );
    }

    pub(super) fn revoked(&self, partitions: &[TopicPartition], reason: &str) {
        event!(
            INFO, *self.origin, member = &*clean(&self.identity.member_id), generation = self.identity.generation, reason,
            partitions = %several(partitions), count = partitions.len(),
            "partitions are revoked: the consumer waits until the reader has completed their records"
        );
    }

    pub(super) fn lost(&self, partitions: &[TopicPartition], cause: &str) {
        event!(
            WARN, *self.origin, member = &*clean(&self.identity.member_id), generation = self.identity.generation, cause,
            partitions = %several(partitions), count = partitions.len(),
            "partitions are lost, perhaps to other members: records read but not committed are read again"
        );
    }

    /// Logs the leave of a member without partitions, which reports no lost partitions.
    pub(super) fn left(&self, cause: &str) {
        event!(
            WARN,
            *self.origin,
            member = &*clean(&self.identity.member_id),
            generation = self.identity.generation,
            cause,
            "the member left its group; it joins again on its reader's next poll"
        );
    }

    pub(super) fn awaits_poll(&self, error: &Error, suppressed: u64) {
        event!(
            WARN, *self.origin, member = &*clean(&self.identity.member_id), %error, suppressed,
            "the consumer is out of its group; it tries to join on its reader's next poll"
        );
    }

    pub(super) fn ended(&self, error: &Error) {
        event!(
            ERROR, *self.origin, member = &*clean(&self.identity.member_id), generation = self.identity.generation, %error,
            "the consumer is out of its group for good and has ended: close it, and create a new one when the cause is fixed"
        );
    }

    pub(super) fn join_fails(&self, error: &Error, lasting: Lasting) {
        event!(
            WARN, *self.origin, member = &*clean(&self.identity.member_id), %error, outage_s = lasting.duration.as_secs(),
            attempts = lasting.attempts,
            "the group cannot be joined; the consumer tries again, after retry.backoff.max.ms at the latest"
        );
    }

    pub(super) fn join_succeeds_again(&self, lasting: Lasting) {
        let outage_s = lasting.duration.as_secs();
        event!(INFO, *self.origin, outage_s, attempts = lasting.attempts, "the group can be joined again");
    }

    pub(super) fn heartbeats_answered_again(&self, lasting: Lasting) {
        let outage_s = lasting.duration.as_secs();
        event!(INFO, *self.origin, outage_s, attempts = lasting.attempts, "heartbeats are answered again");
    }
}
