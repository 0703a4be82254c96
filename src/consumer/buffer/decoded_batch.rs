//! The part of a batch that is still to be handed out.
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

/// A compressed batch of so many records makes every codec panic.
#[cfg(test)]
pub(crate) const UNLUCKY: i32 = 23;

/// How batches are opened.
#[derive(Clone, Debug)]
pub(crate) struct DecodeConfig {
    /// `check.crcs`.
    pub(crate) check_crcs: bool,
    /// `max.decompressed.batch.bytes`.
    pub(crate) limit: usize,
    /// The consumer, as log lines name it.
    pub(crate) origin: Origin,
}

/// A batch, checked and decompressed, from the first record on that was not handed out yet. There
/// is at least one.
#[derive(Clone, Debug)]
pub(crate) struct DecodedBatch {
    pub(crate) progress: Arc<DeliveryProgress>,
    pub(crate) records: Records,
    /// Where its first record is.
    pub(crate) position: RecordPosition,
    /// Records from there on.
    pub(crate) left: usize,
    /// What lies before this offset came with another batch.
    pub(crate) start: i64,
    /// Bytes of the batch as it was fetched.
    pub(crate) bytes: usize,
    /// Where reading goes on behind its last record.
    pub(crate) end: i64,
    reservation: Arc<Reservation>,
}

impl DecodedBatch {
    /// The account that its bytes are charged to.
    pub(crate) fn quota(&self) -> &Arc<BrokerQuota> {
        self.reservation.quota()
    }

    /// Opens a batch: checks and decompresses it, and passes over what lies before the lease's
    /// position. `None` where nothing is behind that. Of its records those at these `offsets`
    /// count: others may overlap with the batch before it.
    ///
    /// # Errors
    /// `Corrupt`, also where a codec panics: that costs its batch and nothing else.
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
            // Whatever state it was left in.
            *decompressor = Decompressor::default();
            let (partition, offset, said) = (progress.partition(), batch.header.base_offset, said(&*panic));
            event!(
                ERROR, opening.origin, %partition, offset,
                "a codec panicked: {said}; the batch counts as corrupt, and its reader is told"
            );
            let message = format!("the batch at offset {offset}: the codec panicked: {said}");
            Err(Error::new(ErrorKind::Corrupt, message))
        })
    }

    /// The same, but for codecs that panic.
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
            "the codec finds a batch of so many records unlucky"
        );
        let records = batch.records(decompressor, opening.limit)?;
        // What is decompressed no longer needs the response that it came in.
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

    /// Passes over records before that offset; whether anything is behind them.
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

    /// Bytes that it keeps in memory, be they shared with other parts or not.
    pub(crate) fn charge(&self) -> &Arc<Reservation> {
        &self.reservation
    }

    /// The same, no longer keeping the response that it came in.
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
