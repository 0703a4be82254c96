use bytes::Bytes;

use super::{
    BATCH_HEADER_SIZE, BatchHeader, Batches, BodyBuffer, Decompressor, RecordView, Records,
    header::{CHECKED_FROM, LOG_OVERHEAD},
};
use crate::wire::batch::{staging_buffer::StagedBody, varint_packer::Front};
use crate::{
    error::{Error, ErrorKind, Result},
    record::Record,
    wire::{
        Compression, codec,
        crc::{Shift, castagnoli},
        varint::{MAX_32, MAX_64, put_i32, size_i32, size_i64},
    },
};

/// The parts of a record that are encoded; borrows from the user's `Record`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordParts<'a> {
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// The user's record, for its headers (order and repeated names are kept).
    pub(crate) record: Option<&'a Record<'a>>,
}

impl<'a> RecordParts<'a> {
    fn headers(&self) -> impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let headers = self.record.map_or(&[][..], |record| &record.headers);
        headers.iter().map(|(name, value)| (name.as_bytes(), value.as_ref().map(|value| value.as_slice())))
    }

    /// Returns the size of the parts that do not depend on the batch: attributes, key, value,
    /// headers.
    #[inline]
    fn fixed_size(&self) -> usize {
        let headers = self.headers();
        let headers = if headers.len() == 0 { 1 } else { headers_size(headers) };
        1 + field_size(self.key) + field_size(self.value) + headers
    }
}

/// Returns the size of the headers and their number.
fn headers_size<'a>(headers: impl ExactSizeIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> usize {
    let count = size_i32(headers.len() as i32);
    count + headers.map(|(name, value)| field_size(Some(name)) + field_size(value)).sum::<usize>()
}

/// Returns the size of a key, a value or a part of a header with its length; null is the length −1.
#[inline]
fn field_size(field: Option<&[u8]>) -> usize {
    field.map_or(1, |bytes| size_i32(bytes.len() as i32) + bytes.len())
}

/// Returns an upper bound of the bytes that a record takes in any batch, whatever its deltas. The
/// producer charges it to `buffer.memory`.
#[inline]
pub(crate) fn record_size_bound(parts: &RecordParts<'_>) -> usize {
    DELTAS + parts.fixed_size()
}

/// Maximum size of the parts that depend on the batch: a record's length, its timestamp delta, its
/// offset delta.
const DELTAS: usize = MAX_32 + MAX_64 + MAX_32;

