//! Counts results that arrive in a callback.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The numbers of delivered and of failed records.
#[derive(Clone, Default)]
pub struct Counter(Arc<Counts>);

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Counter {
    /// Counts one more result. Only one thread at a time may call it, so that it needs no locked
    /// instruction.
    #[inline]
    pub fn count(&self, delivered: bool) {
        let counter = if delivered { &self.0.delivered } else { &self.0.failed };
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    pub fn delivered(&self) -> u64 {
        self.0.delivered.load(Ordering::Acquire)
    }

    pub fn failed(&self) -> u64 {
        self.0.failed.load(Ordering::Acquire)
    }
}
