//! LZ4 frames around the block functions of `lz4_flex`.
//!
//! Frames are written like Java's: version 1, independent blocks of 64 KiB, no content size, no
//! checksums except the header's. All frames that the format allows are read, except those with
//! dictionaries.

use std::{fmt, ops::Range};

use lz4_flex::block::{
    CompressTable, compress_into_with_table, decompress_into, decompress_into_with_dict, get_maximum_output_size,
};

use super::{Codec, corrupt, reserve_alike, reserve_within, too_large, xxh32::xxh32};
use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = 0x184D_2204u32.to_le_bytes();
/// Magic numbers of skippable frames: 0x184D2A50 to 0x184D2A5F.
const SKIPPABLE: Range<u32> = 0x184D_2A50..0x184D_2A60;
/// Version 1, independent blocks, nothing else.
const FLAGS: u8 = 0b0110_0000;
/// Blocks of at most 64 KiB.
const BLOCK_DESCRIPTOR: u8 = 4 << 4;
const BLOCK: usize = 64 * 1024;
/// The bit of a block's length that marks a block as not compressed.
const STORED: u32 = 1 << 31;
/// The length zero, after the last block.
const END_MARK: [u8; 4] = [0; 4];
/// Bytes of a written frame outside of its blocks.
const FRAME_OVERHEAD: usize = MAGIC.len() + 3 + END_MARK.len();
/// Maximum distance of a match in a dependent block.
const WINDOW: usize = 64 * 1024;
/// Upper bound of a block's expansion, because each byte of a length adds 255.
const MAX_RATIO: usize = 255;
/// A scratch buffer larger than this is freed after use.
const KEPT_SCRATCH: usize = 256 * 1024;

pub(super) struct Encoder {
    /// The table for input below 64 KiB: its entries have half the size, so it is cleared twice as
    /// fast.
    small: CompressTable,
    large: Option<CompressTable>,
    /// Buffer for the compression of one block, so that the output need not be zeroed in advance
    /// and is no larger than necessary.
    scratch: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { small: CompressTable::small(), large: None, scratch: Vec::new() }
    }
}

impl Encoder {
    pub(super) fn compress(&mut self, input: &[u8]) -> Result<Vec<u8>> {
        let descriptor = [FLAGS, BLOCK_DESCRIPTOR];
        let mut out = Vec::new();
        let mut rest = input;
        while let Some(block) = rest.get(..rest.len().min(BLOCK)).filter(|block| !block.is_empty()) {
            rest = rest.get(block.len()..).unwrap_or_default();
            let packed = self.block(block)?;
            let (bytes, stored) = if packed.len() < block.len() { (packed, 0) } else { (block, STORED) };
            if out.is_empty() {
                let made = bytes.len() + 4;
                reserve_alike(&mut out, FRAME_OVERHEAD + made, (made, block.len()), rest.len(), usize::MAX);
                start(&mut out, descriptor);
            }
            out.extend_from_slice(&(u32::try_from(bytes.len()).map_err(failed)? | stored).to_le_bytes());
            out.extend_from_slice(bytes);
        }
        if out.is_empty() {
            start(&mut out, descriptor);
        }
        out.extend_from_slice(&END_MARK);
        Ok(out)
    }

    fn block(&mut self, block: &[u8]) -> Result<&[u8]> {
        let largest = get_maximum_output_size(block.len());
        if self.scratch.len() < largest {
            self.scratch.resize(largest, 0);
        }
        let table = if block.len() < usize::from(u16::MAX) {
            &mut self.small
        } else {
            self.large.get_or_insert_with(CompressTable::large)
        };
        let size = compress_into_with_table(block, &mut self.scratch, table).map_err(failed)?;
        Ok(self.scratch.get(..size).unwrap_or_default())
    }
}

fn start(out: &mut Vec<u8>, descriptor: [u8; 2]) {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&descriptor);
    out.push(header_checksum(&descriptor));
}

#[derive(Default)]
pub(super) struct Decoder {
    /// Buffer for the decompression of one block, so that the output need not be zeroed before
    /// every block.
    scratch: Vec<u8>,
}

/// The settings of one frame.
struct Frame {
    independent: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_max: usize,
}

