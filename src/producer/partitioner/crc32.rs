//! The hash of keys of librdkafka's `consistent` partitioners: CRC-32 as zlib computes it.
//!
//! The table covers one byte at a time, because keys are short. The checksums of batches are
//! another CRC.
//!
//! Sans-IO.

use super::modulo;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| TABLE[usize::from(crc as u8 ^ byte)] ^ (crc >> 8))
}

/// Returns the partition of a key among `partitions`.
pub(super) fn partition(key: &[u8], partitions: usize) -> usize {
    modulo(crc32(key), partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_reference_hashes_of_zlib() {
        let golden: &[(&[u8], u32)] = &[
            (b"", 0),
            (b"123456789", 0xcbf4_3926),
            (b"23456", 0xb1b4_51d7),
            (b"this is another string with more length to it perhaps", 0xb015_0df7),
            (b"hejsan", 0xd077_037e),
        ];
        for (key, hash) in golden {
            assert_eq!(crc32(key), *hash, "{key:?}");
        }
    }
}
