use snappy_src::{
    snappy_compress_with_level, snappy_max_compressed_length, snappy_status, snappy_status_SNAPPY_OK,
    snappy_uncompress, snappy_uncompressed_length,
};

use super::too_large;
use crate::random::Random;

/// The header of snappy-java's framing: its magic number, version 1, compatible with version 1.
const HEADER: [u8; 16] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1];
/// Bytes of input in a block, like Java's.
pub(super) const JAVA_BLOCK: usize = 32 * 1024;

/// Encodes in snappy-java's framing with blocks of any size, or without framing like librdkafka.
pub(super) fn encode(input: &[u8], random: &mut Random) -> (Vec<u8>, String) {
    let level = random.between(1, 2) as i32;
    if random.one_in(3) {
        return (block(input, level), format!("level {level}, one block without framing"));
    }
    let size = *random.choose(&[1 << 10, JAVA_BLOCK, JAVA_BLOCK, 64 << 10, 1 << 20]);
    (encode_blocks(input, size, level), format!("level {level}, blocks of {size} bytes"))
}

pub(super) fn encode_blocks(input: &[u8], size: usize, level: i32) -> Vec<u8> {
    let mut out = HEADER.to_vec();
    for part in input.chunks(size) {
        let packed = block(part, level);
        out.extend((packed.len() as u32).to_be_bytes());
        out.extend(packed);
    }
    out
}

fn block(input: &[u8], level: i32) -> Vec<u8> {
    // SAFETY: `out` has the room that the library asks for, and its length is set to the number of
    // bytes that the library has written.
    unsafe {
        let mut size = snappy_max_compressed_length(input.len());
        let mut out = Vec::<u8>::with_capacity(size);
        let (from, to) = (input.as_ptr().cast(), out.as_mut_ptr().cast());
        expect(snappy_compress_with_level(from, input.len(), level, to, &mut size)).expect("C snappy encodes");
        out.set_len(size);
        out
    }
}

pub(super) fn decode(input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    if !input.starts_with(&HEADER[..8]) {
        unblock(input, limit, &mut out)?;
        return Ok(out);
    }
    let mut rest = input.get(HEADER.len()..).ok_or("the data ends in the header")?;
    while !rest.is_empty() {
        if rest.starts_with(&HEADER[..8]) {
            rest = rest.get(HEADER.len()..).ok_or("the data ends in the header")?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk::<4>().ok_or("the data ends in a length")?;
        let (packed, next) =
            behind.split_at_checked(u32::from_be_bytes(*length) as usize).ok_or("the data ends in a block")?;
        unblock(packed, limit, &mut out)?;
        rest = next;
    }
    Ok(out)
}

fn unblock(packed: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<(), String> {
    let mut size = 0;
    // SAFETY: the pointers and lengths are those of slices; the room is as large as the library
    // asks for.
    unsafe {
        expect(snappy_uncompressed_length(packed.as_ptr().cast(), packed.len(), &mut size))?;
        if size > limit.saturating_sub(out.len()) {
            return Err(too_large());
        }
        let at = out.len();
        out.resize(at + size, 0);
        expect(snappy_uncompress(packed.as_ptr().cast(), packed.len(), out[at..].as_mut_ptr().cast(), &mut size))
    }
}

fn expect(status: snappy_status) -> Result<(), String> {
    if status == snappy_status_SNAPPY_OK { Ok(()) } else { Err(format!("status {status}")) }
}
