//! The part of a decoded batch that is still to be delivered.
//!
//! Sans-IO.

use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::consumer::{
    fetch::memory_budget::{BrokerQuota, Reservation},
    subscription::delivery_progress::DeliveryProgress,
};
use crate::{
    error::{Error, ErrorKind, Result, said},
    log::{Origin, event},
    wire::batch::{Decompressor, RawBatch, RecordIter, RecordPosition, Records},
};

/// Number of records for which, in tests, decoding a compressed batch panics.
#[cfg(test)]
pub(crate) const UNLUCKY: i32 = 23;

/// Settings for decoding batches.
#[derive(Clone, Debug)]
pub(crate) struct DecodeConfig {
    /// `check.crcs`.
    pub(crate) check_crcs: bool,
    /// `max.decompressed.batch.bytes`.
    pub(crate) limit: usize,
    /// The consumer's name in log lines.
    pub(crate) origin: Origin,
}

/// A batch, checked and decompressed, without the records that were already delivered. It has at
/// least one record.
#[derive(Clone, Debug)]
pub(crate) struct DecodedBatch {
    pub(crate) progress: Arc<DeliveryProgress>,
    pub(crate) records: Records,
    /// Position of its first record.
    pub(crate) position: RecordPosition,
    /// Number of records from there on.
    pub(crate) left: usize,
    /// Records before this offset came with another batch.
    pub(crate) start: i64,
    /// Size of the batch in bytes, as it was fetched.
    pub(crate) bytes: usize,
    /// Offset at which reading continues after its last record.
    pub(crate) end: i64,
    reservation: Arc<Reservation>,
}

impl DecodedBatch {
    /// Returns the quota to which its bytes are charged.
    pub(crate) fn quota(&self) -> &Arc<BrokerQuota> {
        self.reservation.quota()
    }

    /// Decodes a batch: checks and decompresses it, and skips the records before the progress's
    /// position. Returns `None` if no record remains. Records outside `offsets` do not count,
    /// because a batch may overlap with the one before it.
    ///
    /// # Errors
    /// `Corrupt`, also if a codec panics: a panic affects only its batch.
    pub(crate) fn decode(
        progress: &Arc<DeliveryProgress>,
        batch: &RawBatch,
        offsets: Range<i64>,
        reservation: Arc<Reservation>,
        decompressor: &mut Decompressor,
        opening: &DecodeConfig,
    ) -> Result<Option<Self>> {
        let open = || Self::decode_unguarded(progress, batch, offsets, reservation, decompressor, opening);
        catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
            // The panic may have left it in any state.
            *decompressor = Decompressor::default();
            let (partition, offset, said) = (progress.partition(), batch.header.base_offset, said(&*panic));
            event!(
                ERROR, opening.origin, %partition, offset,
                "a codec panicked: {said}; the batch counts as corrupt, and its reader gets an error"
            );
            let message = format!("the batch at offset {offset}: the codec panicked: {said}");
            Err(Error::new(ErrorKind::Corrupt, message))
        })
    }

    /// Like [`decode`](Self::decode), but lets a codec's panic through.
    pub(crate) fn decode_unguarded(
        progress: &Arc<DeliveryProgress>,
        batch: &RawBatch,
        offsets: Range<i64>,
        reservation: Arc<Reservation>,
        decompressor: &mut Decompressor,
        opening: &DecodeConfig,
    ) -> Result<Option<Self>> {
        if opening.check_crcs {
            batch.check_crc()?;
        }
        #[cfg(test)]
        assert!(
            !batch.header.is_compressed() || batch.header.record_count != UNLUCKY,
            "the test codec panics on batches with this number of records"
        );
        let records = batch.records(decompressor, opening.limit)?;
        // Decompressed records no longer need the response that the batch came in.
        let reservation = if batch.header.is_compressed() {
            Arc::new(reservation.quota().charge(records.size()))
        } else {
            reservation
        };
        let mut part = Self {
            progress: progress.clone(),
            left: usize::try_from(records.header.record_count).unwrap_or(0),
            position: RecordPosition::default(),
            records,
            start: offsets.start,
            bytes: batch.bytes().len(),
            end: offsets.end,
            reservation,
        };
        let from = progress.delivered().max(offsets.start);
        Ok(if part.skip_to(from)? { Some(part) } else { None })
    }

    /// Skips records before that offset. Returns true if any records remain.
    fn skip_to(&mut self, offset: i64) -> Result<bool> {
        if self.records.header.base_offset >= offset {
            return Ok(self.left > 0);
        }
        let mut iter = self.records.iter();
        let (mut position, mut passed) = (iter.position(), 0);
        while let Some(record) = iter.next() {
            if record?.offset >= offset {
                self.left = self.left.saturating_sub(passed);
                self.position = position;
                return Ok(self.left > 0);
            }
            passed += 1;
            position = iter.position();
        }
        Ok(false)
    }

    pub(crate) fn iter(&self) -> RecordIter<'_> {
        self.records.iter_from(self.position)
    }

    /// Returns the reservation for the bytes that it keeps in memory, which other parts may share.
    pub(crate) fn charge(&self) -> &Arc<Reservation> {
        &self.reservation
    }

    /// Returns a copy that does not keep the response in memory that the batch came in.
    pub(crate) fn copied_out(&self) -> Self {
        let reservation = Arc::new(self.reservation.quota().charge(self.records.size()));
        Self { records: self.records.detached(), reservation, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::buffer::decoded_batch::*;
    use crate::{
        consumer::{
            fetch::memory_budget::MemoryBudget,
            test_batches::{Sort, batch},
        },
        record::TopicPartition,
        wire::batch::Batches,
    };

    fn open(bytes: bytes::Bytes, position: i64, check_crcs: bool) -> Result<Option<DecodedBatch>> {
        let raw = Batches::new(bytes).next().expect("a batch")?;
        let progress = Arc::new(DeliveryProgress::new(TopicPartition::new("t", 0), 1, position, position, -1));
        let reservation = Arc::new(MemoryBudget::new(1000).quota(1, || Box::new(|| ())).charge(10));
        let opening = DecodeConfig { check_crcs, limit: 1 << 20, origin: Origin::default() };
        let offsets = position..raw.header.next_offset();
        DecodedBatch::decode(&progress, &raw, offsets, reservation, &mut Decompressor::default(), &opening)
    }

    #[test]
    fn batch_before_position_starts_at_position() {
        let part = open(batch(10, 5, Sort::Plain), 13, true).unwrap().unwrap();
        assert_eq!(part.left, 2);
        let offsets: Vec<i64> = part.iter().map(|record| record.unwrap().offset).collect();
        assert_eq!(offsets, [13, 14]);
        assert!(open(batch(10, 5, Sort::Plain), 15, true).unwrap().is_none());
        assert_eq!(open(batch(10, 5, Sort::Plain), 3, true).unwrap().unwrap().left, 5);
    }

    #[test]
    fn checksum_error_names_offset_unless_unchecked() {
        let mut bad = batch(10, 5, Sort::Plain).to_vec();
        bad[20] ^= 1;
        let error = open(bad.clone().into(), 10, true).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("offset 10"), "{error}");
        assert_eq!(open(bad.into(), 10, false).unwrap().unwrap().left, 5);
    }
}
