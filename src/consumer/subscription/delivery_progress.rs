//! The offset up to which a partition's records were delivered, and up to which the reader has
//! completed them.
//!
//! One `DeliveryProgress` lasts from one positioning of a partition to the next: a seek, a reset or
//! the loss of the partition withholds it for good, and later records belong to another one. So
//! records of an old positioning can neither be delivered nor move the new position.
//!
//! Sans-IO.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicI64, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use crate::consumer::{OffsetAndMetadata, subscription::fetch_position::FetchState};
use crate::record::TopicPartition;

/// Shared by everything that was read of a partition since it was last positioned. Offsets are
/// those of the *next* record.
#[derive(Debug)]
pub(crate) struct DeliveryProgress {
    partition: TopicPartition,
    /// Seek epoch of its positioning; grows with each one.
    seek_epoch: u64,
    /// Offset after the last delivered record. It is stored once for each record, so it must cost
    /// almost nothing.
    delivered: AtomicI64,
    /// Offset after the last completed record.
    completed: AtomicI64,
    withheld: AtomicBool,
    /// Records delivered to readers, over all positionings of the partition.
    delivered_records: Arc<AtomicU64>,
    /// True if the partition was positioned again or is gone: completing records moves nothing any
    /// more.
    superseded: AtomicBool,
    /// Last offset gap `[from, to)` (control batches, compaction) skipped by a reader that
    /// completes records itself; it counts as completed once everything before it is.
    gap: Mutex<Option<(i64, i64)>>,
    /// Offsets from which on each leader epoch was read, in order, for commits (KIP-320). Grows by
    /// one entry for each election.
    epochs: Mutex<Vec<(i64, i32)>>,
}

impl DeliveryProgress {
    /// Creates the progress of a new position: the next record to deliver is at `handed`, and
    /// records before `done` are completed.
    pub(crate) fn new(partition: TopicPartition, generation: u64, handed: i64, done: i64, epoch: i32) -> Self {
        let epochs = if epoch >= 0 { vec![(i64::MIN, epoch)] } else { Vec::new() };
        Self {
            partition,
            seek_epoch: generation,
            delivered: handed.into(),
            completed: done.into(),
            withheld: false.into(),
            delivered_records: Arc::default(),
            superseded: false.into(),
            gap: Mutex::default(),
            epochs: Mutex::new(epochs),
        }
    }

    /// Counts delivered records together with the partition's other positionings.
    pub(crate) fn counting_into(mut self, given: &Arc<AtomicU64>) -> Self {
        self.delivered_records = given.clone();
        self
    }

    /// Counts records delivered to readers.
    pub(crate) fn add_delivered_records(&self, records: u64) {
        self.delivered_records.fetch_add(records, Relaxed);
    }

    pub(crate) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(crate) fn seek_epoch(&self) -> u64 {
        self.seek_epoch
    }

    pub(crate) fn delivered(&self) -> i64 {
        self.delivered.load(Acquire)
    }

    pub(crate) fn completed(&self) -> i64 {
        self.completed.load(Acquire)
    }

    /// Returns true if its records may no longer be delivered.
    pub(crate) fn is_withheld(&self) -> bool {
        self.withheld.load(Acquire)
    }

    /// Stops the delivery of its records. Records that were delivered still count.
    pub(crate) fn withhold(&self) {
        self.withheld.store(true, Release);
    }

