//! The current state of a worker.

use std::{collections::BTreeMap, time::Duration};

use super::ExactlyOnceStatus;
use crate::{consumer::ConsumerStatus, error::Error, record::TopicPartition};

/// The current state of a worker, from [`Worker::status`](super::Worker::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Running, closing or ended.
    pub state: WorkerState,
    /// Running handlers, the longest-running first. A handler that hangs is first in this list.
    pub running: Vec<RunningJob>,
    /// Partitions that the worker handles.
    pub partitions: BTreeMap<TopicPartition, WorkerPartition>,
    /// The last error that did not end the worker: of the consumer, or of a delivery to the dead
    /// letter topic.
    pub last_error: Option<Error>,
    /// State of the consumer.
    pub consumer: ConsumerStatus,
    /// State of the transactions, of an exactly-once worker.
    pub exactly_once: Option<ExactlyOnceStatus>,
}

/// The phase of a worker's life.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WorkerState {
    /// The worker reads records and handles them.
    Running,
    /// The worker begins no more records: handlers finish, then completed records are committed and
    /// the group is left.
    Closing,
    /// The worker has ended, with this error if there is one.
    Ended(Option<Error>),
}

/// A record, or a batch of records, that a handler is processing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningJob {
    /// The partition of the records.
    pub partition: TopicPartition,
    /// The offset of the first record.
    pub offset: i64,
    /// The number of records: one, unless the handler takes batches.
    pub records: usize,
    /// The number of the attempt, counted from 1.
    pub attempt: u32,
    /// True if the handler has failed and the records are on their way to the dead letter topic.
    pub dead_lettering: bool,
    /// True if the handler was told to end, because the records no longer belong to this worker,
    /// and has not reached an `.await` since.
    pub cancelled: bool,
    /// The time for which the attempt has run.
    pub for_how_long: Duration,
}

/// A partition that a worker handles.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerPartition {
    /// Records that wait for their turn.
    pub waiting: usize,
    /// Jobs that run: records, or batches.
    pub running: usize,
    /// Records that wait for a retry, of the handler or of their delivery to the dead letter topic.
    pub retrying: usize,
    /// Offset after the last record that is done together with all records before it; `None` before
    /// the first.
    pub done: Option<i64>,
    /// True if the partition is given up once its running jobs have ended.
    pub draining: bool,
}
