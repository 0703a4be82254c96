//! How far a partition has been handed out, and how far its reader is done with it.
//!
//! A lease lasts from one positioning of a partition to the next: a seek, a reset or the loss of
//! the partition withholds it for good and what follows goes by another one. So whatever was taken
//! under an old lease can neither be handed out nor move the new position.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{
        AtomicBool, AtomicI64, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use super::OffsetAndMetadata;
use crate::record::TopicPartition;

/// Shared by everything that was read of a partition since it was last positioned. Offsets are
/// those of the *next* record.
#[derive(Debug)]
pub(super) struct Lease {
    partition: TopicPartition,
    /// The positioning that it belongs to; grows with each.
    generation: u64,
    /// Behind the last record that was handed out. Stored once for each record, so it must cost
    /// next to nothing.
    handed: AtomicI64,
    /// Behind the last record that the reader is done with.
    done: AtomicI64,
    withheld: AtomicBool,
    /// Records that readers were given, of all leases of the partition.
    given: Arc<AtomicU64>,
    /// Another positioning has followed, or the partition is gone: what is done under it moves
    /// nothing.
    replaced: AtomicBool,
    /// What was passed over last because it holds no record, for a reader that says by itself what
    /// it is done with: done as soon as all before it is. From and to where.
    gap: Mutex<Option<(i64, i64)>>,
    /// From which offset on which leader epoch was read, by offset; for commits (KIP-320). Grows by
    /// one entry for each election.
    epochs: Mutex<Vec<(i64, i32)>>,
}

impl Lease {
    /// Nothing handed out yet: the next record is the one at `handed`; what was done before ends at
    /// `done`.
    pub(super) fn new(partition: TopicPartition, generation: u64, handed: i64, done: i64, epoch: i32) -> Self {
        let epochs = if epoch >= 0 { vec![(i64::MIN, epoch)] } else { Vec::new() };
        Self {
            partition,
            generation,
            handed: handed.into(),
            done: done.into(),
            withheld: false.into(),
            given: Arc::default(),
            replaced: false.into(),
            gap: Mutex::default(),
            epochs: Mutex::new(epochs),
        }
    }

    /// Counts with the partition's other leases.
    pub(super) fn counting(mut self, given: &Arc<AtomicU64>) -> Self {
        self.given = given.clone();
        self
    }

    /// Readers were given so many records more.
    pub(super) fn add_given(&self, records: u64) {
        self.given.fetch_add(records, Relaxed);
    }

    pub(super) fn partition(&self) -> &TopicPartition {
        &self.partition
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    pub(super) fn handed(&self) -> i64 {
        self.handed.load(Acquire)
    }

    pub(super) fn done(&self) -> i64 {
        self.done.load(Acquire)
    }

    /// Whether its records may no longer be handed out.
    pub(super) fn is_withheld(&self) -> bool {
        self.withheld.load(Acquire)
    }

    /// Its records are handed out no more. Those that were handed out still count.
    pub(super) fn withhold(&self) {
        self.withheld.store(true, Release);
    }

    /// Whether its records count no more.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.load(Acquire)
    }

    /// The partition is positioned anew, or gone.
    pub(super) fn replace(&self) {
        self.replaced.store(true, Release);
        self.withhold();
    }

    /// The record before this offset was handed out. Never goes back where one thread at a time
    /// hands out; where several iterate the same records at once it may for a moment, until
    /// [`settle_handed`](Self::settle_handed).
    pub(super) fn hand_out(&self, next: i64) {
        if self.handed.load(Acquire) < next {
            self.handed.store(next, Release);
        }
    }

    /// As [`hand_out`](Self::hand_out), exact for any number of threads, and dearer.
    pub(super) fn settle_handed(&self, next: i64) {
        self.handed.fetch_max(next, Release);
    }

    /// The reader is done with all that was handed out.
    pub(super) fn finish(&self) {
        // Only the reader, under its lock, does this.
        let handed = self.handed();
        if self.done.load(Acquire) < handed {
            self.done.store(handed, Release);
        }
    }