    /// Returns true if its records no longer count.
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Acquire)
    }

    /// Ends this positioning, because the partition was positioned again or is gone.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Release);
        self.withhold();
    }

    /// Records that the record before this offset was delivered. Never goes back if one thread at a
    /// time delivers; if several threads iterate the same records it may go back briefly, until
    /// [`record_delivered_exact`](Self::record_delivered_exact).
    pub(crate) fn record_delivered(&self, next: i64) {
        if self.delivered.load(Acquire) < next {
            self.delivered.store(next, Release);
        }
    }

    /// Like [`record_delivered`](Self::record_delivered), but exact for any number of threads, and
    /// more expensive.
    pub(crate) fn record_delivered_exact(&self, next: i64) {
        self.delivered.fetch_max(next, Release);
    }

    /// Completes everything that was delivered.
    pub(crate) fn complete_delivered(&self) {
        // Only the reader does this, under its lock.
        let handed = self.delivered();
        if self.completed.load(Acquire) < handed {
            self.completed.store(handed, Release);
        }
    }

    /// Completes everything before this offset, for a reader that completes records itself. Can be
    /// called from any thread.
    pub(crate) fn complete_to(&self, next: i64) {
        let gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        self.completed.fetch_max(next, Release);
        self.complete_gap(*gap);
    }

    /// Skips offsets without a record up to `end`, for a reader that completes records itself.
    pub(crate) fn skip_gap(&self, end: i64) {
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.delivered();
        if from < end {
            self.record_delivered(end);
            *gap = match *gap {
                Some((begun, until)) if until == from => Some((begun, end)),
                _ => Some((from, end)),
            };
            self.complete_gap(*gap);
        }
    }

    /// Returns the offset behind the gap that begins at or before `next`, if there is one, and
    /// `next` otherwise.
    pub(crate) fn behind_gap(&self, next: i64) -> i64 {
        match *self.gap.lock().unwrap_or_else(PoisonError::into_inner) {
            Some((from, to)) if from <= next => to.max(next),
            _ => next,
        }
    }

    fn complete_gap(&self, gap: Option<(i64, i64)>) {
        if let Some((from, to)) = gap
            && self.completed() >= from
        {
            self.completed.fetch_max(to, Release);
        }
    }

    /// Notes the leader epoch, −1 if it is not known, of the records fetched from this offset on;
    /// replaces what was noted for these offsets.
    pub(crate) fn note_epoch(&self, from: i64, epoch: i32) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        while epochs.pop_if(|(known, _)| *known >= from).is_some() {}
        if epochs.last().is_none_or(|(_, last)| *last != epoch) {
            epochs.push((from, epoch));
        }
        // Entries below the completed offset are not needed any more, except the last one.
        let done = self.completed();
        let old = epochs.iter().take_while(|(from, _)| *from < done).count();
        if old > 1 {
            epochs.drain(..old - 1);
        }
    }

    /// Returns what to commit for this offset: the offset with the leader epoch of the record
    /// before it.
    pub(crate) fn to_commit(&self, offset: i64) -> OffsetAndMetadata {
        let leader_epoch = Some(self.epoch_before(offset)).filter(|epoch| *epoch >= 0);
        OffsetAndMetadata { offset, leader_epoch, metadata: String::new() }
    }

    /// Returns the state in which fetching continues at this offset.
    pub(crate) fn fetching_from(&self, offset: i64) -> FetchState {
        FetchState::Fetching { offset, epoch: self.epoch_before(offset) }
    }

    /// Returns the leader epoch of the record before this offset, −1 if it is not known.
    fn epoch_before(&self, offset: i64) -> i32 {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        epochs.iter().rev().find(|(from, _)| *from < offset).map_or(-1, |(_, epoch)| *epoch)
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::subscription::delivery_progress::*;

    #[test]
    fn done_follows_delivered_and_epochs_follow_offsets() {
        let progress = DeliveryProgress::new(TopicPartition::new("t", 0), 1, 10, 10, 3);
        assert_eq!(progress.to_commit(10).leader_epoch, Some(3), "the epoch of the committed position");
        progress.note_epoch(10, 3);
        progress.record_delivered(11);
        assert_eq!((progress.delivered(), progress.completed()), (11, 10));
        progress.complete_delivered();
        assert_eq!(progress.completed(), 11);
        progress.note_epoch(11, 4);
        progress.note_epoch(15, 6);
        assert_eq!(progress.to_commit(11).leader_epoch, Some(3));
        assert_eq!(progress.to_commit(15).leader_epoch, Some(4));
        assert_eq!(progress.to_commit(16).leader_epoch, Some(6));
        progress.record_delivered(5);
        assert_eq!(progress.delivered(), 11, "it never goes back");
        progress.record_delivered(16);
        progress.complete_delivered();
        progress.note_epoch(16, 7);
        assert_eq!(progress.to_commit(16).leader_epoch, Some(6));
        assert_eq!(progress.to_commit(17).leader_epoch, Some(7));
    }

    #[test]
    fn offsets_without_records_finish_with_record_before() {
        let progress = DeliveryProgress::new(TopicPartition::new("t", 0), 1, 10, 10, 3);
        progress.skip_gap(12);
        assert_eq!((progress.delivered(), progress.completed()), (12, 12), "no delivered record is incomplete");
        progress.record_delivered(14);
        progress.skip_gap(15);
        progress.skip_gap(17);
        assert_eq!((progress.behind_gap(13), progress.behind_gap(14), progress.behind_gap(18)), (13, 17, 18));
        progress.complete_to(13);
        assert_eq!((progress.delivered(), progress.completed()), (17, 13));
        progress.complete_to(14);
        assert_eq!(progress.completed(), 17);
        progress.record_delivered(19);
        progress.complete_to(16);
        assert_eq!(progress.completed(), 17, "it never goes back");
        progress.skip_gap(18);
        progress.complete_to(19);
        assert_eq!((progress.delivered(), progress.completed()), (19, 19));
    }
}
