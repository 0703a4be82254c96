//! Collects the small fields of a record in a register. If they were written byte by byte, they
//! would have to be read back from memory that is still being written.

use crate::wire::varint::{MAX_64, put_u64, zigzag_32, zigzag_64};

/// Number of bytes that fit.
const ROOM: u32 = 16;

/// Bytes that are to be appended to a buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Front {
    bytes: u128,
    size: u32,
}

impl Front {
    /// Spare capacity that a buffer needs beyond the bytes themselves.
    pub(super) const SLACK: usize = ROOM as usize;

    /// Adds one byte.
    #[inline(always)]
    pub(super) fn byte(&mut self, out: &mut Vec<u8>, byte: u8) {
        self.add(out, u64::from(byte), 1);
    }

    /// Adds a zigzag varint of 32 bits.
    #[inline(always)]
    pub(super) fn int(&mut self, out: &mut Vec<u8>, value: i32) {
        self.unsigned(out, u64::from(zigzag_32(value)));
    }

    /// Adds a zigzag varint of 64 bits.
    #[inline(always)]
    pub(super) fn long(&mut self, out: &mut Vec<u8>, value: i64) {
        self.unsigned(out, zigzag_64(value));
    }

    #[inline(always)]
    fn unsigned(&mut self, out: &mut Vec<u8>, value: u64) {
        match value {
            0..0x80 => self.add(out, value, 1),
            0x80..0x4000 => self.add(out, (value & 0x7f) | 0x80 | (value >> 7) << 8, 2),
            0x4000..0x20_0000 => {
                let bytes = (value & 0x7f) | (value << 1 & 0x7f00) | 0x8080 | (value >> 14) << 16;
                self.add(out, bytes, 3);
            }
            _ => self.large(out, value),
        }
    }

    #[inline(always)]
    fn add(&mut self, out: &mut Vec<u8>, bytes: u64, size: u32) {
        if self.size + size > ROOM {
            self.write(out);
        }
        self.bytes |= u128::from(bytes) << (8 * self.size);
        self.size += size;
    }

    #[cold]
    fn large(&mut self, out: &mut Vec<u8>, value: u64) {
        self.write(out);
        let mut bytes = [0; MAX_64];
        let size = put_u64(&mut bytes, value);
        out.extend_from_slice(bytes.get(..size).unwrap_or_default());
    }

    /// Appends the collected bytes to the buffer. They are written in one piece and cut to their
    /// length afterwards, which needs no loop.
    #[inline(always)]
    pub(super) fn write(&mut self, out: &mut Vec<u8>) {
        let end = out.len() + self.size as usize;
        out.extend_from_slice(&self.bytes.to_le_bytes());
        out.truncate(end);
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::wire::batch::varint_packer::*;
    use crate::wire::varint::{put_i32, put_i64};

    #[derive(Clone, Debug)]
    enum Field {
        Byte(u8),
        Int(i32),
        Long(i64),
    }

    fn field() -> impl Strategy<Value = Field> {
        prop_oneof![
            any::<u8>().prop_map(Field::Byte),
            (any::<i32>(), 0..32).prop_map(|(value, less)| Field::Int(value >> less)),
            (any::<i64>(), 0..64).prop_map(|(value, less)| Field::Long(value >> less)),
        ]
    }

    proptest! {
        #[test]
        fn writes_same_bytes_as_single_varints(fields in prop::collection::vec(field(), 0..40)) {
            let (mut front, mut out, mut expected) = (Front::default(), Vec::new(), Vec::new());
            for field in fields {
                let mut bytes = [0; MAX_64];
                let size = match field {
                    Field::Byte(byte) => {
                        front.byte(&mut out, byte);
                        bytes[0] = byte;
                        1
                    }
                    Field::Int(value) => {
                        front.int(&mut out, value);
                        put_i32(&mut bytes, value)
                    }
                    Field::Long(value) => {
                        front.long(&mut out, value);
                        put_i64(&mut bytes, value)
                    }
                };
                expected.extend_from_slice(&bytes[..size]);
            }
            front.write(&mut out);
            prop_assert_eq!(out, expected);
        }
    }
}
