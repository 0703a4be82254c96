//! The tasks and readers to wake after a change of the state.

use crate::consumer::{buffer::partition_buffer::Decompression, fetch::connection_id::FetchConnectionId};
use std::{collections::BTreeSet, task::Waker};

/// Tasks and readers to wake after a change.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    /// Fetch connections to wake: their next fetch may have changed, or may find room.
    pub(crate) connections: BTreeSet<FetchConnectionId>,
    /// True to wake the consumer's own task: offset requests to send, new brokers to fetch from.
    pub(crate) task: bool,
    /// True to wake the callers that wait for a position or a partition.
    pub(crate) position_waiters: bool,
    pub(crate) reader: Option<Waker>,
    /// Readers of partitions that are split off.
    pub(crate) readers: Vec<Waker>,
    pub(crate) decompressions: Vec<Decompression>,
}
