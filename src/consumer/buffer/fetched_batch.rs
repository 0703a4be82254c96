//! A batch on its way from the fetch response to the user.
//!
//! [`FetchedBatch`] is the one type for it: first with its encoded bytes, then with its decoded
//! records. What stands in a batch's place in the log (a range without records, damage, the end of
//! the log) takes the same way, so that the reader receives all of it in the log's order.
//!
//! Sans-IO.

use std::{
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

/// Size in bytes above which a compressed batch is decompressed ahead, on the blocking pool.
pub(crate) const HEAVY: usize = 32 * 1024;

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

/// A batch of one partition with its place in the log.
#[derive(Clone, Debug)]
pub(crate) struct FetchedBatch<C = BatchContent> {
    /// The positioning of its partition under which it was fetched.
    pub(crate) progress: Arc<DeliveryProgress>,
    /// Records before this offset came with another batch.
    pub(crate) start: i64,
    /// Offset at which reading continues after it.
    pub(crate) end: i64,
    /// Size as fetched, in bytes.
    pub(crate) bytes: usize,
    pub(crate) content: C,
}

/// The content of a batch at any stage, or what stands in its place.
#[derive(Debug)]
pub(crate) enum BatchContent {
    Encoded(EncodedRecords),
    /// The batch is being decompressed on the blocking pool.
    Decompressing,
    /// The records are decoded: by the reader, or ahead of it on the blocking pool.
    Decoded(DecodedRecords),
    /// A range of offsets without records to deliver.
    Skip,
    /// Fetched bytes that cannot be read.
    Corrupt(Error),
    /// The broker has no record at this offset: it is too old, or beyond the log's end.
    OutOfRange,
    /// The log's end at the time of the fetch.
    LogEnd,
}

/// A batch as it was fetched.
#[derive(Debug)]
pub(crate) struct EncodedRecords {
    pub(crate) batch: RawBatch,
    /// The reservation of its response, which other batches share.
    pub(crate) reservation: Arc<Reservation>,
}

/// The records of a checked and decompressed batch that are still to be delivered; at least one
/// when it is decoded.
#[derive(Clone, Debug)]
pub(crate) struct DecodedRecords {
    pub(crate) records: Records,
    /// Position of the first record.
    pub(crate) position: RecordPosition,
    /// Number of records from there on.
    pub(crate) left: usize,
    /// The reservation for the bytes that it keeps in memory, which other batches may share.
    pub(crate) reservation: Arc<Reservation>,
}

impl FetchedBatch {
    /// Returns true if its records, or that there are none, can be delivered without decompressing
    /// a large batch.
    pub(crate) fn is_readable(&self) -> bool {
        match &self.content {
            BatchContent::Decompressing => false,
            BatchContent::Encoded(encoded) => !encoded.is_heavy(),
            _ => true,
        }
    }

    /// Returns true for an error or a log end, which is delivered after all records before it.
    pub(crate) fn is_stop(&self) -> bool {
        matches!(self.content, BatchContent::Corrupt(_) | BatchContent::OutOfRange | BatchContent::LogEnd)
    }

    /// Checks and decompresses an encoded batch; returns other batches unchanged.
    pub(crate) fn decoded(self, decompressor: &mut Decompressor, config: &DecodeConfig) -> Self {
        match self.into_encoded() {
            Ok(encoded) => encoded.decode(decompressor, config),
            Err(other) => other,
        }
    }

    /// Returns the batch if it is encoded; otherwise returns it as it is as the error.
    #[expect(clippy::result_large_err, reason = "the error is the batch itself, and no failure")]
    pub(crate) fn into_encoded(self) -> Result<FetchedBatch<EncodedRecords>, Self> {
        let Self { progress, start, end, bytes, content } = self;
        match content {
            BatchContent::Encoded(content) => Ok(FetchedBatch { progress, start, end, bytes, content }),
            content => Err(Self { progress, start, end, bytes, content }),
        }
    }

    /// Returns the batch if it is decoded and has records left; otherwise returns it as it is as
    /// the error.
    #[expect(clippy::result_large_err, reason = "the error is the batch itself, and no failure")]
    pub(crate) fn into_decoded(self) -> Result<FetchedBatch<DecodedRecords>, Self> {
        let Self { progress, start, end, bytes, content } = self;
        match content {
            BatchContent::Decoded(content) if content.left > 0 => {
                Ok(FetchedBatch { progress, start, end, bytes, content })
            }
            content => Err(Self { progress, start, end, bytes, content }),
        }
    }
}

impl<C> FetchedBatch<C> {
    /// Returns the batch with another content.
    pub(crate) fn with_content(self, content: BatchContent) -> FetchedBatch {
        self.map_content(|_| content)
    }

    /// Returns the batch with another content that is made of the present one.
    pub(crate) fn map_content<D>(self, change: impl FnOnce(C) -> D) -> FetchedBatch<D> {
        let Self { progress, start, end, bytes, content } = self;
        FetchedBatch { progress, start, end, bytes, content: change(content) }
    }
}

impl FetchedBatch<EncodedRecords> {
    /// Checks and decompresses the batch, and skips the records before the progress's position.
    /// Records outside of the batch's offsets do not count, because a batch may overlap with the
    /// one before it. Without any records it is a range to skip. A batch that cannot be decoded is
    /// corrupt, also if a codec panics: a panic affects only its batch.
    pub(crate) fn decode(self, decompressor: &mut Decompressor, config: &DecodeConfig) -> FetchedBatch {
        let content = match self.decode_contained(decompressor, config) {
            Ok(Some(records)) => BatchContent::Decoded(records),
            Ok(None) => BatchContent::Skip,
            Err(error) => BatchContent::Corrupt(error),
        };
        self.with_content(content)
    }

    fn decode_contained(
        &self,
        decompressor: &mut Decompressor,
        config: &DecodeConfig,
    ) -> Result<Option<DecodedRecords>> {
        catch_unwind(AssertUnwindSafe(|| self.decode_unguarded(decompressor, config))).unwrap_or_else(|panic| {
            // The panic may have left it in any state.
            *decompressor = Decompressor::default();
            let (partition, offset) = (self.progress.partition(), self.content.batch.header.base_offset);
            let message = said(&*panic);
            event!(
                ERROR, config.origin, %partition, offset,
                "a codec panicked: {message}; the batch counts as corrupt, and its reader gets an error"
            );
            let message = format!("the batch at offset {offset}: the codec panicked: {message}");
            Err(Error::new(ErrorKind::Corrupt, message))
        })
    }

    /// Like [`decode`](Self::decode), but lets a codec's panic through.
    pub(crate) fn decode_unguarded(
        &self,
        decompressor: &mut Decompressor,
        config: &DecodeConfig,
    ) -> Result<Option<DecodedRecords>> {
        let EncodedRecords { batch, reservation } = &self.content;
        if config.check_crcs {
            batch.check_crc()?;
        }
        #[cfg(test)]
        assert!(
            !batch.header.is_compressed() || batch.header.record_count != UNLUCKY,
            "the test codec panics on batches with this number of records"
        );
        let records = batch.records(decompressor, config.limit)?;
        // Decompressed records no longer need the response that the batch came in.
        let reservation = if batch.header.is_compressed() {
            Arc::new(reservation.quota().charge(records.size()))
        } else {
            reservation.clone()
        };
        let mut decoded = DecodedRecords {
            left: usize::try_from(records.header.record_count).unwrap_or(0),
            position: RecordPosition::default(),
            records,
            reservation,
        };
        let from = self.progress.delivered().max(self.start);
        Ok(decoded.skip_to(from)?.then_some(decoded))
    }
}

impl BatchContent {
    /// Returns true for an encoded batch that is decompressed ahead, on the blocking pool.
    pub(crate) fn is_heavy(&self) -> bool {
        matches!(self, Self::Encoded(encoded) if encoded.is_heavy())
    }
}

impl EncodedRecords {
    /// Returns true if the batch is decompressed ahead, on the blocking pool.
    pub(crate) fn is_heavy(&self) -> bool {
        is_heavy(&self.batch)
    }
}

/// Returns true if a batch is decompressed ahead, on the blocking pool.
pub(crate) fn is_heavy(batch: &RawBatch) -> bool {
    batch.header.is_compressed() && batch.bytes().len() > HEAVY
}

impl DecodedRecords {
    /// Returns the quota to which its bytes are charged.
    pub(crate) fn quota(&self) -> &Arc<BrokerQuota> {
        self.reservation.quota()
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

    /// Copies the records, so that they no longer keep the response in memory that the batch came
    /// in.
    pub(crate) fn copy_out(&mut self) {
        self.reservation = Arc::new(self.reservation.quota().charge(self.records.size()));
        self.records = self.records.detached();
    }
}

#[cfg(test)]
mod tests {
    use crate::consumer::buffer::fetched_batch::*;
    use crate::{
        consumer::{
            fetch::memory_budget::MemoryBudget,
            test_batches::{Sort, batch},
        },
        record::TopicPartition,
        wire::batch::Batches,
    };

    fn open(bytes: bytes::Bytes, position: i64, check_crcs: bool) -> Result<Option<DecodedRecords>> {
        let batch = Batches::new(bytes).next().expect("a batch")?;
        let fetched = FetchedBatch {
            progress: Arc::new(DeliveryProgress::new(TopicPartition::new("t", 0), 1, position, position, -1)),
            start: position,
            end: batch.header.next_offset(),
            bytes: batch.bytes().len(),
            content: EncodedRecords {
                batch,
                reservation: Arc::new(MemoryBudget::new(1000).quota(1, || Box::new(|| ())).charge(10)),
            },
        };
        let config = DecodeConfig { check_crcs, limit: 1 << 20, origin: Origin::default() };
        fetched.decode_contained(&mut Decompressor::default(), &config)
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
