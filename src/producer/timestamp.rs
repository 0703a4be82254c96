//! The time of `send`, for records without a timestamp of their own.
//!
//! Reading the clock takes longer than most other work for a small record. So a thread that sends
//! continuously reads it only for one record in [`SHARERS`]; the records in between get the
//! timestamp of that reading. Two rules keep the timestamps correct:
//! - a reading is shared only while records come so fast that all of its sharers together take a
//!   fraction of a millisecond;
//! - the system's coarse clock, which is cheap, is read for each of these records: when it has
//!   advanced, the exact clock is read again. So the time is never older than a tick of the coarse
//!   clock (1 to 10 ms), whatever the thread does in between.

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::record::{millis_of, to_millis};

/// Maximum number of records that share one reading.
const SHARERS: u32 = 32;
/// Maximum average distance between records that share a reading.
const CLOSE: Duration = Duration::from_micros(3);

thread_local! {
    static LAST: ClockReading = const { ClockReading::none() };
}

/// Returns the time in milliseconds since the Unix epoch.
#[inline]
pub(super) fn now_millis() -> i64 {
    LAST.with(|last| last.millis(coarse, SystemTime::now))
}

/// Returns the coarse clock's time, if there is such a clock.
#[inline]
fn coarse() -> Option<(i64, i64)> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
        #[allow(clippy::useless_conversion, reason = "of 32 bits on some platforms")]
        Some((now.tv_sec, now.tv_nsec.into()))
    }
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    None
}

/// The last reading of the clock, and the number of records that may still share it.
#[derive(Debug)]
struct ClockReading {
    since: Cell<Duration>,
    /// True if records come close together, so that the next reading may be shared.
    close: Cell<bool>,
    /// Number of records that may still share this reading, and the number that could when it was
    /// new.
    left: Cell<u32>,
    shared: Cell<u32>,
    /// The shared timestamp, valid as long as the coarse clock shows `tick`.
    millis: Cell<i64>,
    tick: Cell<(i64, i64)>,
}

impl ClockReading {
    const fn none() -> Self {
        Self {
            since: Cell::new(Duration::ZERO),
            close: Cell::new(false),
            left: Cell::new(0),
            shared: Cell::new(0),
            millis: Cell::new(0),
            tick: Cell::new((0, 0)),
        }
    }

    #[inline]
    fn millis(&self, coarse: impl Fn() -> Option<(i64, i64)>, exact: impl FnOnce() -> SystemTime) -> i64 {
        let left = self.left.get();
        if left > 0 && coarse() == Some(self.tick.get()) {
            self.left.set(left - 1);
            return self.millis.get();
        }
        // Read before the exact clock: a record that sees it unchanged is less than a tick behind.
        // It is not read if the reading will not be shared.
        let coarse = if self.close.get() { coarse() } else { None };
        self.read(coarse, exact())
    }

    fn read(&self, coarse: Option<(i64, i64)>, exact: SystemTime) -> i64 {
        let Ok(since) = exact.duration_since(UNIX_EPOCH) else { return to_millis(exact) };
        let records = 1 + self.shared.get() - self.left.get();
        // A clock that was set back gives no distance.
        let close = since.checked_sub(self.since.get()).is_some_and(|took| took < CLOSE * records);
        let millis = millis_of(since);
        let shared = match coarse {
            Some(tick) if close => {
                self.tick.set(tick);
                self.millis.set(millis);
                SHARERS - 1
            }
            _ => 0,
        };
        self.close.set(close);
        self.since.set(since);
        self.left.set(shared);
        self.shared.set(shared);
        millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: u64 = 4_000_000;

    /// A reading at given times, with the number of exact clock reads.
    struct Asked(ClockReading, u32);

    impl Asked {
        fn at(&mut self, nanos: u64) -> i64 {
            let exact = UNIX_EPOCH + Duration::from_nanos(nanos);
            let mut read = 0;
            let millis = self.0.millis(
                || Some((0, (nanos / TICK) as i64)),
                || {
                    read += 1;
                    exact
                },
            );
            self.1 += read;
            millis
        }
    }

    const START: u64 = 1_700_000_000_000_000_000;

    #[test]
    fn records_in_quick_succession_share_clock_reading() {
        let mut asked = Asked(ClockReading::none(), 0);
        for n in 0..10_000 {
            let at = START + n * 100;
            let millis = asked.at(at) as u64;
            assert!(at / 1_000_000 - millis <= 1, "the timestamp is at most one millisecond late");
        }
        assert!((300..400).contains(&asked.1), "{} of 10,000", asked.1);
    }

    #[test]
    fn slow_records_read_clock_each_time() {
        let mut asked = Asked(ClockReading::none(), 0);
        for n in 0..1000 {
            let at = START + n * 5_000;
            assert_eq!(asked.at(at) as u64, at / 1_000_000);
        }
        assert_eq!(asked.1, 1000);
    }

    #[test]
    fn coarse_clock_detects_pause_after_burst() {
        let mut asked = Asked(ClockReading::none(), 0);
        for burst in 0..100 {
            let start = START + burst * 1_000_000_007;
            for n in 0..40 {
                asked.at(start + n * 50);
            }
            let later = start + TICK + 2000;
            assert_eq!(asked.at(later) as u64, later / 1_000_000);
        }
    }

    #[test]
    fn follows_clock_that_is_set_back() {
        let mut asked = Asked(ClockReading::none(), 0);
        for n in 0..100 {
            asked.at(START + n * 50);
        }
        let before = START - 3_600_000_000_000;
        assert_eq!(asked.at(before) as u64, before / 1_000_000);
    }

    #[test]
    fn reads_exact_clock_without_coarse_clock() {
        let (reading, mut reads) = (ClockReading::none(), 0);
        for n in 0..100 {
            reading.millis(
                || None,
                || {
                    reads += 1;
                    UNIX_EPOCH + Duration::from_nanos(START + n)
                },
            );
        }
        assert_eq!(reads, 100);
    }

    #[test]
    fn now_millis_matches_system_time() {
        for _ in 0..1000 {
            let before = to_millis(SystemTime::now());
            let now = now_millis();
            // A tick is at most 10 ms; the rest is for a busy machine.
            assert!((before - 11..=before + 10_000).contains(&now), "{now} at {before}");
        }
    }
}
