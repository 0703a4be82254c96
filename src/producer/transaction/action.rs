//! The commands, replies and notices of the transaction manager.
//!
//! Sans-IO.

use std::sync::Arc;

use super::{
    outcome::Outcome,
    partitions::Slot,
    protocol::Protocol,
    request::{AttemptId, CallId, Request},
};
use crate::{
    cluster::VersionBounds,
    error::{Error, Result},
    producer::idempotence::ProducerId,
};

/// A command for the task, the sender or the user's calls.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Sends a request once, and reports its answer or its failure with the attempt.
    Send {
        attempt: AttemptId,
        request: Request,
        versions: VersionBounds,
    },
    /// Looks the transaction's coordinator up again before the next request.
    ForgetTransactionCoordinator,
    ForgetGroupCoordinator(Arc<str>),
    /// Stamps the batches of the transaction that begins.
    SetIdentity {
        producer: ProducerId,
        number: u64,
        protocol: Protocol,
    },
    /// Allows batches of these partitions to be sent in the transaction with that number (first
    /// protocol).
    PartitionsAdded(u64, Vec<Slot>),
    /// Refuses records of the transaction from now on, and reports
    /// [`idle`](super::manager::TransactionManager::idle) once none is without a result.
    CloseGate,
    /// Sends what has gathered, without waiting for `linger.ms`.
    FlushAll,
    /// Fails the records that are not in flight, and refuses others; with the first cause, or none
    /// if the user aborted.
    FailUnsent(Option<Error>),
    Reply(CallId, Reply),
    Notice(Notice),
}

/// The result of a call.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Initialized(Result<()>),
    /// The number of the transaction that was begun.
    Began(Result<u64>),
    Offsets(Result<()>),
    /// The result of a commit.
    Ended(Outcome),
    /// The transaction will not commit, and its end is confirmed or left to the coordinator's
    /// timeout.
    Aborted(Result<()>),
    Closed,
}

/// An event for the log.
#[derive(Clone, Debug)]
pub(crate) enum Notice {
    Initialized(ProducerId),
    /// A transaction failed and is aborted.
    Failed {
        number: u64,
        cause: Error,
    },
    OutcomeUnknown {
        number: u64,
        cause: Error,
    },
    /// EndTxn answered an identity that cannot follow; InitProducerId decides before the next
    /// transaction.
    UnexpectedIdentity {
        sent: ProducerId,
    },
    ProtocolChanged(Protocol),
    /// The transaction is older than `transaction.timeout.ms`: the coordinator may have aborted it.
    Overdue {
        number: u64,
    },
    ProducerFailed(Error),
}
