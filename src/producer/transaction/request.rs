//! The requests of a transaction and their answers, apart from their encoding.
//!
//! Sans-IO.

use std::sync::Arc;

use super::answers::TransactionApi;
use crate::{
    error::{Error, ErrorCode},
    producer::idempotence::ProducerId,
    record::{GroupMetadata, OffsetAndMetadata, TopicPartition},
};

/// A call of the user that waits for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CallId(pub(crate) u64);

/// One attempt of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct AttemptId(pub(crate) u64);

#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// Without a producer: takes over the transactional id. With one: raises its epoch.
    InitProducerId(Option<ProducerId>),
    AddPartitions(ProducerId, Vec<TopicPartition>),
    AddOffsets(ProducerId, Arc<str>),
    TxnOffsetCommit(ProducerId, GroupMetadata, Vec<(TopicPartition, OffsetAndMetadata)>),
    EndTxn {
        producer: ProducerId,
        commit: bool,
    },
}

impl Request {
    pub(crate) fn api(&self) -> TransactionApi {
        match self {
            Self::InitProducerId(_) => TransactionApi::InitProducerId,
            Self::AddPartitions(..) => TransactionApi::AddPartitions,
            Self::AddOffsets(..) => TransactionApi::AddOffsets,
            Self::TxnOffsetCommit(..) => TransactionApi::TxnOffsetCommit,
            Self::EndTxn { commit: true, .. } => TransactionApi::EndTxnCommit,
            Self::EndTxn { commit: false, .. } => TransactionApi::EndTxnAbort,
        }
    }
}

/// An answer of a coordinator.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// An error code for the whole request.
    Code(ErrorCode),
    /// The identity that InitProducerId, or EndTxn from version 5 on, assigns.
    Assigned { id: i64, epoch: i16 },
    /// The code of each partition of AddPartitionsToTxn or TxnOffsetCommit.
    Partitions(Vec<(TopicPartition, ErrorCode)>),
}

/// An attempt that got no answer.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The request was written, or may have been: the coordinator may still handle it.
    Lost(Error),
    /// The request was not written.
    Unsent(Error),
    /// The coordinator's look-up was refused; the request was not written.
    LookUp(ErrorCode),
}
