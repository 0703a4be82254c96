//! Idempotence (KIP-98, KIP-360): the producer id and epoch, and the sequence numbers of the
//! batches of one partition.
//!
//! A broker keeps, for each partition and producer id, the epoch and the last sequence number that
//! it wrote. It drops batches that it already has, and refuses a batch that does not come next. So
//! a batch that may have been written may only be sent again under its number, and a number that no
//! batch will ever use again leaves a hole: the broker refuses every batch after it. If a hole
//! cannot be avoided, the partition continues under the next epoch and counts from 0.
//!
//! The epoch is raised only for the partition that needs it: without transactions brokers track
//! epochs by partition.
//!
//! In a transaction only the coordinator raises the epoch, for all partitions: a partition that
//! cannot continue under its numbers fails the transaction instead.
//!
//! Sans-IO.

use crate::wire::batch::ProducerStamp;

/// Returns the sequence number that is `records` later. Sequence numbers run from 0 to `i32::MAX`
/// and start over.
pub(crate) fn advance(sequence: i32, records: u32) -> i32 {
    ((i64::from(sequence) + i64::from(records)) & 0x7fff_ffff) as i32
}

/// A producer id and its epoch, as the broker assigned them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerId {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// The identity of this producer towards the brokers.
#[derive(Clone, Debug)]
pub(crate) enum Identity {
    /// Idempotence is off: the producer has no id.
    Anonymous,
    /// There is no id yet.
    Unknown,
    /// An id was requested.
    Asking,
    Known(ProducerId),
    /// The producer is transactional, and has not begun a transaction yet.
    NoTransaction,
    /// The identity of the transaction that was begun last.
    Transactional(TransactionIdentity),
}

/// The identity under which the batches of one transaction are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TransactionIdentity {
    pub(crate) producer: ProducerId,
    pub(crate) number: u64,
    /// True if a partition has to be added to the transaction before its first batch is sent (the
    /// first protocol).
    pub(crate) adds_partitions: bool,
}

impl Identity {
    pub(crate) fn known(&self) -> Option<ProducerId> {
        match self {
            Identity::Known(id) => Some(*id),
            Identity::Transactional(transaction) => Some(transaction.producer),
            Identity::Anonymous | Identity::Unknown | Identity::Asking | Identity::NoTransaction => None,
        }
    }

    pub(crate) fn transaction(&self) -> Option<TransactionIdentity> {
        match self {
            Identity::Transactional(transaction) => Some(*transaction),
            _ => None,
        }
    }

    /// Returns true if a partition whose numbers belong to `own` has to start anew. Partitions
    /// raise the epoch of a known id by themselves; that of a transaction is the coordinator's.
    pub(crate) fn is_other_than(&self, own: Option<ProducerId>) -> bool {
        match (self, own) {
            (Identity::Transactional(transaction), own) => own != Some(transaction.producer),
            (Identity::Known(id), Some(own)) => own.id != id.id,
            (Identity::Known(_), None) => true,
            (Identity::Anonymous | Identity::Unknown | Identity::Asking | Identity::NoTransaction, _) => false,
        }
    }
}

/// The result of raising a partition's epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raise {
    /// The partition uses its next epoch now.
    Done,
    /// All epochs of the producer id are used up: the partition takes a new id.
    NeedsNewId,
}

/// The sequence numbers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    producer: Option<ProducerId>,
    transactional: bool,
    next: i32,
    /// The sequence number after the last acknowledged batch.
    acked: i32,
    last_acked_offset: Option<i64>,
    /// True if the partition's log has a batch of the producer id.
    introduced: bool,
    unresolved: bool,
    /// True if a number that no batch will use any more has others after it.
    hole: bool,
    raise: bool,
}

impl Sequences {
    /// Returns the producer id and epoch of the numbers.
    pub(crate) fn producer(&self) -> Option<ProducerId> {
        self.producer
    }

    /// Starts at 0 under an identity that the partition has not used yet. A broker that knows
    /// another epoch of the same id accepts no other first number.
    pub(crate) fn start(&mut self, producer: ProducerId, transactional: bool) {
        let introduced = self.introduced && self.producer.is_some_and(|own| own.id == producer.id);
        *self = Self {
            producer: Some(producer),
            transactional,
            introduced,
            last_acked_offset: self.last_acked_offset,
            ..Self::default()
        };
    }

