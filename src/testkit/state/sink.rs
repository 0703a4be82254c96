//! Sink mode: nothing that is produced is kept, and what is fetched was prepared once and comes
//! round for ever.

use std::collections::HashMap;

use bytes::Bytes;

use super::State;

/// The end that is told to clients: one that is never reached.
pub(crate) const END: i64 = 1 << 60;

/// What a sink cluster has instead of logs.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    prepared: HashMap<String, Prepared>,
    pub(crate) received: Received,
}

/// What a cluster in sink mode has received and acknowledged so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Received {
    /// Produce requests.
    pub requests: u64,
    /// Record batches in them.
    pub batches: u64,
    /// The records that the headers of these batches tell of.
    pub records: u64,
    /// The bytes of the batches, compressed as they came.
    pub record_bytes: u64,
    /// The bytes of the requests, lengths and all.
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

/// The batches of a topic, one after the other, and again.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// How many offsets the batches before this one take, and the batch without its base offset.
    batches: Vec<(i64, Bytes)>,
    round: i64,
}

impl Sink {
    pub(crate) fn prepared(&self, topic: &str) -> Option<&Prepared> {
        self.prepared.get(topic)
    }
}

impl Prepared {
    /// Batches from the one that holds `offset`, as (base offset, the bytes behind it), up to
    /// `max_bytes` but at least one where `at_least_one` asks for it.
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
    /// Makes a topic whose partitions serve these batches. Bytes that are too short for a batch are
    /// left out.
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
        assert_eq!(prepared().from(0, 99, false).count(), 0, "none that does not fit");
    }
}
