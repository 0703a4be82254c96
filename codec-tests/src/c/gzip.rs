use std::{mem, mem::MaybeUninit};

use libz_sys::{
    Z_BUF_ERROR, Z_DEFLATED, Z_FINISH, Z_NO_FLUSH, Z_OK, Z_STREAM_END, deflate, deflateBound, deflateEnd,
    deflateInit2_, inflate, inflateEnd, inflateInit2_, inflateReset, z_stream, zlibVersion,
};

use super::too_large;
use crate::random::Random;

/// Added to the bits of the window: gzip's header and trailer instead of zlib's.
const GZIP: i32 = 16;
/// The first two bytes of every member.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) level: i32,
    pub(super) window_bits: i32,
    pub(super) memory: i32,
    /// 0 to 4: default, filtered, Huffman only, run lengths, fixed codes.
    pub(super) strategy: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self { level: 6, window_bits: 15, memory: 8, strategy: 0 }
    }
}

pub(super) fn encode(input: &[u8], random: &mut Random) -> (Vec<u8>, String) {
    let mut options = Options { level: random.between(0, 10) as i32 - 1, ..Options::default() };
    if random.one_in(2) {
        options.window_bits = random.between(9, 15) as i32;
        options.memory = random.between(1, 9) as i32;
        options.strategy = random.between(0, 4) as i32;
    }
    if random.one_in(4) {
        let (front, back) = input.split_at(random.below(input.len() + 1));
        let mut out = encode_with(front, options);
        out.extend(encode_with(back, options));
        return (out, format!("{options:?}, two members"));
    }
    (encode_with(input, options), format!("{options:?}"))
}

pub(super) fn encode_with(input: &[u8], options: Options) -> Vec<u8> {
    // SAFETY: the stream is begun before its first use and ended after its last; the pointers and
    // lengths are those of the slices; the length of `out` is set to the number of written bytes.
    unsafe {
        // `deflateInit2_` replaces null allocators, although the type `z_stream` does not permit
        // them.
        let mut place = MaybeUninit::<z_stream>::zeroed();
        let Options { level, window_bits, memory, strategy } = options;
        let size = mem::size_of::<z_stream>() as i32;
        let bits = window_bits + GZIP;
        assert_eq!(
            deflateInit2_(place.as_mut_ptr(), level, Z_DEFLATED, bits, memory, strategy, zlibVersion(), size),
            Z_OK,
            "C zlib: {options:?}"
        );
        let stream = place.assume_init_mut();
        let mut out = Vec::<u8>::with_capacity(deflateBound(stream, input.len() as _) as usize);
        stream.next_in = input.as_ptr().cast_mut();
        stream.avail_in = input.len() as u32;
        stream.next_out = out.as_mut_ptr();
        stream.avail_out = out.capacity() as u32;
        assert_eq!(deflate(stream, Z_FINISH), Z_STREAM_END, "C zlib: {options:?}");
        out.set_len(stream.total_out as usize);
        deflateEnd(stream);
        out
    }
}

/// Decodes all members. Bytes after the last one that do not begin like a member are ignored, as
/// Java does.
pub(super) fn decode(input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    // One byte above the limit is enough to detect excess output.
    let mut out = vec![0u8; limit + 1];
    // SAFETY: as above.
    unsafe {
        let mut place = MaybeUninit::<z_stream>::zeroed();
        let size = mem::size_of::<z_stream>() as i32;
        assert_eq!(inflateInit2_(place.as_mut_ptr(), 15 + GZIP, zlibVersion(), size), Z_OK, "C zlib");
        let stream = place.assume_init_mut();
        let result = members(stream, input, &mut out);
        inflateEnd(stream);
        let written = result?;
        if written > limit {
            return Err(too_large());
        }
        out.truncate(written);
    }
    Ok(out)
}

/// # Safety
/// The stream was begun.
unsafe fn members(stream: &mut z_stream, mut member: &[u8], out: &mut [u8]) -> Result<usize, String> {
    let mut written = 0;
    loop {
        // SAFETY: the stream was begun and not ended; pointers and lengths are those of the slices.
        unsafe {
            inflateReset(stream);
            stream.next_in = member.as_ptr().cast_mut();
            stream.avail_in = member.len() as u32;
            stream.next_out = out[written..].as_mut_ptr();
            stream.avail_out = (out.len() - written) as u32;
            let status = inflate(stream, Z_NO_FLUSH);
            written += stream.total_out as usize;
            match status {
                Z_STREAM_END => {}
                Z_OK | Z_BUF_ERROR if written == out.len() => return Ok(written),
                Z_OK | Z_BUF_ERROR => return Err("the data is truncated".into()),
                other => return Err(format!("status {other}")),
            }
        }
        member = &member[stream.total_in as usize..];
        if !member.starts_with(&MAGIC) {
            return Ok(written);
        }
    }
}
