//! Searches for the next readable batch after a damaged batch with a length that cannot be trusted.

use super::{BATCH_HEADER_SIZE, BatchHeader, header::CHECKED_FROM, header::LOG_OVERHEAD};

/// Position of a batch's magic.
const MAGIC: usize = 16;
/// Bounds the work: at most `COST` times the input's bytes are checksummed, however many false
/// headers there are.
const COST: usize = 4;

/// Returns the first offset of the next batch in these bytes, which begin with a damaged one. A
/// candidate counts as a batch only if its checksum is right, its offset is not before `after`, and
/// the bytes after it do not contradict it.
pub(super) fn next_sound(bytes: &[u8], after: i64) -> Option<i64> {
    // Usually the next batch is at the end that the damaged batch's length gives.
    let announced = bytes.get(8..LOG_OVERHEAD).and_then(|length| length.try_into().ok()).map(i32::from_be_bytes);
    let announced = announced.and_then(|length| usize::try_from(length).ok()).map(|length| length + LOG_OVERHEAD);
    if let Some(header) = announced.and_then(|at| sound(bytes.get(at..)?, after)) {
        return Some(header.base_offset);
    }
    let mut left = bytes.len().saturating_mul(COST);
    for at in 1..bytes.len().saturating_sub(BATCH_HEADER_SIZE - 1) {
        if bytes.get(at + MAGIC) != Some(&2) {
            continue;
        }
        let rest = bytes.get(at..)?;
        let Some(header) = plausible(rest, after) else { continue };
        left = left.checked_sub(header.size())?;
        // A record may contain a batch of another log: the bytes after that batch are not a batch.
        let follows = |rest: &[u8]| rest.len() < BATCH_HEADER_SIZE || plausible_start(rest, header.next_offset());
        if is_intact(rest, &header) && rest.get(header.size()..).is_some_and(follows) {
            return Some(header.base_offset);
        }
    }
    None
}

/// Returns the header of a complete batch with a correct checksum that is not before that offset.
fn sound(bytes: &[u8], after: i64) -> Option<BatchHeader> {
    plausible(bytes, after).filter(|header| is_intact(bytes, header))
}

fn plausible(bytes: &[u8], after: i64) -> Option<BatchHeader> {
    let header = BatchHeader::parse(bytes).ok()?;
    (header.base_offset >= after && header.size() <= bytes.len()).then_some(header)
}

/// Returns true if these bytes may be the beginning of a batch, which may be truncated.
fn plausible_start(bytes: &[u8], after: i64) -> bool {
    BatchHeader::parse(bytes).is_ok_and(|header| header.base_offset >= after)
}

fn is_intact(bytes: &[u8], header: &BatchHeader) -> bool {
    bytes.get(CHECKED_FROM..header.size()).is_some_and(|checked| crate::wire::crc::castagnoli(checked) == header.crc)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::batch::{BatchBuilder, Compressor, ProducerStamp, RecordParts};

    fn batch(base_offset: i64, count: i64, value: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::with_capacity(100);
        for _ in 0..count {
            builder.append(&RecordParts { key: None, value: Some(value), record: None }, 7);
        }
        let sealed = builder.seal(&mut Compressor::new(crate::Compression::None).unwrap()).unwrap();
        let mut bytes = [&sealed.header(ProducerStamp::NONE)[..], sealed.body()].concat();
        BatchHeader::place(&mut bytes, base_offset, 1, None).unwrap();
        bytes
    }

    #[test]
    fn finds_next_batch_after_any_damage() {
        type Spoil = fn(&mut Vec<u8>);
        let spoils: [(&str, Spoil); 6] = [
            ("magic", |bytes| bytes[16] = 9),
            ("count", |bytes| bytes[57] = 0xff),
            ("short length", |bytes| bytes[8..12].copy_from_slice(&20_i32.to_be_bytes())),
            ("long length", |bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes())),
            ("garbage", |bytes| bytes.fill(0x55)),
            ("cut", |bytes| bytes.truncate(30)),
        ];
        for (name, spoil) in spoils {
            let mut bytes = batch(10, 3, b"value");
            spoil(&mut bytes);
            assert_eq!(next_sound(&bytes, 11), None, "{name}: no batch follows");
            bytes.extend(batch(13, 2, b"next"));
            assert_eq!(next_sound(&bytes, 11), Some(13), "{name}");
            bytes.extend(batch(15, 2, b"more"));
            assert_eq!(next_sound(&bytes, 11), Some(13), "{name}: the first of those that follow");
            assert_eq!(next_sound(&bytes, 14), Some(15), "{name}: no batch before the offset");
        }
    }

    #[test]
    fn ignores_batch_inside_record_value() {
        let mut bytes = batch(10, 3, &batch(500, 1, b"of another log"));
        bytes[16] = 9;
        bytes[8..12].copy_from_slice(&5_000_000_i32.to_be_bytes());
        bytes.extend(batch(13, 1, b"next"));
        assert_eq!(next_sound(&bytes, 11), Some(13));
    }

    #[test]
    fn skips_two_damaged_batches_in_sequence() {
        let mut bytes = batch(10, 3, b"value");
        bytes[16] = 9;
        let mut second = batch(13, 3, b"value");
        second[65] ^= 1;
        bytes.extend(second);
        bytes.extend(batch(16, 1, b"next"));
        assert_eq!(next_sound(&bytes, 11), Some(16));
    }

    proptest! {
        #[test]
        fn finds_no_batch_in_arbitrary_bytes(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(2u8), any::<u8>()], 0..600)) {
            prop_assert_eq!(next_sound(&bytes, 0), None);
        }
    }
}
