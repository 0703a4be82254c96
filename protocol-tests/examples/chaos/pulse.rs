//! Whether results keep coming, and how long none came.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When each partition's last acknowledgement came, and the longest that one of them had to wait
/// for its next.
pub(crate) struct Pulse {
    started: Instant,
    /// The partitions, and behind them all together. Milliseconds since the start.
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

    /// Something of this partition was acknowledged.
    pub(crate) fn beat(&self, partition: i32) {
        let now = self.now();
        let partition = usize::try_from(partition).ok().filter(|partition| partition + 1 < self.lanes.len());
        for at in [partition, Some(self.lanes.len() - 1)].into_iter().flatten() {
            let lane = &self.lanes[at];
            let last = lane.last.swap(now, Ordering::Relaxed);
            lane.longest.fetch_max(now.saturating_sub(last), Ordering::Relaxed);
        }
    }

    /// The longest silence of all together and of any one partition since this was asked last.
    pub(crate) fn take_longest(&self) -> (Duration, Duration) {
        let now = self.now();
        let mut longest = self.lanes.iter().map(|lane| {
            let so_far = now.saturating_sub(lane.last.load(Ordering::Relaxed));
            Duration::from_millis(lane.longest.swap(0, Ordering::Relaxed).max(so_far))
        });
        let all = longest.next_back().unwrap_or_default();
        (all, longest.max().unwrap_or_default())
    }

    /// Forgets how long nothing came, as when nothing was sent.
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
