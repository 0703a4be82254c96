//! Fetched batches of one partition that wait for its reader, in the log's order.
//!
//! Sans-IO.

use std::{collections::VecDeque, sync::Arc};

use crate::consumer::{
    buffer::fetched_batch::{BatchContent, EncodedRecords, FetchedBatch},
    fetch::{batch_scan::ScannedEntry, memory_budget::Reservation},
    subscription::delivery_progress::DeliveryProgress,
};
use crate::error::Error;

/// Assumed ratio of a batch's decompressed to its compressed size, until the partition's is known.
pub(crate) const GROWTH: usize = 4;
/// Number of batches at the front of the buffer that may be decompressed ahead.
const AHEAD: usize = 2;

/// A batch to decompress on the blocking pool.
#[derive(Debug)]
pub(crate) struct Decompression {
    pub(crate) batch: FetchedBatch<EncodedRecords>,
    /// Charge for the expected decompressed size, until the actual one is known.
    pub(crate) expected: Reservation,
}

#[derive(Debug, Default)]
pub(crate) struct PartitionBuffer {
    entries: VecDeque<FetchedBatch>,
    bytes: usize,
    compressed: usize,
    /// Ratio of decompressed to compressed size of the last batch that was decompressed ahead,
    /// rounded up; 0 if there was none.
    growth: usize,
}

impl PartitionBuffer {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the buffered bytes, as they were fetched.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn clear(&mut self) {
        *self = Self { growth: self.growth, ..Self::default() };
    }

    /// Appends the entries that a fetch from offset `start` returned.
    pub(crate) fn push(
        &mut self,
        entries: Vec<ScannedEntry>,
        progress: &Arc<DeliveryProgress>,
        mut start: i64,
        reservation: &Arc<Reservation>,
    ) {
        for entry in entries {
            let (content, bytes, end) = match entry {
                ScannedEntry::Batch(batch) => {
                    let (bytes, end) = (batch.bytes().len(), batch.header.next_offset());
                    let reservation = reservation.clone();
                    (BatchContent::Encoded(EncodedRecords { batch, reservation }), bytes, end)
                }
                ScannedEntry::Skip(end) => (BatchContent::Skip, 0, end),
                ScannedEntry::Corrupt { error, end } => {
                    (BatchContent::Corrupt(error), 0, end.unwrap_or(start).max(start))
                }
            };
            // A broker answers from the batch that contains the requested offset, so the first
            // batches may end before it: these are dropped.
            if end > start || matches!(content, BatchContent::Corrupt(_)) {
                self.bytes += bytes;
                self.compressed += usize::from(content.is_heavy());
                self.entries.push_back(FetchedBatch { progress: progress.clone(), start, end, bytes, content });
                start = end;
            }
        }
    }

    /// Appends an entry that says that the broker has no record at the offset after all others.
    pub(crate) fn push_out_of_range(&mut self, progress: &Arc<DeliveryProgress>, at: i64) {
        self.push_mark(progress, at, at, BatchContent::OutOfRange);
    }

    /// Appends an entry that marks the log's end.
    pub(crate) fn push_log_end(&mut self, progress: &Arc<DeliveryProgress>, at: i64) {
        self.push_mark(progress, at, at, BatchContent::LogEnd);
    }

    /// Appends an entry that says that there are no records to deliver before that offset.
    pub(crate) fn push_skip(&mut self, progress: &Arc<DeliveryProgress>, to: i64) {
        self.push_mark(progress, to, to, BatchContent::Skip);
    }

    /// Appends an entry for damaged bytes at `at`; they end before `end`, if that is known.
    pub(crate) fn push_corrupt(&mut self, progress: &Arc<DeliveryProgress>, error: Error, at: i64, end: Option<i64>) {
        self.push_mark(progress, at, end.unwrap_or(at).max(at), BatchContent::Corrupt(error));
    }

    /// Appends an entry without bytes.
    fn push_mark(&mut self, progress: &Arc<DeliveryProgress>, start: i64, end: i64, content: BatchContent) {
        self.entries.push_back(FetchedBatch { progress: progress.clone(), start, end, bytes: 0, content });
    }

