//! Ottla's codecs, called like a producer and a consumer call them for a batch.

use crate::codec::{Compression, CompressorState, DecompressorState, compress, decompress};

/// The codecs that have a C library to compare with, with their numbers in a batch's attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

pub const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// The format of records since Kafka 0.11, in which LZ4 frames are read strictly.
const MAGIC: i8 = 2;

/// Encoder and decoder states, reused for every input, like in a producer and a consumer.
#[derive(Default)]
pub struct Ours {
    writing: CompressorState,
    reading: DecompressorState,
}

impl Ours {
    /// Encodes at that level, which codecs without levels ignore.
    pub fn encode(&mut self, codec: Codec, level: i32, input: &[u8]) -> Result<Vec<u8>, String> {
        let compression = match codec {
            Codec::Gzip => Compression::Gzip(level),
            Codec::Snappy => Compression::Snappy,
            Codec::Lz4 => Compression::Lz4,
            Codec::Zstd => Compression::Zstd(level),
        };
        compress(compression, &mut self.writing, input).map_err(|error| error.to_string())
    }

    /// Decodes to at most `limit` bytes.
    pub fn decode(&mut self, codec: Codec, input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
        let out = decompress(codec as u8, &mut self.reading, MAGIC, input, limit);
        out.map(|bytes| bytes.to_vec()).map_err(|error| error.to_string())
    }
}
