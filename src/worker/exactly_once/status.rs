//! The current state of a worker's transactions.

use std::time::Duration;

use super::phase::Phase;
use crate::{error::Error, producer::TransactionStatus};

/// The transactions of an exactly-once worker, in [`WorkerStatus`](crate::worker::WorkerStatus).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExactlyOnceStatus {
    /// The phase of the present transaction.
    pub phase: TransactionPhase,
    /// Records in the present transaction.
    pub records: u64,
    /// The time since the first record of the present transaction was begun; `None` before it.
    pub for_how_long: Option<Duration>,
    /// Failures within the last `max.poll.interval.ms` that another worker with the same
    /// `transactional.id`, or a transaction that was too old, may have caused. After more than five
    /// the worker ends.
    pub recent_failures: usize,
    /// The error by which the producer before the present one ended: `Fenced` if another producer
    /// uses its `transactional.id`.
    pub last_failure: Option<Error>,
    /// State of the present producer: its id and epoch, and the request that it repeats. `None`
    /// before there is one.
    pub producer: Option<TransactionStatus>,
}

/// The phase of a worker's transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransactionPhase {
    /// No transaction is open: no record is ready, or the last transaction failed just before.
    Idle,
    /// A producer takes over the `transactional.id`.
    Preparing,
    /// Records are handled.
    Open,
    /// No new records are begun; the commit waits for running handlers.
    Closing,
    /// The commit waits for deliveries and for the coordinators.
    Committing,
    /// The transaction is aborted, and waits for the coordinator and for running handlers.
    Aborting,
    /// The records of a transaction that was not committed are about to be read again.
    Rewinding,
    /// The worker ends because of its transactions.
    Failed,
}

impl From<Phase> for TransactionPhase {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Idle => Self::Idle,
            Phase::Preparing => Self::Preparing,
            Phase::Beginning | Phase::Open => Self::Open,
            Phase::Closing => Self::Closing,
            Phase::Complete | Phase::Committing => Self::Committing,
            Phase::Aborting => Self::Aborting,
            Phase::Rewinding => Self::Rewinding,
            Phase::Failed => Self::Failed,
        }
    }
}
