//! The codecs of record batches, one file each, each with the feature of its name.
//!
//! A state owns the parts of its codec that can be reused (tables, windows), so that a batch costs
//! no set-up; it belongs to one thread at a time. Decompression is bounded: no input produces more
//! than the caller's limit of output, and no length in the input reserves memory that the input
//! could not fill.

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

/// The reusable state of the codecs for writing; each part is made on first use. Not shared between
/// threads.
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
    /// Decodes each output again, as a check.
    #[cfg(debug_assertions)]
    checking: DecompressorState,
}

/// The reusable state of the codecs for reading; each part is made on first use. Not shared between
/// threads.
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

/// Refuses a codec that is not built in and a level that is not supported, by name
/// (`Configuration`).
pub(crate) fn check(compression: Compression) -> Result<()> {
    compression.check()
}

/// Compresses `body` for a v2 batch. Not called for [`Compression::None`].
///
/// With debug assertions the output is decoded again, so that a faulty encoder fails a batch of a
/// debug build or a test instead of a consumer.
///
/// # Errors
/// `Configuration` if the codec's feature is off; `Internal` if the encoder fails, or if its output
/// does not decode to `body`.
pub(crate) fn compress(compression: Compression, state: &mut CompressorState, body: &[u8]) -> Result<Vec<u8>> {
    let packed = encode(compression, state, body)?;
    #[cfg(debug_assertions)]
    check_output(compression, &mut state.checking, body, &packed)?;
    Ok(packed)
}

fn encode(compression: Compression, state: &mut CompressorState, body: &[u8]) -> Result<Vec<u8>> {
    // No arm uses it if no codec is built in.
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

/// Decompresses the output of codec `codec_id` (attributes & 7) in a message of that `magic`, to at
/// most `limit` bytes. LZ4 before v2 is read with the wrong header checksum of Kafka's own writers
/// (KIP-57).
///
/// # Errors
/// `Corrupt` for bytes that are not of the codec, for a codec that does not exist, and beyond the
/// limit; `UnsupportedVersion` if the codec's feature is off. The state stays usable for the next
/// call.
pub(crate) fn decompress(
    codec_id: u8,
    state: &mut DecompressorState,
    magic: i8,
    input: &[u8],
    limit: usize,
) -> Result<Bytes> {
    // No arm uses them if no codec is built in.
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

/// Reserves room for `more` bytes. The capacity doubles, but does not exceed `ceiling` unless those
/// bytes need it.
#[cfg(any(feature = "gzip", feature = "snappy", feature = "lz4"))]
fn reserve_within(out: &mut Vec<u8>, more: usize, ceiling: usize) {
    let need = out.len().saturating_add(more);
    if need > out.capacity() {
        let target = out.capacity().saturating_mul(2).min(ceiling).max(need);
        out.reserve_exact(target - out.len());
    }
}

/// Reserves room for `first` bytes and for the output of the `left` bytes of input after them,
/// estimated from `used` bytes of input that became `made`. The estimate is a little higher,
/// because a second growth costs a copy. It exceeds neither `ceiling` nor sixteen times the input,
/// so that no length in the input can inflate it.
#[cfg(any(feature = "snappy", feature = "lz4"))]
fn reserve_alike(out: &mut Vec<u8>, first: usize, (made, used): (usize, usize), left: usize, ceiling: usize) {
    let expected = made.saturating_mul(left) / used.max(1);
    let expected = expected.saturating_add(expected / 16).min(left.saturating_mul(16));
    out.reserve_exact(first.saturating_add(expected).min(ceiling.saturating_sub(out.len())).max(first));
}
