//! A handler for each record: above the consumer, which reads, and the producer, which takes dead
//! letters.
//!
//! ```text
//!  group ─▶ driver task ─▶ partition task ──▶ schedule ──▶ lane task: handler ─▶ done, or dead letters ─▶ mark ─▶ commit
//!                          (one for each:      (decides)   (one for each job
//!                           takes, drains)                  at a time)
//! ```
//! `schedule` decides which record may run, what is done, and when a failed one is tried again.
//! `worker_task` follows the group and starts the other tasks; a `partition_task` brings a
//! partition's records in and drains it when it is taken back; a `lane_task` runs handlers one
//! after the other, so that nothing is started or allocated for a record. What is done is said to
//! the partition's mark (`consumer/hand`), and the consumer commits it as it commits everything.

mod attempt;
mod builder;
mod dead_letter;
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
#[expect(clippy::module_inception, reason = "the worker is the room's main thing")]
mod worker;
mod worker_task;

pub use builder::WorkerBuilder;
pub use failure::NonRetriable;
pub use handler::{Handler, HandlerResult};
pub use metrics::WorkerMetrics;
pub use settings::OrderBy;
pub use status::{RunningJob, WorkerPartition, WorkerState, WorkerStatus};
pub use worker::Worker;

use settings::Failed;