/// An open batch: each record is encoded once, when it is appended.
///
/// A batch of more than 2 GiB cannot be expressed on the wire: [`seal`](Self::seal) refuses it.
/// Keep well below.
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    body: StagedBody,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// Makes an empty batch that writes its records into this buffer; small records go through the
    /// stage, if it has memory. `plain` is true if the batch will not be compressed, so that its
    /// checksum may be computed while it grows.
    pub(crate) fn new(body: BodyBuffer, stage: Vec<u8>, plain: bool) -> Self {
        Self { body: StagedBody::new(body, stage, plain), count: 0, base_timestamp: 0, max_timestamp: 0 }
    }

    /// Makes an empty batch with room for about `bytes` bytes of records.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self::new(BodyBuffer::with_capacity(bytes), Vec::new(), false)
    }

    /// Returns the record's timestamp as it is encoded, relative to the first record's. It wraps
    /// like the reader's addition.
    #[inline]
    fn timestamp_delta(&self, timestamp: i64) -> i64 {
        if self.count == 0 { 0 } else { timestamp.wrapping_sub(self.base_timestamp) }
    }

    #[inline]
    fn inner_size(&self, fixed: usize, timestamp: i64) -> usize {
        size_i64(self.timestamp_delta(timestamp)) + size_i32(self.count as i32) + fixed
    }

    /// Appends a record and returns its index in the batch.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn append(&mut self, parts: &RecordParts<'_>, timestamp: i64) -> u32 {
        self.append_sized(parts, parts.fixed_size(), timestamp)
    }

    /// Appends a record with a known [`record_size_bound`].
    #[inline]
    pub(crate) fn append_bounded(&mut self, parts: &RecordParts<'_>, bound: usize, timestamp: i64) -> u32 {
        self.append_sized(parts, bound.saturating_sub(DELTAS), timestamp)
    }

    #[inline]
    fn append_sized(&mut self, parts: &RecordParts<'_>, fixed: usize, timestamp: i64) -> u32 {
        let headers = parts.headers();
        let (index, body) = self.begin(fixed, timestamp, parts.key, parts.value);
        put_length(body, headers.len() as i32);
        for (name, value) in headers {
            put_field(body, Some(name));
            put_field(body, value);
        }
        index
    }

    /// Appends a record that was read, with its timestamp and its headers unchanged, and returns
    /// its index. It serves to split a batch that a broker found too large.
    pub(crate) fn append_view(&mut self, record: &RecordView<'_>) -> u32 {
        let count = record.headers.count() as i32;
        let headers = record.headers.encoded();
        let fixed = 1 + field_size(record.key) + field_size(record.value) + size_i32(count) + headers.len();
        let (index, body) = self.begin(fixed, record.timestamp, record.key, record.value);
        put_length(body, count);
        body.extend_from_slice(headers);
        index
    }

    /// Reserves room for a record, writes it up to its value, and counts it. Returns its index, and
    /// the buffer for the rest.
    #[inline]
    fn begin(&mut self, fixed: usize, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> (u32, &mut Vec<u8>) {
        let inner = self.inner_size(fixed, timestamp);
        let delta = self.timestamp_delta(timestamp);
        let index = self.count;
        if index == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        } else {
            self.max_timestamp = self.max_timestamp.max(timestamp);
        }
        self.count += 1;

        let body = self.body.room(MAX_32 + inner + Front::SLACK);
        let mut front = Front::default();
        front.int(body, inner as i32);
        front.byte(body, 0); // attributes: none are defined
        front.long(body, delta);
        front.int(body, index as i32);
        front.int(body, key.map_or(-1, |key| key.len() as i32));
        if let Some(key) = key {
            front.write(body);
            body.extend_from_slice(key);
        }
        front.int(body, value.map_or(-1, |value| value.len() as i32));
        front.write(body);
        body.extend_from_slice(value.unwrap_or_default());
        (index, body)
    }

    /// Returns the number of records so far.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns the bytes of the batch so far, its header included, uncompressed.
    pub(crate) fn size(&self) -> usize {
        BATCH_HEADER_SIZE + self.body.len()
    }

    /// Returns the stage's memory, once no more records will be appended.
    pub(crate) fn take_stage(&mut self) -> Vec<u8> {
        self.body.take_stage()
    }

    /// Returns the records encoded so far.
    #[cfg(any(test, feature = "testkit"))]
    pub(super) fn into_body(self) -> BodyBuffer {
        self.body.into_body()
    }

    /// Closes the batch: compresses the body and checksums it. This is pure CPU work; call it
    /// outside any lock.
    ///
    /// A body is compressed even if that makes it larger, as Java does: brokers and topics may
    /// depend on the codec.
    ///
    /// # Errors
    /// `RecordTooLarge` above 2 GiB; the codec's errors; `Internal` for a batch without records.
    pub(crate) fn seal(self, compressor: &mut Compressor) -> Result<SealedBatch> {
        if self.count == 0 {
            return Err(Error::new(ErrorKind::Internal, "a batch without records was to be sealed"));
        }
        let uncompressed_size = self.size();
        let too_large = |size: usize| i32::try_from(size).is_err() || self.count > i32::MAX as u32;
        if too_large(uncompressed_size) {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!("a batch of {uncompressed_size} bytes is above the protocol's limit of 2 GiB"),
            ));
        }
        let (body, checksum) = match compressor.compression {
            Compression::None => {
                let (body, checksum) = self.body.into_summed();
                (Bytes::from_owner(body), checksum)
            }
            compression => {
                let body = codec::compress(compression, &mut compressor.state, &self.body.into_body())?;
                let checksum = castagnoli(&body);
                (Bytes::from(body), checksum)
            }
        };
        if too_large(BATCH_HEADER_SIZE + body.len()) {
            return Err(Error::new(
                ErrorKind::RecordTooLarge,
                format!("a compressed batch of {} bytes is above the protocol's limit of 2 GiB", body.len()),
            ));
        }
        Ok(SealedBatch {
            checksum,
            shift: Shift::past(body.len() as u32),
            codec_id: compressor.compression.id(),
            count: self.count,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            uncompressed_size,
            body,
        })
    }
}