    /// Puts a batch that the reader did not deliver back at the front.
    pub(crate) fn return_unread(&mut self, mut batch: FetchedBatch) {
        batch.start = batch.start.max(batch.progress.delivered());
        if !matches!(batch.content, BatchContent::Encoded(_) | BatchContent::Decoded(_)) {
            // Without records it has no size.
            batch.bytes = 0;
        }
        self.compressed += usize::from(batch.content.is_heavy());
        self.bytes += batch.bytes;
        self.entries.push_front(batch);
    }

    /// Takes entries from the front until there are `records` records. Stops at batches that are
    /// being decompressed or still must be. An error or a log end is only taken as the first entry.
    /// Returns the number of records taken.
    pub(crate) fn take(&mut self, records: usize, out: &mut Vec<FetchedBatch>) -> usize {
        let (mut count, taken_before) = (0, out.len());
        while count < records && self.is_readable() {
            if out.len() > taken_before && self.entries.front().is_some_and(FetchedBatch::is_stop) {
                break;
            }
            let Some(batch) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(batch.bytes);
            count += match &batch.content {
                // The number of records in a message set's wrapper is not known yet.
                BatchContent::Encoded(encoded) => {
                    usize::try_from(encoded.batch.header.record_count).unwrap_or(0).max(1)
                }
                BatchContent::Decoded(decoded) => decoded.left,
                _ => 0,
            };
            out.push(batch);
        }
        count
    }

    /// Returns true if the reader can take an entry now.
    pub(crate) fn is_readable(&self) -> bool {
        self.entries.front().is_some_and(FetchedBatch::is_readable)
    }

    /// Returns true if the buffer has batches to decompress ahead.
    pub(crate) fn has_compressed(&self) -> bool {
        self.compressed > 0
    }

    /// Returns the next batch to decompress ahead, and marks it. The batch at the front is returned
    /// in any case if it is `needed` now; others only if there is room for their expected size.
    pub(crate) fn start_decompression(&mut self, needed: bool) -> Option<Decompression> {
        let growth = if self.growth == 0 { GROWTH } else { self.growth };
        for (i, entry) in self.entries.iter_mut().take(AHEAD).enumerate() {
            let BatchContent::Encoded(encoded) = &entry.content else { continue };
            if !encoded.is_heavy() {
                continue;
            }
            let bytes = entry.bytes.saturating_mul(growth);
            let quota = encoded.reservation.quota();
            let expected = match quota.charge_if_room(bytes) {
                Some(expected) => expected,
                None if needed && i == 0 => quota.charge(bytes),
                None => return None,
            };
            let content = std::mem::replace(&mut entry.content, BatchContent::Decompressing);
            let (progress, start, end, bytes) = (entry.progress.clone(), entry.start, entry.end, entry.bytes);
            self.compressed = self.compressed.saturating_sub(1);
            let batch = FetchedBatch { progress, start, end, bytes, content };
            return batch.into_encoded().ok().map(|batch| Decompression { batch, expected });
        }
        None
    }

    /// Stores a batch that was decompressed ahead. Returns false if it is no longer wanted.
    pub(crate) fn handle_decompressed(&mut self, batch: FetchedBatch) -> bool {
        let is_awaited =
            |entry: &&mut FetchedBatch| entry.end == batch.end && matches!(entry.content, BatchContent::Decompressing);
        let Some(entry) = self.entries.iter_mut().find(is_awaited) else { return false };
        if let BatchContent::Decoded(decoded) = &batch.content {
            self.growth = decoded.records.size().div_ceil(entry.bytes.max(1)).max(1);
        }
        entry.content = batch.content;
        true
    }

