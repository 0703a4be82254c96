//! Limits how often a line is written for the same cause.
//!
//! Sans-IO.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Minimum time between two lines of one cause.
const INTERVAL: Duration = Duration::from_secs(10);
/// Maximum number of causes that are remembered.
const CAUSES: usize = 64;

/// Admits one line in ten seconds for each cause, and counts the suppressed lines.
#[derive(Debug)]
pub(crate) struct Limiter<K>(HashMap<K, Seen>);

#[derive(Clone, Copy, Debug)]
struct Seen {
    admitted: Instant,
    suppressed: u64,
}

impl<K> Default for Limiter<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    /// Returns the number of lines of that cause that were suppressed since the last one, if this
    /// line may be written.
    pub(crate) fn admit(&mut self, cause: K, now: Instant) -> Option<u64> {
        if let Some(seen) = self.0.get_mut(&cause) {
            if now.saturating_duration_since(seen.admitted) < INTERVAL {
                seen.suppressed += 1;
                return None;
            }
            let suppressed = std::mem::take(&mut seen.suppressed);
            seen.admitted = now;
            return Some(suppressed);
        }
        if self.0.len() >= CAUSES {
            let oldest = self.0.iter().min_by_key(|(_, seen)| seen.admitted);
            if let Some(oldest) = oldest.map(|(cause, _)| cause.clone()) {
                self.0.remove(&oldest);
            }
        }
        self.0.insert(cause, Seen { admitted: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn admits_one_line_per_interval_counting_suppressed() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        assert_eq!(limiter.admit("a", start), Some(0));
        for second in 1..10 {
            assert_eq!(limiter.admit("a", start + second * SECOND), None);
        }
        assert_eq!(limiter.admit("b", start + SECOND), Some(0), "another cause has its own line");
        assert_eq!(limiter.admit("a", start + 10 * SECOND), Some(9));
        assert_eq!(limiter.admit("a", start + 11 * SECOND), None);
        assert_eq!(limiter.admit("a", start + 99 * SECOND), Some(1));
    }

    #[test]
    fn evicts_oldest_cause_beyond_capacity() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        for cause in 0..1_000_u32 {
            assert_eq!(limiter.admit(cause, start + cause * SECOND), Some(0));
            assert!(limiter.0.len() <= CAUSES);
        }
    }
}