impl Decoder {
    pub(super) fn decompress(&mut self, magic: i8, input: &[u8], limit: usize) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut input = Input(input);
        loop {
            let marker = input.word()?;
            if SKIPPABLE.contains(&marker) {
                let length = input.word()?;
                input.take(usize::try_from(length).unwrap_or(usize::MAX))?;
            } else if marker.to_le_bytes() == MAGIC {
                let frame = Frame::read(&mut input, magic)?;
                self.frame(&frame, &mut input, limit, &mut out)?;
            } else {
                return Err(corrupt(Codec::Lz4, format_args!("a frame cannot begin with {marker:#010x}")));
            }
            if input.0.is_empty() {
                break;
            }
        }
        if self.scratch.capacity() > KEPT_SCRATCH {
            self.scratch = Vec::new();
        }
        Ok(out)
    }

    fn frame(&mut self, frame: &Frame, input: &mut Input<'_>, limit: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        if let Some(size) = frame.content_size {
            if size > u64::try_from(limit.saturating_sub(start)).unwrap_or(u64::MAX) {
                return Err(too_large(Codec::Lz4, limit));
            }
            let believed = usize::try_from(size).unwrap_or(usize::MAX).min(input.0.len().saturating_mul(MAX_RATIO));
            reserve_within(out, believed, limit);
        }
        loop {
            let word = input.word()?;
            if word == 0 {
                break;
            }
            let length = usize::try_from(word & !STORED).unwrap_or(usize::MAX);
            if length > frame.block_max {
                return Err(corrupt(
                    Codec::Lz4,
                    format_args!("a block of {length} bytes in a frame of blocks of at most {}", frame.block_max),
                ));
            }
            let block = input.take(length)?;
            if frame.block_checksums && input.word()? != xxh32(block) {
                return Err(corrupt(Codec::Lz4, "a block's checksum is wrong"));
            }
            let room = limit.saturating_sub(out.len());
            let bytes = if word & STORED != 0 { block } else { self.block(frame, block, start, limit, out)? };
            if bytes.len() > room {
                return Err(too_large(Codec::Lz4, limit));
            }
            if out.is_empty() {
                reserve_alike(out, bytes.len(), (bytes.len(), block.len() + 4), input.0.len(), limit);
            }
            reserve_within(out, bytes.len(), limit);
            out.extend_from_slice(bytes);
        }
        let content = out.get(start..).unwrap_or_default();
        if frame.content_checksum && input.word()? != xxh32(content) {
            return Err(corrupt(Codec::Lz4, "the content's checksum is wrong"));
        }
        if frame.content_size.is_some_and(|size| u64::try_from(content.len()) != Ok(size)) {
            return Err(corrupt(Codec::Lz4, "the content is not of the size that the header says"));
        }
        Ok(())
    }

    /// Decompresses one block of the frame into the scratch buffer. The frame's content begins at
    /// `start` of `out`.
    fn block(&mut self, frame: &Frame, block: &[u8], start: usize, limit: usize, out: &[u8]) -> Result<&[u8]> {
        let possible = frame.block_max.min(block.len().saturating_mul(MAX_RATIO));
        let allowed = possible.min(limit.saturating_sub(out.len()));
        if self.scratch.len() < allowed {
            self.scratch.resize(allowed, 0);
        }
        let scratch = self.scratch.get_mut(..allowed).unwrap_or_default();
        let result = if frame.independent {
            decompress_into(block, scratch)
        } else {
            let from = out.len().saturating_sub(WINDOW).max(start);
            decompress_into_with_dict(block, scratch, out.get(from..).unwrap_or_default())
        };
        match result {
            Ok(size) => Ok(self.scratch.get(..size).unwrap_or_default()),
            Err(lz4_flex::block::DecompressError::OutputTooSmall { .. }) if allowed < possible => {
                Err(too_large(Codec::Lz4, limit))
            }
            Err(error) => Err(corrupt(Codec::Lz4, error)),
        }
    }
}

impl Frame {
    fn read(input: &mut Input<'_>, magic: i8) -> Result<Self> {
        let descriptor = input.0;
        let [flags, block_descriptor] = input.array()?;
        if flags >> 6 != 1 {
            return Err(corrupt(Codec::Lz4, format_args!("frame version {}; 1 is known", flags >> 6)));
        }
        if flags & 1 != 0 {
            return Err(corrupt(Codec::Lz4, "the frame needs a dictionary, and Kafka cannot name one"));
        }
        if flags & 2 != 0 || block_descriptor & 0b1000_1111 != 0 {
            return Err(corrupt(Codec::Lz4, "reserved bits of the frame's header are set"));
        }
        let block_max = match block_descriptor >> 4 {
            4 => BLOCK,
            5 => 256 * 1024,
            6 => 1024 * 1024,
            7 => 4 * 1024 * 1024,
            other => return Err(corrupt(Codec::Lz4, format_args!("block size code {other}; 4 to 7 are known"))),
        };
        let content_size = if flags & 0b1000 != 0 { Some(u64::from_le_bytes(input.array()?)) } else { None };
        let descriptor = descriptor.get(..descriptor.len() - input.0.len()).unwrap_or_default();
        let [checksum] = input.array()?;
        if checksum != header_checksum(descriptor) && !(magic < 2 && checksum == kip_57_checksum(descriptor)) {
            return Err(corrupt(Codec::Lz4, "the frame header's checksum is wrong"));
        }
        Ok(Self {
            independent: flags & 0b10_0000 != 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_checksum: flags & 0b100 != 0,
            content_size,
            block_max,
        })
    }
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    let [_, second, _, _] = xxh32(descriptor).to_le_bytes();
    second
}

/// Returns the header's checksum with Kafka's bug (KIP-57): Kafka before 0.10 included the frame's
/// magic number in it, and later versions kept that for messages of the old formats.
fn kip_57_checksum(descriptor: &[u8]) -> u8 {
    let mut with_magic = [0; 14];
    let length = (MAGIC.len() + descriptor.len()).min(with_magic.len());
    for (to, from) in with_magic.iter_mut().zip(MAGIC.iter().chain(descriptor)) {
        *to = *from;
    }
    header_checksum(with_magic.get(..length).unwrap_or_default())
}

/// The rest of the input.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(truncated)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn word(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }
}

fn truncated() -> Error {
    corrupt(Codec::Lz4, "the data is truncated")
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "lz4: the encoder failed").with_source(error)
}

impl fmt::Debug for Encoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lz4::Encoder")
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lz4::Decoder")
    }
}