    /// Drops entries that can be fetched again, and returns the offset from which to fetch them.
    /// Drops batches that were already decoded only on request (`decoded`), because they took work.
    pub(crate) fn evict(&mut self, decoded: bool) -> Option<i64> {
        let goes = |entry: &&FetchedBatch| match entry.content {
            BatchContent::Encoded(_) | BatchContent::Decompressing => true,
            BatchContent::Decoded(_) => decoded,
            BatchContent::Skip | BatchContent::Corrupt(_) | BatchContent::OutOfRange | BatchContent::LogEnd => false,
        };
        let kept = self.entries.iter().take_while(|entry| !goes(entry)).count();
        let start = self.entries.get(kept)?.start;
        for entry in self.entries.drain(kept..) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
        self.compressed = 0;
        Some(start)
    }

    /// Iterates over all responses that entries keep in memory, each with the bytes that an entry
    /// still needs of it.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = (&Arc<Reservation>, usize)> {
        self.entries.iter().filter_map(|entry| match &entry.content {
            BatchContent::Encoded(encoded) => Some((&encoded.reservation, encoded.batch.bytes().len())),
            BatchContent::Decoded(decoded) => Some((&decoded.reservation, decoded.records.size())),
            _ => None,
        })
    }

    /// Copies the batches out of the responses that `picked` selects.
    pub(crate) fn copy_out(&mut self, picked: impl Fn(&Arc<Reservation>) -> bool) {
        for entry in &mut self.entries {
            match &mut entry.content {
                BatchContent::Encoded(EncodedRecords { batch, reservation }) if picked(reservation) => {
                    *batch = batch.detached();
                    *reservation = Arc::new(reservation.quota().charge(batch.bytes().len()));
                }
                BatchContent::Decoded(decoded) if picked(&decoded.reservation) => decoded.copy_out(),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::buffer::partition_buffer::*;
    use crate::{
        consumer::{
            buffer::fetched_batch::{DecodeConfig, HEAVY},
            config::settings::IsolationLevel,
            fetch::{
                batch_scan::scan_batches,
                memory_budget::{BrokerQuota, MemoryBudget},
            },
            test_batches::{Sort, batch, built, noise},
        },
        record::TopicPartition,
        wire::{Compression, batch::Decompressor},
    };

    fn account(limit: usize) -> Arc<BrokerQuota> {
        MemoryBudget::new(limit).quota(1, || Box::new(|| ()))
    }

    fn progress() -> Arc<DeliveryProgress> {
        Arc::new(DeliveryProgress::new(TopicPartition::new("t", 0), 1, 0, 0, -1))
    }

    fn config() -> DecodeConfig {
        DecodeConfig { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() }
    }

    /// Returns a buffer with these batches of one response, and the response's reservation.
    fn filled(
        quota: &Arc<BrokerQuota>,
        batches: &[bytes::Bytes],
        response: usize,
    ) -> (PartitionBuffer, Arc<Reservation>) {
        let reservation = Arc::new(quota.charge(response));
        let mut queue = PartitionBuffer::default();
        let scan = scan_batches(batches.concat().into(), IsolationLevel::ReadUncommitted, &[]);
        queue.push(scan.entries, &progress(), 0, &reservation);
        (queue, reservation)
    }

    #[test]
    fn copied_batch_releases_its_response_memory() {
        let quota = account(1 << 20);
        let one = batch(0, 3, Sort::Plain);
        let (mut queue, reservation) = filled(&quota, std::slice::from_ref(&one), 100_000);
        let pinned: Vec<_> = queue.pinned().map(|(reservation, needed)| (reservation.bytes(), needed)).collect();
        assert_eq!(pinned, [(100_000, one.len())]);
        queue.copy_out(|picked| Arc::ptr_eq(picked, &reservation));
        drop(reservation);
        assert_eq!(quota.used(), one.len());
        let mut out = Vec::new();
        assert_eq!(queue.take(10, &mut out), 3);
        let [FetchedBatch { content: BatchContent::Encoded(encoded), .. }] = &out[..] else { panic!("{out:?}") };
        assert_eq!(encoded.batch.bytes(), &one);
        drop(out);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn eviction_returns_offset_to_refetch() {
        let quota = account(1 << 20);
        let (mut queue, reservation) = filled(&quota, &[batch(5, 3, Sort::Plain), batch(8, 2, Sort::Plain)], 1000);
        drop(reservation);
        queue.take(1, &mut Vec::new());
        assert_eq!((queue.evict(false), queue.bytes(), queue.is_empty()), (Some(8), 0, true));
        assert_eq!((queue.evict(false), quota.used()), (None, 0));
    }

    #[test]
    fn returned_batch_is_refetched_from_its_start() {
        let quota = account(1 << 20);
        let (mut queue, _charge) = filled(&quota, &[batch(5, 3, Sort::Plain), batch(8, 2, Sort::Plain)], 1000);
        let mut out = Vec::new();
        assert_eq!(queue.take(10, &mut out), 5);
        let decoded = out.pop().unwrap().decoded(&mut Decompressor::default(), &config());
        // The reader still has the batch before it, of which no record was delivered.
        queue.return_unread(decoded);
        assert_eq!(queue.evict(true), Some(8));
    }

    #[test]
    fn returned_open_batch_counts_fetched_bytes() {
        for compression in [Compression::None, Compression::Gzip(1)] {
            let quota = account(1 << 20);
            let fetched = built(5, 30, Sort::Plain, compression, "some text");
            let (mut queue, _charge) = filled(&quota, std::slice::from_ref(&fetched), 1000);
            for _ in 0..3 {
                assert_eq!(queue.bytes(), fetched.len());
                let mut out = Vec::new();
                assert_eq!(queue.take(100, &mut out), 30);
                assert_eq!(queue.bytes(), 0);
                queue.return_unread(out.pop().unwrap().decoded(&mut Decompressor::default(), &config()));
            }
        }
    }

    #[test]
    fn evicts_decompressed_batches_only_on_request() {
        let quota = account(1 << 20);
        let heavy = built(5, 10, Sort::Plain, Compression::Lz4, &noise(40_000));
        let (mut queue, reservation) = filled(&quota, &[heavy, batch(15, 2, Sort::Plain)], 100_000);
        drop(reservation);
        let Decompression { batch, expected } = queue.start_decompression(true).unwrap();
        let decoded = batch.decode(&mut Decompressor::default(), &config());
        drop(expected);
        assert!(queue.handle_decompressed(decoded));
        assert_eq!(queue.evict(false), Some(15));
        assert!(queue.is_readable() && quota.used() > 0);
        assert_eq!((queue.evict(true), queue.is_empty(), quota.used()), (Some(0), true, 0));
    }

    #[test]
    fn batch_before_position_is_not_counted_as_compressed() {
        let heavy = built(0, 3, Sort::Plain, Compression::Gzip(1), &noise(60_000));
        let reservation = Arc::new(account(1 << 20).charge(heavy.len()));
        let scan = scan_batches(heavy, IsolationLevel::ReadUncommitted, &[]);
        let mut queue = PartitionBuffer::default();
        queue.push(scan.entries, &progress(), 3, &reservation);
        assert!(queue.is_empty() && !queue.has_compressed());
    }

    #[test]
    fn decompresses_ahead_with_room_or_on_demand() {
        let heavy = built(0, 3, Sort::Plain, Compression::Gzip(1), &noise(60_000));
        assert!(heavy.len() > HEAVY);
        let roomy = account(10 * heavy.len());
        let (mut queue, _charge) = filled(&roomy, std::slice::from_ref(&heavy), heavy.len());
        assert!(queue.has_compressed() && !queue.is_readable());
        let job = queue.start_decompression(false).expect("there is room");
        assert_eq!(job.expected.bytes(), GROWTH * heavy.len());
        assert!(!queue.is_readable() && !queue.has_compressed());
        assert!(queue.start_decompression(true).is_none(), "it is being opened");

        let tight = account(2 * heavy.len());
        let (mut queue, _charge) = filled(&tight, std::slice::from_ref(&heavy), heavy.len());
        assert!(queue.start_decompression(false).is_none());
        assert!(queue.start_decompression(true).is_some());
    }
}
