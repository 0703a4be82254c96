//! Compression of record batches.

use bytes::Bytes;

use crate::error::Result;

/// How a batch's records are compressed (`compression.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, level 1 to 9 (−1: the codec's default); needs the feature `gzip`.
    Gzip(i32),
    /// Snappy; needs the feature `snappy`.
    Snappy,
    /// LZ4; needs the feature `lz4`.
    Lz4,
    /// Zstandard, level −7 to 4; needs the feature `zstd`.
    Zstd(i32),
}

impl Compression {
    /// The codec's number in the lowest three bits of a batch's attributes.
    pub(crate) const fn id(self) -> u8 {
        match self {
            Compression::None => 0,
            Compression::Gzip(_) => 1,
            Compression::Snappy => 2,
            Compression::Lz4 => 3,
            Compression::Zstd(_) => 4,
        }
    }
}

/// The codecs' reusable state for writing. Not shared between threads.
#[derive(Debug, Default)]
pub(crate) struct CompressorState {}

/// The codecs' reusable state for reading. Not shared between threads.
#[derive(Debug, Default)]
pub(crate) struct DecompressorState {}

/// Refuses a codec whose feature is off and a level that is not to be had, by name (`Configuration`).
pub(crate) fn check(compression: Compression) -> Result<()> {
    let _ = compression;
    unimplemented!()
}

/// Compresses `body` as a v2 batch has it. Not called for [`Compression::None`].
pub(crate) fn compress(compression: Compression, state: &mut CompressorState, body: &[u8]) -> Result<Vec<u8>> {
    let _ = (compression, state, body);
    unimplemented!()
}

/// Decompresses what the codec of number `codec_id` (attributes & 7, never 0) wrote in a message of that `magic`, to at
/// most `limit` bytes.
///
/// # Errors
/// `Corrupt` for bytes that are not of the codec, for a codec that does not exist, and past the limit (saying both
/// sizes); `UnsupportedVersion` where the codec's feature is off.
pub(crate) fn decompress(
    codec_id: u8,
    state: &mut DecompressorState,
    magic: i8,
    input: &[u8],
    limit: usize,
) -> Result<Bytes> {
    let _ = (codec_id, state, magic, input, limit);
    unimplemented!()
}
