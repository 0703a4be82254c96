//! The hash of keys in Kafka's Java client: murmur2 with Kafka's seed.
//!
//! Sans-IO.

use super::modulo;

/// Returns the hash of a key that most of Kafka's clients agree on.
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // The length is a 32-bit int, as in Java.
    let mut h = 0x9747_b28c_u32 ^ (data.len() as u32);
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        h = h.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        h ^= rest.iter().rev().fold(0u32, |k, byte| (k << 8) | u32::from(*byte));
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

/// Returns the partition of a key among `partitions`; the hash's sign is cut off, as in Java.
pub(super) fn partition(key: &[u8], partitions: usize) -> usize {
    modulo(murmur2(key) & 0x7fff_ffff, partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_reference_hashes_of_kafka() {
        let golden: &[(&[u8], i32)] = &[
            (b"", 275646681),
            (b"21", -973932308),
            (b"foobar", -790332482),
            (b"abc", 479470107),
            (b"a-little-bit-long-string", -985981536),
            (b"a-little-bit-longer-string", -1486304829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
            (b"kafka", -798503068),
            (&[0xff, 0xfe, 0x80, 0x00, 0x7f], -1602569320),
        ];
        for (key, hash) in golden {
            assert_eq!(murmur2(key), *hash as u32, "{key:?}");
        }
    }

    #[test]
    fn assigns_keys_to_same_partitions_as_java() {
        assert_eq!(partition(b"kafka", 3), 1);
        assert_eq!(partition(b"kafka", 10), 0);
        assert_eq!(partition(b"test", 6), 5);
        assert_eq!(partition(b"user-1", 100), 28);
    }
}
