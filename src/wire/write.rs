//! Writes the primitive types of Kafka's messages.

use bytes::{BufMut, BytesMut};

use super::varint::{MAX_32, put_u32};
use crate::error::{Error, ErrorKind, Result};

pub(super) fn put_unsigned(out: &mut BytesMut, value: u32) {
    let mut bytes = [0; MAX_32];
    let size = put_u32(&mut bytes, value);
    out.put_slice(&bytes[..size]);
}

/// Writes the length of an array or of bytes.
///
/// # Errors
/// `InvalidArgument` above 2 GiB.
pub(super) fn put_length(out: &mut BytesMut, length: usize, flexible: bool) -> Result<()> {
    let length = i32::try_from(length)
        .map_err(|_| Error::new(ErrorKind::InvalidArgument, format!("a length of {length} cannot be written")))?;
    if flexible {
        put_unsigned(out, length as u32 + 1);
    } else {
        out.put_i32(length);
    }
    Ok(())
}

/// Writes a string or null.
///
/// # Errors
/// `InvalidArgument` for text of more than 32,767 bytes, the limit in every version of the
/// protocol.
pub(super) fn put_string(out: &mut BytesMut, text: Option<&str>, flexible: bool) -> Result<()> {
    let Some(text) = text else {
        if flexible {
            put_unsigned(out, 0)
        } else {
            out.put_i16(-1)
        }
        return Ok(());
    };
    let length = i16::try_from(text.len()).map_err(|_| {
        Error::new(ErrorKind::InvalidArgument, format!("a text of {} bytes, the limit is {}", text.len(), i16::MAX))
    })?;
    if flexible {
        put_unsigned(out, length as u32 + 1);
    } else {
        out.put_i16(length);
    }
    out.put_slice(text.as_bytes());
    Ok(())
}

/// Ends a struct of a flexible version, without tagged fields.
pub(super) fn put_no_tags(out: &mut BytesMut, flexible: bool) {
    if flexible {
        out.put_u8(0);
    }
}
