//! A partition's state of its idempotent producers, and the checks of their batches (KIP-98,
//! KIP-360).
//!
//! The rules are those of Kafka's `ProducerStateManager`: the last five batches of each producer
//! are remembered, a repetition of one of them is answered with its first offset again, and any
//! other batch must continue the sequence.
//!
//! Sans-IO.

use std::collections::{HashMap, VecDeque};

use crate::error::ErrorCode;

/// Number of batches of a producer that are remembered; for this reason at most five may be in
/// flight.
const REMEMBERED: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Appended {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    timestamp: i64,
}

/// The first batch of a transaction in this partition, while the coordinator is asked about it
/// (KIP-890).
#[derive(Debug)]
struct Unverified {
    epoch: i16,
    /// The lowest sequence number seen: a batch behind it is refused, because it would be appended
    /// before the first one.
    lowest_sequence: i32,
    /// True if it came in a version in which every transaction has an epoch of its own.
    raises_epoch: bool,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    batches: VecDeque<Appended>,
    /// Epoch of the coordinator that wrote the last marker; −1 before the first.
    coordinator_epoch: i32,
}

impl Producer {
    fn new(epoch: i16) -> Self {
        Self { epoch, batches: VecDeque::with_capacity(REMEMBERED), coordinator_epoch: -1 }
    }
}

/// The producers of one partition.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
    unverified: HashMap<i64, Unverified>,
}

/// A marker that ends a transaction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marker {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) coordinator_epoch: i32,
    pub(crate) committed: bool,
    /// True if the coordinator has raised the epoch for it (transactions v2).
    pub(crate) raises_epoch: bool,
}

/// The result of checking a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// The batch continues the sequence.
    Append,
    /// The batch is in the log already, from this offset on, appended at that time.
    Duplicate { base_offset: i64, timestamp: i64 },
}

/// The producer's fields of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) first_sequence: i32,
    pub(crate) count: i32,
}

impl Stamp {
    /// Sequences wrap to 0 after `i32::MAX`.
    fn last_sequence(&self) -> i32 {
        let last = i64::from(self.first_sequence) + i64::from(self.count) - 1;
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }
}

impl Producers {
    /// Checks a batch without changing anything. With `strict` it behaves like brokers before 2.5,
    /// which refused a producer that they did not know unless it began at 0 (UNKNOWN_PRODUCER_ID).
    pub(crate) fn admit(&self, stamp: &Stamp, strict: bool) -> Result<Admission, ErrorCode> {
        if stamp.first_sequence < 0 || stamp.epoch < 0 {
            return Err(ErrorCode::INVALID_RECORD);
        }
        let known = self.known.get(&stamp.producer_id);
        let Some(producer) = known else {
            self.check_unverified(stamp, true)?;
            return match strict && stamp.first_sequence != 0 {
                true => Err(ErrorCode::UNKNOWN_PRODUCER_ID),
                false => Ok(Admission::Append),
            };
        };
        if producer.epoch == stamp.epoch {
            let same = |appended: &&Appended| {
                appended.first_sequence == stamp.first_sequence && appended.last_sequence == stamp.last_sequence()
            };
            if let Some(appended) = producer.batches.iter().find(same) {
                return Ok(Admission::Duplicate { base_offset: appended.base_offset, timestamp: appended.timestamp });
            }
        }
        if stamp.epoch < producer.epoch {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        self.check_unverified(stamp, producer.batches.is_empty())?;
        let expected = match producer.batches.back() {
            Some(last) if stamp.epoch == producer.epoch => last.last_sequence.checked_add(1).unwrap_or(0),
            _ => 0,
        };
        if stamp.first_sequence == expected {
            Ok(Admission::Append)
        } else {
            Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)
        }
    }

