//! Decides when to log a repeated failure: at its beginning, while it lasts, and at its end.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

/// Minimum time between the first and the second line of an outage, and between the last line of an
/// outage and the first line of the next.
const SOON: Duration = Duration::from_secs(10);
/// Minimum time between any two later lines of an outage.
const LATER: Duration = Duration::from_secs(60);

/// An outage: all attempts at something fail until one succeeds.
#[derive(Clone, Debug)]
pub(crate) struct Outage {
    patience: Duration,
    running: Option<Running>,
    last_line: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    since: Instant,
    attempts: u64,
    lines: u32,
}

/// The duration of an outage, and the number of failed attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lasting {
    pub(crate) duration: Duration,
    pub(crate) attempts: u64,
}

impl Outage {
    /// Makes a log of outages. The first line about an outage is due once it has lasted for
    /// `patience`.
    pub(crate) fn after(patience: Duration) -> Self {
        Self { patience, running: None, last_line: None }
    }

    /// Records a failed attempt. Returns the outage so far, if a line is due.
    pub(crate) fn failed(&mut self, now: Instant) -> Option<Lasting> {
        let running = self.running.get_or_insert(Running { since: now, attempts: 0, lines: 0 });
        running.attempts += 1;
        let duration = now.saturating_duration_since(running.since);
        let wait = if running.lines <= 1 { SOON } else { LATER };
        let paced = self.last_line.is_none_or(|last| now.saturating_duration_since(last) >= wait);
        if duration < self.patience || !paced {
            return None;
        }
        running.lines += 1;
        self.last_line = Some(now);
        Some(Lasting { duration, attempts: running.attempts })
    }

    /// Records a successful attempt. Returns the outage that it ends, if a line was written about
    /// it.
    pub(crate) fn ended(&mut self, now: Instant) -> Option<Lasting> {
        let running = self.running.take().filter(|running| running.lines > 0)?;
        self.last_line = Some(now);
        let duration = now.saturating_duration_since(running.since);
        Some(Lasting { duration, attempts: running.attempts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn lines(outage: &mut Outage, start: Instant, seconds: std::ops::Range<u32>) -> Vec<u32> {
        seconds.filter(|second| outage.failed(start + *second * SECOND).is_some()).collect()
    }

    #[test]
    fn logs_immediately_then_after_increasing_intervals() {
        let (mut outage, start) = (Outage::after(Duration::ZERO), Instant::now());
        assert_eq!(lines(&mut outage, start, 0..200), [0, 10, 70, 130, 190]);
        let ended = outage.ended(start + 200 * SECOND).unwrap();
        assert_eq!(ended, Lasting { duration: 200 * SECOND, attempts: 200 });
        assert_eq!(outage.ended(start + 201 * SECOND), None, "its end is reported once");
    }

    #[test]
    fn logs_nothing_before_threshold_is_reached() {
        let (mut outage, start) = (Outage::after(10 * SECOND), Instant::now());
        assert!(lines(&mut outage, start, 0..10).is_empty());
        assert_eq!(outage.ended(start + 10 * SECOND), None);
        assert_eq!(lines(&mut outage, start, 20..45), [30, 40]);
    }

    #[test]
    fn logs_flapping_at_most_every_ten_seconds() {
        let (mut outage, start) = (Outage::after(Duration::ZERO), Instant::now());
        let mut begun = Vec::new();
        for second in 0..100 {
            if outage.failed(start + second * SECOND).is_some() {
                begun.push(second);
            }
            outage.ended(start + second * SECOND + SECOND / 2);
        }
        assert!(begun.len() <= 10 && begun.windows(2).all(|pair| pair[1] - pair[0] >= 10), "{begun:?}");
    }
}
