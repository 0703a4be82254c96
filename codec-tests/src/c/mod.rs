//! The C libraries. This is the only place with `unsafe` in this workspace.
//!
//! Framing that the libraries do not have (several gzip members, Snappy's blocks) is decoded here
//! by Java's rules, like in Ottla.

mod gzip;
mod lz4;
mod snappy;
mod zstd;

use crate::{ours::Codec, random::Random};

/// Reusable contexts of the C libraries.
#[derive(Default)]
pub struct C {
    zstd: zstd::Zstd,
}

impl C {
    /// Encodes with a random level and random options. Returns the bytes, and the options as text.
    pub fn encode(&mut self, codec: Codec, input: &[u8], random: &mut Random) -> (Vec<u8>, String) {
        match codec {
            Codec::Gzip => gzip::encode(input, random),
            Codec::Snappy => snappy::encode(input, random),
            Codec::Lz4 => lz4::encode(input, random),
            Codec::Zstd => self.zstd.encode(input, random),
        }
    }

    /// Encodes at that level as other producers do; zstd's context is reused.
    pub fn encode_at(&mut self, codec: Codec, level: i32, input: &[u8]) -> Vec<u8> {
        match codec {
            Codec::Gzip => gzip::encode_with(input, gzip::Options { level, ..gzip::Options::default() }),
            Codec::Snappy => snappy::encode_blocks(input, snappy::JAVA_BLOCK, 1),
            Codec::Lz4 => lz4::encode_with(input, &lz4::Options { level, ..lz4::Options::default() }),
            Codec::Zstd => self.zstd.encode_at(input, level),
        }
    }

    /// Encodes with zstd as librdkafka does: a new stream for each batch, of unknown size.
    pub fn zstd_like_librdkafka(&mut self, input: &[u8], level: i32) -> Vec<u8> {
        zstd::encode_stream(input, level)
    }

    /// Decodes to at most `limit` bytes.
    pub fn decode(&mut self, codec: Codec, input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
        match codec {
            Codec::Gzip => gzip::decode(input, limit),
            Codec::Snappy => snappy::decode(input, limit),
            Codec::Lz4 => lz4::decode(input, limit),
            Codec::Zstd => self.zstd.decode(input, limit),
        }
    }
}

/// Returns the error for output above the limit.
fn too_large() -> String {
    "the output is larger than the limit".into()
}
