//! The settings by which the schedule decides.

use std::time::Duration;

use crate::{cluster::Backoff, worker::settings::Failed};

/// The settings by which the schedule decides.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Maximum number of jobs that run at a time.
    pub(crate) concurrency: usize,
    /// Ordered queues of each partition; more than one spreads its keys.
    pub(crate) queues: usize,
    /// Maximum number of records of a job, if jobs are batches.
    pub(crate) batch: Option<usize>,
    /// Time that a batch that is not full waits for more records, from the arrival of its first
    /// one.
    pub(crate) linger: Duration,
    /// Records of each partition that may be buffered.
    pub(crate) buffer_records: usize,
    /// Bytes of all partitions together that may be buffered.
    pub(crate) buffer_bytes: usize,
    /// Number of times that a job is tried again.
    pub(crate) retries: u32,
    pub(crate) backoff: Backoff,
    pub(crate) failed: Failed,
    /// `max.poll.interval.ms`, if there is a group.
    pub(crate) patience: Option<Duration>,
}
