use std::fmt;

use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Codec, corrupt, reserve_within, too_large};
use crate::error::{Error, ErrorKind, Result};

const WINDOW_BITS: u8 = 15;
/// The first two bytes of every member.
const MAGIC: [u8; 2] = [0x1f, 0x8b];
/// Highest compression ratio that a trailer is believed for. Records compress less than this; a
/// trailer that promises more gets its room only as the bytes come.
const TRUSTED_RATIO: usize = 16;

pub(super) struct Encoder {
    state: Compress,
    level: i32,
}

/// Returns the encoder in its slot, replaced if it has another level. The level was checked: 1 to
/// 9, or −1.
pub(super) fn encoder(place: &mut Option<Encoder>, level: i32) -> &mut Encoder {
    if place.as_ref().is_some_and(|encoder| encoder.level != level) {
        *place = None;
    }
    place.get_or_insert_with(|| {
        let compression =
            u32::try_from(level).map_or_else(|_| flate2::Compression::default(), flate2::Compression::new);
        Encoder { state: Compress::new_gzip(compression, WINDOW_BITS), level }
    })
}

impl Encoder {
    pub(super) fn compress(&mut self, input: &[u8]) -> Result<Vec<u8>> {
        self.state.reset();
        let mut out = Vec::with_capacity(input.len() / 2 + 64);
        loop {
            let (read, written) = (self.state.total_in(), out.len());
            let rest = consumed(input, read);
            let status = self
                .state
                .compress_vec(rest, &mut out, FlushCompress::Finish)
                .map_err(|error| Error::new(ErrorKind::Internal, "gzip: the encoder failed").with_source(error))?;
            if status == Status::StreamEnd {
                // The batch is kept until it is acknowledged, so it must not take more memory than
                // it needs.
                out.shrink_to_fit();
                return Ok(out);
            }
            if out.len() < out.capacity() && out.len() == written && self.state.total_in() == read {
                return Err(Error::new(ErrorKind::Internal, "gzip: the encoder made no progress"));
            }
            out.reserve(rest.len() / 4 + 256);
        }
    }
}

pub(super) struct Decoder {
    state: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { state: Decompress::new_gzip(WINDOW_BITS) }
    }
}

impl Decoder {
    /// Decompresses all members. Bytes after the last one that do not begin like a member are
    /// ignored, as Java does.
    pub(super) fn decompress(&mut self, input: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        // One byte above the limit is enough to detect excess output.
        reserve_within(&mut out, size_hint(input).min(limit).saturating_add(1), limit.saturating_add(1));
        let mut member = input;
        loop {
            let used = self.member(member, limit, &mut out)?;
            member = member.get(used..).unwrap_or_default();
            if !member.starts_with(&MAGIC) {
                return Ok(out);
            }
        }
    }

    /// Decompresses one member. Returns the number of input bytes that it took.
    fn member(&mut self, member: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<usize> {
        self.state.reset(true);
        loop {
            let (read, written) = (self.state.total_in(), out.len());
            if out.len() == out.capacity() {
                reserve_within(out, 1, limit.saturating_add(1));
            }
            let status = self
                .state
                .decompress_vec(consumed(member, read), out, FlushDecompress::None)
                .map_err(|error| corrupt(Codec::Gzip, error))?;
            if out.len() > limit {
                return Err(too_large(Codec::Gzip, limit));
            }
            if status == Status::StreamEnd {
                return usize::try_from(self.state.total_in()).map_err(|error| corrupt(Codec::Gzip, error));
            }
            if out.len() == written && self.state.total_in() == read {
                return Err(corrupt(Codec::Gzip, "the data is truncated"));
            }
        }
    }
}

fn consumed(input: &[u8], read: u64) -> &[u8] {
    usize::try_from(read).ok().and_then(|read| input.get(read..)).unwrap_or_default()
}

/// Returns the size that the last member's trailer gives, as far as it can be believed.
fn size_hint(input: &[u8]) -> usize {
    let trailer = input.last_chunk::<4>().copied().unwrap_or_default();
    let promised = usize::try_from(u32::from_le_bytes(trailer)).unwrap_or(usize::MAX);
    promised.min(input.len().saturating_mul(TRUSTED_RATIO))
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gzip::Encoder")
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gzip::Decoder")
    }
}
