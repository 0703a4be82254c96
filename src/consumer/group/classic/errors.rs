//! The consequence of each error for a classic member, by the rules of Kafka's Java client.
//!
//! Sans-IO.

use crate::error::{Error, ErrorCode};

/// The consequence of a failed JoinGroup or SyncGroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JoinErrorAction {
    /// The consumer ends, as with [`End`](Self::End). Like Java's client: another attempt would
    /// find the group full as well.
    EndGroupIsFull,
    /// The consumer ends.
    End,
    /// All partitions are lost, and the member joins without its id.
    JoinAsNewMember,
    /// The member joins again at once (a few times), without its generation.
    JoinWithoutGeneration,
    /// The member joins again at once (a few times).
    JoinAgain,
    /// The member joins again after a backoff.
    JoinAfterBackoff,
    /// All partitions are lost, and the member joins again when the reader polls.
    AwaitPoll,
}

/// Returns the consequence of a failed JoinGroup or SyncGroup for each error.
///
/// MEMBER_ID_REQUIRED is no error here but an outcome: the member joins again with the id.
pub(super) fn join_error_action(error: &Error) -> JoinErrorAction {
    match error.code() {
        Some(ErrorCode::GROUP_MAX_SIZE_REACHED) => JoinErrorAction::EndGroupIsFull,
        _ if error.is_fatal() => JoinErrorAction::End,
        Some(ErrorCode::UNKNOWN_MEMBER_ID) => JoinErrorAction::JoinAsNewMember,
        Some(ErrorCode::ILLEGAL_GENERATION) => JoinErrorAction::JoinWithoutGeneration,
        Some(ErrorCode::REBALANCE_IN_PROGRESS) => JoinErrorAction::JoinAgain,
        _ if error.is_retriable() => JoinErrorAction::JoinAfterBackoff,
        _ => JoinErrorAction::AwaitPoll,
    }
}

/// The consequence of a failed Heartbeat or OffsetCommit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberErrorAction {
    /// A stable member revokes, and joins the next generation.
    Rebalance,
    /// The coordinator has begun the generation that the member is joining. If a heartbeat finds
    /// that twice, the response to the JoinGroup is lost, and the member joins again.
    AwaitJoin,
    /// The consumer ends.
    End,
    /// All partitions are lost, and the member joins without its id.
    JoinAsNewMember,
    /// All partitions are lost, and the member joins with its id.
    LosePartitions,
    /// The member stays: a heartbeat is repeated after a backoff, a commit decides for itself.
    Stay,
}

/// Returns the consequence of a failed Heartbeat or OffsetCommit for each error, for a member in
/// its generation and for one that is still joining it.
pub(super) fn member_error_action(error: &Error, in_generation: bool) -> MemberErrorAction {
    match error.code() {
        Some(ErrorCode::REBALANCE_IN_PROGRESS) => MemberErrorAction::Rebalance,
        Some(ErrorCode::ILLEGAL_GENERATION) if !in_generation => MemberErrorAction::AwaitJoin,
        _ if error.is_fatal() => MemberErrorAction::End,
        // From OffsetCommit v9 on the second code is returned if the group is unknown.
        Some(ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::GROUP_ID_NOT_FOUND) => MemberErrorAction::JoinAsNewMember,
        Some(ErrorCode::ILLEGAL_GENERATION) => MemberErrorAction::LosePartitions,
        _ => MemberErrorAction::Stay,
    }
}

/// Returns true if a LeaveGroup with this code has succeeded. After any other code it is repeated
/// if that is retriable, and else reported.
pub(super) fn has_left(code: ErrorCode) -> bool {
    // A member that the coordinator does not know (any more) has left.
    matches!(code, ErrorCode::NONE | ErrorCode::UNKNOWN_MEMBER_ID)
}
