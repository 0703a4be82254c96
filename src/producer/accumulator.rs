//! The accumulator of one partition: its open batch and the full ones before it, under the
//! partition's own lock.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    batch::Batch,
    partitioner::{PartitionLoad, turn_is_over},
    sizes::{Limits, Sizes},
};
use crate::producer::batch_shared::BatchShared;
use crate::producer::record_entry::{RecordEntry, RecordReservation};
use crate::producer::{batch_results::BatchResults, compression_ratio::CompressionRatio};
use crate::{
    error::Error,
    wire::batch::{BATCH_HEADER_SIZE, BatchBuilder, STAGE},
};

/// One partition, shared by `send` and the sender.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Its index in the sender's list; never used again for another partition.
    pub(crate) slot: usize,
    pub(crate) topic: Arc<str>,
    pub(crate) index: i32,
    /// Number of waiting batches, for the choice of partitions.
    pub(crate) load: Arc<PartitionLoad>,
    /// Compression ratio of its topic.
    pub(crate) compression_ratio: Arc<CompressionRatio>,
    accumulator: Mutex<Accumulator>,
}

#[derive(Debug, Default)]
struct Accumulator {
    full: VecDeque<Batch>,
    open: Option<Batch>,
    /// The state that the sender already knows, so that it is notified once.
    notified: NotifiedOf,
    /// Set when nothing will ever drain this again.
    closed: Option<Error>,
    /// Number of records that were ever appended.
    appended: u64,
    /// Bytes of records without keys since the partition's turn began.
    sticky_bytes: usize,
    /// Size of the last batch when it was closed, in bytes: the next batch gets that capacity at
    /// once.
    usual_size: usize,
    /// Limits of the open batch, or of the last one if none is open.
    limits: Limits,
    /// Memory for the stage of the next batch, if batches are large enough for one.
    stage: Vec<u8>,
}

/// Size in bytes from which batches are built with a stage.
const WORTH_A_STAGE: usize = 2 * STAGE;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum NotifiedOf {
    #[default]
    None,
    /// The sender knows of an open batch.
    OpenBatch,
    /// The sender knows of a full batch.
    FullBatch,
}

/// The result of an attempt to append. Unless it is `Done`, the reservation still belongs to the
/// caller.
#[derive(Debug)]
pub(crate) enum Appended<R> {
    /// The record is in the open batch.
    Done { taken: R, event: SenderEvent },
    /// The partition's turn is over: choose again.
    StickyTurnOver(SenderEvent),
    /// The buffer has no bytes left for the record.
    BufferFull(SenderEvent),
    /// The producer has ended.
    Closed(Error),
}

/// A notification for the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderEvent {
    None,
    /// A batch was begun at that time.
    BatchOpened(Instant),
    /// A batch is full.
    BatchFull,
}

/// The sender's view of a partition's oldest batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OldestBatch {
    /// Time at which the oldest batch was begun.
    pub(crate) created: Instant,
    /// True if it is full or was flushed, so that it need not linger.
    pub(crate) due: bool,
    /// Bytes that it is expected to take in a request.
    pub(crate) size: usize,
}

impl Partition {
    pub(crate) fn new(slot: usize, topic: Arc<str>, index: i32, compression_ratio: Arc<CompressionRatio>) -> Self {
        Self { slot, topic, index, load: Arc::default(), compression_ratio, accumulator: Mutex::default() }
    }

    /// Takes the partition's lock, to append records.
    #[inline]
    pub(crate) fn lock_to_append(&self) -> LockedPartition<'_> {
        LockedPartition { partition: self, acc: self.lock() }
    }

    /// Returns the oldest batch's state; from now on the sender knows about it.
    pub(crate) fn oldest_batch(&self) -> Option<OldestBatch> {
        let mut acc = self.lock();
        acc.notified = if !acc.full.is_empty() {
            NotifiedOf::FullBatch
        } else if acc.open.is_some() {
            NotifiedOf::OpenBatch
        } else {
            NotifiedOf::None
        };
        let full = acc.full.front().map(|batch| (batch, true));
        let (batch, due) = full.or(acc.open.as_ref().map(|batch| (batch, batch.flushed)))?;
        Some(OldestBatch { created: batch.created, due, size: self.compression_ratio.expected(batch.size()) })
    }

    /// Takes the oldest batch, closing it if it is still open.
    pub(crate) fn take(&self) -> Option<Batch> {
        let mut acc = self.lock();
        let batch = acc.take_oldest();
        self.load.set_accumulated(acc.batches());
        batch
    }

    /// Takes the oldest batch if it was begun at that time or before.
    pub(crate) fn take_older_than(&self, limit: Instant) -> Option<Batch> {
        let mut acc = self.lock();
        match acc.full.front().or(acc.open.as_ref()) {
            Some(batch) if batch.created <= limit => {
                let batch = acc.take_oldest();
                self.load.set_accumulated(acc.batches());
                batch
            }
            _ => None,
        }
    }

    /// Lets the open batch leave without waiting for its linger.
    pub(crate) fn flush(&self) {
        if let Some(batch) = &mut self.lock().open {
            batch.flushed = true;
        }
    }

    /// Refuses all further records with this error and returns the remaining batches.
    pub(crate) fn close(&self, error: Error) -> Vec<Batch> {
        let mut acc = self.lock();
        acc.closed = Some(error);
        let mut left: Vec<Batch> = acc.full.drain(..).collect();
        left.extend(acc.take_open());
        self.load.set_accumulated(0);
        left
    }

    /// Returns the number of records that were ever appended.
    pub(crate) fn appended(&self) -> u64 {
        self.lock().appended
    }

    fn lock(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition under its lock.
#[derive(Debug)]
pub(crate) struct LockedPartition<'a> {
    partition: &'a Partition,
    acc: MutexGuard<'a, Accumulator>,
}

