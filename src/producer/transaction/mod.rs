//! Transactions of one producer (KIP-98, KIP-360, KIP-447, KIP-890).
//!
//! ```text
//! user calls ──▶ manager ──▶ requests to the coordinators, commands to the sender, replies
//! answers, losses, time ──▶    │ answers: error code ▶ verdict        identity: id and epoch
//! results of records ─────▶    │ partitions, offsets: what is to add   exchange: one request
//! ```
//! `manager` decides; the files beside it hold one rule each. `docs/transactions.md` shows the
//! table of `answers` and is made from it.
//!
//! The user's side is `producer` and `open`, over `handle`. `shared` is between them and the task.

pub(super) mod action;
mod answers;
#[cfg(test)]
mod answers_tests;
mod builder;
mod commit_error;
pub(super) mod coordinator_requests;
mod current;
mod exchange;
mod failure;
pub(super) mod gate;
pub(super) mod handle;
mod identity;
pub(super) mod log;
pub(super) mod manager;
#[cfg(test)]
mod manager_tests;
mod messages;
mod metrics;
#[cfg(test)]
mod model_coordinator;
#[cfg(test)]
mod model_tests;
mod offsets;
mod open;
pub(super) mod outcome;
mod partitions;
pub(super) mod planted;
mod producer;
pub(super) mod protocol;
pub(super) mod request;
pub(super) mod shared;
pub(super) mod status;
mod transaction_sender;
pub(super) mod versions;

pub use self::{
    builder::TransactionalProducerBuilder,
    commit_error::{CommitError, PendingCommit},
    metrics::TransactionMetrics,
    open::Transaction,
    outcome::Outcome,
    producer::TransactionalProducer,
    status::{RepeatedRequest, TransactionState, TransactionStatus},
    transaction_sender::TransactionSender,
};