    /// A reader that says by itself what it is done with (see `hand`) is done with all before this
    /// offset. From any thread.
    pub(super) fn finish_to(&self, next: i64) {
        let gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        self.done.fetch_max(next, Release);
        self.close_gap(*gap);
    }

    /// There is nothing to hand out before this offset, to such a reader.
    pub(super) fn skip_to(&self, end: i64) {
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        let from = self.handed();
        if from < end {
            self.hand_out(end);
            *gap = match *gap {
                Some((begun, until)) if until == from => Some((begun, end)),
                _ => Some((from, end)),
            };
            self.close_gap(*gap);
        }
    }

    fn close_gap(&self, gap: Option<(i64, i64)>) {
        if let Some((from, to)) = gap
            && self.done() >= from
        {
            self.done.fetch_max(to, Release);
        }
    }

    /// What was fetched from this offset on was appended under that leader epoch, −1 where not
    /// known; what was said of it before is no more.
    pub(super) fn note_epoch(&self, from: i64, epoch: i32) {
        let mut epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        while epochs.pop_if(|(known, _)| *known >= from).is_some() {}
        if epochs.last().is_none_or(|(_, last)| *last != epoch) {
            epochs.push((from, epoch));
        }
        // What lies before the done offset is asked for no more, but the last entry below it.
        let done = self.done();
        let old = epochs.iter().take_while(|(from, _)| *from < done).count();
        if old > 1 {
            epochs.drain(..old - 1);
        }
    }

    /// What to commit for this offset: with the leader epoch of the record before it.
    pub(super) fn to_commit(&self, offset: i64) -> OffsetAndMetadata {
        let epochs = self.epochs.lock().unwrap_or_else(PoisonError::into_inner);
        let before = epochs.iter().rev().find(|(from, _)| *from < offset);
        let leader_epoch = before.map(|(_, epoch)| *epoch).filter(|epoch| *epoch >= 0);
        OffsetAndMetadata { offset, leader_epoch, metadata: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn done_follows_what_was_handed_out_and_epochs_belong_to_offsets() {
        let lease = Lease::new(TopicPartition::new("t", 0), 1, 10, 10, 3);
        assert_eq!(lease.to_commit(10).leader_epoch, Some(3), "the epoch that the position came with");
        lease.note_epoch(10, 3);
        lease.hand_out(11);
        assert_eq!((lease.handed(), lease.done()), (11, 10));
        lease.finish();
        assert_eq!(lease.done(), 11);
        lease.note_epoch(11, 4);
        lease.note_epoch(15, 6);
        assert_eq!(lease.to_commit(11).leader_epoch, Some(3));
        assert_eq!(lease.to_commit(15).leader_epoch, Some(4));
        assert_eq!(lease.to_commit(16).leader_epoch, Some(6));
        lease.hand_out(5);
        assert_eq!(lease.handed(), 11, "never back");
        lease.hand_out(16);
        lease.finish();
        lease.note_epoch(16, 7);
        assert_eq!(lease.to_commit(16).leader_epoch, Some(6));
        assert_eq!(lease.to_commit(17).leader_epoch, Some(7));
    }

    #[test]
    fn what_holds_no_record_is_done_with_the_records_before_it() {
        let lease = Lease::new(TopicPartition::new("t", 0), 1, 10, 10, 3);
        lease.skip_to(12);
        assert_eq!((lease.handed(), lease.done()), (12, 12), "nothing is in hand");
        lease.hand_out(14);
        lease.skip_to(15);
        lease.skip_to(17);
        lease.finish_to(13);
        assert_eq!((lease.handed(), lease.done()), (17, 13));
        lease.finish_to(14);
        assert_eq!(lease.done(), 17);
        lease.hand_out(19);
        lease.finish_to(16);
        assert_eq!(lease.done(), 17, "never back");
        lease.skip_to(18);
        lease.finish_to(19);
        assert_eq!((lease.handed(), lease.done()), (19, 19));
    }
}
