//! Sink mode: records that are produced are not kept, and fetches serve prepared batches over and
//! over.

use std::collections::HashMap;

use bytes::Bytes;

use super::State;

/// The log end offset that clients are sent, which is never reached.
pub(crate) const END: i64 = 1 << 60;

/// The state that a sink cluster has instead of logs.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    prepared: HashMap<String, Prepared>,
    pub(crate) received: Received,
}

/// Totals that a cluster in sink mode has received and acknowledged so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Produce requests.
    pub requests: u64,
    /// Record batches in them.
    pub batches: u64,
    /// The records that the headers of these batches count.
    pub records: u64,
    /// The bytes of the batches, compressed as they were sent.
    pub record_bytes: u64,
    /// The bytes of the requests, including their lengths.
    pub bytes: u64,
}

impl Received {
    pub(crate) fn add(&mut self, more: &Self) {
        self.requests += more.requests;
        self.batches += more.batches;
        self.records += more.records;
        self.record_bytes += more.record_bytes;
        self.bytes += more.bytes;
    }
}

/// The batches of a topic, served over and over.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// For each batch the number of offsets that the batches before it take, and its bytes without
    /// its base offset.
    batches: Vec<(i64, Bytes)>,
    round: i64,
}

impl Sink {
    pub(crate) fn prepared(&self, topic: &str) -> Option<&Prepared> {
        self.prepared.get(topic)
    }
}

impl Prepared {
    /// Returns batches from the one that holds `offset`, as (base offset, the bytes after it), up
    /// to `max_bytes` but at least one if `at_least_one` is set.
    pub(crate) fn from(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> impl Iterator<Item = (i64, Bytes)> {
        let within = offset.rem_euclid(self.round);
        let first = self.batches.partition_point(|&(before, _)| before <= within).saturating_sub(1);
        let base = offset - within;
        let mut size = 0;
        let rounds = (0..).flat_map(move |round: i64| {
            let skipped = if round == 0 { first } else { 0 };
            let base = base.saturating_add(round.saturating_mul(self.round));
            self.batches.iter().skip(skipped).map(move |(before, bytes)| (base + before, bytes.clone()))
        });
        rounds.take_while(move |(_, bytes)| {
            let begins = size == 0 && at_least_one;
            size += 8 + bytes.len();
            begins || size <= max_bytes
        })
    }
}

impl State {
    /// Creates a topic that serves these batches from all its partitions. Bytes that are too short
    /// for a batch are left out.
    pub(super) fn prepare(&mut self, topic: String, batches: Vec<Bytes>) {
        let mut round = 0;
        let mut kept = Vec::new();
        for batch in batches {
            let Some(delta) = batch.get(23..27).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes) else {
                continue;
            };
            kept.push((round, batch.slice(8..)));
            round += i64::from(delta.max(0)) + 1;
        }
        let made = self.create_topic(&topic, self.options.default_partitions, None, Default::default()).is_ok();
        if made
            && let Some(sink) = &mut self.sink
            && round > 0
        {
            sink.prepared.insert(topic, Prepared { batches: kept, round });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> Prepared {
        let batches = vec![(0, Bytes::from_static(&[1; 92])), (10, Bytes::from_static(&[2; 92]))];
        Prepared { batches, round: 15 }
    }

    #[test]
    fn prepared_batches_repeat_at_rising_offsets() {
        let bases: Vec<i64> = prepared().from(0, 450, true).map(|(base, _)| base).collect();
        assert_eq!(bases, [0, 10, 15, 25]);
        let bases: Vec<i64> = prepared().from(27, 250, false).map(|(base, _)| base).collect();
        assert_eq!(bases, [25, 30], "the batch that holds the offset comes first");
        let bases: Vec<i64> = prepared().from(15_000_009, 1, true).map(|(base, _)| base).collect();
        assert_eq!(bases, [15_000_000], "at least one batch whatever its size");
        assert_eq!(prepared().from(0, 99, false).count(), 0, "no batch beyond the limit");
    }
}
