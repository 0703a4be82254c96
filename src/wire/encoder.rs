//! Writes the fields of a message.

use bytes::{BufMut, BytesMut};
use uuid::Uuid;

use super::{
    byte_string::ByteString,
    write::{put_length, put_string, put_unsigned},
};
use crate::error::{Error, ErrorKind, Result};

/// A value that can be a part of a message.
pub(crate) trait Encode {
    /// Appends the value.
    ///
    /// # Errors
    /// `UnsupportedVersion` if a field is set that the version does not have; `InvalidArgument` for
    /// a value that is too long.
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()>;
}

/// Appends fields to a buffer, in one version of one message.
pub(crate) struct Encoder<'a> {
    out: &'a mut BytesMut,
    version: i16,
    flexible: bool,
}

impl<'a> Encoder<'a> {
    pub(crate) fn new(out: &'a mut BytesMut, version: i16, flexible: bool) -> Self {
        Self { out, version, flexible }
    }

    pub(crate) fn version(&self) -> i16 {
        self.version
    }

    /// Returns the error for a field that is set and that the version does not have.
    #[cold]
    pub(crate) fn lacks(&self, field: &'static str) -> Error {
        Error::new(ErrorKind::UnsupportedVersion, format!("version {} has no field `{field}`", self.version))
    }

    #[cold]
    fn not_null(&self, field: &'static str) -> Error {
        Error::new(ErrorKind::UnsupportedVersion, format!("in version {} `{field}` cannot be null", self.version))
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.out.put_u8(value.into());
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.out.put_i8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.out.put_i16(value);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.out.put_u16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.out.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.out.put_i64(value);
    }

    pub(crate) fn f64(&mut self, value: f64) {
        self.out.put_f64(value);
    }

    pub(crate) fn uuid(&mut self, value: Uuid) {
        self.out.put_slice(value.as_bytes());
    }

    pub(crate) fn string(&mut self, field: &'static str, value: &str) -> Result<()> {
        put_string(self.out, Some(value), self.flexible).map_err(|error| error.context(field))
    }

    pub(crate) fn string_or_null(&mut self, field: &'static str, value: Option<&str>, nullable: bool) -> Result<()> {
        if value.is_none() && !nullable {
            return Err(self.not_null(field));
        }
        put_string(self.out, value, self.flexible).map_err(|error| error.context(field))
    }

    /// Writes a length of bytes or of an array; `None` for null.
    fn length(&mut self, field: &'static str, length: Option<usize>, nullable: bool) -> Result<()> {
        match length {
            Some(length) => put_length(self.out, length, self.flexible).map_err(|error| error.context(field))?,
            None if !nullable => return Err(self.not_null(field)),
            None if self.flexible => put_unsigned(self.out, 0),
            None => self.out.put_i32(-1),
        }
        Ok(())
    }

    pub(crate) fn bytes(&mut self, field: &'static str, value: &[u8]) -> Result<()> {
        self.bytes_or_null(field, Some(value), false)
    }

    pub(crate) fn bytes_or_null(&mut self, field: &'static str, value: Option<&[u8]>, nullable: bool) -> Result<()> {
        self.length(field, value.map(<[u8]>::len), nullable)?;
        self.out.put_slice(value.unwrap_or_default());
        Ok(())
    }

    pub(crate) fn array<T: Encode>(&mut self, field: &'static str, value: &[T]) -> Result<()> {
        self.array_or_null(field, Some(value), false)
    }

    pub(crate) fn array_or_null<T: Encode>(
        &mut self,
        field: &'static str,
        value: Option<&[T]>,
        nullable: bool,
    ) -> Result<()> {
        self.length(field, value.map(<[T]>::len), nullable)?;
        value.unwrap_or_default().iter().try_for_each(|element| element.encode(self))
    }

    pub(crate) fn struct_or_null<T: Encode>(
        &mut self,
        field: &'static str,
        value: Option<&T>,
        nullable: bool,
    ) -> Result<()> {
        match value {
            Some(value) => {
                self.out.put_i8(1);
                value.encode(self)
            }
            None if nullable => {
                self.out.put_i8(-1);
                Ok(())
            }
            None => Err(self.not_null(field)),
        }
    }

    /// Ends a struct without tagged fields.
    pub(crate) fn no_tags(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        }
    }

    /// Starts the tagged fields of a struct; they have to be added in the order of their tags.
    pub(crate) fn tags(&mut self) -> Tags<'_, 'a> {
        Tags { encoder: self, count: 0, fields: BytesMut::new() }
    }
}

/// Tagged fields that are being written; each follows its tag and size.
pub(crate) struct Tags<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    count: u32,
    fields: BytesMut,
}

impl Tags<'_, '_> {
    pub(crate) fn put(&mut self, tag: u32, put: impl FnOnce(&mut Encoder<'_>) -> Result<()>) -> Result<()> {
        let mut value = BytesMut::new();
        put(&mut Encoder::new(&mut value, self.encoder.version, true))?;
        put_unsigned(&mut self.fields, tag);
        put_unsigned(&mut self.fields, u32::try_from(value.len()).unwrap_or(u32::MAX));
        self.fields.put_slice(&value);
        self.count += 1;
        Ok(())
    }

    pub(crate) fn end(self) {
        if self.encoder.flexible {
            put_unsigned(self.encoder.out, self.count);
            self.encoder.out.put_slice(&self.fields);
        }
    }
}

impl Encode for i8 {
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {
        e.i8(*self);
        Ok(())
    }
}

impl Encode for i16 {
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {
        e.i16(*self);
        Ok(())
    }
}

impl Encode for i32 {
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {
        e.i32(*self);
        Ok(())
    }
}

impl Encode for i64 {
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {
        e.i64(*self);
        Ok(())
    }
}

impl Encode for Uuid {
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {
        e.uuid(*self);
        Ok(())
    }
}

impl Encode for ByteString {
    fn encode(&self, e: &mut Encoder<'_>) -> Result<()> {
        e.string("element", self)
    }
}
