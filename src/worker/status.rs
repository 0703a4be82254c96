//! What a worker does at the moment.

use std::{collections::BTreeMap, time::Duration};

use crate::{consumer::ConsumerStatus, error::Error, record::TopicPartition};

/// What a worker does and waits for, from [`Worker::status`](super::Worker::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerStatus {
    /// Whether it works.
    pub state: WorkerState,
    /// What handlers are at, the one that has been at it for longest first. One that hangs is the
    /// first here.
    pub running: Vec<RunningJob>,
    /// The partitions that it works on.
    pub partitions: BTreeMap<TopicPartition, WorkerPartition>,
    /// The last error that it went on after, if there was one: of the consumer, or of a delivery to
    /// the dead letters.
    pub last_error: Option<Error>,
    /// What the consumer waits for.
    pub consumer: ConsumerStatus,
}

/// Whether a worker works.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WorkerState {
    /// It takes records and handles them.
    Running,
    /// It begins nothing more: handlers finish, then what is done is committed and the group is
    /// left.
    Closing,
    /// It has ended, by this error if there is one.
    Ended(Option<Error>),
}

/// A record, or a batch of them, that a handler is at.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningJob {
    /// Where the records are from.
    pub partition: TopicPartition,
    /// The offset of the first of them.
    pub offset: i64,
    /// How many there are: one, unless the handler takes batches.
    pub records: usize,
    /// Which attempt it is, counted from 1.
    pub attempt: u32,
    /// The handler has failed, and the records are on their way to the dead letters.
    pub dead_lettering: bool,
    /// The handler was told to end, because the records are no longer this worker's, and has not
    /// come to an `.await` since.
    pub cancelled: bool,
    /// How long it has been at them.
    pub for_how_long: Duration,
}

/// A partition as a worker has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerPartition {
    /// Records that wait for their turn.
    pub waiting: usize,
    /// Jobs that run: records, or batches.
    pub running: usize,
    /// Records that wait until they are tried again, by the handler or on their way to the dead
    /// letters.
    pub retrying: usize,
    /// Behind the last record that is done with all before it; `None` before the first.
    pub done: Option<i64>,
    /// It is to be given up, once what runs has ended.
    pub draining: bool,
}
