//! Zigzag and unsigned varints in Kafka's encoding.
//!
//! The readers take from the front of a slice and return `None` if it ends too early, if there are
//! more than 5 (or 10) bytes, or if the last of them has bits that the type has no room for.

/// Maximum bytes of 32 bits.
pub(crate) const MAX_32: usize = 5;
/// Maximum bytes of 64 bits.
pub(crate) const MAX_64: usize = 10;

#[inline]
pub(crate) const fn zigzag_32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[inline]
pub(crate) const fn zigzag_64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[inline]
const fn unzigzag_32(value: u32) -> i32 {
    (value >> 1) as i32 ^ -((value & 1) as i32)
}

#[inline]
const fn unzigzag_64(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Returns the size of an unsigned varint in bytes.
#[inline]
pub(crate) const fn size_u64(value: u64) -> usize {
    // Seven bits to a byte, and one byte for zero.
    (70 - (value | 1).leading_zeros() as usize) / 7
}

/// Returns the size of an unsigned varint in bytes.
#[inline]
pub(crate) const fn size_u32(value: u32) -> usize {
    size_u64(value as u64)
}

/// Returns the size of a zigzag varint in bytes.
#[inline]
pub(crate) const fn size_i32(value: i32) -> usize {
    size_u32(zigzag_32(value))
}

/// Returns the size of a zigzag varint in bytes.
#[inline]
pub(crate) const fn size_i64(value: i64) -> usize {
    size_u64(zigzag_64(value))
}

/// Writes an unsigned varint to the front of `out`, which has room for [`MAX_64`] bytes, and
/// returns its size.
#[inline]
pub(crate) fn put_u64(out: &mut [u8], mut value: u64) -> usize {
    let mut at = 0;
    while value >= 0x80 {
        out[at] = value as u8 | 0x80;
        value >>= 7;
        at += 1;
    }
    out[at] = value as u8;
    at + 1
}

/// Writes an unsigned varint to the front of `out`, which has room for [`MAX_32`] bytes, and
/// returns its size.
#[inline]
pub(crate) fn put_u32(out: &mut [u8], value: u32) -> usize {
    put_u64(out, u64::from(value))
}

/// Writes a zigzag varint to the front of `out`, which has room for [`MAX_32`] bytes, and returns
/// its size.
#[inline]
pub(crate) fn put_i32(out: &mut [u8], value: i32) -> usize {
    put_u32(out, zigzag_32(value))
}

/// Writes a zigzag varint to the front of `out`, which has room for [`MAX_64`] bytes, and returns
/// its size.
#[cfg(test)]
pub(crate) fn put_i64(out: &mut [u8], value: i64) -> usize {
    put_u64(out, zigzag_64(value))
}

/// Reads an unsigned varint of at most 32 bits.
#[inline(always)]
pub(crate) fn take_u32(input: &mut &[u8]) -> Option<u32> {
    match *input {
        [a, rest @ ..] if *a < 0x80 => {
            *input = rest;
            Some(u32::from(*a))
        }
        [a, b, rest @ ..] if *b < 0x80 => {
            *input = rest;
            Some(u32::from(*a & 0x7f) | u32::from(*b) << 7)
        }
        _ => take_long(input, MAX_32).and_then(|value| u32::try_from(value).ok()),
    }
}

/// Reads an unsigned varint of at most 64 bits.
#[inline(always)]
pub(crate) fn take_u64(input: &mut &[u8]) -> Option<u64> {
    match *input {
        [a, rest @ ..] if *a < 0x80 => {
            *input = rest;
            Some(u64::from(*a))
        }
        [a, b, rest @ ..] if *b < 0x80 => {
            *input = rest;
            Some(u64::from(*a & 0x7f) | u64::from(*b) << 7)
        }
        _ => take_long(input, MAX_64),
    }
}

/// Reads a zigzag varint of 32 bits.
#[inline(always)]
pub(crate) fn take_i32(input: &mut &[u8]) -> Option<i32> {
    take_u32(input).map(unzigzag_32)
}

/// Reads a zigzag varint of 64 bits.
#[inline(always)]
pub(crate) fn take_i64(input: &mut &[u8]) -> Option<i64> {
    take_u64(input).map(unzigzag_64)
}

#[inline(never)]
fn take_long(input: &mut &[u8], max: usize) -> Option<u64> {
    let mut value = 0u64;
    for (index, &byte) in input.iter().take(max).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * index as u32;
        if bits.leading_zeros() < shift {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            *input = &input[index + 1..];
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written_i32(value: i32) -> Vec<u8> {
        let mut out = [0; MAX_32];
        let size = put_i32(&mut out, value);
        out[..size].to_vec()
    }

    #[test]
    fn zigzag_encoding_matches_kafka() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i32::MAX, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i32::MIN, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            assert_eq!(written_i32(value), bytes);
            assert_eq!(size_i32(value), bytes.len());
            assert_eq!(take_i32(&mut &*bytes), Some(value));
        }
    }

    #[test]
    fn rejects_truncated_or_overlong_varints() {
        for bytes in [&[][..], &[0x80], &[0xff, 0xff], &[0x80; 4]] {
            assert_eq!(take_u32(&mut &*bytes), None);
            assert_eq!(take_u64(&mut &*bytes), None);
        }
        assert_eq!(take_u32(&mut &[0x80, 0x80, 0x80, 0x80, 0x80, 0x01][..]), None, "six bytes");
        assert_eq!(take_u32(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None, "33 bits");
        assert_eq!(take_u64(&mut &[0x80; 11][..]), None, "eleven bytes");
        let mut full = [0xff; 10];
        full[9] = 0x01;
        assert_eq!(take_u64(&mut &full[..]), Some(u64::MAX));
        full[9] = 0x02;
        assert_eq!(take_u64(&mut &full[..]), None, "65 bits");
    }

    proptest! {
        #[test]
        fn written_values_are_read_back_equal(value: i64, small: i32, rest: [u8; 3]) {
            let mut out = [0; MAX_64];
            let size = put_i64(&mut out, value);
            prop_assert_eq!(size, size_i64(value));
            let bytes = [&out[..size], &rest[..]].concat();
            let mut input = &bytes[..];
            prop_assert_eq!(take_i64(&mut input), Some(value));
            prop_assert_eq!(input, &rest[..]);

            let bytes = [&written_i32(small)[..], &rest[..]].concat();
            let mut input = &bytes[..];
            prop_assert_eq!(bytes.len() - rest.len(), size_i32(small));
            prop_assert_eq!(take_i32(&mut input), Some(small));
            prop_assert_eq!(input, &rest[..]);
        }

        #[test]
        fn reads_or_rejects_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut input = &bytes[..];
            if take_u32(&mut input).is_some() {
                prop_assert!(bytes.len() - input.len() <= MAX_32);
            }
            let mut input = &bytes[..];
            if take_u64(&mut input).is_some() {
                prop_assert!(bytes.len() - input.len() <= MAX_64);
            }
        }
    }
}
