//! Parses the records of a batch one by one, on demand.

use super::{BatchHeader, legacy};
use crate::{
    error::Result,
    record::TimestampType,
    wire::varint::{take_i32, take_i64},
};

/// A position among the records of a batch, at which
/// [`Records::iter_from`](super::Records::iter_from) continues. The default is the first record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordPosition {
    at: usize,
    index: u32,
}

/// Iterates lazily and without allocations. After an error the iteration ends.
#[derive(Clone, Debug)]
pub(crate) struct RecordIter<'a> {
    header: BatchHeader,
    /// Used for message sets only.
    offset_shift: i64,
    size: usize,
    rest: &'a [u8],
    index: u32,
}

impl<'a> RecordIter<'a> {
    pub(super) fn new(header: &BatchHeader, body: &'a [u8], position: RecordPosition) -> Self {
        Self {
            header: *header,
            offset_shift: if header.magic == 2 { 0 } else { legacy::offset_shift(header, body) },
            size: body.len(),
            rest: body.get(position.at..).unwrap_or_default(),
            index: position.index,
        }
    }

    /// Returns the position at which [`Records::iter_from`](super::Records::iter_from) continues.
    pub(crate) fn position(&self) -> RecordPosition {
        RecordPosition { at: self.size - self.rest.len(), index: self.index }
    }

    /// This is a function of its own, so that a v2 record is built in its return slot.
    #[inline(never)]
    fn next_legacy(&mut self) -> Option<Result<RecordView<'a>>> {
        match legacy::take_record(&mut self.rest, &self.header, self.offset_shift) {
            Ok(view) => {
                self.index += 1;
                Some(Ok(view))
            }
            Err(what) => self.fail(what),
        }
    }

    /// Ends the iteration with an error.
    #[cold]
    fn fail(&mut self, what: &str) -> Option<Result<RecordView<'a>>> {
        let error = self.header.corrupt(format_args!("record {} of {}: {what}", self.index, self.header.record_count));
        self.rest = &[];
        self.index = self.header.record_count as u32;
        Some(Err(error))
    }
}

impl<'a> Iterator for RecordIter<'a> {
    type Item = Result<RecordView<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.header.record_count as u32 {
            return if self.rest.is_empty() { None } else { self.fail("bytes are left over after the last record") };
        }
        if self.header.magic != 2 {
            return self.next_legacy();
        }
        let mut rest = self.rest;
        match take_record(&mut rest, &self.header) {
            Ok(view) => {
                self.rest = rest;
                self.index += 1;
                Some(Ok(view))
            }
            Err(what) => self.fail(what),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // The count comes from the wire, so callers must not reserve memory by it: the lower bound
        // is 0.
        (0, Some((self.header.record_count as u32).saturating_sub(self.index) as usize + 1))
    }
}

/// Splits one record of a v2 batch off the front.
#[inline(always)]
fn take_record<'a>(input: &mut &'a [u8], header: &BatchHeader) -> Result<RecordView<'a>, &'static str> {
    let length = take_i32(input).ok_or("its length cannot be read")?;
    let length = usize::try_from(length).map_err(|_| "its length is negative")?;
    let (mut record, rest) = input.split_at_checked(length).ok_or("it ends after the end of the batch")?;
    *input = rest;

    const SHORT: &str = "it ends early";
    let (_attributes, after) = record.split_first().ok_or(SHORT)?;
    record = after;
    let timestamp_delta = take_i64(&mut record).ok_or(SHORT)?;
    let offset_delta = take_i32(&mut record).ok_or(SHORT)?;
    if !(0..=header.last_offset_delta).contains(&offset_delta) {
        return Err("its offset is outside of the batch");
    }
    let key = take_field(&mut record)?;
    let value = take_field(&mut record)?;
    let headers = HeadersIter::checked(record)?;
    Ok(RecordView {
        offset: header.base_offset + i64::from(offset_delta),
        timestamp: match header.timestamp_type() {
            TimestampType::CreateTime => header.base_timestamp.wrapping_add(timestamp_delta),
            TimestampType::LogAppendTime => header.max_timestamp,
        },
        key,
        value,
        headers,
    })
}

/// Splits off bytes that their length precedes; −1 is null.
#[inline(always)]
fn take_field<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    let length = take_i32(input).ok_or("it ends early")?;
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| "one of its lengths is negative")?;
    let (field, rest) = input.split_at_checked(length).ok_or("one of its lengths exceeds its end")?;
    *input = rest;
    Ok(Some(field))
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordView<'a> {
    pub(crate) offset: i64,
    /// Milliseconds since the Unix epoch; −1 if the record has no timestamp.
    pub(crate) timestamp: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: HeadersIter<'a>,
}

/// The headers of a record in order, parsed on demand (the record was already checked to contain
/// them).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct HeadersIter<'a> {
    rest: &'a [u8],
}

impl<'a> HeadersIter<'a> {
    /// Checks the rest of a record, which begins with the number of headers.
    #[inline]
    fn checked(encoded: &'a [u8]) -> Result<Self, &'static str> {
        // Most records have no headers.
        if let [0] = encoded { Ok(Self::default()) } else { Self::walked(encoded) }
    }

    #[inline(never)]
    fn walked(encoded: &'a [u8]) -> Result<Self, &'static str> {
        let mut rest = encoded;
        let count = take_i32(&mut rest).ok_or("it ends before its headers")?;
        if count < 0 {
            return Err("its header count is negative");
        }
        let mut left = rest;
        for _ in 0..count {
            take_field(&mut left)?.ok_or("a header has no name")?;
            take_field(&mut left)?;
        }
        if left.is_empty() { Ok(Self { rest }) } else { Err("bytes are left over after its headers") }
    }

    /// Returns the encoded headers, without their number.
    pub(super) fn encoded(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let name = take_field(&mut self.rest).ok()??;
        let value = take_field(&mut self.rest).ok()?;
        Some((name, value))
    }
}