impl LockedPartition<'_> {
    pub(crate) fn partition(&self) -> &Partition {
        self.partition
    }

    /// Encodes a record into the open batch. `clock` is read only when a batch is begun. `take`
    /// gets the place of the record's result, unless the record already has one.
    #[inline]
    pub(crate) fn append<R>(
        &mut self,
        entry: &RecordEntry<'_>,
        reservation: &mut RecordReservation,
        sizes: Sizes,
        batch_shared: &Arc<BatchShared>,
        clock: impl FnOnce() -> Instant,
        take: impl FnOnce(&Arc<BatchResults>, u32) -> R,
    ) -> Appended<R> {
        let (acc, partition) = (&mut *self.acc, self.partition);
        if let Some(error) = &acc.closed {
            return Appended::Closed(error.clone());
        }
        let bound = entry.bound as usize;
        let is_full = match &acc.open {
            Some(batch) => batch.size() + bound > acc.limits.batch,
            None => {
                acc.limits = sizes.limits(&partition.compression_ratio);
                false
            }
        };
        // Each exit from here on returns the event, because the sender would not get it again.
        let mut event = if is_full { acc.close() } else { SenderEvent::None };
        if let Some(sticky) = entry.sticky.filter(|sticky| sticky.has_choice()) {
            let index = partition.index as u32;
            if sticky.current() != index || acc.is_turn_over(bound, is_full) {
                acc.sticky_bytes = 0;
                sticky.leave(index);
                return Appended::StickyTurnOver(event);
            }
        }
        // Reserved before a batch is begun, so that no batch is ever without a record.
        if matches!(reservation, RecordReservation::FromPool) && acc.open.is_none() {
            if !batch_shared.buffer.try_take(entry.bound) {
                return Appended::BufferFull(event);
            }
            *reservation = RecordReservation::Reserved;
        }
        let batch = match &mut acc.open {
            Some(batch) => batch,
            None => {
                let now = clock();
                if is_full {
                    // The sender knows of the full batch, and looks for this one after it.
                    acc.limits = sizes.limits(&partition.compression_ratio);
                } else {
                    event = acc.notify_opened(now);
                }
                let batch = acc.new_batch(partition, bound, batch_shared, now);
                acc.open.insert(batch)
            }
        };
        let room = acc.limits.batch.saturating_sub(batch.size());
        let Some(index) = batch.append(entry, reservation, room) else {
            return Appended::BufferFull(event);
        };
        acc.appended += 1;
        if entry.sticky.is_some() {
            acc.sticky_bytes += bound;
        }
        Appended::Done { taken: take(batch.results(), index), event }
    }
}

impl Accumulator {
    /// Returns true if the partition's turn is over before a record of `bound` bytes. `is_full` is
    /// true if its batch was just closed, because the record did not fit.
    #[inline]
    fn is_turn_over(&self, bound: usize, is_full: bool) -> bool {
        let Limits { batch, turn } = self.limits;
        // If a batch takes several turns, a turn need not end with its batch.
        let batch_may_be_left = self.open.is_none() || turn < batch;
        turn_is_over(self.sticky_bytes, turn, batch_may_be_left) || (is_full && self.sticky_bytes + bound > turn)
    }

    fn batches(&self) -> usize {
        self.full.len() + usize::from(self.open.is_some())
    }

    /// Takes the oldest batch, closed.
    fn take_oldest(&mut self) -> Option<Batch> {
        self.full.pop_front().or_else(|| self.take_open())
    }

    fn take_open(&mut self) -> Option<Batch> {
        let mut batch = self.open.take()?;
        self.stage = batch.close();
        self.usual_size = batch.size();
        // With thousands of partitions each gets little at a time, and so keeps no stage.
        if self.usual_size < WORTH_A_STAGE {
            self.stage = Vec::new();
        } else if self.stage.capacity() == 0 {
            self.stage = Vec::with_capacity(STAGE);
        }
        Some(batch)
    }

    /// Returns a batch whose first record takes `bound` bytes, to be the open one.
    fn new_batch(
        &mut self,
        partition: &Partition,
        bound: usize,
        batch_shared: &Arc<BatchShared>,
        now: Instant,
    ) -> Batch {
        let least = BATCH_HEADER_SIZE + bound;
        let body = batch_shared.bodies.take(self.usual_size.clamp(least, self.limits.batch.max(least)));
        let stage = std::mem::take(&mut self.stage);
        let builder = BatchBuilder::new(body, stage, partition.compression_ratio.is_plain());
        partition.load.set_accumulated(self.full.len() + 1);
        Batch::new(partition.topic.clone(), partition.index, builder, now, batch_shared)
    }

    /// Returns the event for a batch that is begun, unless the sender knows of a batch already.
    fn notify_opened(&mut self, now: Instant) -> SenderEvent {
        if self.notified < NotifiedOf::OpenBatch {
            self.notified = NotifiedOf::OpenBatch;
            SenderEvent::BatchOpened(now)
        } else {
            SenderEvent::None
        }
    }

    /// Moves the open batch to the full ones.
    fn close(&mut self) -> SenderEvent {
        let Some(batch) = self.take_open() else { return SenderEvent::None };
        self.full.push_back(batch);
        if self.notified < NotifiedOf::FullBatch {
            self.notified = NotifiedOf::FullBatch;
            SenderEvent::BatchFull
        } else {
            SenderEvent::None
        }
    }
}