#[inline]
fn put_length(body: &mut Vec<u8>, length: i32) {
    if let 0..64 = length {
        body.push((length as u8) << 1);
        return;
    }
    let mut bytes = [0; MAX_32];
    let size = put_i32(&mut bytes, length);
    body.extend_from_slice(&bytes[..size]);
}

#[inline]
fn put_field(body: &mut Vec<u8>, field: Option<&[u8]>) {
    put_length(body, field.map_or(-1, |bytes| bytes.len() as i32));
    body.extend_from_slice(field.unwrap_or_default());
}

/// A codec with its reusable state. Not shared between threads.
#[derive(Debug)]
pub(crate) struct Compressor {
    compression: Compression,
    state: codec::CompressorState,
}

impl Compressor {
    /// Makes the state. Refuses a codec that is not built in and a level that is not supported, by
    /// name.
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        if compression != Compression::None {
            codec::check(compression)?;
        }
        Ok(Self { compression, state: codec::CompressorState::default() })
    }
}

/// The producer of a batch, and the batch's place in the sequence of that producer (KIP-98).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProducerStamp {
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) transactional: bool,
}

impl ProducerStamp {
    /// The stamp of a producer without idempotence.
    pub(crate) const NONE: Self = Self { producer_id: -1, producer_epoch: -1, base_sequence: -1, transactional: false };
}

/// A closed batch. Its body never changes, so every retry sends the same bytes under a new header.
#[derive(Clone, Debug)]
pub(crate) struct SealedBatch {
    body: Bytes,
    checksum: u32,
    shift: Shift,
    codec_id: u8,
    count: u32,
    base_timestamp: i64,
    max_timestamp: i64,
    uncompressed_size: usize,
}

impl SealedBatch {
    /// Encodes the header for this body with that stamp. The body's own checksum was computed at
    /// sealing and is combined with the header's, so that the cost does not depend on the size.
    pub(crate) fn header(&self, stamp: ProducerStamp) -> [u8; BATCH_HEADER_SIZE] {
        let header = BatchHeader {
            base_offset: 0,
            batch_length: (self.size() - LOG_OVERHEAD) as i32,
            partition_leader_epoch: -1,
            magic: 2,
            crc: 0,
            attributes: BatchHeader::attributes(self.codec_id, stamp.transactional, false),
            last_offset_delta: self.count as i32 - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: stamp.producer_id,
            producer_epoch: stamp.producer_epoch,
            base_sequence: stamp.base_sequence,
            record_count: self.count as i32,
        };
        let mut bytes = header.write();
        let crc = self.shift.join(castagnoli(&bytes[CHECKED_FROM..]), self.checksum);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// Returns the bytes after the header.
    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the size of header and body in bytes.
    pub(crate) fn size(&self) -> usize {
        BATCH_HEADER_SIZE + self.body.len()
    }

    /// Returns the [`size`](Self::size) before compression.
    pub(crate) fn uncompressed_size(&self) -> usize {
        self.uncompressed_size
    }

    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Reads the batch's records back, for building smaller batches of them with
    /// [`BatchBuilder::append_view`].
    pub(crate) fn records(&self, decompressor: &mut Decompressor) -> Result<Records> {
        let bytes = [&self.header(ProducerStamp::NONE)[..], &self.body].concat();
        match Batches::new(Bytes::from(bytes)).next() {
            Some(batch) => batch?.records(decompressor, self.uncompressed_size),
            None => Err(Error::new(ErrorKind::Internal, "a sealed batch could not be read back")),
        }
    }
}
