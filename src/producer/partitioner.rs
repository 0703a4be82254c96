//! Which partition a record goes to: by its key's hash, or, without a key, to the one that is having its turn.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The hash of keys that all of Kafka's clients agree on (murmur2 with Kafka's seed).
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    // The length enters as Java's 32-bit int does.
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

/// The partition of a key among `partitions` (not 0); an empty key is a key.
pub(crate) fn partition_of_key(key: &[u8], partitions: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % partitions.max(1)
}

/// The partition that a topic's records without keys go to, until it has had its share (KIP-480, KIP-794).
///
/// Every partition gets the same number of bytes in the long run, whatever its batches weigh, because a turn ends by
/// bytes: see [`turn_is_over`].
#[derive(Debug)]
pub(crate) struct Sticky {
    current: AtomicU32,
    random: AtomicU64,
    /// Partitions that have a leader; all of them when none has one.
    candidates: Vec<u32>,
}

impl Sticky {
    /// `available` are the partitions with a leader.
    pub(crate) fn new(seed: u64, partitions: usize, available: Vec<u32>) -> Self {
        let candidates =
            if available.is_empty() { (0..u32::try_from(partitions).unwrap_or(u32::MAX)).collect() } else { available };
        let sticky = Self { current: AtomicU32::new(u32::MAX), random: AtomicU64::new(seed), candidates };
        sticky.current.store(sticky.choose(u32::MAX), Ordering::Relaxed);
        sticky
    }

    pub(crate) fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// Ends the turn of `partition`, unless another has ended it already.
    pub(crate) fn leave(&self, partition: u32) {
        if self.current() == partition {
            let next = self.choose(partition);
            // A failure means that another thread was faster, and its choice is as good.
            let _ = self.current.compare_exchange(partition, next, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether there is anywhere else to go.
    pub(crate) fn has_choice(&self) -> bool {
        self.candidates.len() > 1
    }

    /// The candidates that the choice is made of.
    pub(crate) fn candidates(&self) -> &[u32] {
        &self.candidates
    }

    fn choose(&self, not: u32) -> u32 {
        let others = self.candidates.iter().filter(|p| **p != not).count();
        if others == 0 {
            return self.candidates.first().copied().unwrap_or(0);
        }
        let state = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let at = (mix(state) % others as u64) as usize;
        self.candidates.iter().copied().filter(|p| *p != not).nth(at).unwrap_or(0)
    }
}

/// Whether a partition's turn ends before the next record: it has had `batch.size` bytes and its batch is closed or
/// full, or twice as much whatever its batch is.
pub(crate) fn turn_is_over(bytes: usize, batch_size: usize, no_open_batch: bool) -> bool {
    (no_open_batch && bytes >= batch_size) || bytes >= batch_size.saturating_mul(2)
}

/// SplitMix64's output function: spreads a counter over all bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_kafkas() {
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
    fn keys_go_where_java_sends_them() {
        assert_eq!(partition_of_key(b"kafka", 3), 1);
        assert_eq!(partition_of_key(b"kafka", 10), 0);
        assert_eq!(partition_of_key(b"test", 6), 5);
        assert_eq!(partition_of_key(b"user-1", 100), 28);
    }

    #[test]
    fn leaving_goes_elsewhere_and_only_once() {
        let sticky = Sticky::new(7, 4, vec![0, 2, 3]);
        for _ in 0..100 {
            let before = sticky.current();
            assert!([0, 2, 3].contains(&before), "{before} has no leader");
            sticky.leave(before);
            let after = sticky.current();
            assert_ne!(before, after);
            sticky.leave(before);
            assert_eq!(sticky.current(), after, "a turn that is over cannot be ended again");
        }
    }

    #[test]
    fn turns_are_spread_evenly() {
        let sticky = Sticky::new(1, 5, (0..5).collect());
        let mut turns = [0u32; 5];
        for _ in 0..5000 {
            turns[sticky.current() as usize] += 1;
            sticky.leave(sticky.current());
        }
        assert!(turns.iter().all(|t| (850..1150).contains(t)), "{turns:?}");
    }

    #[test]
    fn one_partition_or_no_leader_still_has_a_choice_to_make() {
        let one = Sticky::new(1, 1, vec![0]);
        one.leave(0);
        assert_eq!(one.current(), 0);
        assert!(!one.has_choice());
        assert_eq!(Sticky::new(1, 3, Vec::new()).candidates(), &[0, 1, 2]);
    }

    #[test]
    fn a_turn_ends_by_bytes() {
        assert!(!turn_is_over(99, 100, true));
        assert!(turn_is_over(100, 100, true));
        assert!(!turn_is_over(150, 100, false));
        assert!(turn_is_over(200, 100, false));
    }
}
