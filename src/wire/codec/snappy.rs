//! Snappy in the framing of xerial's snappy-java, which is Kafka's format: a header of 16 bytes,
//! then blocks of raw Snappy, each after its length. Input without the framing is read too, because
//! librdkafka writes it.

use snap::raw;

use super::{Codec, corrupt, reserve_alike, reserve_within, too_large};
use crate::error::{Error, ErrorKind, Result};

/// The magic number, then version 1 and lowest compatible version 1.
const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
const MAGIC_LENGTH: usize = 8;
/// Bytes of input in a block, like Java's.
const BLOCK: usize = 32 * 1024;
/// Upper bound of the format's expansion, because three bytes copy at most 64.
const MAX_RATIO: usize = 64;

#[derive(Debug)]
pub(super) struct Encoder {
    state: raw::Encoder,
    /// Buffer for the compression of one block, so that the output need not be zeroed in advance
    /// and is no larger than necessary.
    scratch: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { state: raw::Encoder::new(), scratch: vec![0; raw::max_compress_len(BLOCK)] }
    }
}

impl Encoder {
    pub(super) fn compress(&mut self, input: &[u8]) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut left = input.len();
        for block in input.chunks(BLOCK) {
            left -= block.len();
            let size = self.state.compress(block, &mut self.scratch).map_err(failed)?;
            let packed = self.scratch.get(..size).unwrap_or_default();
            if out.is_empty() {
                reserve_alike(&mut out, HEADER.len() + 4 + size, (size + 4, block.len()), left, usize::MAX);
                out.extend_from_slice(&HEADER);
            }
            out.extend_from_slice(&u32::try_from(size).map_err(failed)?.to_be_bytes());
            out.extend_from_slice(packed);
        }
        if out.is_empty() {
            out.extend_from_slice(&HEADER);
        }
        Ok(out)
    }
}

#[derive(Debug, Default)]
pub(super) struct Decoder {
    state: raw::Decoder,
}

impl Decoder {
    pub(super) fn decompress(&mut self, input: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        // A raw stream cannot begin like the framing's header: after its length would come a copy
        // from before its start.
        let Some(mut rest) = strip_header(input)? else {
            self.block(input, limit, &mut out)?;
            return Ok(out);
        };
        while let Some((prefix, behind)) = rest.split_first_chunk::<4>() {
            // A second stream may follow the first.
            if let Some(next) = strip_header(rest)? {
                rest = next;
                continue;
            }
            let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
            let (block, next) = behind.split_at_checked(length).ok_or_else(|| {
                corrupt(Codec::Snappy, format_args!("a block of {length} bytes where {} are left", behind.len()))
            })?;
            if out.is_empty() {
                let made = raw::decompress_len(block).unwrap_or_default().min(block.len().saturating_mul(MAX_RATIO));
                reserve_alike(&mut out, 0, (made, block.len() + 4), rest.len(), limit);
            }
            self.block(block, limit, &mut out)?;
            rest = next;
        }
        if rest.is_empty() {
            Ok(out)
        } else {
            Err(corrupt(Codec::Snappy, "the data is truncated in the middle of a length"))
        }
    }

    fn block(&mut self, block: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<()> {
        let size = raw::decompress_len(block).map_err(|error| corrupt(Codec::Snappy, error))?;
        if size > limit.saturating_sub(out.len()) {
            return Err(too_large(Codec::Snappy, limit));
        }
        if size > block.len().saturating_mul(MAX_RATIO) {
            return Err(corrupt(
                Codec::Snappy,
                format_args!("{} bytes cannot hold the {size} they promise", block.len()),
            ));
        }
        let at = out.len();
        reserve_within(out, size, limit);
        out.resize(at + size, 0);
        let room = out.get_mut(at..).unwrap_or_default();
        self.state.decompress(block, room).map_err(|error| corrupt(Codec::Snappy, error))?;
        Ok(())
    }
}

/// Returns the bytes after the framing's header, or `None` if there is no such header.
fn strip_header(input: &[u8]) -> Result<Option<&[u8]>> {
    if !input.starts_with(HEADER.get(..MAGIC_LENGTH).unwrap_or_default()) {
        return Ok(None);
    }
    match input.split_at_checked(HEADER.len()) {
        Some((_, rest)) => Ok(Some(rest)),
        None => Err(corrupt(Codec::Snappy, "the data is truncated in the middle of the header")),
    }
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "snappy: the encoder failed").with_source(error)
}
