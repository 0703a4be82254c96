//! Jobs of handler tasks, and their outcomes.
//!
//! Sans-IO.

use std::{sync::Arc, time::Duration};

use super::PartitionId;
use crate::{error::Error, record::ConsumerRecord};

/// The records of a job.
#[derive(Clone, Debug)]
pub(in crate::worker) enum Load {
    One(ConsumerRecord),
    Many(Arc<[ConsumerRecord]>),
}

impl Load {
    pub(in crate::worker) fn records(&self) -> &[ConsumerRecord] {
        match self {
            Self::One(record) => std::slice::from_ref(record),
            Self::Many(records) => records,
        }
    }
}

/// The action for the records of a job.
#[derive(Clone, Debug)]
pub(in crate::worker) enum Task {
    Handle,
    /// Sends them to the dead letter topic, because of this error.
    DeadLetter(Error),
    /// Nothing: they failed in an earlier transaction, and count as done.
    Skip,
}

/// Records of one queue that are handled together.
#[derive(Debug)]
pub(in crate::worker) struct Job {
    pub(in crate::worker) partition: PartitionId,
    pub(super) queue: usize,
    /// The slot of its first record.
    pub(super) first: u64,
    pub(in crate::worker) load: Load,
    /// Number of handler calls, including this one.
    pub(in crate::worker) attempt: u32,
    /// Number of failed deliveries to the dead letter topic.
    pub(super) buried: u32,
    pub(in crate::worker) task: Task,
}

/// The outcome of a handler task's attempt.
#[derive(Debug)]
pub(in crate::worker) enum Outcome {
    Handled,
    /// The handler failed; `again` is true if another attempt may help.
    Failed {
        error: Error,
        again: bool,
    },
    Buried,
    Skipped,
    BuryingFailed(Error),
    Cancelled,
    /// It failed because its transaction fails, and not because of its records.
    Refused,
}

/// The decision on a finished job, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Verdict {
    Done,
    Again(Duration),
    ToTheDeadLetters,
    Skipped,
    Stopped,
    /// Its records are read again by the partition's next owner.
    Abandoned,
    /// Its records are read again, because its transaction does not commit.
    Undone,
}
