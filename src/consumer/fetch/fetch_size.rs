//! How much is asked for in one fetch, and of each partition in it: as little as keeps the reader
//! busy, since small answers are still in the processor's caches when they are read; more where the
//! line is long or slow, so that it is full all the same.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

/// Asked for on a line that is fast.
const SMALL: usize = 1 << 20;
/// Bytes a second from which on larger answers would not fill the line any better …
const FAST: f64 = (512 << 20) as f64;
/// … and from which on smaller ones would fill it as well.
const FASTER: f64 = 2.0 * FAST;
/// So many slow answers without a fast one in between make the next ones larger: one alone may have
/// been held up by anything.
const SLOW: u32 = 2;
/// So many fast ones without a slow one in between make them a little smaller, to see whether that
/// does as well.
const ENOUGH: u32 = 64;

/// Bytes a second from which on another connection would carry no more.
const PLENTY: f64 = (256 << 20) as f64;

/// What takes its time, as far as an answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bottleneck {
    /// The line: the largest answer that there may be came full, slowly, and the reader has next to
    /// nothing else.
    Connection,
    /// The reader.
    Reader,
    Other,
}

/// What is asked for of one broker.
#[derive(Clone, Debug)]
pub(crate) struct FetchSize {
    bytes: usize,
    /// How many came full and slowly since one did so fast.
    slow: u32,
    /// How many came full and fast since one did so slowly.
    fast: u32,
    /// Of the fetch that is under way: how much may come, and since when it is waited for.
    in_flight: Option<(usize, Instant)>,
}

impl Default for FetchSize {
    fn default() -> Self {
        Self { bytes: SMALL, slow: 0, fast: 0, in_flight: None }
    }
}

impl FetchSize {
    /// How much to ask for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// So much is asked for.
    pub(crate) fn record_sent(&mut self, bytes: usize, now: Instant) {
        self.in_flight = Some((bytes, now));
    }

    /// So much came, while so much from before still waits for its reader; no answer ever asks for
    /// more than `most`.
    pub(crate) fn record_response(&mut self, bytes: usize, waits: usize, most: usize, now: Instant) -> Bottleneck {
        let Some((asked, since)) = self.in_flight.take() else { return Bottleneck::Other };
        if waits > bytes {
            // The reader is what takes its time.
            self.shrink();
            return Bottleneck::Reader;
        }
        if bytes >= asked / 4 * 3 && asked >= self.bytes.min(most) {
            // All that was asked for came, and the reader has next to nothing else.
            let took = now.saturating_duration_since(since).max(Duration::from_micros(1));
            let bytes_a_second = bytes as f64 / took.as_secs_f64();
            let largest = self.bytes >= most.max(SMALL);
            if bytes_a_second < FAST {
                (self.slow, self.fast) = (self.slow.saturating_add(1), 0);
                if self.slow >= SLOW {
                    self.bytes = self.bytes.saturating_mul(2).min(most.max(SMALL));
                }
            } else {
                (self.slow, self.fast) = (0, self.fast.saturating_add(1));
                if bytes_a_second > FASTER || self.fast >= ENOUGH {
                    self.shrink();
                }
            }
            if largest && bytes_a_second < PLENTY {
                return Bottleneck::Connection;
            }
        } else {
            // There was no more to send, whatever the line is like.
            self.slow = 0;
        }
        Bottleneck::Other
    }

    fn shrink(&mut self) {
        self.fast = 0;
        self.bytes = (self.bytes - self.bytes / 8).max(SMALL);
    }
}

/// What came of one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionResponseSize {
    pub(crate) bytes: usize,
    /// The largest of its batches.
    pub(crate) largest: usize,
    /// What still waits for its reader from before.
    pub(crate) buffered: usize,
}

/// How much to ask for of one partition after `asked` was asked for: `least`, or more. Where that
/// is all that there is to fill an answer with, up to an `answer`; and where its last batches were
/// larger, so much that another one like them is among what comes, wherever it stands in the
/// answer: only the first batch of an answer comes though it is larger than what was asked for, so
/// that no more than one such partition would get its turn in each.
pub(crate) fn partition_bytes(asked: i32, came: PartitionResponseSize, least: i32, answer: i32) -> i32 {
    let PartitionResponseSize { bytes, largest, buffered: waits } = came;
    let whole = usize::try_from(asked).unwrap_or(0);
    // Brokers cut a slice anywhere; those that do not leave out the batch that does not fit.
    let full = bytes.saturating_add(largest.clamp(whole / 4, whole / 2)) >= whole;
    let next = match () {
        () if waits > whole / 2 => asked / 2,
        () if full && waits <= whole / 4 => asked.saturating_mul(2),
        () if bytes < whole / 4 => asked / 2,
        () => asked,
    };
    let largest = i32::try_from(largest).unwrap_or(i32::MAX);
    let fits = if largest > least { largest.saturating_add(largest / 4) } else { 0 };
    next.min(answer).max(fits).max(least)
}

#[cfg(test)]
mod tests {
    use crate::consumer::fetch::fetch_size::*;

    const MIB: usize = 1 << 20;
    const MOST: usize = 8 * MIB;