    /// Returns true if the numbers belong to a transaction, so that only the coordinator raises the
    /// epoch.
    pub(crate) fn is_transactional(&self) -> bool {
        self.transactional
    }

    /// Assigns the numbers of a batch with `records` records; returns the first.
    pub(crate) fn assign(&mut self, records: u32) -> i32 {
        let first = self.next;
        self.next = advance(first, records);
        first
    }

    /// Returns the stamp of a batch with the first number `sequence`; `None` for a producer without
    /// idempotence.
    pub(crate) fn stamp(&self, sequence: Option<i32>) -> ProducerStamp {
        match (self.producer, sequence) {
            (Some(producer), Some(base_sequence)) => ProducerStamp {
                producer_id: producer.id,
                producer_epoch: producer.epoch,
                base_sequence,
                transactional: self.transactional,
            },
            _ => ProducerStamp::NONE,
        }
    }

    /// Records that a batch was acknowledged.
    pub(crate) fn acknowledged(&mut self, sequence: i32, records: u32, last_offset: Option<i64>) {
        self.acked = advance(sequence, records);
        self.introduced = true;
        if last_offset.is_some() {
            self.last_acked_offset = last_offset;
        }
    }

    /// Records that a batch that may have been written failed. It is not known whether its numbers
    /// are used up, so no more are assigned until the batches after it are answered, or the epoch
    /// is raised.
    pub(crate) fn unresolved(&mut self) {
        self.unresolved = true;
    }

    /// Records that a batch failed that is not in the log and never will be. If it was the last one
    /// sent, its numbers are used again; otherwise it leaves a hole.
    pub(crate) fn dropped(&mut self, sequence: i32, records: u32, others_outstanding: bool) {
        if !others_outstanding && !self.unresolved && advance(sequence, records) == self.next {
            self.next = sequence;
        } else {
            self.hole = true;
        }
    }

    /// Records that a batch failed that is not in the log, although a broker may have recorded its
    /// numbers. No other batch gets these numbers.
    pub(crate) fn lost(&mut self) {
        self.hole = true;
    }

