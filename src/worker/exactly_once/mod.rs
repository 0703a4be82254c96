//! Handles records exactly once: outputs and offsets of many records commit in one transaction.
//!
//! ```text
//!               first record        count, bytes, time, revocation      nothing runs
//!  Idle ─▶ Beginning ─▶ Open ──────────────────────────────▶ Closing ──────────────▶ Committing ─▶ Idle
//!   ▲                    │ failed handler, lost partition,      │                        │ aborted,
//!   │                    ▼ failed transaction, too old          ▼                        ▼ unknown
//!   └────────────────── Rewinding ◀──── nothing runs ──── Aborting                   Rewinding
//! ```
//! `cycle` decides when a transaction begins, takes no more records, commits or aborts, and when
//! its records are read again. The schedule asks it before each job.

pub(super) mod builder;
pub(super) mod cycle;
pub(super) mod failed_records;
pub(super) mod handlers;
#[cfg(test)]
mod model_tests;
pub(super) mod outputs;
mod phase;
mod recoveries;
pub(super) mod status;
pub(super) mod transactions;
pub(super) mod transactions_task;

pub use self::{
    builder::ExactlyOnceBuilder,
    handlers::ExactlyOnceHandler,
    outputs::Outputs,
    status::{ExactlyOnceStatus, TransactionPhase},
};
