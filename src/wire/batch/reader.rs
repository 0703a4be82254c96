use bytes::Bytes;

use super::{
    BATCH_HEADER_SIZE, BatchHeader, RecordIter, RecordPosition,
    header::{CHECKED_FROM, LOG_OVERHEAD},
    legacy, resync,
};
use crate::{
    error::{Error, ErrorKind, Result},
    wire::{codec, crc},
};

/// Iterates over the batches of one partition's slice of a fetch response, without decoding them. A
/// truncated last batch is a normal end, because brokers cut a response at its size and not between
/// batches. After an error the iteration ends.
///
/// Every message of a v0/v1 message set counts as a batch.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    rest: Bytes,
    /// The bytes from the first batch on that could not be read.
    damaged: Bytes,
}

impl Batches {
    pub(crate) fn new(records: Bytes) -> Self {
        Self { rest: records, damaged: Bytes::new() }
    }

    /// Returns the number of bytes that were not returned: at the end, the size of a truncated
    /// batch's beginning. If that was the whole slice, the reader makes progress only with a larger
    /// fetch.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Searches, after the iteration has ended at a batch that is damaged or truncated, for the
    /// next batch that can be read. Returns its first offset, if it is not before `after`.
    pub(crate) fn next_sound(&self, after: i64) -> Option<i64> {
        resync::next_sound(if self.damaged.is_empty() { &self.rest } else { &self.damaged }, after)
    }

    fn parse(&self) -> Result<Option<BatchHeader>> {
        let Some((overhead, rest)) = self.rest.split_first_chunk::<LOG_OVERHEAD>() else {
            return Ok(None);
        };
        let [offset @ .., l0, l1, l2, l3] = *overhead;
        let offset = i64::from_be_bytes(offset);
        let length = i32::from_be_bytes([l0, l1, l2, l3]);
        let corrupt = |what: String| Error::new(ErrorKind::Corrupt, format!("the batch at offset {offset}: {what}"));
        if length < legacy::MIN_MESSAGE_LENGTH {
            return Err(corrupt(format!("length {length} is too small for any format")));
        }
        let whole = usize::try_from(length).is_ok_and(|length| rest.len() >= length);
        match rest.get(4).map(|&magic| magic as i8) {
            Some(2) if self.rest.len() >= BATCH_HEADER_SIZE => {
                BatchHeader::parse(&self.rest).map(|header| whole.then_some(header))
            }
            Some(0 | 1) if whole => legacy::parse_header(&self.rest).map(Some),
            Some(0..=2) if !whole => Ok(None),
            Some(2) => Err(corrupt(format!("length {length} is below that of the header"))),
            Some(magic) => Err(corrupt(format!("its format (magic {magic}) is not known"))),
            None => Ok(None),
        }
    }
}

impl Iterator for Batches {
    type Item = Result<RawBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.parse() {
            Ok(Some(header)) => Some(Ok(RawBatch { header, bytes: self.rest.split_to(header.size()) })),
            Ok(None) => None,
            Err(error) => {
                self.damaged = std::mem::take(&mut self.rest);
                Some(Err(error))
            }
        }
    }
}

/// One batch as it was received: not yet checked, not yet decompressed.
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(crate) header: BatchHeader,
    bytes: Bytes,
}

impl RawBatch {
    /// Returns the batch's bytes, header included.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Copies the bytes of the batch, so that it does not keep a whole response in memory.
    pub(crate) fn detached(&self) -> Self {
        Self { header: self.header, bytes: Bytes::copy_from_slice(&self.bytes) }
    }

    /// Compares the checksum (`check.crcs`).
    ///
    /// # Errors
    /// `Corrupt`, naming the batch's offset.
    pub(crate) fn check_crc(&self) -> Result<()> {
        let sum = match self.header.magic {
            2 => crc::castagnoli(self.bytes.get(CHECKED_FROM..).unwrap_or_default()),
            _ => crc::ieee(self.bytes.get(legacy::CHECKED_FROM..).unwrap_or_default()),
        };
        if sum == self.header.crc {
            return Ok(());
        }
        Err(self.header.corrupt(format!("its checksum is {:08x}, its bytes give {sum:08x}", self.header.crc)))
    }

    /// Returns the records. A compressed batch is decompressed to at most `limit` bytes; an
    /// uncompressed batch is not copied.
    ///
    /// # Errors
    /// `Corrupt`, naming the batch's offset; see also [`codec::decompress`].
    pub(crate) fn records(&self, decompressor: &mut Decompressor, limit: usize) -> Result<Records> {
        if self.header.magic != 2 {
            return legacy::records(self.header, &self.bytes, &mut decompressor.state, limit);
        }
        let body = self.bytes.slice(BATCH_HEADER_SIZE.min(self.bytes.len())..);
        let body = match self.header.codec_id() {
            0 => body,
            id => codec::decompress(id, &mut decompressor.state, 2, &body, limit)
                .map_err(|error| error.context(format_args!("the batch at offset {}", self.header.base_offset)))?,
        };
        Ok(Records { header: self.header, body })
    }
}

/// The reusable state of the codecs for reading. Not shared between threads.
#[derive(Debug, Default)]
pub(crate) struct Decompressor {
    state: codec::DecompressorState,
}

/// The records of one batch, decompressed, not yet parsed. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    pub(crate) header: BatchHeader,
    /// The records of a v2 batch one after the other, or an uncompressed message set.
    pub(super) body: Bytes,
}

impl Records {
    /// Iterates from the first record.
    pub(crate) fn iter(&self) -> RecordIter<'_> {
        self.iter_from(RecordPosition::default())
    }

    /// Iterates from the position that an earlier [`RecordIter::position`] returned.
    pub(crate) fn iter_from(&self, position: RecordPosition) -> RecordIter<'_> {
        RecordIter::new(&self.header, &self.body, position)
    }

    /// Copies the records, so that they do not keep a whole response in memory.
    pub(crate) fn detached(&self) -> Self {
        Self { header: self.header, body: Bytes::copy_from_slice(&self.body) }
    }

    /// Returns the number of bytes that these records keep in memory.
    pub(crate) fn size(&self) -> usize {
        self.body.len()
    }

    /// Returns a part of a record of this batch as a `Bytes` that shares the body.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        let start = (part.as_ptr() as usize).wrapping_sub(self.body.as_ptr() as usize);
        match start.checked_add(part.len()) {
            Some(end) if end <= self.body.len() => self.body.slice(start..end),
            // The slice is not a part of these records: the result is correct, but a copy.
            _ => Bytes::copy_from_slice(part),
        }
    }
}
