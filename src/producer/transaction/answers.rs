//! The meaning of each error code in an answer of a coordinator.
//!
//! `docs/transactions.md` is made from [`verdict`]; `answers_tests` compares the two.
//!
//! Sans-IO.

use super::protocol::Protocol;
use crate::error::ErrorCode;

/// The requests whose answers are judged. EndTxn counts twice, because a refused commit and a
/// refused abort differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TransactionApi {
    FindTransactionCoordinator,
    FindGroupCoordinator,
    InitProducerId,
    AddPartitions,
    AddOffsets,
    TxnOffsetCommit,
    EndTxnCommit,
    EndTxnAbort,
}

/// The effect of an answer. The order is that of severity: of the partitions of one answer, the
/// last counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// The request has succeeded.
    Done,
    /// The partition was left out because of another one in the request.
    OtherPartition,
    /// The request is repeated after the backoff.
    Retry,
    /// Like [`Retry`](Self::Retry), but the first repeats come sooner: the coordinator is about to
    /// finish the previous transaction.
    RetrySoon,
    /// The coordinator is looked up again, then the request is repeated.
    FindCoordinator,
    /// The request is repeated for `delivery.timeout.ms`; then the transaction fails.
    RetryWhileTopicMissing,
    /// The code is not expected here. The request is repeated five times; then
    /// [`after_repeats`] says what follows.
    RetryLimited,
    /// The coordinator has no open transaction. That is the end of a transaction to which nothing
    /// was added; with something added, the producer fails.
    NothingToEnd,
    /// The transaction cannot commit: it is aborted.
    Abort,
    /// Like [`Abort`](Self::Abort), because the group has rebalanced.
    AbortAfterRebalance,
    /// Like [`Abort`](Self::Abort), and the epoch is raised before the next transaction.
    AbortAndBump,
    /// The transaction is over for this producer, and its end is not confirmed: InitProducerId
    /// raises the epoch, which ends it.
    Reset,
    /// The call fails and may be repeated: the producer is as before.
    Refused,
    /// The producer fails: a setting, a permission or a version has to be corrected.
    Configuration,
    /// The producer fails, because another one has replaced it.
    Fenced,
    /// The producer fails.
    Fatal,
}

