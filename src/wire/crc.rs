//! Checksums: CRC-32C, in one call or incrementally, the combination of two CRC-32C sums, and the
//! older CRC-32 of message sets v0 and v1.
//!
//! Bits are reflected throughout: the highest bit of a word is the coefficient of x⁰.

use crc_fast::{CrcAlgorithm, Digest, crc32_iscsi};

/// Returns the CRC-32C of these bytes.
#[inline]
pub(crate) fn castagnoli(bytes: &[u8]) -> u32 {
    crc32_iscsi(bytes)
}

/// An incremental CRC-32C.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Running(u64);

impl Default for Running {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc32Iscsi).get_state())
    }
}

impl Running {
    /// Adds the next bytes.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let mut digest = self.digest();
        digest.update(bytes);
        self.0 = digest.get_state();
    }

    /// Returns the sum of all bytes so far.
    pub(crate) fn sum(&self) -> u32 {
        // The crate returns sums of any size in a `u64`; this one has 32 bits.
        self.digest().finalize() as u32
    }

    fn digest(&self) -> Digest {
        Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, self.0)
    }
}

/// The polynomial of CRC-32C (Castagnoli).
const CASTAGNOLI: u32 = 0x82f6_3b78;
/// The polynomial of CRC-32 (IEEE 802.3).
const IEEE: u32 = 0xedb8_8320;
/// The polynomial 1.
const ONE: u32 = 1 << 31;

/// The values x^(8·v·16^d) for each hexadecimal digit position d of a length, lowest first, and
/// each value v of the digit. The power for a length is the product of at most eight of them.
const POWERS: [[u32; 16]; 2 * size_of::<u32>()] = {
    let mut powers = [[ONE; 16]; 2 * size_of::<u32>()];
    // x⁸, and then its sixteenth power for each digit.
    let mut step = ONE >> 8;
    let mut digit = 0;
    while digit < powers.len() {
        let mut value = 1;
        while value < 16 {
            powers[digit][value] = multiply(powers[digit][value - 1], step);
            value += 1;
        }
        step = multiply(powers[digit][15], step);
        digit += 1;
    }
    powers
};

/// Extends a CRC-32C over a number of bytes that follow it: x to the power of eight times that
/// number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shift(u32);

impl Shift {
    /// Makes the shift for `bytes` following bytes, at most 4 GiB.
    pub(crate) fn past(bytes: u32) -> Self {
        let mut power = ONE;
        let mut left = bytes;
        for digits in &POWERS {
            let digit = (left & 15) as usize;
            if digit != 0 {
                power = multiply(power, digits[digit]);
            }
            left >>= 4;
        }
        Self(power)
    }

    /// Returns the CRC-32C of two parts; the second is as long as this shift.
    pub(crate) fn join(self, first: u32, second: u32) -> u32 {
        multiply(self.0, first) ^ second
    }
}

/// Returns the product of two polynomials modulo Castagnoli's.
const fn multiply(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        product ^= b & ((a >> bit) & 1).wrapping_neg();
        b = (b >> 1) ^ (CASTAGNOLI & (b & 1).wrapping_neg());
    }
    product
}

const IEEE_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut word = index as u32;
        let mut bit = 0;
        while bit < 8 {
            word = if word & 1 == 1 { (word >> 1) ^ IEEE } else { word >> 1 };
            bit += 1;
        }
        table[index] = word;
        index += 1;
    }
    table
};

/// Returns the CRC-32 (IEEE 802.3) of v0 and v1 messages. They are rare, so a table of one kilobyte
/// is fast enough.
pub(crate) fn ieee(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| (sum >> 8) ^ IEEE_TABLE[(sum as u8 ^ byte) as usize])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn checksums_match_reference_values() {
        assert_eq!(castagnoli(b"123456789"), 0xe306_9283);
        assert_eq!(castagnoli(b"Some String"), 0x2445_290f);
        assert_eq!(castagnoli(b""), 0);
        assert_eq!(Running::default().sum(), 0);
        assert_eq!(ieee(b"123456789"), 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn joining_two_checksums_equals_whole_checksum(
            first in proptest::collection::vec(any::<u8>(), 0..100),
            second in proptest::collection::vec(any::<u8>(), 0..5000),
        ) {
            let joined = Shift::past(second.len() as u32).join(castagnoli(&first), castagnoli(&second));
            let mut running = Running::default();
            running.add(&first);
            prop_assert_eq!(running.sum(), castagnoli(&first));
            running.add(&second);
            prop_assert_eq!(running.sum(), joined);
            prop_assert_eq!(joined, castagnoli(&[first, second].concat()));
        }

        #[test]
        fn shifts_by_parts_equal_whole_shift(first in any::<u16>(), second in 0..=u32::MAX - u32::from(u16::MAX)) {
            let whole = Shift::past(u32::from(first) + second);
            let parts = multiply(Shift::past(u32::from(first)).0, Shift::past(second).0);
            prop_assert_eq!(whole.0, parts);
        }
    }
}
