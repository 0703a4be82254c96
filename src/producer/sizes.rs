//! The size of batches, and the share of a partition's turn.
//!
//! Sans-IO.

use crate::producer::compression_ratio::CompressionRatio;

/// Maximum size of a turn: with large batches, a producer that sends little would otherwise send to
/// one partition for a long time.
const TURN: usize = 64 * 1024;

/// `batch.size`, and the number of turns that fill a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    batch: usize,
    turns: usize,
}

/// The bytes of records, uncompressed, at which a batch is full, and at which a turn is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) batch: usize,
    pub(crate) turn: usize,
}

impl Sizes {
    pub(crate) fn new(batch_size: usize) -> Self {
        Self { batch: batch_size, turns: batch_size.div_ceil(TURN).max(1) }
    }

    /// Returns the limits for a topic with that compression ratio.
    pub(crate) fn limits(&self, compression_ratio: &CompressionRatio) -> Limits {
        let batch = compression_ratio.limit(self.batch);
        Limits { batch, turn: batch / self.turns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switch_limit_divides_batch_size_evenly() {
        let limits = |batch_size| Sizes::new(batch_size).limits(&CompressionRatio::default());
        assert_eq!(limits(16_384), Limits { batch: 16_384, turn: 16_384 });
        assert_eq!(limits(262_144), Limits { batch: 262_144, turn: 65_536 });
        assert_eq!(limits(100_000), Limits { batch: 100_000, turn: 50_000 });
        assert_eq!(limits(0), Limits { batch: 0, turn: 0 });
    }
}
