//! Sizes fetch requests, and each partition's part of them. They are as small as keeps the reader
//! busy, because small responses are still in the processor's caches when they are read; they grow
//! if the connection is slow or has a high latency, so that it stays full.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

/// Size of a fetch on a fast connection, in bytes.
const SMALL: usize = 1 << 20;
/// Throughput in bytes per second from which on larger responses would not use the connection
/// better.
const FAST: f64 = (512 << 20) as f64;
/// Throughput in bytes per second from which on smaller responses would use the connection as well.
const FASTER: f64 = 2.0 * FAST;
/// Number of slow responses, without a fast or partial one in between, after which fetches grow,
/// because a single one may be slow by chance.
const SLOW: u32 = 2;
/// Number of fast responses without a slow one in between after which fetches shrink a little, to
/// test if that is enough as well.
const ENOUGH: u32 = 64;

/// Throughput in bytes per second from which on another connection would carry no more.
const PLENTY: f64 = (256 << 20) as f64;

/// The bottleneck that a response shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bottleneck {
    /// The connection: a response of the largest size arrived full and slowly, and the reader has
    /// almost nothing else.
    Connection,
    /// The reader.
    Reader,
    Other,
}

/// Size of the fetches from one broker.
#[derive(Clone, Debug)]
pub(crate) struct FetchSize {
    bytes: usize,
    /// Number of full, slow responses since the last fast or partial one.
    slow: u32,
    /// Number of full, fast responses since the last slow one, or since the size last shrank.
    fast: u32,
    /// Bytes requested by the outstanding fetch, and the time at which it was sent.
    in_flight: Option<(usize, Instant)>,
}

impl Default for FetchSize {
    fn default() -> Self {
        Self { bytes: SMALL, slow: 0, fast: 0, in_flight: None }
    }
}

impl FetchSize {
    /// Returns the number of bytes to ask for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Records that a fetch of `bytes` bytes is sent.
    pub(crate) fn record_sent(&mut self, bytes: usize, now: Instant) {
        self.in_flight = Some((bytes, now));
    }

    /// Records a response of `bytes` bytes, while `waits` bytes from earlier responses are still
    /// buffered. No fetch asks for more than `most` bytes.
    pub(crate) fn record_response(&mut self, bytes: usize, waits: usize, most: usize, now: Instant) -> Bottleneck {
        let Some((asked, since)) = self.in_flight.take() else { return Bottleneck::Other };
        if waits > bytes {
            // The reader is the bottleneck.
            self.shrink();
            return Bottleneck::Reader;
        }
        if bytes >= asked / 4 * 3 && asked >= self.bytes.min(most) {
            // The response is full, and the reader has almost nothing else.
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
            // The broker had no more to send, so the response says nothing of the connection.
            self.slow = 0;
        }
        Bottleneck::Other
    }

    fn shrink(&mut self) {
        self.fast = 0;
        self.bytes = (self.bytes - self.bytes / 8).max(SMALL);
    }
}

/// Size of one partition's part of a response, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PartitionResponseSize {
    pub(crate) bytes: usize,
    /// Size of its largest batch.
    pub(crate) largest: usize,
    /// Bytes of the partition that were buffered before.
    pub(crate) buffered: usize,
}

/// Returns the `max_bytes` for a partition after a fetch with `asked`: at least `least`. If the
/// partition alone has to fill the response, up to `answer`. If its last batches were larger,
/// enough that a similar batch fits anywhere in the response: only the first batch of a response
/// may exceed the limit, so otherwise one such partition at most would be served in each response.
pub(crate) fn partition_bytes(asked: i32, came: PartitionResponseSize, least: i32, answer: i32) -> i32 {
    let PartitionResponseSize { bytes, largest, buffered: waits } = came;
    let whole = usize::try_from(asked).unwrap_or(0);
    // Some brokers cut a slice anywhere; others leave out the batch that does not fit.
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

    /// Returns the fetch size after that number of full responses that took `took` each.
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
        assert_eq!(after(&mut size, 20, Duration::from_micros(700), MOST + 1), MIB, "the reader has enough data");
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
        // Large enough to fill a connection with a latency of five milliseconds, and no larger.
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
        // A connection that is just fast enough at any size.
        for _ in 0..16 * ENOUGH {
            let took = at(&size, 1.5 * FAST);
            after(&mut size, 1, took, 0);
        }
        assert_eq!(size.bytes(), MIB);
        // Slow responses far apart, with responses in between that are not full.
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
        assert_eq!(after(2 * mib, full(2 * mib), 3 * mib), 3 * mib, "no more than a response");
        assert_eq!(after(mib, full(mib), 0), mib, "never less than the user's setting");
        assert_eq!(
            after(2 * mib, PartitionResponseSize { buffered: 2 * MIB, ..full(2 * mib) }, 8 * mib),
            mib,
            "its reader is slow"
        );
        assert_eq!(after(2 * mib, PartitionResponseSize { buffered: MIB - 1, ..full(2 * mib) }, 8 * mib), 2 * mib);
        assert_eq!(
            after(4 * mib, PartitionResponseSize { bytes: 100, ..full(mib) }, 8 * mib),
            2 * mib,
            "the partition has no more data"
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
        assert_eq!(size.bytes(), MIB, "the broker had no more to send");
        size.record_sent(MIB / 8, now);
        size.record_response(MIB / 8, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "no more was asked for, for lack of memory");
        size.record_response(MIB, 0, MOST, now + Duration::from_secs(1));
        assert_eq!(size.bytes(), MIB, "no fetch was outstanding");
    }
}
