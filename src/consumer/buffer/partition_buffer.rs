//! Fetched batches of one partition that wait for its reader, in the log's order.
//!
//! Sans-IO.

use std::{collections::VecDeque, sync::Arc};

use crate::consumer::{
    buffer::decoded_batch::DecodedBatch,
    fetch::{batch_scan::ScannedEntry, memory_budget::Reservation},
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{error::Error, wire::batch::RawBatch};

/// Size in bytes above which a compressed batch is decompressed ahead, on the blocking pool.
pub(crate) const HEAVY: usize = 32 * 1024;
/// Assumed ratio of a batch's decompressed to its compressed size, until the partition's is known.
pub(crate) const GROWTH: usize = 4;
/// Number of batches at the front of the buffer that may be decompressed ahead.
const AHEAD: usize = 2;

/// One entry of the buffer.
#[derive(Debug)]
pub(crate) enum BufferedItem {
    /// A batch as it was fetched.
    Fetched(RawBatch, Arc<Reservation>),
    /// A batch that is being decompressed on the blocking pool.
    Decompressing,
    /// A batch that was decompressed ahead, or the rest of a batch that the reader returned.
    Decoded(DecodedBatch),
    /// A range of offsets without records to deliver.
    Skip,
    /// Fetched bytes that cannot be read.
    Corrupt(Error),
    /// The broker has no record at this offset: it is too old, or beyond the log's end.
    OutOfRange,
    /// The log's end at the time of the fetch.
    End,
}

#[derive(Debug)]
struct BufferedEntry {
    held: BufferedItem,
    /// Size as fetched, in bytes.
    bytes: usize,
    /// The offset from which it was fetched.
    start: i64,
    /// The offset at which reading continues after it.
    end: i64,
}

/// An entry that the reader takes over.
#[derive(Debug)]
pub(crate) enum CollectedItem {
    Fetched {
        progress: Arc<DeliveryProgress>,
        batch: RawBatch,
        reservation: Arc<Reservation>,
        /// Records before this offset came with another batch.
        start: i64,
        end: i64,
    },
    Decoded(DecodedBatch),
    Skip {
        progress: Arc<DeliveryProgress>,
        end: i64,
    },
    /// `end`: the offset after the batch that cannot be read, if it is known.
    Corrupt {
        progress: Arc<DeliveryProgress>,
        error: Error,
        end: i64,
    },
    OutOfRange {
        progress: Arc<DeliveryProgress>,
    },
    End {
        progress: Arc<DeliveryProgress>,
        at: i64,
    },
}

impl CollectedItem {
    pub(crate) fn progress(&self) -> &Arc<DeliveryProgress> {
        match self {
            CollectedItem::Decoded(part) => &part.progress,
            CollectedItem::Fetched { progress, .. }
            | CollectedItem::Skip { progress, .. }
            | CollectedItem::Corrupt { progress, .. }
            | CollectedItem::OutOfRange { progress }
            | CollectedItem::End { progress, .. } => progress,
        }
    }
}

/// A batch to decompress on the blocking pool.
#[derive(Debug)]
pub(crate) struct Decompression {
    pub(crate) progress: Arc<DeliveryProgress>,
    pub(crate) batch: RawBatch,
    pub(crate) reservation: Arc<Reservation>,
    /// Records before this offset came with another batch.
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Charge for the expected decompressed size, until the actual one is known.
    pub(crate) opening: Reservation,
}

#[derive(Debug, Default)]
pub(crate) struct PartitionBuffer {
    entries: VecDeque<BufferedEntry>,
    bytes: usize,
    compressed: usize,
    /// Ratio of decompressed to compressed size of the last batch that was decompressed ahead,
    /// rounded up; 0 if there was none.
    growth: usize,
}

pub(crate) fn is_heavy(batch: &RawBatch) -> bool {
    batch.header.is_compressed() && batch.bytes().len() > HEAVY
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
    pub(crate) fn push(&mut self, steps: Vec<ScannedEntry>, mut start: i64, reservation: &Arc<Reservation>) {
        for step in steps {
            let (held, bytes, end) = match step {
                ScannedEntry::Batch(batch) => {
                    let (bytes, end) = (batch.bytes().len(), batch.header.next_offset());
                    self.compressed += usize::from(is_heavy(&batch));
                    (BufferedItem::Fetched(batch, reservation.clone()), bytes, end)
                }
                ScannedEntry::Skip(to) => (BufferedItem::Skip, 0, to),
                ScannedEntry::Corrupt { error, end } => {
                    (BufferedItem::Corrupt(error), 0, end.unwrap_or(start).max(start))
                }
            };
            // A broker answers from the batch that contains the requested offset, so the first
            // batches may end before it: these are dropped.
            if end > start || matches!(held, BufferedItem::Corrupt(_)) {
                self.bytes += bytes;
                self.entries.push_back(BufferedEntry { held, bytes, start, end });
                start = end;
            }
        }
    }

    /// Appends an entry that says that the broker has no record at the offset after all others.
    pub(crate) fn push_out_of_range(&mut self, at: i64) {
        self.entries.push_back(BufferedEntry { held: BufferedItem::OutOfRange, bytes: 0, start: at, end: at });
    }

    /// Appends an entry that marks the log's end.
    pub(crate) fn push_end(&mut self, at: i64) {
        self.entries.push_back(BufferedEntry { held: BufferedItem::End, bytes: 0, start: at, end: at });
    }

    /// Appends an entry that says that there are no records to deliver before that offset.
    pub(crate) fn push_skip(&mut self, to: i64) {
        self.entries.push_back(BufferedEntry { held: BufferedItem::Skip, bytes: 0, start: to, end: to });
    }

    /// Appends an entry for damaged bytes at `at`; they end before `end`, if that is known.
    pub(crate) fn push_corrupt(&mut self, error: Error, at: i64, end: Option<i64>) {
        let end = end.unwrap_or(at).max(at);
        self.entries.push_back(BufferedEntry { held: BufferedItem::Corrupt(error), bytes: 0, start: at, end });
    }

    /// Puts an entry that the reader did not deliver back at the front.
    pub(crate) fn return_unread(&mut self, taken: CollectedItem) {
        let mut start = taken.progress().delivered();
        let (held, bytes, end) = match taken {
            CollectedItem::Fetched { batch, reservation, start: from, end, .. } => {
                let bytes = batch.bytes().len();
                self.compressed += usize::from(is_heavy(&batch));
                start = start.max(from);
                (BufferedItem::Fetched(batch, reservation), bytes, end)
            }
            CollectedItem::Decoded(part) => {
                let (bytes, end) = (part.bytes, part.end);
                start = start.max(part.start);
                (BufferedItem::Decoded(part), bytes, end)
            }
            CollectedItem::Skip { end, .. } => (BufferedItem::Skip, 0, end),
            CollectedItem::Corrupt { error, end, .. } => (BufferedItem::Corrupt(error), 0, end),
            CollectedItem::OutOfRange { .. } => (BufferedItem::OutOfRange, 0, start),
            CollectedItem::End { at, .. } => (BufferedItem::End, 0, at),
        };
        self.bytes += bytes;
        self.entries.push_front(BufferedEntry { held, bytes, start, end });
    }

    /// Takes entries from the front until there are `records` records. Stops at batches that are
    /// being decompressed or still must be. An error or a log end is only taken as the first entry.
    /// Returns the number of records taken.
    pub(crate) fn take(
        &mut self,
        progress: &Arc<DeliveryProgress>,
        records: usize,
        out: &mut Vec<CollectedItem>,
    ) -> usize {
        let mut count = 0;
        let mut first = true;
        while count < records && self.is_readable() {
            match self.entries.front().map(|entry| &entry.held) {
                Some(BufferedItem::Corrupt(_) | BufferedItem::OutOfRange | BufferedItem::End) if !first => break,
                _ => {}
            }
            let Some(BufferedEntry { held, bytes, start, end }) = self.entries.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(bytes);
            first = false;
            let progress = progress.clone();
            out.push(match held {
                BufferedItem::Fetched(batch, reservation) => {
                    // The number of records in a message set's wrapper is not known yet.
                    count += usize::try_from(batch.header.record_count).unwrap_or(0).max(1);
                    CollectedItem::Fetched { progress, batch, reservation, start, end }
                }
                BufferedItem::Decoded(part) => {
                    count += part.left;
                    CollectedItem::Decoded(part)
                }
                BufferedItem::Skip | BufferedItem::Decompressing => CollectedItem::Skip { progress, end },
                BufferedItem::Corrupt(error) => CollectedItem::Corrupt { progress, error, end },
                BufferedItem::OutOfRange => CollectedItem::OutOfRange { progress },
                BufferedItem::End => CollectedItem::End { progress, at: end },
            });
        }
        count
    }

    /// Returns true if the reader can take an entry now.
    pub(crate) fn is_readable(&self) -> bool {
        match self.entries.front().map(|entry| &entry.held) {
            None | Some(BufferedItem::Decompressing) => false,
            Some(BufferedItem::Fetched(batch, _)) => !is_heavy(batch),
            Some(_) => true,
        }
    }

    /// Returns true if the buffer has batches to decompress ahead.
    pub(crate) fn has_compressed(&self) -> bool {
        self.compressed > 0
    }

    /// Returns the next batch to decompress ahead, and marks it. The batch at the front is returned
    /// in any case if it is `needed` now; others only if there is room for their expected size.
    pub(crate) fn start_decompression(
        &mut self,
        progress: &Arc<DeliveryProgress>,
        needed: bool,
    ) -> Option<Decompression> {
        let growth = if self.growth == 0 { GROWTH } else { self.growth };
        for (i, entry) in self.entries.iter_mut().take(AHEAD).enumerate() {
            let BufferedItem::Fetched(batch, reservation) = &entry.held else { continue };
            if !is_heavy(batch) {
                continue;
            }
            let bytes = batch.bytes().len().saturating_mul(growth);
            let opening = match reservation.quota().charge_if_room(bytes) {
                Some(opening) => opening,
                None if needed && i == 0 => reservation.quota().charge(bytes),
                None => return None,
            };
            let BufferedItem::Fetched(batch, reservation) =
                std::mem::replace(&mut entry.held, BufferedItem::Decompressing)
            else {
                continue;
            };
            self.compressed = self.compressed.saturating_sub(1);
            return Some(Decompression {
                progress: progress.clone(),
                batch,
                reservation,
                start: entry.start,
                end: entry.end,
                opening,
            });
        }
        None
    }

    /// Stores the decompressed batch that ends at that offset. Returns false if it is no longer
    /// wanted.
    pub(crate) fn handle_decompressed(&mut self, end: i64, held: BufferedItem) -> bool {
        let mut entries = self.entries.iter_mut();
        match entries.find(|entry| entry.end == end && matches!(entry.held, BufferedItem::Decompressing)) {
            Some(entry) => {
                if let BufferedItem::Decoded(part) = &held {
                    self.growth = part.records.size().div_ceil(entry.bytes.max(1)).max(1);
                }
                entry.held = held;
                true
            }
            None => false,
        }
    }

    /// Drops entries that can be fetched again, and returns the offset from which to fetch them.
    /// Drops batches that were already `opened` (decompressed) only on request, because they took
    /// work.
    pub(crate) fn evict(&mut self, opened: bool) -> Option<i64> {
        let goes = |held: &BufferedItem| match held {
            BufferedItem::Fetched(..) | BufferedItem::Decompressing => true,
            BufferedItem::Decoded(_) => opened,
            BufferedItem::Skip | BufferedItem::Corrupt(_) | BufferedItem::OutOfRange | BufferedItem::End => false,
        };
        let keep = self.entries.iter().take_while(|entry| !goes(&entry.held)).count();
        let start = self.entries.get(keep)?.start;
        for entry in self.entries.drain(keep..) {
            self.bytes = self.bytes.saturating_sub(entry.bytes);
        }
        self.compressed = 0;
        Some(start)
    }

    /// Iterates over all responses that entries keep in memory, each with the bytes that an entry
    /// still needs of it.
    pub(crate) fn pinned(&self) -> impl Iterator<Item = (&Arc<Reservation>, usize)> {
        self.entries.iter().filter_map(|entry| match &entry.held {
            BufferedItem::Fetched(batch, reservation) => Some((reservation, batch.bytes().len())),
            BufferedItem::Decoded(part) => Some((part.charge(), part.records.size())),
            _ => None,
        })
    }

    /// Copies the batches out of the responses that `picked` selects.
    pub(crate) fn copy_out(&mut self, picked: impl Fn(&Arc<Reservation>) -> bool) {
        for entry in &mut self.entries {
            match &mut entry.held {
                BufferedItem::Fetched(batch, reservation) if picked(reservation) => {
                    *batch = batch.detached();
                    *reservation = Arc::new(reservation.quota().charge(batch.bytes().len()));
                }
                BufferedItem::Decoded(part) if picked(part.charge()) => *part = part.copied_out(),
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
            buffer::decoded_batch::DecodeConfig,
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

    /// Returns a buffer with these batches of one response, and the response's reservation.
    fn filled(
        quota: &Arc<BrokerQuota>,
        batches: &[bytes::Bytes],
        response: usize,
    ) -> (PartitionBuffer, Arc<Reservation>) {
        let reservation = Arc::new(quota.charge(response));
        let mut queue = PartitionBuffer::default();
        let scan = scan_batches(batches.concat().into(), IsolationLevel::ReadUncommitted, &[]);
        queue.push(scan.entries, 0, &reservation);
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
        assert_eq!(queue.take(&progress(), 10, &mut out), 3);
        let [CollectedItem::Fetched { batch, .. }] = &out[..] else { panic!("{out:?}") };
        assert_eq!(batch.bytes(), &one);
        drop(out);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn eviction_returns_offset_to_refetch() {
        let quota = account(1 << 20);
        let (mut queue, reservation) = filled(&quota, &[batch(5, 3, Sort::Plain), batch(8, 2, Sort::Plain)], 1000);
        drop(reservation);
        queue.take(&progress(), 1, &mut Vec::new());
        assert_eq!((queue.evict(false), queue.bytes(), queue.is_empty()), (Some(8), 0, true));
        assert_eq!((queue.evict(false), quota.used()), (None, 0));
    }

    #[test]
    fn returned_batch_is_refetched_from_its_start() {
        let quota = account(1 << 20);
        let (mut queue, _charge) = filled(&quota, &[batch(5, 3, Sort::Plain), batch(8, 2, Sort::Plain)], 1000);
        let progress = progress();
        let mut out = Vec::new();
        assert_eq!(queue.take(&progress, 10, &mut out), 5);
        let Some(CollectedItem::Fetched { batch, reservation, start, end, .. }) = out.pop() else { panic!("{out:?}") };
        let opening = DecodeConfig { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
        let part =
            DecodedBatch::decode(&progress, &batch, start..end, reservation, &mut Decompressor::default(), &opening)
                .unwrap()
                .unwrap();
        // The reader still has the batch before it, of which no record was delivered.
        queue.return_unread(CollectedItem::Decoded(part));
        assert_eq!(queue.evict(true), Some(8));
    }

    #[test]
    fn returned_open_batch_counts_fetched_bytes() {
        for compression in [Compression::None, Compression::Gzip(1)] {
            let quota = account(1 << 20);
            let fetched = built(5, 30, Sort::Plain, compression, "some text");
            let (mut queue, _charge) = filled(&quota, std::slice::from_ref(&fetched), 1000);
            let progress = progress();
            for _ in 0..3 {
                assert_eq!(queue.bytes(), fetched.len());
                let mut out = Vec::new();
                assert_eq!(queue.take(&progress, 100, &mut out), 30);
                assert_eq!(queue.bytes(), 0);
                queue.return_unread(match out.pop() {
                    Some(CollectedItem::Fetched { batch, reservation, start, end, .. }) => {
                        let opening =
                            DecodeConfig { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
                        let part = DecodedBatch::decode(
                            &progress,
                            &batch,
                            start..end,
                            reservation,
                            &mut Decompressor::default(),
                            &opening,
                        );
                        CollectedItem::Decoded(part.unwrap().unwrap())
                    }
                    other => other.unwrap(),
                });
            }
        }
    }

    #[test]
    fn evicts_decompressed_batches_only_on_request() {
        let quota = account(1 << 20);
        let heavy = built(5, 10, Sort::Plain, Compression::Lz4, &noise(40_000));
        let (mut queue, reservation) = filled(&quota, &[heavy, batch(15, 2, Sort::Plain)], 100_000);
        drop(reservation);
        let progress = progress();
        let Decompression { batch, reservation, start, end, opening, .. } =
            queue.start_decompression(&progress, true).unwrap();
        let opening_rules = DecodeConfig { check_crcs: true, limit: 1 << 20, origin: crate::log::Origin::default() };
        let part = DecodedBatch::decode(
            &progress,
            &batch,
            start..end,
            reservation,
            &mut Decompressor::default(),
            &opening_rules,
        )
        .unwrap();
        drop((batch, opening));
        assert!(queue.handle_decompressed(end, BufferedItem::Decoded(part.unwrap())));
        assert_eq!(queue.evict(false), Some(15));
        assert!(queue.is_readable() && quota.used() > 0);
        assert_eq!((queue.evict(true), queue.is_empty(), quota.used()), (Some(0), true, 0));
    }

    #[test]
    fn decompresses_ahead_with_room_or_on_demand() {
        let heavy = built(0, 3, Sort::Plain, Compression::Gzip(1), &noise(60_000));
        assert!(heavy.len() > HEAVY);
        let roomy = account(10 * heavy.len());
        let (mut queue, _charge) = filled(&roomy, std::slice::from_ref(&heavy), heavy.len());
        assert!(queue.has_compressed() && !queue.is_readable());
        let job = queue.start_decompression(&progress(), false).expect("there is room");
        assert_eq!(job.opening.bytes(), GROWTH * heavy.len());
        assert!(!queue.is_readable() && !queue.has_compressed());
        assert!(queue.start_decompression(&progress(), true).is_none(), "it is being opened");

        let tight = account(2 * heavy.len());
        let (mut queue, _charge) = filled(&tight, std::slice::from_ref(&heavy), heavy.len());
        assert!(queue.start_decompression(&progress(), false).is_none());
        assert!(queue.start_decompression(&progress(), true).is_some());
    }
}
