//! Reads the fields of a message. No length in it is trusted.

use std::fmt;

use bytes::Bytes;
use uuid::Uuid;

use super::{byte_string::ByteString, varint::take_u32};
use crate::error::{Error, ErrorKind, Result};

/// Maximum bytes of a string, compact or not.
const LONGEST_STRING: usize = i16::MAX as usize;

/// A value that can be a part of a message.
pub(crate) trait Decode: Sized {
    /// Minimum bytes of the value in any version. It is exact for elements of arrays, because the
    /// count of an array is checked against it.
    const LEAST: usize = 1;

    /// Reads the value.
    ///
    /// # Errors
    /// `Protocol`, with the field, the version and the position, if the bytes are not such a value.
    fn decode(d: &mut Decoder) -> Result<Self>;
}

/// Maximum bytes of memory of an element for each byte of its minimum size in a message.
const MOST_EACH: usize = 43;

/// Reads the bytes of one message in one version, from front to back.
///
/// Strings and bytes are slices of the message: nothing is copied. An array's memory is reserved at
/// once, for no more elements than the remaining bytes can hold; bytes that the elements of outer
/// arrays still need do not count. So all arrays of a message, whatever counts they claim and
/// however they are nested, take at most [`MOST_EACH`] bytes of memory for each byte of the
/// message.
pub(crate) struct Decoder {
    bytes: Bytes,
    at: usize,
    /// The end of the message, or of the tagged field that is being read.
    end: usize,
    /// Minimum bytes before `end` that the remaining elements of the open arrays still need.
    owed: usize,
    version: i16,
    flexible: bool,
    /// The arrays and structs that are being read, outermost first.
    path: Vec<&'static str>,
    #[cfg(test)]
    rewrite: Option<Box<dyn Rewrite>>,
}

