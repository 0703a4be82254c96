//! What runs on a lane, and how it ends.
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

/// What is to be done with them.
#[derive(Clone, Debug)]
pub(in crate::worker) enum Task {
    Handle,
    /// To the dead letters, because of this error.
    Bury(Error),
}

/// Records of one strand that are worked on together.
#[derive(Debug)]
pub(in crate::worker) struct Job {
    pub(in crate::worker) partition: PartitionId,
    pub(super) queue: usize,
    /// The slot of its first record.
    pub(super) first: u64,
    pub(in crate::worker) load: Load,
    /// How often its handler was called, with this time.
    pub(in crate::worker) attempt: u32,
    /// How often that was before it came to the dead letters.
    pub(super) buried: u32,
    pub(in crate::worker) task: Task,
}

/// How a lane's attempt ended.
#[derive(Debug)]
pub(in crate::worker) enum Outcome {
    Handled,
    /// The handler failed; `again` where trying again may help.
    Failed {
        error: Error,
        again: bool,
    },
    Buried,
    BuryingFailed(Error),
    Cancelled,
}

/// What became of a job, for those who tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Verdict {
    Done,
    Again(Duration),
    ToTheDeadLetters,
    Skipped,
    Stopped,
    /// Its records are read again by whoever has the partition next.
    Abandoned,
}