    /// Returns true if a batch that failed may have been written, or may still be.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.unresolved
    }

    /// Requires that the epoch is raised before anything more is sent.
    pub(crate) fn must_raise(&mut self) {
        self.raise = true;
    }

    /// Returns true if the epoch is to be raised as soon as no batch is in flight.
    pub(crate) fn wants_raise(&self) -> bool {
        self.raise || self.hole
    }

    /// Returns true if raising the epoch has to wait until the fate of batches that may have been
    /// written is known: batches before a hole can still be sent again under their numbers, and
    /// must not get others.
    pub(crate) fn raise_can_wait(&self) -> bool {
        self.hole && !self.raise
    }

    /// Returns true if new batches may get numbers.
    pub(crate) fn may_assign(&self) -> bool {
        !self.unresolved && !self.wants_raise()
    }

    /// Returns true if the broker knows the producer, and so refuses a batch that does not come
    /// next. A broker that does not know the producer accepts any first number since Kafka 2.5
    /// (KIP-360): if the first batch were refused, the second would be accepted as the start.
    pub(crate) fn is_introduced(&self) -> bool {
        self.introduced
    }

    /// Decides, once no numbered batch is outstanding, whether earlier failed batches were written
    /// after all.
    pub(crate) fn nothing_outstanding(&mut self) {
        if self.unresolved {
            if self.acked != self.next {
                self.raise = true;
            }
            self.unresolved = false;
        }
    }

    /// Raises the epoch and starts at 0. Call it only when no batch is in flight.
    pub(crate) fn raise(&mut self) -> Raise {
        let raised = match self.producer {
            Some(ProducerId { id, epoch }) if epoch < i16::MAX => Some(ProducerId { id, epoch: epoch + 1 }),
            _ => None,
        };
        let introduced = self.introduced && raised.is_some();
        *self = Self { producer: raised, last_acked_offset: self.last_acked_offset, introduced, ..Self::default() };
        if raised.is_some() { Raise::Done } else { Raise::NeedsNewId }
    }

    /// Resets the state for a topic that was deleted and created again: its log has no batch of
    /// this producer.
    pub(crate) fn topic_recreated(&mut self) {
        self.last_acked_offset = None;
        self.introduced = false;
        self.raise = self.producer.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: ProducerId = ProducerId { id: 9, epoch: 4 };

    fn started() -> Sequences {
        let mut sequences = Sequences::default();
        sequences.start(ID, false);
        sequences
    }

    #[test]
    fn sequence_wraps_to_zero_after_maximum() {
        assert_eq!(advance(i32::MAX, 1), 0);
        assert_eq!(advance(i32::MAX - 1, 1), i32::MAX);
        assert_eq!(advance(i32::MAX - 2, 10), 7);
        assert_eq!(advance(0, u32::MAX), i32::MAX);
    }

    #[test]
    fn assigns_consecutive_sequences_under_one_epoch() {
        let mut sequences = started();
        assert_eq!(sequences.stamp(None), ProducerStamp::NONE);
        assert_eq!(sequences.assign(3), 0);
        assert_eq!(sequences.assign(2), 3);
        let stamp = sequences.stamp(Some(3));
        assert_eq!((stamp.producer_id, stamp.producer_epoch, stamp.base_sequence), (9, 4, 3));
    }

    #[test]
    fn reuses_sequence_of_last_batch_not_written() {
        let mut sequences = started();
        sequences.assign(3);
        sequences.assign(2);
        sequences.dropped(3, 2, false);
        assert!(sequences.may_assign());
        assert_eq!(sequences.assign(1), 3);
    }

    #[test]
    fn sequence_gap_requires_epoch_bump() {
        let mut sequences = started();
        sequences.assign(3);
        sequences.assign(2);
        sequences.dropped(0, 3, true);
        assert!(sequences.wants_raise() && !sequences.may_assign());
        assert!(sequences.raise_can_wait(), "the batch after it may be before another hole");
        sequences.must_raise();
        assert!(!sequences.raise_can_wait());
        assert_eq!(sequences.raise(), Raise::Done);
        assert_eq!(sequences.producer(), Some(ProducerId { id: 9, epoch: 5 }));
        assert_eq!(sequences.assign(2), 0);
    }

    #[test]
    fn later_acknowledgement_clears_unresolved_sequence() {
        let mut sequences = started();
        sequences.assign(3);
        sequences.assign(2);
        sequences.unresolved();
        assert!(!sequences.may_assign());
        sequences.acknowledged(3, 2, Some(40));
        sequences.nothing_outstanding();
        assert!(sequences.may_assign());
        assert_eq!(sequences.assign(1), 5);
    }

    #[test]
    fn unresolved_sequence_without_acknowledgement_bumps_epoch() {
        let mut sequences = started();
        sequences.assign(3);
        sequences.unresolved();
        sequences.nothing_outstanding();
        assert!(sequences.wants_raise());
    }

    #[test]
    fn acknowledgement_marks_producer_id_known_across_epochs() {
        let mut sequences = started();
        let sequence = sequences.assign(3);
        assert!(!sequences.is_introduced());
        sequences.acknowledged(sequence, 3, None);
        sequences.raise();
        assert!(sequences.is_introduced(), "the broker knows an older epoch");
        sequences.start(ProducerId { id: 10, epoch: 0 }, false);
        assert!(!sequences.is_introduced());
        sequences.acknowledged(0, 1, None);
        sequences.topic_recreated();
        assert!(!sequences.is_introduced(), "another log does not know the producer");
    }

    #[test]
    fn transaction_starts_anew_at_each_epoch() {
        let identity = |epoch| {
            let producer = ProducerId { id: 9, epoch };
            Identity::Transactional(TransactionIdentity { producer, number: 1, adds_partitions: false })
        };
        assert!(identity(4).is_other_than(None) && identity(5).is_other_than(Some(ID)));
        assert!(!identity(4).is_other_than(Some(ID)), "numbers continue under the same epoch");
        assert!(!Identity::Known(ID).is_other_than(Some(ProducerId { id: 9, epoch: 5 })));
        let mut sequences = Sequences::default();
        sequences.start(ID, true);
        let first = sequences.assign(2);
        assert!(sequences.stamp(Some(first)).transactional);
        sequences.acknowledged(first, 2, None);
        sequences.start(ProducerId { id: 9, epoch: 5 }, true);
        assert!(sequences.is_introduced(), "the broker knows an older epoch");
        assert_eq!(sequences.assign(1), 0);
    }

    #[test]
    fn exhausted_epoch_requires_new_producer_id() {
        let mut sequences = Sequences::default();
        sequences.start(ProducerId { id: 9, epoch: i16::MAX }, false);
        sequences.must_raise();
        assert_eq!(sequences.raise(), Raise::NeedsNewId);
        assert_eq!(sequences.producer(), None);
    }
}
