//! A partition that is split off: its identity, and what its reader waits for.

use crate::{error::Error, record::TopicPartition};
use std::{task::Waker, time::Instant};

/// Which splitting of which partition: one that was undone, or whose partition came back later, is
/// another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SplitId {
    pub(crate) partition: TopicPartition,
    pub(crate) id: u64,
}

/// That a partition is split off, and what its reader waits for.
#[derive(Debug)]
pub(crate) struct SplitReader {
    pub(crate) id: u64,
    /// Waits for records.
    pub(crate) waker: Option<Waker>,
    /// About when it last asked.
    pub(crate) last_asked_at: Option<Instant>,
    pub(crate) errors: Vec<Error>,
}

impl SplitReader {
    /// Whether its reader waits for something right now.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waker.is_some()
    }
}
