use bytes::Bytes;

use super::BATCH_HEADER_SIZE;
use crate::{error::Result, record::Record, wire::Compression};

/// What is written of a record; borrows from the user's `Record`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordParts<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// The user's record, asked for its headers (order and repeated names kept).
    pub(crate) record: Option<&'a Record<'a>>,
}

/// An upper bound of the bytes that a record takes in any batch, whatever its deltas; what admission charges.
pub(crate) fn record_size_bound(parts: &RecordParts<'_>) -> usize {
    let _ = parts;
    unimplemented!()
}

/// An open batch: records are encoded once, in place, as they come.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    _body: Vec<u8>,
}

impl BatchBuilder {
    /// An empty batch with room for about so many bytes of records.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        let _ = bytes;
        unimplemented!()
    }

    /// The exact bytes that this record would add, were it appended next.
    pub(crate) fn record_size(&self, parts: &RecordParts<'_>, timestamp: i64) -> usize {
        let _ = (parts, timestamp);
        unimplemented!()
    }

    /// Appends a record and gives its index in the batch.
    pub(crate) fn append(&mut self, parts: &RecordParts<'_>, timestamp: i64) -> u32 {
        let _ = (parts, timestamp);
        unimplemented!()
    }

    /// Records so far.
    pub(crate) fn count(&self) -> u32 {
        unimplemented!()
    }

    /// Bytes of the batch so far, its header included, uncompressed.
    pub(crate) fn size(&self) -> usize {
        unimplemented!()
    }

    /// Closes the batch: compresses the body and checksums it. Pure CPU work; call it outside any lock.
    pub(crate) fn seal(self, compressor: &mut Compressor) -> Result<SealedBatch> {
        let _ = compressor;
        unimplemented!()
    }
}

/// A codec with its reusable state. Not shared between threads.
#[derive(Debug)]
pub(crate) struct Compressor {
    _compression: Compression,
}

impl Compressor {
    /// Refuses a codec whose feature is off and a level that is not to be had, by name.
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        let _ = compression;
        unimplemented!()
    }
}

/// Who wrote the batch and where it stands among that producer's batches (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) transactional: bool,
}

impl ProducerStamp {
    /// Of a producer without idempotence.
    pub(crate) const NONE: Self = Self { producer_id: -1, producer_epoch: -1, base_sequence: -1, transactional: false };
}

/// A closed batch: its body never changes, so every retry sends the same bytes under a fresh header.
#[derive(Clone, Debug)]
pub(crate) struct SealedBatch {
    _body: Bytes,
}

impl SealedBatch {
    /// The header for this body under that stamp. The body's own checksum was computed at sealing and is combined, so
    /// this costs the same for any size.
    pub(crate) fn header(&self, stamp: ProducerStamp) -> [u8; BATCH_HEADER_SIZE] {
        let _ = stamp;
        unimplemented!()
    }

    /// The bytes behind the header.
    pub(crate) fn body(&self) -> &Bytes {
        unimplemented!()
    }

    /// Header and body together, in bytes.
    pub(crate) fn size(&self) -> usize {
        unimplemented!()
    }

    pub(crate) fn count(&self) -> u32 {
        unimplemented!()
    }

    pub(crate) fn max_timestamp(&self) -> i64 {
        unimplemented!()
    }
}
