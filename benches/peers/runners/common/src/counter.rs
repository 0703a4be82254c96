//! Counts results where they are told by a callback.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How many results there were, of either kind.
#[derive(Clone, Default)]
pub struct Counter(Arc<Counts>);

#[derive(Default)]
struct Counts {
    delivered: AtomicU64,
    failed: AtomicU64,
}

impl Counter {
    /// One more result. To be called by one thread at a time: so it needs no locked instruction.
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