/// Changes the fields of a message while it is read, for tests of a client that receives strange
/// messages.
#[cfg(test)]
pub(crate) trait Rewrite {
    fn text(&self, field: &'static str, was: Option<ByteString>) -> Option<ByteString>;

    fn bytes(&self, field: &'static str, was: Bytes) -> Bytes;

    fn short(&self, field: &'static str, was: i16) -> i16;
}

impl Decoder {
    pub(crate) fn new(bytes: Bytes, version: i16, flexible: bool) -> Self {
        let end = bytes.len();
        Self {
            bytes,
            at: 0,
            end,
            owed: 0,
            version,
            flexible,
            path: Vec::new(),
            #[cfg(test)]
            rewrite: None,
        }
    }

    #[cfg(test)]
    pub(crate) fn rewriting(self, rewrite: impl Rewrite + 'static) -> Self {
        Self { rewrite: Some(Box::new(rewrite)), ..self }
    }

    /// Changes the value of a field, if a test asks for it. An element of an array has the name of
    /// the array.
    #[cfg(test)]
    fn rewritten<T>(&self, field: &'static str, was: T, change: impl FnOnce(&dyn Rewrite, &'static str, T) -> T) -> T {
        let name = if field.is_empty() { self.path.last().copied().unwrap_or_default() } else { field };
        match &self.rewrite {
            Some(rewrite) => change(&**rewrite, name, was),
            None => was,
        }
    }

    pub(crate) fn version(&self) -> i16 {
        self.version
    }

    #[cold]
    fn error(&self, field: &'static str, problem: impl fmt::Display) -> Error {
        let (version, at, of) = (self.version, self.at, self.bytes.len());
        let path: Vec<&str> = self.path.iter().copied().chain([field]).filter(|part| !part.is_empty()).collect();
        let field = if path.is_empty() { String::new() } else { format!("field `{}`, ", path.join(".")) };
        let message = format!("version {version}, {field}byte {at} of {of}: {problem}");
        Error::new(ErrorKind::Protocol, message)
    }

    fn rest(&self) -> &[u8] {
        self.bytes.get(self.at..self.end).unwrap_or_default()
    }

    /// Returns the number of remaining bytes that the elements of outer arrays do not need.
    fn unclaimed(&self) -> usize {
        self.rest().len().saturating_sub(self.owed)
    }

    /// Refuses bytes that are left over after the message.
    ///
    /// # Errors
    /// `Protocol`.
    pub(crate) fn finish(&self) -> Result<()> {
        match self.rest().len() {
            0 => Ok(()),
            left => Err(self.error("", format_args!("{left} bytes are left over"))),
        }
    }

    fn number<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N]> {
        match self.rest().first_chunk::<N>() {
            Some(chunk) => {
                let chunk = *chunk;
                self.at += N;
                Ok(chunk)
            }
            None => Err(self.error(field, format_args!("{N} bytes expected, {} are left", self.rest().len()))),
        }
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool> {
        self.number::<1>(field).map(|[byte]| byte != 0)
    }

    pub(crate) fn i8(&mut self, field: &'static str) -> Result<i8> {
        self.number(field).map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16> {
        let value = self.number(field).map(i16::from_be_bytes)?;
        #[cfg(test)]
        let value = self.rewritten(field, value, |rewrite, field, was| rewrite.short(field, was));
        Ok(value)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16> {
        self.number(field).map(u16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32> {
        self.number(field).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64> {
        self.number(field).map(i64::from_be_bytes)
    }

    pub(crate) fn f64(&mut self, field: &'static str) -> Result<f64> {
        self.number(field).map(f64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self, field: &'static str) -> Result<Uuid> {
        self.number(field).map(Uuid::from_bytes)
    }

    fn unsigned(&mut self, field: &'static str) -> Result<u32> {
        let mut rest = self.rest();
        let before = rest.len();
        let read = take_u32(&mut rest);
        let size = before - rest.len();
        match read {
            Some(value) => {
                self.at += size;
                Ok(value)
            }
            None => Err(self.error(field, "a variable-length number expected")),
        }
    }

    /// Reads a length, `None` for null: compact in flexible versions, otherwise as `wide` (4 bytes)
    /// or narrow (2 bytes).
    fn length(&mut self, field: &'static str, wide: bool) -> Result<Option<usize>> {
        if self.flexible {
            return Ok((self.unsigned(field)? as usize).checked_sub(1));
        }
        let length = if wide { self.i32(field)? } else { i16::from_be_bytes(self.number(field)?).into() };
        match length {
            -1 => Ok(None),
            length => {
                usize::try_from(length).map(Some).map_err(|_| self.error(field, format_args!("a length of {length}")))
            }
        }
    }

    fn slice(&mut self, field: &'static str, length: usize) -> Result<Bytes> {
        let left = self.rest().len();
        if length > left {
            return Err(self.error(field, format_args!("{length} bytes expected, {left} are left")));
        }
        let start = self.at;
        self.at += length;
        Ok(self.bytes.slice(start..self.at))
    }

    #[cold]
    fn null(&self, field: &'static str) -> Error {
        self.error(field, "null where the version has no null")
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<ByteString> {
        self.string_or_null(field, false)?.ok_or_else(|| self.null(field))
    }

    pub(crate) fn string_or_null(&mut self, field: &'static str, nullable: bool) -> Result<Option<ByteString>> {
        let text = match self.length(field, false)? {
            None if nullable => None,
            None => return Err(self.null(field)),
            // Kafka's own clients have this limit too: a longer text could not be written in a
            // request either.
            Some(length) if length > LONGEST_STRING => {
                return Err(self.error(field, format_args!("text of {length} bytes, and {LONGEST_STRING} are allowed")));
            }
            Some(length) => match ByteString::from_utf8(self.slice(field, length)?) {
                None => return Err(self.error(field, "text that is not UTF-8 ends here")),
                text => text,
            },
        };
        #[cfg(test)]
        let text = self.rewritten(field, text, |rewrite, field, was| rewrite.text(field, was));
        Ok(text)
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<Bytes> {
        self.bytes_or_null(field, false)?.ok_or_else(|| self.null(field))
    }

    pub(crate) fn bytes_or_null(&mut self, field: &'static str, nullable: bool) -> Result<Option<Bytes>> {
        match self.length(field, true)? {
            None if nullable => Ok(None),
            None => Err(self.null(field)),
            Some(length) => {
                let bytes = self.slice(field, length)?;
                #[cfg(test)]
                let bytes = self.rewritten(field, bytes, |rewrite, field, was| rewrite.bytes(field, was));
                Ok(Some(bytes))
            }
        }
    }

    pub(crate) fn array<T: Decode>(&mut self, field: &'static str) -> Result<Vec<T>> {
        self.array_or_null(field, false)?.ok_or_else(|| self.null(field))
    }

    pub(crate) fn array_or_null<T: Decode>(&mut self, field: &'static str, nullable: bool) -> Result<Option<Vec<T>>> {
        let count = match self.length(field, true)? {
            None if nullable => return Ok(None),
            None => return Err(self.null(field)),
            Some(count) => count,
        };
        const { assert!(T::LEAST > 0 && size_of::<T>() <= MOST_EACH * T::LEAST) };
        let left = self.unclaimed();
        if count > left / T::LEAST {
            return Err(self.error(field, format_args!("{count} elements, and {left} bytes are left for them")));
        }
        self.owed += count * T::LEAST;
        let mut elements = Vec::with_capacity(count);
        self.path.push(field);
        for _ in 0..count {
            self.owed -= T::LEAST;
            elements.push(T::decode(self)?);
        }
        self.path.pop();
        Ok(Some(elements))
    }

    pub(crate) fn structure<T: Decode>(&mut self, field: &'static str) -> Result<T> {
        self.path.push(field);
        let value = T::decode(self)?;
        self.path.pop();
        Ok(value)
    }

    pub(crate) fn struct_or_null<T: Decode>(&mut self, field: &'static str, nullable: bool) -> Result<Option<T>> {
        match self.i8(field)? {
            -1 if nullable => Ok(None),
            -1 => Err(self.null(field)),
            1 => self.structure(field).map(Some),
            other => Err(self.error(field, format_args!("{other} where -1 (null) or 1 is expected"))),
        }
    }

    /// Skips tagged fields, none of which is known.
    pub(crate) fn skip_tags(&mut self) -> Result<()> {
        self.tags(|_, _| Ok(false))
    }

    /// Reads tagged fields. `read` returns true if it knows the tag and has read its value.
    pub(crate) fn tags(&mut self, mut read: impl FnMut(u32, &mut Self) -> Result<bool>) -> Result<()> {
        const FIELD: &str = "tagged fields";
        if !self.flexible {
            return Ok(());
        }
        let mut last = None;
        for _ in 0..self.unsigned(FIELD)? {
            let tag = self.unsigned(FIELD)?;
            if last.is_some_and(|last| last >= tag) {
                return Err(self.error(FIELD, format_args!("tag {tag} is out of order")));
            }
            last = Some(tag);
            let (size, left) = (self.unsigned(FIELD)? as usize, self.unclaimed());
            if size > left {
                return Err(self.error(FIELD, format_args!("tag {tag} has {size} bytes, and {left} are left")));
            }
            let (end, behind, owed) = (self.at + size, self.end, self.owed);
            (self.end, self.owed) = (end, 0);
            if !read(tag, self)? {
                self.at = end;
            } else if self.at != end {
                return Err(self.error(FIELD, format_args!("tag {tag} has bytes left over")));
            }
            (self.end, self.owed) = (behind, owed);
        }
        Ok(())
    }
}

impl Decode for i8 {
    fn decode(d: &mut Decoder) -> Result<Self> {
        d.i8("")
    }
}

impl Decode for i16 {
    const LEAST: usize = 2;

    fn decode(d: &mut Decoder) -> Result<Self> {
        d.i16("")
    }
}

impl Decode for i32 {
    const LEAST: usize = 4;

    fn decode(d: &mut Decoder) -> Result<Self> {
        d.i32("")
    }
}

impl Decode for i64 {
    const LEAST: usize = 8;

    fn decode(d: &mut Decoder) -> Result<Self> {
        d.i64("")
    }
}

impl Decode for Uuid {
    const LEAST: usize = 16;

    fn decode(d: &mut Decoder) -> Result<Self> {
        d.uuid("")
    }
}

impl Decode for ByteString {
    fn decode(d: &mut Decoder) -> Result<Self> {
        d.string("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Outer(Vec<i32>);

    impl Decode for Outer {
        const LEAST: usize = 4;

        fn decode(d: &mut Decoder) -> Result<Self> {
            let mut it = Self(d.array("inner")?);
            d.tags(|tag, d| {
                if tag == 1 {
                    it.0.extend(d.array::<i32>("tagged")?);
                }
                Ok(tag == 1)
            })?;
            Ok(it)
        }
    }

    fn outer(bytes: &[u8], flexible: bool) -> Result<Vec<Outer>> {
        let mut decoder = Decoder::new(Bytes::copy_from_slice(bytes), 7, flexible);
        let outer = decoder.array("outer")?;
        decoder.finish()?;
        Ok(outer)
    }

    #[test]
    fn rejects_inner_counts_exceeding_remaining_bytes() {
        let ones = [0, 0, 0, 1];
        let body = [[0, 0, 0, 2], ones, ones, ones, ones].concat();
        assert_eq!(outer(&body, false).unwrap(), [Outer(vec![1]), Outer(vec![1])]);
        let greedy = [[0, 0, 0, 2], [0, 0, 0, 3], ones, ones, ones].concat();
        assert_eq!(
            outer(&greedy, false).unwrap_err().to_string(),
            "version 7, field `outer.inner`, byte 8 of 20: 3 elements, and 8 bytes are left for them"
        );
        let many = [[0, 0, 0, 9], ones, ones].concat();
        let error = outer(&many, false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "version 7, field `outer`, byte 4 of 12: 9 elements, and 8 bytes are left for them"
        );
    }

    #[test]
    fn tagged_field_limits_its_array_count() {
        // Two elements: one with a tagged field of one number, and one without.
        let body = [3, 1, 1, 1, 5, 2, 0, 0, 0, 4, 2, 0, 0, 0, 5, 0];
        assert_eq!(outer(&body, true).unwrap(), [Outer(vec![4]), Outer(vec![5])]);
        let mut greedy = body;
        greedy[4] = 8;
        let error = outer(&greedy, true).unwrap_err().to_string();
        assert!(error.ends_with("tag 1 has 8 bytes, and 7 are left"), "{error}");
        let mut twice = body;
        twice[5] = 3;
        let error = outer(&twice, true).unwrap_err().to_string();
        assert!(
            error.ends_with("field `outer.tagged`, byte 6 of 16: 2 elements, and 4 bytes are left for them"),
            "{error}"
        );
    }

    #[test]
    fn leftover_bytes_error_names_their_position() {
        let error = outer(&[0, 0, 0, 0, 9], false).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (ErrorKind::Protocol, "version 7, byte 4 of 5: 1 bytes are left over")
        );
    }

    #[test]
    fn rejects_strings_longer_than_kafka_allows() {
        for (length, fits) in [(LONGEST_STRING, true), (LONGEST_STRING + 1, false)] {
            let mut bytes = vec![0; 5];
            let size = crate::wire::varint::put_u32(&mut bytes, u32::try_from(length + 1).unwrap());
            bytes.truncate(size);
            bytes.resize(size + length, b'x');
            let read = Decoder::new(bytes.into(), 9, true).string("cluster_id");
            assert_eq!(
                read.as_ref().map_err(Error::kind).map(|text| text.len()),
                if fits { Ok(length) } else { Err(ErrorKind::Protocol) }
            );
        }
    }
}