    /// Notes that a batch was appended.
    pub(crate) fn appended(&mut self, stamp: &Stamp, base_offset: i64, timestamp: i64) {
        let producer = self.known.entry(stamp.producer_id).or_insert_with(|| Producer::new(stamp.epoch));
        if producer.epoch != stamp.epoch {
            producer.epoch = stamp.epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        self.unverified.remove(&stamp.producer_id);
        let (first_sequence, last_sequence) = (stamp.first_sequence, stamp.last_sequence());
        producer.batches.push_back(Appended { first_sequence, last_sequence, base_offset, timestamp });
    }

    /// Returns true if the coordinator has to be asked before a transactional batch is appended,
    /// because it is the first of its transaction here. `is_open` tells whether the producer has an
    /// open transaction.
    pub(crate) fn needs_verification(
        &mut self,
        stamp: &Stamp,
        is_open: bool,
        raises_epoch: bool,
    ) -> Result<bool, ErrorCode> {
        let known = self.known.get(&stamp.producer_id).map(|producer| producer.epoch);
        if known.is_some_and(|known| stamp.epoch < known) {
            return Err(ErrorCode::INVALID_PRODUCER_EPOCH);
        }
        if is_open && known == Some(stamp.epoch) {
            return Ok(false);
        }
        let (epoch, lowest_sequence) = (stamp.epoch, stamp.first_sequence);
        let entry = self.unverified.entry(stamp.producer_id);
        let entry = entry.or_insert(Unverified { epoch, lowest_sequence, raises_epoch });
        if epoch > entry.epoch {
            (entry.epoch, entry.lowest_sequence) = (epoch, lowest_sequence);
        } else if epoch == entry.epoch {
            entry.lowest_sequence = entry.lowest_sequence.min(lowest_sequence);
        }
        Ok(true)
    }

    /// Checks the first batch of a transaction against those that were seen before it. `is_new` is
    /// true if no batch of the producer's epoch is known.
    fn check_unverified(&self, stamp: &Stamp, is_new: bool) -> Result<(), ErrorCode> {
        let Some(unverified) = self.unverified.get(&stamp.producer_id) else { return Ok(()) };
        let skips = unverified.raises_epoch && is_new && stamp.first_sequence != 0;
        if skips || stamp.first_sequence > unverified.lowest_sequence {
            return Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        }
        Ok(())
    }

    /// Checks a marker without changing anything: neither its producer's epoch nor its
    /// coordinator's ever decreases, and a marker of transactions v2 raises the epoch, unless it is
    /// the repetition of one that ended the transaction. `is_open` tells whether the producer has
    /// an open transaction.
    pub(crate) fn admit_marker(&self, marker: &Marker, is_open: bool) -> Result<(), ErrorCode> {
        let Some(producer) = self.known.get(&marker.producer_id) else { return Ok(()) };
        let repeats = marker.epoch == producer.epoch && (!is_open || marker.epoch == i16::MAX);
        let is_old = match marker.raises_epoch {
            true => marker.epoch <= producer.epoch && !repeats,
            false => marker.epoch < producer.epoch,
        };
        if is_old {
            Err(ErrorCode::INVALID_PRODUCER_EPOCH)
        } else if marker.coordinator_epoch < producer.coordinator_epoch {
            Err(ErrorCode::TRANSACTION_COORDINATOR_FENCED)
        } else {
            Ok(())
        }
    }

    /// Notes that a marker was appended; if it raises the epoch, the new epoch begins at sequence
    /// 0.
    pub(crate) fn marked(&mut self, marker: &Marker) {
        let producer = self.known.entry(marker.producer_id).or_insert_with(|| Producer::new(marker.epoch));
        if producer.epoch != marker.epoch {
            producer.epoch = marker.epoch;
            producer.batches.clear();
        }
        producer.coordinator_epoch = marker.coordinator_epoch;
        self.unverified.remove(&marker.producer_id);
    }

    /// Returns a producer's epoch and the sequence with which its next batch has to begin; both are
    /// 0 for an unknown producer.
    pub(crate) fn next_of(&self, producer_id: i64) -> (i16, i32) {
        let Some(producer) = self.known.get(&producer_id) else { return (0, 0) };
        let next = producer.batches.back().map_or(0, |last| last.last_sequence.checked_add(1).unwrap_or(0));
        (producer.epoch, next)
    }

    /// Forgets the batches from `end` on, which the log has lost.
    pub(crate) fn truncated(&mut self, end: i64) {
        for producer in self.known.values_mut() {
            producer.batches.retain(|appended| appended.base_offset < end);
        }
        self.known.retain(|_, producer| !producer.batches.is_empty());
    }

    /// Forgets all producers.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.unverified.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(epoch: i16, first_sequence: i32, count: i32) -> Stamp {
        Stamp { producer_id: 7, epoch, first_sequence, count }
    }

