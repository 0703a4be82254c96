//! The codecs of record batches, one file each, each behind the feature of its name.
//!
//! A state owns what its codec can use again (tables, windows), so that a batch costs no set-up; it
//! belongs to one thread at a time. Decompression is bounded: no input makes more than the caller's
//! limit of output, and no length in the input reserves memory that the input could not fill.

mod compression;
#[cfg(feature = "gzip")]
mod gzip;
#[cfg(feature = "lz4")]
mod lz4;
#[cfg(feature = "snappy")]
mod snappy;
#[cfg(test)]
mod tests;
#[cfg(feature = "lz4")]
mod xxh32;
#[cfg(feature = "zstd")]
mod zstd;

use bytes::Bytes;
use compression::Codec;
pub use compression::Compression;
pub(crate) use compression::CompressionSettings;

use crate::error::{Error, ErrorKind, Result};

/// The codecs' reusable state for writing; each is made when its codec first comes. Not shared
/// between threads.
#[derive(Debug, Default)]
pub(crate) struct CompressorState {
    #[cfg(feature = "gzip")]
    gzip: Option<gzip::Encoder>,
    #[cfg(feature = "snappy")]
    snappy: Option<snappy::Encoder>,
    #[cfg(feature = "lz4")]
    lz4: Option<lz4::Encoder>,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::Encoder>,
    /// Decodes each output again.
    #[cfg(debug_assertions)]
    checking: DecompressorState,
}

/// The codecs' reusable state for reading; each is made when its codec first comes. Not shared
/// between threads.
#[derive(Debug, Default)]
pub(crate) struct DecompressorState {
    #[cfg(feature = "gzip")]
    gzip: Option<gzip::Decoder>,
    #[cfg(feature = "snappy")]
    snappy: Option<snappy::Decoder>,
    #[cfg(feature = "lz4")]
    lz4: Option<lz4::Decoder>,
    #[cfg(feature = "zstd")]
    zstd: Option<zstd::Decoder>,
}

/// Refuses a codec whose feature is off and a level that is not to be had, by name
/// (`Configuration`).
pub(crate) fn check(compression: Compression) -> Result<()> {
    compression.check()
}

/// Compresses `body` as a v2 batch has it. Not called for [`Compression::None`].
///
/// With debug assertions the output is decoded again, so that an encoder that is wrong fails a
/// batch of a debug build or a test instead of a consumer.
///
/// # Errors
/// `Configuration` where the codec's feature is off; `Internal` if the encoder fails, or if its
/// output does not decode to `body`.
pub(crate) fn compress(compression: Compression, state: &mut CompressorState, body: &[u8]) -> Result<Vec<u8>> {
    let packed = encode(compression, state, body)?;
    #[cfg(debug_assertions)]
    check_output(compression, &mut state.checking, body, &packed)?;
    Ok(packed)
}

fn encode(compression: Compression, state: &mut CompressorState, body: &[u8]) -> Result<Vec<u8>> {
    // Used by no arm where no codec is built in.
    let _ = &state;
    match compression {
        Compression::None => Ok(body.to_vec()),
        #[cfg(feature = "gzip")]
        Compression::Gzip(level) => gzip::encoder(&mut state.gzip, level).compress(body),
        #[cfg(feature = "snappy")]
        Compression::Snappy => state.snappy.get_or_insert_default().compress(body),
        #[cfg(feature = "lz4")]
        Compression::Lz4 => state.lz4.get_or_insert_default().compress(body),
        #[cfg(feature = "zstd")]
        Compression::Zstd(level) => zstd::encoder(&mut state.zstd, level)?.compress(body),
        #[allow(unreachable_patterns, reason = "with every codec's feature on there is no other")]
        other => Err(feature_off(other.codec(), ErrorKind::Configuration)),
    }
}

