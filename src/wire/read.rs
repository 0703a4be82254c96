//! Reads the primitive types of Kafka's messages. No length in them is trusted.

use std::ops::Range;

use uuid::Uuid;

use super::varint::take_u32;
use crate::error::{Error, ErrorKind, Result};

/// Reads a message's bytes from front to back.
///
/// Errors are of the kind `Protocol` and name the position.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    /// Returns the number of bytes that were read.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    #[cold]
    fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Protocol, format!("{what} at byte {} of {}", self.at, self.bytes.len()))
    }

    /// Reads the next `length` bytes, as a range of all bytes.
    pub(super) fn range(&mut self, length: usize) -> Result<Range<usize>> {
        if length > self.rest().len() {
            return Err(self.error(format_args!("{length} bytes expected")));
        }
        let start = self.at;
        self.at += length;
        Ok(start..self.at)
    }

    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let range = self.range(length)?;
        Ok(self.bytes.get(range).unwrap_or_default())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest().first_chunk::<N>() {
            Some(chunk) => {
                self.at += N;
                Ok(*chunk)
            }
            None => Err(self.error(format_args!("{N} bytes expected"))),
        }
    }

    pub(super) fn i16(&mut self) -> Result<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid> {
        self.array().map(Uuid::from_bytes)
    }

    fn unsigned(&mut self) -> Result<u32> {
        let mut rest = self.rest();
        let value = take_u32(&mut rest).ok_or_else(|| self.error("no varint"))?;
        self.at = self.bytes.len() - rest.len();
        Ok(value)
    }

    /// Reads a length in the form of flexible versions: one more than the length, and 0 for null.
    fn compact_length(&mut self) -> Result<Option<usize>> {
        Ok((self.unsigned()? as usize).checked_sub(1))
    }

    fn length(&self, value: i64) -> Result<Option<usize>> {
        match value {
            -1 => Ok(None),
            _ => usize::try_from(value).map(Some).map_err(|_| self.error(format_args!("length {value}"))),
        }
    }

    /// Reads the bytes of a string, or null.
    pub(super) fn string_bytes(&mut self, flexible: bool) -> Result<Option<&'a [u8]>> {
        let length = if flexible {
            self.compact_length()?
        } else {
            let length = self.i16()?;
            self.length(length.into())?
        };
        length.map(|length| self.take(length)).transpose()
    }

    /// Reads a string, or null.
    pub(super) fn string(&mut self, flexible: bool) -> Result<Option<&'a str>> {
        let bytes = self.string_bytes(flexible)?;
        bytes.map(|bytes| std::str::from_utf8(bytes).map_err(|_| self.error("text that is not UTF-8 ends"))).transpose()
    }

    /// Reads a string that may not be null.
    pub(super) fn text(&mut self, flexible: bool) -> Result<&'a str> {
        self.string(flexible)?.ok_or_else(|| self.error("null for a text that is required"))
    }

    /// Reads bytes, as a range of all bytes, or null.
    pub(super) fn bytes(&mut self, flexible: bool) -> Result<Option<Range<usize>>> {
        let length = self.long_length(flexible)?;
        length.map(|length| self.range(length)).transpose()
    }

    /// Reads the number of elements of an array, 0 for null. At least that number of bytes is left,
    /// because every element has one.
    pub(super) fn count(&mut self, flexible: bool) -> Result<usize> {
        let count = self.long_length(flexible)?.unwrap_or(0);
        if count > self.rest().len() {
            return Err(self.error(format_args!("an array of {count} elements, more than there are bytes,")));
        }
        Ok(count)
    }

    fn long_length(&mut self, flexible: bool) -> Result<Option<usize>> {
        if flexible {
            return self.compact_length();
        }
        let length = self.i32()?;
        self.length(length.into())
    }

    /// Passes every tagged field (KIP-482) to `each` with a reader of its own; without `flexible`
    /// there are none.
    pub(super) fn tagged(
        &mut self,
        flexible: bool,
        mut each: impl FnMut(u32, &mut Reader<'a>) -> Result<()>,
    ) -> Result<()> {
        if !flexible {
            return Ok(());
        }
        for _ in 0..self.unsigned()? {
            let tag = self.unsigned()?;
            let size = self.unsigned()? as usize;
            each(tag, &mut Reader::new(self.take(size)?))?;
        }
        Ok(())
    }

    /// Skips tagged fields.
    pub(super) fn skip_tagged(&mut self, flexible: bool) -> Result<()> {
        self.tagged(flexible, |_, _| Ok(()))
    }

    /// Refuses bytes that are left over.
    pub(super) fn end(&self) -> Result<()> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(self.error(format_args!("{left} bytes left over"))),
        }
    }
}
