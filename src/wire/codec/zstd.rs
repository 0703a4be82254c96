use std::fmt;

use zrip::{CompressContext, DecompressContext, DecompressError};

use super::{Codec, corrupt, too_large};
use crate::error::{Error, ErrorKind, Result};

pub(super) struct Encoder {
    state: CompressContext,
    level: i32,
}

/// Returns the encoder in its slot, replaced if it has another level. The level was checked: −7 to
/// 4.
pub(super) fn encoder(place: &mut Option<Encoder>, level: i32) -> Result<&mut Encoder> {
    if place.as_ref().is_none_or(|encoder| encoder.level != level) {
        let mut state = CompressContext::new(level).map_err(failed)?;
        // The batch's CRC covers only the encoded bytes. With this checksum every consumer detects
        // a faulty encoder or decoder; it takes 2 % of the instructions of encoding at level 1.
        state.set_content_checksum(true);
        return Ok(place.insert(Encoder { state, level }));
    }
    place.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "zstd: there is no encoder"))
}

impl Encoder {
    pub(super) fn compress(&mut self, input: &[u8]) -> Result<Vec<u8>> {
        Ok(self.state.compress(input).map_err(failed)?.into_owned())
    }
}

#[derive(Default)]
pub(super) struct Decoder {
    state: DecompressContext,
}

impl Decoder {
    pub(super) fn decompress(&mut self, input: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        match self.state.decompress_into_with_limit(input, &mut out, limit) {
            Ok(_) => Ok(out),
            Err(DecompressError::OutputTooSmall) => Err(too_large(Codec::Zstd, limit)),
            Err(error) => Err(corrupt(Codec::Zstd, error)),
        }
    }
}

fn failed(error: zrip::CompressError) -> Error {
    Error::new(ErrorKind::Internal, "zstd: the encoder failed").with_source(error)
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zstd::Encoder")
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("zstd::Decoder")
    }
}
