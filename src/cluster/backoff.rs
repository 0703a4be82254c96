//! Exponential backoff.
//!
//! Sans-IO.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// Shortest wait. A wait of zero would turn a loop that backs off into one that spins.
const SHORTEST: Duration = Duration::from_millis(1);

/// Exponential backoff with jitter (KIP-580): `min(max, U[0.8, 1.2] · initial · 2^n)`.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    initial: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max: max.max(initial), attempts: 0 }
    }

    /// Returns a backoff with a shorter first wait and the same maximum.
    pub(crate) fn starting_at(&self, initial: Duration) -> Self {
        Self::new(initial.min(self.initial), self.max)
    }

    /// Returns the first wait, without jitter.
    pub(crate) fn first(&self) -> Duration {
        self.initial
    }

    /// Returns the wait before the next attempt, at least a millisecond, and counts the attempt.
    pub(crate) fn next(&mut self, rng: &mut StdRng) -> Duration {
        let wait = self.after(self.attempts, rng);
        self.attempts = self.attempts.saturating_add(1);
        wait
    }

    /// Returns the wait after `attempts` failures, for callers that keep their own counter.
    pub(crate) fn after(&self, attempts: u32, rng: &mut StdRng) -> Duration {
        // 2^31 times any duration above zero exceeds every sensible limit.
        let factor = 1_u32 << attempts.min(31);
        let exponential = self.initial.saturating_mul(factor).min(self.max);
        let jittered = exponential.as_secs_f64() * rng.random_range(0.8..=1.2);
        Duration::try_from_secs_f64(jittered).unwrap_or(self.max).min(self.max).max(SHORTEST)
    }

    /// Starts from the first wait again, after a success.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn backoff_doubles_with_jitter_up_to_maximum() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for expected in [100, 200, 400, 800] {
            let wait = backoff.next(&mut rng).as_millis();
            assert!((expected * 8 / 10..=expected * 12 / 10).contains(&wait), "{wait} for {expected}");
        }
        let late = (0..100).map(|_| backoff.next(&mut rng)).collect::<Vec<_>>();
        assert!(late.iter().all(|wait| (800..=1000).contains(&wait.as_millis())));
        assert!(late.iter().any(|wait| wait.as_millis() != 1000), "the jitter applies at the maximum too");
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_millis(120));
    }

    #[test]
    fn extremes_neither_overflow_nor_spin() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut none = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(none.next(&mut rng), SHORTEST);
        let mut huge = Backoff::new(Duration::MAX, Duration::MAX);
        for _ in 0..40 {
            assert!(huge.next(&mut rng) > Duration::from_secs(1_000_000));
        }
    }
}
