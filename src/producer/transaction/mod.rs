//! Transactions of one producer (KIP-98, KIP-360, KIP-447, KIP-890).
//!
//! ```text
//! user calls ──▶ manager ──▶ requests to the coordinators, commands to the sender, replies
//! answers, losses, time ──▶    │ answers: error code ▶ verdict        identity: id and epoch
//! results of records ─────▶    │ partitions, offsets: what is to add   exchange: one request
//! ```
//! `manager` decides; the files beside it hold one rule each. `docs/transactions.md` shows the table
//! of `answers` and is made from it.

pub(super) mod action;
mod answers;
#[cfg(test)]
mod answers_tests;
pub(super) mod coordinator_requests;
mod current;
mod exchange;
pub(super) mod gate;
mod identity;
pub(super) mod log;
pub(super) mod manager;
#[cfg(test)]
mod manager_tests;
mod messages;
#[cfg(test)]
mod model_coordinator;
#[cfg(test)]
mod model_tests;
mod offsets;
pub(super) mod outcome;
mod partitions;
pub(super) mod protocol;
pub(super) mod request;
pub(super) mod shared;
pub(super) mod status;
pub(super) mod versions;

pub use status::{TransactionState, TransactionStatus};
