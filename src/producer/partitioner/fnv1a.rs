//! The hash of keys of librdkafka's `fnv1a` partitioners, which is that of Sarama: FNV-1a with 32
//! bits, the sign removed by negation.
//!
//! Sans-IO.

use super::modulo;

fn fnv1a(data: &[u8]) -> u32 {
    let hash = data.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    // The smallest i32 has no positive counterpart and stays as it is, as in C.
    (hash as i32).unsigned_abs()
}

/// Returns the partition of a key among `partitions`.
pub(super) fn partition(key: &[u8], partitions: usize) -> usize {
    modulo(fnv1a(key), partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_reference_hashes_of_librdkafka() {
        let golden: &[(&[u8], u32)] = &[
            (b"kafka", 0x0d33_c4e1),
            (b"giberish123456789", 0x77a5_8295),
            (b"1234", 0x023b_dd03),
            (b"234", 0x2dea_3cd2),
            (b"34", 0x740f_a83e),
            (b"4", 0x310c_a263),
            (b"PreAmbleWillBeRemoved,ThePrePartThatIs", 0x65cb_d69c),
            (b"reAmbleWillBeRemoved,ThePrePartThatIs", 0x6e49_c79a),
            (b"eAmbleWillBeRemoved,ThePrePartThatIs", 0x69ee_d356),
            (b"AmbleWillBeRemoved,ThePrePartThatIs", 0x6abc_c023),
            (b"", 0x7ee3_623b),
        ];
        for (key, hash) in golden {
            assert_eq!(fnv1a(key), *hash, "{key:?}");
        }
    }
}
