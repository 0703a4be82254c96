use std::{ffi::CStr, ptr};

use lz4_sys::{
    BlockChecksum, BlockMode, BlockSize, ContentChecksum, FrameType, LZ4F_VERSION, LZ4F_compressBegin,
    LZ4F_compressBound, LZ4F_compressEnd, LZ4F_compressUpdate, LZ4F_createCompressionContext,
    LZ4F_createDecompressionContext, LZ4F_decompress, LZ4F_freeCompressionContext, LZ4F_freeDecompressionContext,
    LZ4F_getErrorName, LZ4F_isError, LZ4FCompressionContext, LZ4FDecompressionContext, LZ4FFrameInfo, LZ4FPreferences,
};

use super::too_large;
use crate::random::Random;

/// Maximum bytes of a frame's header.
const HEADER: usize = 19;

#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Negative: faster than the default, 0. From 3 on: the thorough compressor.
    pub(super) level: i32,
    pub(super) block: BlockSize,
    pub(super) linked: bool,
    pub(super) block_checksums: bool,
    pub(super) content_checksum: bool,
    pub(super) content_size: bool,
}

impl Default for Options {
    /// Returns the options that librdkafka uses.
    fn default() -> Self {
        Self {
            level: 0,
            block: BlockSize::Max64KB,
            linked: false,
            block_checksums: false,
            content_checksum: false,
            content_size: false,
        }
    }
}

pub(super) fn encode(input: &[u8], random: &mut Random) -> (Vec<u8>, String) {
    let blocks = [BlockSize::Max64KB, BlockSize::Max256KB, BlockSize::Max1MB, BlockSize::Max4MB];
    let options = Options {
        level: random.between(0, 22) as i32 - 10,
        block: random.choose(&blocks).clone(),
        linked: random.one_in(2),
        block_checksums: random.one_in(2),
        content_checksum: random.one_in(2),
        content_size: random.one_in(2),
    };
    if random.one_in(4) {
        let (front, back) = input.split_at(random.below(input.len() + 1));
        let mut out = encode_with(front, &options);
        out.extend(encode_with(back, &options));
        return (out, format!("{options:?}, two frames"));
    }
    (encode_with(input, &options), format!("{options:?}"))
}

pub(super) fn encode_with(input: &[u8], options: &Options) -> Vec<u8> {
    let preferences = LZ4FPreferences {
        frame_info: LZ4FFrameInfo {
            block_size_id: options.block.clone(),
            block_mode: if options.linked { BlockMode::Linked } else { BlockMode::Independent },
            content_checksum_flag: if options.content_checksum {
                ContentChecksum::ChecksumEnabled
            } else {
                ContentChecksum::NoChecksum
            },
            frame_type: FrameType::Frame,
            content_size: if options.content_size { input.len() as u64 } else { 0 },
            dict_id: 0,
            block_checksum_flag: if options.block_checksums {
                BlockChecksum::BlockChecksumEnabled
            } else {
                BlockChecksum::NoBlockChecksum
            },
        },
        compression_level: options.level as u32,
        auto_flush: 1,
        favor_dec_speed: 0,
        reserved: [0; 3],
    };
    let mut context = LZ4FCompressionContext(ptr::null_mut());
    // SAFETY: the context is made before and freed after its use; `out` has the room that the
    // library asks for, and its length is set to the number of bytes that the library has written.
    unsafe {
        let mut out = Vec::<u8>::with_capacity(HEADER + LZ4F_compressBound(input.len(), &preferences));
        expect(LZ4F_createCompressionContext(&mut context, LZ4F_VERSION));
        let mut at = expect(LZ4F_compressBegin(context, out.as_mut_ptr(), out.capacity(), &preferences));
        let left = out.capacity() - at;
        let to = out.as_mut_ptr().add(at);
        at += expect(LZ4F_compressUpdate(context, to, left, input.as_ptr(), input.len(), ptr::null()));
        let left = out.capacity() - at;
        at += expect(LZ4F_compressEnd(context, out.as_mut_ptr().add(at), left, ptr::null()));
        expect(LZ4F_freeCompressionContext(context));
        out.set_len(at);
        out
    }
}

/// Decodes all frames.
pub(super) fn decode(input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let mut context = LZ4FDecompressionContext(ptr::null_mut());
    // SAFETY: the context is made before and freed after its use.
    unsafe {
        expect(LZ4F_createDecompressionContext(&mut context, LZ4F_VERSION));
        let result = decode_in(context, input, limit);
        expect(LZ4F_freeDecompressionContext(context));
        result
    }
}

/// # Safety
/// The context was made and not freed.
unsafe fn decode_in(context: LZ4FDecompressionContext, mut input: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    // One byte above the limit is enough to detect excess output.
    let mut out = vec![0u8; limit + 1];
    let mut at = 0;
    loop {
        let (mut written, mut read) = (out.len() - at, input.len());
        // SAFETY: both lengths are those of the slices that the pointers are taken from.
        let hint = unsafe {
            LZ4F_decompress(context, out[at..].as_mut_ptr(), &mut written, input.as_ptr(), &mut read, ptr::null())
        };
        // SAFETY: the call only inspects the code, which the library returned.
        if unsafe { LZ4F_isError(hint) } != 0 {
            // SAFETY: as above; names are static.
            return Err(unsafe { CStr::from_ptr(LZ4F_getErrorName(hint)) }.to_string_lossy().into_owned());
        }
        at += written;
        input = &input[read..];
        if at > limit {
            return Err(too_large());
        }
        if hint == 0 && input.is_empty() {
            out.truncate(at);
            return Ok(out);
        }
        if hint != 0 && read == 0 && written == 0 {
            return Err("the data is truncated".into());
        }
    }
}

fn expect(code: usize) -> usize {
    // SAFETY: the call only inspects the code; any number is valid.
    assert_eq!(unsafe { LZ4F_isError(code) }, 0, "C lz4: error {code:#x}");
    code
}