    #[test]
    fn recognizes_duplicates_of_last_five_batches() {
        let mut producers = Producers::default();
        for i in 0..7 {
            let next = stamp(0, i * 10, 10);
            assert_eq!(producers.admit(&next, false), Ok(Admission::Append));
            producers.appended(&next, i64::from(i) * 10, 1);
        }
        for i in 2..7 {
            let duplicate = Admission::Duplicate { base_offset: i64::from(i) * 10, timestamp: 1 };
            assert_eq!(producers.admit(&stamp(0, i * 10, 10), false), Ok(duplicate));
        }
        for wrong in [stamp(0, 10, 10), stamp(0, 60, 9), stamp(0, 71, 1), stamp(0, 80, 1)] {
            assert_eq!(producers.admit(&wrong, false), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "{wrong:?}");
        }
    }

    #[test]
    fn fences_older_epochs_and_resets_sequence() {
        let mut producers = Producers::default();
        producers.appended(&stamp(3, 0, 5), 0, 1);
        assert_eq!(producers.admit(&stamp(2, 0, 5), false), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert_eq!(producers.admit(&stamp(4, 5, 1), false), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        assert_eq!(producers.admit(&stamp(4, 0, 1), false), Ok(Admission::Append));
        producers.appended(&stamp(4, 0, 1), 5, 1);
        assert_eq!(producers.admit(&stamp(3, 5, 1), false), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert_eq!(producers.admit(&stamp(4, 1, 1), false), Ok(Admission::Append));
    }

    #[test]
    fn unknown_producer_starts_anywhere_unless_strict() {
        let producers = Producers::default();
        assert_eq!(producers.admit(&stamp(0, 17, 1), false), Ok(Admission::Append));
        assert_eq!(producers.admit(&stamp(0, 17, 1), true), Err(ErrorCode::UNKNOWN_PRODUCER_ID));
        assert_eq!(producers.admit(&stamp(0, 0, 1), true), Ok(Admission::Append));
        assert_eq!(producers.admit(&stamp(0, -1, 1), false), Err(ErrorCode::INVALID_RECORD));
    }

    #[test]
    fn markers_fence_older_epochs_and_older_coordinators() {
        let mut producers = Producers::default();
        let marker = |epoch, coordinator_epoch| Marker {
            producer_id: 7,
            epoch,
            coordinator_epoch,
            committed: true,
            raises_epoch: false,
        };
        assert_eq!(producers.admit_marker(&marker(0, 0), true), Ok(()), "a producer that the log has forgotten");
        producers.appended(&stamp(3, 0, 5), 0, 1);
        assert_eq!(producers.next_of(7), (3, 5));
        assert_eq!(producers.admit_marker(&marker(2, 9), true), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert_eq!(producers.admit_marker(&marker(4, 9), true), Ok(()));
        producers.marked(&marker(4, 9));
        let older = producers.admit_marker(&marker(4, 8), true);
        assert_eq!(older, Err(ErrorCode::TRANSACTION_COORDINATOR_FENCED));
        assert_eq!(producers.admit(&stamp(3, 5, 1), false), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert_eq!((producers.next_of(7), producers.admit(&stamp(4, 0, 1), false)), ((4, 0), Ok(Admission::Append)));
    }

    #[test]
    fn marker_of_v2_must_raise_the_epoch() {
        let mut producers = Producers::default();
        let marker =
            |epoch| Marker { producer_id: 7, epoch, coordinator_epoch: 0, committed: true, raises_epoch: true };
        producers.appended(&stamp(3, 0, 5), 0, 1);
        assert_eq!(producers.admit_marker(&marker(3), true), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert_eq!(producers.admit_marker(&marker(4), true), Ok(()));
        producers.marked(&marker(4));
        assert_eq!(producers.admit_marker(&marker(4), false), Ok(()), "the marker is repeated");
        producers.appended(&stamp(4, 0, 5), 6, 1);
        let late = producers.admit_marker(&marker(4), true);
        assert_eq!(late, Err(ErrorCode::INVALID_PRODUCER_EPOCH), "the next transaction is open");
        let last = Marker { epoch: i16::MAX, ..marker(0) };
        producers.appended(&stamp(i16::MAX, 0, 5), 11, 1);
        assert_eq!(producers.admit_marker(&last, true), Ok(()), "no epoch is left");
    }

    #[test]
    fn first_batch_of_transaction_needs_verification() {
        let mut producers = Producers::default();
        assert_eq!(producers.needs_verification(&stamp(3, 0, 5), false, false), Ok(true));
        producers.appended(&stamp(3, 0, 5), 0, 1);
        assert_eq!(producers.needs_verification(&stamp(3, 5, 5), true, false), Ok(false));
        assert_eq!(producers.needs_verification(&stamp(3, 5, 5), false, false), Ok(true), "the transaction has ended");
        assert_eq!(producers.needs_verification(&stamp(4, 0, 5), true, false), Ok(true), "another epoch");
        let old = producers.needs_verification(&stamp(2, 0, 5), true, false);
        assert_eq!(old, Err(ErrorCode::INVALID_PRODUCER_EPOCH));
    }

    #[test]
    fn batch_behind_an_unverified_one_is_refused() {
        let mut producers = Producers::default();
        producers.needs_verification(&stamp(3, 0, 5), false, false).unwrap();
        producers.needs_verification(&stamp(3, 5, 5), false, false).unwrap();
        assert_eq!(producers.admit(&stamp(3, 5, 5), false), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        assert_eq!(producers.admit(&stamp(3, 0, 5), false), Ok(Admission::Append));
        producers.appended(&stamp(3, 0, 5), 0, 1);
        assert_eq!(producers.admit(&stamp(3, 5, 5), false), Ok(Admission::Append));
        producers.needs_verification(&stamp(4, 9, 5), false, false).unwrap();
        producers.needs_verification(&stamp(4, 3, 5), false, false).unwrap();
        assert_eq!(producers.admit(&stamp(4, 9, 5), false), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
    }

    #[test]
    fn transaction_of_v2_starts_at_sequence_zero() {
        let mut producers = Producers::default();
        producers.needs_verification(&stamp(3, 5, 5), false, true).unwrap();
        assert_eq!(producers.admit(&stamp(3, 5, 5), false), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        let mut producers = Producers::default();
        producers.needs_verification(&stamp(3, 5, 5), false, false).unwrap();
        assert_eq!(producers.admit(&stamp(3, 5, 5), false), Ok(Admission::Append), "v1 accepts any first sequence");
    }

    #[test]
    fn sequence_wraps_to_zero_after_maximum() {
        let mut producers = Producers::default();
        let last = stamp(0, i32::MAX - 1, 3);
        producers.appended(&last, 0, 1);
        assert_eq!(last.last_sequence(), 0);
        assert_eq!(producers.admit(&stamp(0, 1, 1), false), Ok(Admission::Append));
        producers.appended(&stamp(0, i32::MAX, 1), 3, 1);
        assert_eq!(producers.admit(&stamp(0, 0, 1), false), Ok(Admission::Append));
    }

    #[test]
    fn truncation_discards_producer_state_of_lost_batches() {
        let mut producers = Producers::default();
        producers.appended(&stamp(0, 0, 5), 0, 1);
        producers.appended(&stamp(0, 5, 5), 5, 1);
        producers.truncated(5);
        assert_eq!(producers.admit(&stamp(0, 5, 5), false), Ok(Admission::Append));
        assert_eq!(producers.admit(&stamp(0, 10, 5), false), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        producers.truncated(0);
        assert_eq!(producers.admit(&stamp(0, 10, 5), false), Ok(Admission::Append));
    }
}
