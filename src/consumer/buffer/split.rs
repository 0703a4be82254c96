//! Identity and reader of a partition that is split off from the common reader.

use crate::{error::Error, record::TopicPartition};
use std::{task::Waker, time::Instant};

/// Identifies one split of one partition. A new split after a join or a later assignment has
/// another id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitId {
    pub(crate) partition: TopicPartition,
    pub(crate) id: u64,
}

/// The reader of a split-off partition.
#[derive(Debug)]
pub(crate) struct SplitReader {
    pub(crate) id: u64,
    /// Waker of the reader, set while it waits for records.
    pub(crate) waker: Option<Waker>,
    /// Approximate time at which it last asked for records.
    pub(crate) last_asked_at: Option<Instant>,
    pub(crate) errors: Vec<Error>,
}

impl SplitReader {
    /// Returns true if its reader is waiting now.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waker.is_some()
    }
}
