//! Bounds the failures of transactions that repeating may not cure.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use crate::cluster::Backoff;

/// The first wait after a failed transaction, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Counts failures in a sliding window of time.
#[derive(Debug)]
pub(crate) struct Recoveries {
    /// Number of failures within the window that are survived.
    bound: usize,
    window: Duration,
    failures: VecDeque<Instant>,
    backoff: Backoff,
}

impl Recoveries {
    pub(crate) fn new(bound: usize, window: Duration) -> Self {
        Self { bound, window, failures: VecDeque::new(), backoff: Backoff::new(BACKOFF.0, BACKOFF.1) }
    }

    /// Counts a failure; returns true if there were more than may be survived.
    pub(crate) fn exceeds_bound(&mut self, now: Instant) -> bool {
        self.failures.push_back(now);
        while self.failures.front().is_some_and(|first| now.saturating_duration_since(*first) > self.window) {
            self.failures.pop_front();
        }
        self.failures.len() > self.bound
    }

    /// Returns the wait before the next transaction, after a failure.
    pub(crate) fn wait(&mut self, rng: &mut StdRng) -> Duration {
        self.backoff.next(rng)
    }

    /// Starts from the first wait again, because a transaction was committed. Counted failures
    /// stay: two producers that fence each other may each commit now and then.
    pub(crate) fn reset_wait(&mut self) {
        self.backoff.reset();
    }

    /// Returns the number of failures within the window, up to the last one.
    pub(crate) fn count(&self) -> usize {
        self.failures.len()
    }

    pub(crate) fn window(&self) -> Duration {
        self.window
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn only_failures_within_window_count() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut recoveries = Recoveries::new(2, 10 * second);
        assert!(!recoveries.exceeds_bound(start));
        assert!(!recoveries.exceeds_bound(start + second));
        assert!(!recoveries.exceeds_bound(start + 11 * second), "the first one is too old");
        assert!(recoveries.exceeds_bound(start + 11 * second));
        assert_eq!(recoveries.count(), 3);
    }

    #[test]
    fn commit_shortens_wait_but_keeps_count() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut recoveries = Recoveries::new(2, Duration::from_secs(10));
        recoveries.exceeds_bound(Instant::now());
        let first = recoveries.wait(&mut rng);
        assert!(recoveries.wait(&mut rng) > first);
        recoveries.reset_wait();
        assert!(recoveries.wait(&mut rng) < Duration::from_millis(150));
        assert_eq!(recoveries.count(), 1);
    }
}
