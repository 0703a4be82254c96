//! How much waits for a partition or a broker, as far as the choice of the next partition has to
//! know.
//!
//! These are hints: who reads one a moment too early chooses a little worse and nothing else.
//!
//! Sans-IO.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

/// A partition's batches that are not on their way: apart from the partition itself, whose lock is
/// busy.
#[derive(Debug, Default)]
pub(crate) struct PartitionLoad {
    /// In the accumulator, the open one included; written under its lock, once a batch.
    accumulated: AtomicU32,
    /// At the sender, to be sent again; written by the sender.
    again: AtomicU32,
}

impl PartitionLoad {
    pub(crate) fn set_accumulated(&self, batches: usize) {
        self.accumulated.store(u32::try_from(batches).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    pub(crate) fn set_again(&self, batches: usize) {
        self.again.store(u32::try_from(batches).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// All that wait.
    pub(crate) fn batches(&self) -> u32 {
        self.accumulated.load(Ordering::Relaxed).saturating_add(self.again.load(Ordering::Relaxed))
    }
}

/// Whether a broker takes what there is for it; shared by all partitions that it leads.
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
