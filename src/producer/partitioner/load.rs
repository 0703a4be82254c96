//! The load of a partition or a broker, as far as it matters for the choice of the next partition.
//!
//! These are hints: a value that is read slightly too early makes the choice a little worse and has
//! no other effect.
//!
//! Sans-IO.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// Counts a partition's batches that are not in a request. It is separate from the partition,
/// because the partition's lock is busy.
#[derive(Debug, Default)]
pub(crate) struct PartitionLoad {
    /// Batches in the accumulator, including the open one; written under its lock, once for each
    /// batch.
    accumulated: AtomicU32,
    /// Batches at the sender that wait to be sent again; written by the sender.
    again: AtomicU32,
}

impl PartitionLoad {
    pub(crate) fn set_accumulated(&self, batches: usize) {
        self.accumulated.store(u32::try_from(batches).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(crate) fn set_again(&self, batches: usize) {
        self.again.store(u32::try_from(batches).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Returns the number of all waiting batches.
    pub(crate) fn batches(&self) -> u32 {
        self.accumulated.load(Ordering::Relaxed).saturating_add(self.again.load(Ordering::Relaxed))
    }
}

/// True if a broker does not take data; shared by all partitions that it leads.
#[derive(Clone, Debug, Default)]
pub(crate) struct BrokerUnavailable(Arc<AtomicBool>);

impl BrokerUnavailable {
    pub(crate) fn set(&self, clogged: bool) {
        self.0.store(clogged, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