/// Decompresses what the codec of number `codec_id` (attributes & 7) wrote in a message of that
/// `magic`, to at most `limit` bytes. LZ4 before v2 is read with the mistake that Kafka's own
/// writers made (KIP-57).
///
/// # Errors
/// `Corrupt` for bytes that are not of the codec, for a codec that does not exist, and past the
/// limit; `UnsupportedVersion` where the codec's feature is off. The state stays good for the next
/// call.
pub(crate) fn decompress(
    codec_id: u8,
    state: &mut DecompressorState,
    magic: i8,
    input: &[u8],
    limit: usize,
) -> Result<Bytes> {
    // Used by no arm where no codec is built in.
    let _ = (&state, magic);
    let codec = Codec::of_id(codec_id).ok_or_else(|| {
        Error::new(ErrorKind::Corrupt, format!("compression codec {codec_id} does not exist; 0 to 4 do"))
    })?;
    let out = match codec {
        Codec::None if input.len() > limit => return Err(too_large(codec, limit)),
        Codec::None => input.to_vec(),
        #[cfg(feature = "gzip")]
        Codec::Gzip => state.gzip.get_or_insert_default().decompress(input, limit)?,
        #[cfg(feature = "snappy")]
        Codec::Snappy => state.snappy.get_or_insert_default().decompress(input, limit)?,
        #[cfg(feature = "lz4")]
        Codec::Lz4 => state.lz4.get_or_insert_default().decompress(magic, input, limit)?,
        #[cfg(feature = "zstd")]
        Codec::Zstd => state.zstd.get_or_insert_default().decompress(input, limit)?,
        #[allow(unreachable_patterns, reason = "with every codec's feature on there is no other")]
        other => return Err(feature_off(other, ErrorKind::UnsupportedVersion)),
    };
    Ok(out.into())
}

/// Refuses an encoder's output that does not decode to its input.
#[cfg(debug_assertions)]
fn check_output(compression: Compression, state: &mut DecompressorState, body: &[u8], packed: &[u8]) -> Result<()> {
    const CURRENT_MAGIC: i8 = 2;
    let wrong = || {
        let sizes = format!("{} bytes that do not decode to the {} of its input", packed.len(), body.len());
        let message = format!("the encoder of {compression} wrote {sizes}; the batch is not sent; please report this");
        Error::new(ErrorKind::Internal, message)
    };
    match decompress(compression.id(), state, CURRENT_MAGIC, packed, body.len()) {
        Ok(decoded) if decoded == body => Ok(()),
        Ok(_) => Err(wrong()),
        Err(error) => Err(wrong().with_source(error)),
    }
}

fn feature_off(codec: Codec, kind: ErrorKind) -> Error {
    Error::new(
        kind,
        format!("compression {codec} is not built in: enable the feature \"{codec}\" of the crate `ottla`"),
    )
}

fn too_large(codec: Codec, limit: usize) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("{codec}: the decompressed records are larger than the limit of {limit} bytes"),
    )
}

#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
fn corrupt(codec: Codec, what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("{codec}: {what}"))
}

/// Makes room for `more` bytes, growing by doubling but never past `ceiling` unless those very
/// bytes need it.
#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4"))]
fn reserve_within(out: &mut Vec<u8>, more: usize, ceiling: usize) {
    let need = out.len().saturating_add(more);
    if need > out.capacity() {
        let target = out.capacity().saturating_mul(2).min(ceiling).max(need);
        out.reserve_exact(target - out.len());
    }
}

/// Makes room for `first` bytes and for what the `left` bytes of input behind them will become, if
/// `used` bytes of input that became `made` are a measure; a little more, as a second growth costs
/// a copy, but never past `ceiling`, nor past sixteen times the input, which no length in it can
/// then inflate.
#[cfg(any(feature = "snappy", feature = "lz4"))]
fn reserve_alike(out: &mut Vec<u8>, first: usize, (made, used): (usize, usize), left: usize, ceiling: usize) {
    let expected = made.saturating_mul(left) / used.max(1);
    let expected = expected.saturating_add(expected / 16).min(left.saturating_mul(16));
    out.reserve_exact(first.saturating_add(expected).min(ceiling.saturating_sub(out.len())).max(first));
}
