//! Measures the longest time without a result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The time of each partition's last acknowledgement, and the longest interval between two of one
/// partition.
pub(crate) struct Pulse {
    started: Instant,
    /// The partitions, and then one entry for all together. In milliseconds since the start.
    lanes: Vec<Lane>,
}

#[derive(Default)]
struct Lane {
    last: AtomicU64,
    longest: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(partitions: usize) -> Self {
        Self { started: Instant::now(), lanes: (0..=partitions).map(|_| Lane::default()).collect() }
    }

    /// Notes an acknowledgement of this partition.
    pub(crate) fn beat(&self, partition: i32) {
        let now = self.now();
        let partition = usize::try_from(partition).ok().filter(|partition| partition + 1 < self.lanes.len());
        for at in [partition, Some(self.lanes.len() - 1)].into_iter().flatten() {
            let lane = &self.lanes[at];
            let last = lane.last.swap(now, Ordering::Relaxed);
            lane.longest.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        }
    }

    /// Returns the longest time without an acknowledgement since the last call, for all partitions
    /// together and for any single one.
    pub(crate) fn take_longest(&self) -> (Duration, Duration) {
        let now = self.now();
        let mut longest = self.lanes.iter().map(|lane| {
            let so_far = now.saturating_sub(lane.last.load(Ordering::Relaxed));
            Duration::from_millis(lane.longest.swap(0, Ordering::Relaxed).max(so_far))
        });
        let all = longest.next_back().unwrap_or_default();
        (all, longest.max().unwrap_or_default())
    }

    /// Restarts the measurement, as after a time in which nothing was sent.
    pub(crate) fn restart(&self) {
        let now = self.now();
        for lane in &self.lanes {
            lane.last.store(now, Ordering::Relaxed);
            lane.longest.store(0, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
