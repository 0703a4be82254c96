//! Transactions of one producer (KIP-98, KIP-360, KIP-447, KIP-890).
//!
//! ```text
//! user calls ──▶ manager ──▶ requests to the coordinators, commands to the sender, replies
//! answers, losses, time ──▶    │ answers: error code ▶ verdict        identity: id and epoch
//! results of records ─────▶    │ partitions, offsets: what is to add   exchange: one request
//! ```
//! `manager` decides; the files beside it hold one rule each. `docs/transactions.md` shows the table
//! of `answers` and is made from it.
#![expect(dead_code, reason = "wired into the producer in the next change")]

mod action;
mod answers;
#[cfg(test)]
mod answers_tests;
mod current;
mod exchange;
mod gate;
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
mod outcome;
mod partitions;
mod protocol;
mod request;
mod shared;
mod status;
mod versions;

pub use status::{TransactionState, TransactionStatus};
