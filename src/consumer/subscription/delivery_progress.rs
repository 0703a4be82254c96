//! How far a partition has been handed out, and how far its reader is done with it.
//!
//! A lease lasts from one positioning of a partition to the next: a seek, a reset or the loss of
//! the partition withholds it for good and what follows goes by another one. So whatever was taken
//! under an old lease can neither be handed out nor move the new position.
//!
//! Sans-IO.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicI64, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use crate::consumer::OffsetAndMetadata;
use crate::record::TopicPartition;

/// Shared by everything that was read of a partition since it was last positioned. Offsets are
/// those of the *next* record.
#[derive(Debug)]
pub(crate) struct DeliveryProgress {
    partition: TopicPartition,
    /// The positioning that it belongs to; grows with each.
    seek_epoch: u64,
    /// Behind the last record that was handed out. Stored once for each record, so it must cost
    /// next to nothing.
    delivered: AtomicI64,
    /// Behind the last record that the reader is done with.
    completed: AtomicI64,
    withheld: AtomicBool,
    /// Records that readers were given, of all leases of the partition.
    delivered_records: Arc<AtomicU64>,
    /// Another positioning has followed, or the partition is gone: what is done under it moves
    /// nothing.
    superseded: AtomicBool,
    /// What was passed over last because it holds no record, for a reader that says by itself what
    /// it is done with: done as soon as all before it is. From and to where.
    gap: Mutex<Option<(i64, i64)>>,
    /// From which offset on which leader epoch was read, by offset; for commits (KIP-320). Grows by
    /// one entry for each election.
    epochs: Mutex<Vec<(i64, i32)>>,
}

impl DeliveryProgress {
    /// Nothing handed out yet: the next record is the one at `handed`; what was done before ends at
    /// `done`.
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

    /// Counts with the partition's other leases.
    pub(crate) fn counting_into(mut self, given: &Arc<AtomicU64>) -> Self {
        self.delivered_records = given.clone();
        self
    }

    /// Readers were given so many records more.
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

    /// Whether its records may no longer be handed out.
    pub(crate) fn is_withheld(&self) -> bool {
        self.withheld.load(Acquire)
    }

    /// Its records are handed out no more. Those that were handed out still count.
    pub(crate) fn withhold(&self) {
        self.withheld.store(true, Release);
    }

    /// Whether its records count no more.
    pub(crate) fn is_superseded(&self) -> bool {
        self.superseded.load(Acquire)
    }

    /// The partition is positioned anew, or gone.
    pub(crate) fn supersede(&self) {
        self.superseded.store(true, Release);
        self.withhold();
    }

    /// The record before this offset was handed out. Never goes back where one thread at a time
    /// hands out; where several iterate the same records at once it may for a moment, until
    /// [`settle_handed`](Self::settle_handed).
    pub(crate) fn record_delivered(&self, next: i64) {
        if self.delivered.load(Acquire) < next {
            self.delivered.store(next, Release);
        }
    }

    /// As [`hand_out`](Self::hand_out), exact for any number of threads, and dearer.
    pub(crate) fn record_delivered_exact(&self, next: i64) {
        self.delivered.fetch_max(next, Release);
    }

    /// The reader is done with all that was handed out.
    pub(crate) fn complete_delivered(&self) {
        // Only the reader, under its lock, does this.
        let handed = self.delivered();
        if self.completed.load(Acquire) < handed {
            self.completed.store(handed, Release);
        }
    }

    /// A reader that says by itself what it is done with (see `hand`) is done with all before this
    /// offset. From any thread.
    pub(crate) fn complete_to(&self, next: i64) {
        let gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        self.completed.fetch_max(next, Release);
        self.complete_gap(*gap);
    }

    /// There is nothing to hand out before this offset, to such a reader.
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

    fn complete_gap(&self, gap: Option<(i64, i64)>) {
        if let Some((from, to)) = gap
            && self.completed() >= from
        {
            self.completed.fetch_max(to, Release);
        }
    }

    /// What was fetched from this offset on was appended under that leader epoch, −1 where not
    /// known; what was said of it before is no more.
    pub(crate) fn note_epoch(&self, from: i64, epoch: i32) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        while epochs.pop_if(|(known, _)| *known >= from).is_some() {}
        if epochs.last().is_none_or(|(_, last)| *last != epoch) {
            epochs.push((from, epoch));
        }
        // What lies before the done offset is asked for no more, but the last entry below it.
        let done = self.completed();
        let old = epochs.iter().take_while(|(from, _)| *from < done).count();
        if old > 1 {
            epochs.drain(..old - 1);
        }
    }

    /// What to commit for this offset: with the leader epoch of the record before it.
    pub(crate) fn to_commit(&self, offset: i64) -> OffsetAndMetadata {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let before = epochs.iter().rev().find(|(from, _)| *from < offset);
        let leader_epoch = before.map(|(_, epoch)| *epoch).filter(|epoch| *epoch >= 0);
        OffsetAndMetadata { offset, leader_epoch, metadata: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::subscription::delivery_progress::*;

    #[test]
    fn done_follows_delivered_and_epochs_follow_offsets() {
        let progress = DeliveryProgress::new(TopicPartition::new("t", 0), 1, 10, 10, 3);
        assert_eq!(progress.to_commit(10).leader_epoch, Some(3), "the epoch that the position came with");
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
        assert_eq!(progress.delivered(), 11, "never back");
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
        assert_eq!((progress.delivered(), progress.completed()), (12, 12), "nothing is in hand");
        progress.record_delivered(14);
        progress.skip_gap(15);
        progress.skip_gap(17);
        progress.complete_to(13);
        assert_eq!((progress.delivered(), progress.completed()), (17, 13));
        progress.complete_to(14);
        assert_eq!(progress.completed(), 17);
        progress.record_delivered(19);
        progress.complete_to(16);
        assert_eq!(progress.completed(), 17, "never back");
        progress.skip_gap(18);
        progress.complete_to(19);
        assert_eq!((progress.delivered(), progress.completed()), (19, 19));
    }
}
