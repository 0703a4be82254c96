//! Common instants for the retries of many partitions.
//!
//! Each partition's wait has its own jitter. Partitions that fail together would therefore be
//! retried one after the other, in a request each; with their waits rounded up to common instants
//! they share one request.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

/// Distance of the instants for long waits, and for short ones.
const LONG_STEP: Duration = Duration::from_millis(500);
const SHORT_STEP: Duration = Duration::from_millis(100);
/// Shortest wait that counts as long.
const LONG: Duration = Duration::from_millis(400);

/// The instants at which retries may end, counted from a first one. Without a first one waits are
/// not rounded.
#[derive(Clone, Debug, Default)]
pub(crate) struct RetryGrid(Option<Instant>);

impl RetryGrid {
    pub(crate) fn starting(now: Instant) -> Self {
        Self(Some(now))
    }

    /// Starts the grid now if it has not begun.
    pub(crate) fn started(&mut self, now: Instant) -> &Self {
        self.0.get_or_insert(now);
        self
    }

    /// Returns the end of a wait that begins now.
    pub(crate) fn after(&self, now: Instant, wait: Duration) -> Instant {
        let at = now + wait;
        let Some(start) = self.0 else { return at };
        let step = if wait < LONG { SHORT_STEP } else { LONG_STEP };
        let past = at.saturating_duration_since(start).as_nanos() % step.as_nanos();
        match u64::try_from(past) {
            Ok(past @ 1..) => at + (step - Duration::from_nanos(past)),
            _ => at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_at_common_instants() {
        let (start, ms) = (Instant::now(), Duration::from_millis);
        assert_eq!(RetryGrid::default().after(start, ms(850)), start + ms(850));
        let grid = RetryGrid::starting(start);
        for wait in [801, 850, 999, 1000] {
            assert_eq!(grid.after(start, ms(wait)), start + ms(1000));
        }
        for wait in [81, 99, 100] {
            assert_eq!(grid.after(start, ms(wait)), start + ms(100));
        }
        assert_eq!(grid.after(start + Duration::from_micros(333_333), ms(900)), start + ms(1500));
        let mut later = RetryGrid::default();
        later.started(start);
        assert_eq!(later.started(start + ms(7)).after(start, ms(850)), start + ms(1000));
    }
}
