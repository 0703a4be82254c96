use bytes::Bytes;

use super::BatchHeader;
use crate::error::Result;

/// Walks the batches of one partition's slice of a fetch response without looking into them. A truncated last batch is
/// the normal end.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    _rest: Bytes,
}

impl Batches {
    pub(crate) fn new(records: Bytes) -> Self {
        Self { _rest: records }
    }
}

impl Iterator for Batches {
    type Item = Result<RawBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}

/// One batch as it came: not yet checked, not yet decompressed.
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(crate) header: BatchHeader,
    _bytes: Bytes,
}

impl RawBatch {
    /// The batch's bytes, header included.
    pub(crate) fn bytes(&self) -> &Bytes {
        unimplemented!()
    }

    /// Compares the checksum (`check.crcs`).
    pub(crate) fn check_crc(&self) -> Result<()> {
        unimplemented!()
    }

    /// The records, decompressed if need be to at most `limit` bytes. Uncompressed batches are not copied.
    pub(crate) fn records(&self, decompressor: &mut Decompressor, limit: usize) -> Result<Records> {
        let _ = (decompressor, limit);
        unimplemented!()
    }
}

/// The codecs' reusable state for reading. Not shared between threads.
#[derive(Debug, Default)]
pub(crate) struct Decompressor {}

/// The records of one batch, decompressed, not yet parsed. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Records {
    pub(crate) header: BatchHeader,
    _body: Bytes,
}

impl Records {
    /// Iterates from the first record.
    pub(crate) fn iter(&self) -> RecordIter<'_> {
        unimplemented!()
    }

    /// Bytes that this keeps in memory.
    pub(crate) fn size(&self) -> usize {
        unimplemented!()
    }

    /// A slice of the body as `Bytes`, for a part of a record that this gave out.
    pub(crate) fn share(&self, part: &[u8]) -> Bytes {
        let _ = part;
        unimplemented!()
    }

    /// Goes on where an earlier [`RecordIter::position`] was.
    pub(crate) fn iter_from(&self, position: usize) -> RecordIter<'_> {
        let _ = position;
        unimplemented!()
    }
}

/// Iterates lazily; allocates nothing.
#[derive(Clone, Debug)]
pub(crate) struct RecordIter<'a> {
    _body: &'a [u8],
}

impl RecordIter<'_> {
    /// An opaque place to go on from with [`Records::iter_from`].
    pub(crate) fn position(&self) -> usize {
        unimplemented!()
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordView<'a> {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: HeadersIter<'a>,
}

/// The headers of a record in order, parsed as they are asked for (the record was already checked to hold them).
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadersIter<'a> {
    _rest: &'a [u8],
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        unimplemented!()
    }
}