/// Returns the effect of an error code in an answer.
pub(crate) fn verdict(api: TransactionApi, code: ErrorCode, protocol: Protocol) -> Verdict {
    use TransactionApi as Api;
    use Verdict as V;
    match (code, api) {
        (ErrorCode::NONE, _) => V::Done,

        (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, Api::FindTransactionCoordinator) => V::Refused,
        (ErrorCode::GROUP_AUTHORIZATION_FAILED | ErrorCode::INVALID_GROUP_ID, Api::FindGroupCoordinator) => V::Abort,
        (code, Api::FindTransactionCoordinator | Api::FindGroupCoordinator) => {
            if code.is_retriable() {
                V::Retry
            } else {
                V::RetryLimited
            }
        }

        (ErrorCode::COORDINATOR_NOT_AVAILABLE | ErrorCode::NOT_COORDINATOR, _)
        | (ErrorCode::REQUEST_TIMED_OUT, Api::TxnOffsetCommit) => V::FindCoordinator,

        (ErrorCode::CONCURRENT_TRANSACTIONS, Api::EndTxnCommit | Api::EndTxnAbort) => V::Retry,
        (ErrorCode::CONCURRENT_TRANSACTIONS, _) => V::RetrySoon,

        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID, Api::TxnOffsetCommit) => {
            V::RetryWhileTopicMissing
        }
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID, Api::AddPartitions) => V::Abort,
        (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION | ErrorCode::UNKNOWN_TOPIC_ID, _) => V::Fatal,

        (ErrorCode::OPERATION_NOT_ATTEMPTED, Api::AddPartitions) => V::OtherPartition,
        (ErrorCode::OPERATION_NOT_ATTEMPTED, _) => V::Fatal,

        (ErrorCode::TOPIC_AUTHORIZATION_FAILED, Api::AddPartitions | Api::AddOffsets | Api::TxnOffsetCommit)
        | (ErrorCode::GROUP_AUTHORIZATION_FAILED, Api::AddOffsets | Api::TxnOffsetCommit) => V::Abort,
        (ErrorCode::TOPIC_AUTHORIZATION_FAILED | ErrorCode::GROUP_AUTHORIZATION_FAILED, _) => V::Fatal,

        (
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED,
            Api::InitProducerId,
        ) => V::Refused,
        (ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED | ErrorCode::CLUSTER_AUTHORIZATION_FAILED, _) => {
            V::Configuration
        }

        (ErrorCode::INVALID_TRANSACTION_TIMEOUT, Api::InitProducerId) => V::Configuration,
        (ErrorCode::INVALID_TRANSACTION_TIMEOUT, _) => V::Fatal,

        // Under the second protocol the group coordinator answers these codes also for a
        // transaction that was aborted because of its timeout: the second one if that used up the
        // last epoch of the producer id. The coordinator's answer to the abort tells a timeout from
        // another producer.
        (ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::INVALID_PRODUCER_ID_MAPPING, Api::TxnOffsetCommit)
            if protocol == Protocol::V2 =>
        {
            V::Abort
        }
        (
            ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::INVALID_PRODUCER_ID_MAPPING,
            _,
        ) => V::Fenced,

        // Under the second protocol the transaction has timed out: the coordinator has aborted it,
        // and confirms a repeated abort.
        (ErrorCode::INVALID_TXN_STATE, Api::EndTxnCommit) if protocol == Protocol::V2 => V::Abort,
        (ErrorCode::INVALID_TXN_STATE, Api::EndTxnAbort) if protocol == Protocol::V1 => V::NothingToEnd,
        (ErrorCode::INVALID_TXN_STATE, _) => V::Fatal,

        (ErrorCode::UNKNOWN_PRODUCER_ID, Api::InitProducerId) => V::Fatal,
        (ErrorCode::UNKNOWN_PRODUCER_ID | ErrorCode::TRANSACTION_ABORTABLE, Api::EndTxnAbort) => V::Reset,
        (ErrorCode::UNKNOWN_PRODUCER_ID, _) => V::AbortAndBump,

        (ErrorCode::TRANSACTION_ABORTABLE, Api::InitProducerId) => V::RetryLimited,
        (ErrorCode::TRANSACTION_ABORTABLE, _) => V::Abort,

        (
            ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::FENCED_INSTANCE_ID
            | ErrorCode::STALE_MEMBER_EPOCH
            | ErrorCode::GROUP_ID_NOT_FOUND,
            Api::TxnOffsetCommit,
        ) => V::AbortAfterRebalance,
        (
            ErrorCode::ILLEGAL_GENERATION
            | ErrorCode::UNKNOWN_MEMBER_ID
            | ErrorCode::FENCED_INSTANCE_ID
            | ErrorCode::STALE_MEMBER_EPOCH
            | ErrorCode::GROUP_ID_NOT_FOUND,
            _,
        ) => V::Fatal,

        (
            ErrorCode::OFFSET_METADATA_TOO_LARGE | ErrorCode::INVALID_COMMIT_OFFSET_SIZE | ErrorCode::INVALID_GROUP_ID,
            Api::AddOffsets | Api::TxnOffsetCommit,
        ) => V::Abort,
        (
            ErrorCode::OFFSET_METADATA_TOO_LARGE | ErrorCode::INVALID_COMMIT_OFFSET_SIZE | ErrorCode::INVALID_GROUP_ID,
            _,
        ) => V::Fatal,

        (ErrorCode::UNSUPPORTED_FOR_MESSAGE_FORMAT | ErrorCode::UNSUPPORTED_VERSION, _) => V::Configuration,

        (code, _) if code.is_retriable() => V::Retry,
        _ => V::RetryLimited,
    }
}

/// Returns the effect of a code that was answered once more than
/// [`RetryLimited`](Verdict::RetryLimited) allows.
pub(crate) fn after_repeats(api: TransactionApi) -> Verdict {
    match api {
        TransactionApi::FindTransactionCoordinator | TransactionApi::InitProducerId => Verdict::Fatal,
        TransactionApi::FindGroupCoordinator
        | TransactionApi::AddPartitions
        | TransactionApi::AddOffsets
        | TransactionApi::TxnOffsetCommit
        | TransactionApi::EndTxnCommit => Verdict::Abort,
        TransactionApi::EndTxnAbort => Verdict::Reset,
    }
}
