//! The tasks and readers to wake after a change of the state.

use crate::consumer::{buffer::partition_buffer::Decompression, fetch::connection_id::FetchConnectionId};
use std::{collections::BTreeSet, task::Waker};

/// Whom to wake after a change.
#[derive(Debug, Default)]
pub(crate) struct Wakeups {
    /// Brokers, and connections to them, from which something else is to be fetched.
    pub(crate) connections: BTreeSet<FetchConnectionId>,
    /// The consumer's own task: questions to ask, brokers to begin with.
    pub(crate) task: bool,
    /// Those who wait for a position.
    pub(crate) position_waiters: bool,
    pub(crate) reader: Option<Waker>,
    /// Readers of partitions that are split off.
    pub(crate) readers: Vec<Waker>,
    pub(crate) decompressions: Vec<Decompression>,
}
