//! Runs a handler for each record. It is built on the consumer, which reads, and the producer,
//! which sends dead letters.
//!
//! ```text
//!  group ─▶ worker_task ─▶ partition_task ─▶ schedule ─▶ handler_task ─▶ done, or dead letter
//!                          (one for each,    (decides)   (one job at
//!                           reads, drains)                a time)
//!                                                             │
//!                                                             └──▶ CompletionMark ─▶ commit
//! ```
//! `schedule` decides which record may run, which records are done, and when a failed record is
//! tried again. `worker_task` follows the group and starts the other tasks. A `partition_task`
//! reads a partition's records and drains the partition when it is revoked. A `handler_task` runs
//! handlers one after the other, so that nothing is started or allocated for a single record.
//! Completed records are reported to the partition's `CompletionMark`, and the consumer commits
//! them like any others.

mod attempt;
mod builder;
mod dead_letter;
mod exactly_once;
mod failure;
mod handler;
mod handler_task;
mod metrics;
mod partition_task;
mod schedule;
mod settings;
mod shared_schedule;
mod status;
#[cfg(all(test, feature = "testkit"))]
mod tests;
#[expect(clippy::module_inception, reason = "the worker is the main type of the module")]
mod worker;
mod worker_task;

pub use builder::WorkerBuilder;
pub use exactly_once::{ExactlyOnceBuilder, ExactlyOnceHandler, ExactlyOnceStatus, Outputs, TransactionPhase};
pub use failure::NonRetriable;
pub use handler::{Handler, HandlerResult};
pub use metrics::WorkerMetrics;
pub use settings::OrderBy;
pub use status::{RunningJob, WorkerPartition, WorkerState, WorkerStatus};
pub use worker::Worker;

use settings::Failed;
