//! The settings that the schedule decides by.

use std::time::Duration;

use crate::{cluster::Backoff, worker::settings::Failed};

/// What decides has to know of the settings.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Jobs at a time.
    pub(crate) concurrency: usize,
    /// Of each partition; more than one spreads its keys.
    pub(crate) queues: usize,
    /// The most records of one job, where jobs are batches.
    pub(crate) batch: Option<usize>,
    /// How long a batch that is not full waits for more records, from when its first one came.
    pub(crate) linger: Duration,
    /// Of each partition.
    pub(crate) buffer_records: usize,
    /// Of all partitions together.
    pub(crate) buffer_bytes: usize,
    /// How often a job is tried again.
    pub(crate) retries: u32,
    pub(crate) backoff: Backoff,
    pub(crate) failed: Failed,
    /// `max.poll.interval.ms`, where there is a group.
    pub(crate) patience: Option<Duration>,
}
