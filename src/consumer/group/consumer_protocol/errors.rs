//! The consequence of each error for a member.
//!
//! Kafka's Java client ends for good at errors that its user has to correct; here the error is
//! reported to the reader, and the member tries again on the reader's next poll, as in the classic
//! protocol.
//!
//! Sans-IO.

use crate::error::{Error, ErrorCode, ErrorKind};

/// The consequence of a heartbeat that failed to join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinErrorAction {
    /// The consumer ends, as with [`End`](Self::End). Like Java's client: another attempt would
    /// find the group full as well.
    EndGroupIsFull,
    /// The consumer ends.
    End,
    /// The member joins again at once (a few times).
    JoinAgain,
    /// The member leaves under its instance id, and joins again after a backoff.
    ReleaseInstanceId,
    /// The member joins again after a backoff.
    JoinAfterBackoff,
    /// The member joins again when the reader polls.
    AwaitPoll,
}

/// Returns the consequence of a failed ConsumerGroupHeartbeat that joins, for each error.
pub(super) fn join_error_action(error: &Error) -> JoinErrorAction {
    match error.code() {
        Some(ErrorCode::GROUP_MAX_SIZE_REACHED) => JoinErrorAction::EndGroupIsFull,
        _ if error.is_fatal() => JoinErrorAction::End,
        Some(ErrorCode::FENCED_MEMBER_EPOCH | ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::STALE_MEMBER_EPOCH) => {
            JoinErrorAction::JoinAgain
        }
        // The instance id belongs to another member, which may time out; or to this one, which was
        // fenced, or which joined without receiving the response: then the leave releases it.
        Some(ErrorCode::UNRELEASED_INSTANCE_ID) => JoinErrorAction::ReleaseInstanceId,
        _ if error.is_retriable() => JoinErrorAction::JoinAfterBackoff,
        _ => JoinErrorAction::AwaitPoll,
    }
}

/// The consequence of a heartbeat that failed in a member's epoch, and of a refused commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberErrorAction {
    /// The consumer ends, as with [`End`](Self::End).
    EndGroupIsFull,
    /// The consumer ends.
    End,
    /// All partitions are lost, and the member joins again.
    LosePartitions,
    /// The member stays, and its next heartbeat sends all fields.
    Stay,
}

/// Returns the consequence of a failed ConsumerGroupHeartbeat of a member, for each error.
pub(super) fn heartbeat_error_action(error: &Error) -> MemberErrorAction {
    match error.code() {
        Some(ErrorCode::GROUP_MAX_SIZE_REACHED) => MemberErrorAction::EndGroupIsFull,
        _ if error.is_fatal() => MemberErrorAction::End,
        Some(
            ErrorCode::FENCED_MEMBER_EPOCH
            | ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::STALE_MEMBER_EPOCH
            // The group was deleted, and its members with it.
            | ErrorCode::GROUP_ID_NOT_FOUND,
        ) => MemberErrorAction::LosePartitions,
        _ => MemberErrorAction::Stay,
    }
}

/// Returns the consequence of a failed OffsetCommit for each error.
pub(super) fn commit_error_action(error: &Error) -> MemberErrorAction {
    match error.code() {
        _ if error.is_fatal() => MemberErrorAction::End,
        Some(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND) => MemberErrorAction::LosePartitions,
        // The epoch is over: the next heartbeat brings the new one.
        _ => MemberErrorAction::Stay,
    }
}

/// Returns true if a ConsumerGroupHeartbeat that leaves has succeeded, by its code. After any other
/// code it is repeated if that is retriable, and else reported.
pub(super) fn has_left(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::NONE
            // The coordinator does not know the member (any more).
            | ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::GROUP_ID_NOT_FOUND
            // Another member has replaced it.
            | ErrorCode::FENCED_MEMBER_EPOCH
            | ErrorCode::FENCED_INSTANCE_ID
    )
}

/// Adds the likely cause to an error that a retry does not fix.
pub(super) fn explain(error: Error, group: &str) -> Error {
    if error.kind() == ErrorKind::UnsupportedVersion {
        return error.context(format_args!(
            "group {group} cannot be joined by the consumer protocol, which the cluster does not have or has switched off; \
             use group.protocol=classic"
        ));
    }
    if error.code() == Some(ErrorCode::GROUP_ID_NOT_FOUND) {
        return error.context(format_args!(
            "group {group} is of another type, and cannot be moved to the consumer protocol while it has members"
        ));
    }
    error
}
