//! The state of a transactional producer as plain data.

use std::time::Instant;

use super::{
    manager::{State, TransactionManager},
    outcome::Outcome,
    protocol::Protocol,
};
use crate::error::Error;

/// The state of a transactional producer at one time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TransactionStatus {
    /// The state of the producer and of its transaction.
    pub state: TransactionState,
    /// The producer id that the coordinator has assigned.
    pub producer_id: Option<i64>,
    /// The epoch of that id. Another instance with the same `transactional.id` gets a higher one.
    pub producer_epoch: Option<i16>,
    /// The number of the last transaction that was begun, counted from 1 for each producer; 0
    /// before the first.
    pub number: u64,
    /// The protocol of the transaction that runs: 2 if brokers add partitions and groups to it
    /// themselves (`transaction.version` 2, KIP-890), otherwise 1; `None` while none runs.
    pub protocol: Option<u8>,
    /// The time at which the transaction that runs was begun. The coordinator aborts it
    /// `transaction.timeout.ms` after its first write.
    pub since: Option<Instant>,
    /// The first cause for which the transaction that runs cannot commit.
    pub failure: Option<Error>,
    /// The request to a coordinator that is being repeated, because it had no final answer yet.
    pub repeated: Option<RepeatedRequest>,
}

/// A request to a coordinator that is being repeated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RepeatedRequest {
    /// The number of attempts that have failed.
    pub failures: u32,
    /// The error of the last attempt; it names the request.
    pub last_error: Error,
    /// The time of the first attempt.
    pub since: Instant,
}

/// The state of a transactional producer and of its transaction.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum TransactionState {
    /// The coordinator has not been asked for a producer id yet.
    Uninitialized,
    /// The coordinator is being asked for a producer id or its next epoch.
    Initializing,
    /// No transaction runs.
    Ready,
    /// A transaction runs and takes records.
    Open,
    /// The transaction has failed. The program has not ended it yet.
    Failed,
    /// A commit waits for the results of records and offsets.
    Flushing,
    /// An abort waits until no request of the transaction is on its way.
    Draining,
    /// The coordinator is being asked to commit.
    Committing,
    /// The coordinator is being asked to abort.
    Aborting,
    /// The producer cannot be used any more, for this reason.
    Fatal(Error),
}

impl TransactionStatus {
    /// Returns the state of a producer that was just built.
    pub(crate) fn uninitialized() -> Self {
        Self {
            state: TransactionState::Uninitialized,
            producer_id: None,
            producer_epoch: None,
            number: 0,
            protocol: None,
            since: None,
            failure: None,
            repeated: None,
        }
    }

    pub(crate) fn of(manager: &TransactionManager) -> Self {
        let (identity, current) = (manager.identity(), manager.current());
        Self {
            state: match manager.state() {
                State::Uninitialized => TransactionState::Uninitialized,
                State::Initializing => TransactionState::Initializing,
                State::Ready => TransactionState::Ready,
                State::Open => TransactionState::Open,
                State::Failed => TransactionState::Failed,
                State::Flushing => TransactionState::Flushing,
                State::Draining => TransactionState::Draining,
                State::Committing => TransactionState::Committing,
                State::Aborting => TransactionState::Aborting,
                State::Fatal(error) => TransactionState::Fatal(error.clone()),
            },
            producer_id: identity.map(|producer| producer.id),
            producer_epoch: identity.map(|producer| producer.epoch),
            number: manager.number(),
            protocol: current.map(|current| match current.protocol {
                Protocol::V1 => 1,
                Protocol::V2 => 2,
            }),
            since: current.map(|current| current.began),
            failure: current.and_then(|current| match &current.outcome {
                Some(Outcome::Aborted(cause)) => cause.clone(),
                Some(Outcome::Unknown(cause)) => Some(cause.clone()),
                Some(Outcome::Committed) | None => None,
            }),
            repeated: manager.repeated().and_then(|exchange| {
                Some(RepeatedRequest {
                    failures: exchange.failures(),
                    last_error: exchange.last_error()?.clone(),
                    since: exchange.began,
                })
            }),
        }
    }
}
