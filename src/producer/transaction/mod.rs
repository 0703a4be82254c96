//! Transactions of one producer (KIP-98, KIP-360, KIP-447, KIP-890).
//!
//! ```text
//! user calls ──▶ manager ──▶ requests to the coordinators, commands to the sender, replies
//! answers, losses, time ──▶    │ answers: error code ▶ verdict        identity: id and epoch
//! results of records ─────▶    │ partitions, offsets: what is to add   exchange: one request
//! ```
//! `manager` decides; the files beside it hold one rule each. `docs/transactions.md` shows the table
//! of `answers` and is made from it.
//!
//! The user's side is `producer` and `open`, over `handle`. `shared` is between them and the task.
#![expect(dead_code, reason = "wired into the producer in the next change")]

mod action;
mod answers;
#[cfg(test)]
mod answers_tests;
mod builder;
mod commit_error;
mod current;
mod exchange;
mod failure;
mod gate;
mod handle;
mod identity;
mod manager;
#[cfg(test)]
mod manager_tests;
mod messages;
#[cfg(test)]
mod model_coordinator;
#[cfg(test)]
mod model_tests;
mod offsets;
mod open;
mod outcome;
mod partitions;
mod producer;
mod protocol;
mod request;
mod shared;
mod status;
mod transaction_sender;
mod versions;

pub use self::{
    builder::TransactionalProducerBuilder,
    commit_error::{CommitError, PendingCommit},
    open::Transaction,
    outcome::Outcome,
    producer::TransactionalProducer,
    status::{TransactionState, TransactionStatus},
    transaction_sender::TransactionSender,
};
pub(super) use self::{manager::TransactionRules, shared::TransactionShared};