    /// What is asked for after so many full answers that took that long each.
    fn after(size: &mut FetchSize, answers: usize, took: Duration, waits: usize) -> usize {
        let mut now = Instant::now();
        for _ in 0..answers {
            let bytes = size.bytes();
            size.record_sent(bytes, now);
            now += took;
            size.record_response(bytes, waits, MOST, now);
        }
        size.bytes()
    }

    #[test]
    fn response_size_follows_round_trip_time() {
        let mut size = FetchSize::default();
        assert_eq!(after(&mut size, 20, Duration::from_micros(700), 0), MIB);
        assert_eq!(after(&mut size, 3, Duration::from_millis(30), 0), 4 * MIB);
        assert_eq!(after(&mut size, 20, Duration::from_millis(30), 0), MOST);
        assert_eq!(after(&mut size, 20, Duration::from_micros(700), MOST + 1), MIB, "the reader has enough to do");
    }

    #[test]
    fn single_slow_response_does_not_grow_size() {
        let mut size = FetchSize::default();
        for _ in 0..100 {
            assert_eq!(after(&mut size, 1, Duration::from_millis(4), 0), MIB);
            assert_eq!(after(&mut size, 1, Duration::from_micros(700), 0), MIB);
        }
        assert_eq!(after(&mut size, 20, Duration::from_millis(30), 0), MOST);
        assert_eq!(after(&mut size, 20, Duration::from_micros(700), 0), MIB);
        // As large as keeps a line of five milliseconds full, and no larger.
        for _ in 0..1000 {
            let settled = after(&mut size, 20, Duration::from_millis(5), 0);
            assert!((MIB..=6 * MIB).contains(&settled), "{settled}");
        }
        assert!(after(&mut size, 20, Duration::from_millis(5), 0) > 2 * MIB);
    }

    #[test]
    fn earlier_slow_responses_are_forgotten() {
        let mut size = FetchSize::default();
        let at = |size: &FetchSize, bytes_a_second: f64| Duration::from_secs_f64(size.bytes() as f64 / bytes_a_second);
        assert_eq!(after(&mut size, 20, Duration::from_millis(30), 0), MOST);
        // A line that is just fast enough whatever the size.
        for _ in 0..16 * ENOUGH {
            let took = at(&size, 1.5 * FAST);
            after(&mut size, 1, took, 0);
        }
        assert_eq!(size.bytes(), MIB);
        // Slow ones far apart, with answers in between that were not full.
        for _ in 0..100 {
            assert_eq!(after(&mut size, 1, Duration::from_millis(4), 0), MIB);
            size.record_sent(MIB, Instant::now());
            size.record_response(MIB / 2, 0, MOST, Instant::now());
        }
        assert_eq!(size.bytes(), MIB);
    }

    #[test]
    fn partition_limit_grows_when_one_fills_response() {
        let full = |asked: i32| PartitionResponseSize { bytes: asked as usize - 10, largest: 20_000, buffered: 0 };
        let mib = MIB as i32;
        let after = |asked, came, answer| partition_bytes(asked, came, mib, answer);
        assert_eq!(after(mib, full(mib), 2 * mib), 2 * mib);
        assert_eq!(after(2 * mib, full(2 * mib), 3 * mib), 3 * mib, "no more than an answer");
        assert_eq!(after(mib, full(mib), 0), mib, "the user's word holds");
        assert_eq!(
            after(2 * mib, PartitionResponseSize { buffered: 2 * MIB, ..full(2 * mib) }, 8 * mib),
            mib,
            "its reader is slow"
        );
        assert_eq!(after(2 * mib, PartitionResponseSize { buffered: MIB - 1, ..full(2 * mib) }, 8 * mib), 2 * mib);
        assert_eq!(
            after(4 * mib, PartitionResponseSize { bytes: 100, ..full(mib) }, 8 * mib),
            2 * mib,
            "there is no more of it"
        );
        let [one, whole] =
            [600_000, 2 * 600_000].map(|bytes| PartitionResponseSize { bytes, largest: 600_000, buffered: 0 });
        assert_eq!(after(mib, one, 8 * mib), 2 * mib, "a second one would not have fit");
        assert_eq!(after(2 * mib, whole, 8 * mib), 2 * mib);
    }

    #[test]
    fn large_batch_raises_partition_limit_until_small() {
        let large = PartitionResponseSize { bytes: 3_000_000, largest: 3_000_000, buffered: 0 };
        assert_eq!(partition_bytes(1_000_000, large, 1_000_000, 0), 3_750_000);
        let small = PartitionResponseSize { bytes: 100, largest: 100, buffered: 0 };
        assert_eq!(partition_bytes(3_750_000, small, 1_000_000, 0), 1_000_000);
        let huge = PartitionResponseSize { bytes: usize::MAX, largest: usize::MAX, buffered: usize::MAX };
        assert_eq!(partition_bytes(i32::MAX, huge, 1, i32::MAX), i32::MAX);
    }

    #[test]
    fn partial_responses_do_not_change_size() {
        let mut size = FetchSize::default();
        let now = Instant::now();
        size.record_sent(MIB, now);
        size.record_response(MIB / 2, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "there was no more to send");
        size.record_sent(MIB / 8, now);
        size.record_response(MIB / 8, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "no more was asked for, for want of room");
        size.record_response(MIB, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "nothing was asked");
    }
}
