//! Limits the size of a batch before compression, so that the compressed batch fills `batch.size`.
//!
//! Sans-IO.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicUsize, Ordering},
};

use crate::wire::{Compression, batch::BATCH_HEADER_SIZE};

/// Largest decrease of the estimated ratio for a batch that was smaller than expected.
const IMPROVE: f32 = 0.005;
/// Smallest increase of the estimated ratio for a batch that was larger.
const DETERIORATE: f32 = 0.05;
/// Safety factor: the expected ratio is the estimate times this.
const MARGIN: f32 = 1.05;
/// Maximum size of a batch before compression, as a multiple of `batch.size`.
const MOST_TIMES: usize = 16;
/// Divisor of `buffer.memory`: open batches take at most this share, if every partition has one.
/// Batches of `batch.size` may take more.
const MEMORY_SHARE: usize = 4;

/// The limits within which batches may grow beyond `batch.size`; one for each producer. By default
/// they do not grow, as without compression.
#[derive(Debug, Default)]
pub(crate) struct BatchGrowth {
    max_request_size: usize,
    /// Bytes for open batches, and the number of partitions that share them.
    memory: usize,
    partitions: AtomicUsize,
}

impl BatchGrowth {
    pub(crate) fn new(compression: Compression, max_request_size: usize, buffer_memory: usize) -> Self {
        match compression {
            Compression::None => Self::default(),
            _ => Self { max_request_size, memory: buffer_memory / MEMORY_SHARE, partitions: AtomicUsize::new(0) },
        }
    }

    /// Sets the number of partitions that the producer knows.
    pub(crate) fn set_partitions(&self, partitions: usize) {
        self.partitions.store(partitions, Ordering::Relaxed);
    }

    /// Returns the maximum size of a batch before compression; never less than `batch_size`.
    fn largest_batch(&self, batch_size: usize) -> usize {
        let share = self.memory / self.partitions.load(Ordering::Relaxed).max(1);
        batch_size.saturating_mul(MOST_TIMES).min(self.max_request_size).min(share).max(batch_size)
    }
}

/// The expected compression ratio of a topic's batches: compressed size divided by uncompressed
/// size (KIP-126).
///
/// It starts at 1, follows observations downwards in small steps, and upwards at once: a batch that
/// is too small costs little, one that is too large may be refused. It is read when a batch is
/// begun, and written by the sender alone.
#[derive(Debug)]
pub(crate) struct CompressionRatio {
    growth: Arc<BatchGrowth>,
    /// The bits of an `f32`.
    ratio: AtomicU32,
}

impl Default for CompressionRatio {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

impl CompressionRatio {
    pub(crate) fn new(growth: Arc<BatchGrowth>) -> Self {
        Self { growth, ratio: AtomicU32::new(1f32.to_bits()) }
    }

    /// Returns the number of bytes that a batch may hold before compression, header included, so
    /// that it is expected to have `batch_size` bytes after it. Returns `batch_size` itself without
    /// compression, and never less.
    pub(crate) fn limit(&self, batch_size: usize) -> usize {
        let most = self.growth.largest_batch(batch_size);
        if most == batch_size {
            return batch_size;
        }
        let body = batch_size.saturating_sub(BATCH_HEADER_SIZE) as f64 / f64::from(self.ratio() * MARGIN);
        (BATCH_HEADER_SIZE.saturating_add(body as usize)).clamp(batch_size, most)
    }

    /// Returns true if batches are sent uncompressed.
    pub(crate) fn is_plain(&self) -> bool {
        self.growth.memory == 0
    }

    /// Returns the bytes that a batch is expected to take in a request, if it has `size` bytes
    /// before compression.
    pub(crate) fn expected(&self, size: usize) -> usize {
        if self.is_plain() {
            return size;
        }
        let body = size.saturating_sub(BATCH_HEADER_SIZE) as f64 * f64::from(self.ratio() * MARGIN);
        BATCH_HEADER_SIZE.saturating_add(body as usize).min(size)
    }

    /// Adapts the ratio to a compressed batch; both sizes include its header.
    pub(crate) fn observe(&self, uncompressed: usize, compressed: usize) {
        let body = |size: usize| size.saturating_sub(BATCH_HEADER_SIZE) as f32;
        if body(uncompressed) == 0.0 {
            return;
        }
        let (seen, known) = (body(compressed) / body(uncompressed), self.ratio());
        if seen > known {
            self.set(seen.max(known + DETERIORATE));
        } else {
            self.set(seen.max(known - IMPROVE));
        }
    }

    /// Resets the ratio to 1 after a batch was too large for the broker, until the next batch is
    /// compressed.
    pub(crate) fn reset(&self) {
        self.set(1.0);
    }

    fn ratio(&self) -> f32 {
        f32::from_bits(self.ratio.load(Ordering::Relaxed))
    }

    fn set(&self, ratio: f32) {
        self.ratio.store(ratio.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::producer::compression_ratio::*;

    const BATCH: usize = 16_384;

    fn compression_ratio(compression: Compression, max_request_size: usize, buffer_memory: usize) -> CompressionRatio {
        CompressionRatio::new(Arc::new(BatchGrowth::new(compression, max_request_size, buffer_memory)))
    }

    fn lz4() -> CompressionRatio {
        compression_ratio(Compression::Lz4, 1 << 20, 32 << 20)
    }

    /// Observes a batch that is compressed to that share of its size.
    fn observe(compression_ratio: &CompressionRatio, share: f64) {
        let body = 100_000.0;
        compression_ratio.observe(BATCH_HEADER_SIZE + body as usize, BATCH_HEADER_SIZE + (body * share) as usize);
    }

    #[test]
    fn keeps_batch_size_limit_without_compression() {
        let none = compression_ratio(Compression::None, 1 << 20, 32 << 20);
        (0..1000).for_each(|_| observe(&none, 0.1));
        for batch_size in [0, 1, BATCH_HEADER_SIZE, BATCH, 1 << 20, i32::MAX as usize] {
            assert_eq!(none.limit(batch_size), batch_size);
        }
    }

    #[test]
    fn ratio_decreases_stepwise_from_one() {
        let compression_ratio = lz4();
        assert_eq!(compression_ratio.limit(BATCH), BATCH);
        let mut last = BATCH;
        for batch in 1..=150 {
            observe(&compression_ratio, 0.25);
            assert!((compression_ratio.ratio() - (1.0 - 0.005 * batch as f32).max(0.25)).abs() < 1e-4);
            assert!(compression_ratio.limit(BATCH) >= last);
            last = compression_ratio.limit(BATCH);
        }
        observe(&compression_ratio, 0.25);
        let body = (BATCH - BATCH_HEADER_SIZE) as f64 / 0.25 / 1.05;
        assert!((last as f64 - BATCH_HEADER_SIZE as f64 - body).abs() < 10.0, "{last}");
    }

    #[test]
    fn ratio_rises_immediately_to_observed_value() {
        let compression_ratio = lz4();
        (0..200).for_each(|_| observe(&compression_ratio, 0.3));
        observe(&compression_ratio, 0.31);
        assert!((compression_ratio.ratio() - 0.35).abs() < 1e-4, "the ratio rises by at least one step");
        observe(&compression_ratio, 1.0);
        assert_eq!(compression_ratio.ratio(), 1.0, "the ratio rises to the observed value");
        assert_eq!(compression_ratio.limit(BATCH), BATCH);
        observe(&compression_ratio, 1.02);
        assert_eq!(compression_ratio.limit(BATCH), BATCH, "the limit is never below batch.size");
    }

    #[test]
    fn reset_restores_initial_batch_size_limit() {
        let compression_ratio = lz4();
        (0..200).for_each(|_| observe(&compression_ratio, 0.2));
        assert!(compression_ratio.limit(BATCH) > 4 * BATCH);
        compression_ratio.reset();
        assert_eq!(compression_ratio.limit(BATCH), BATCH);
    }

    #[test]
    fn request_size_and_buffer_memory_cap_limit() {
        let shrunk = |max_request_size, buffer_memory| {
            let compression_ratio = compression_ratio(Compression::Zstd(3), max_request_size, buffer_memory);
            (0..300).for_each(|_| observe(&compression_ratio, 0.0));
            compression_ratio
        };
        let limit = |max_request_size, buffer_memory| shrunk(max_request_size, buffer_memory).limit(BATCH);
        assert_eq!(limit(1 << 20, 32 << 20), 16 * BATCH);
        assert_eq!(limit(100_000, 32 << 20), 100_000, "max.request.size limits the batch");
        assert_eq!(limit(1 << 20, 400_000), 100_000, "a quarter of buffer.memory limits the batch");
        assert_eq!(limit(1 << 20, 20_000), BATCH);
        let compression_ratio = shrunk(1 << 20, 32 << 20);
        compression_ratio.growth.set_partitions(128);
        assert_eq!(compression_ratio.limit(BATCH), 65_536, "all partitions share the memory");
        compression_ratio.growth.set_partitions(100_000);
        assert_eq!(compression_ratio.limit(BATCH), BATCH);
        assert_eq!(compression_ratio.limit(0), 0, "every record is a batch of its own");
        assert_eq!(compression_ratio.limit(usize::MAX), usize::MAX);
    }

    #[test]
    fn expected_size_follows_compression_ratio() {
        let none = CompressionRatio::default();
        observe(&none, 0.1);
        assert_eq!(none.expected(10_061), 10_061);
        let compression_ratio = lz4();
        assert_eq!(compression_ratio.expected(10_061), 10_061, "never more than the uncompressed size");
        (0..200).for_each(|_| observe(&compression_ratio, 0.25));
        assert!((2675..2700).contains(&compression_ratio.expected(10_061)), "{}", compression_ratio.expected(10_061));
    }

    #[test]
    fn ignores_empty_batch_in_compression_ratio() {
        let compression_ratio = lz4();
        compression_ratio.observe(0, 0);
        compression_ratio.observe(BATCH_HEADER_SIZE, BATCH_HEADER_SIZE);
        assert_eq!(compression_ratio.ratio(), 1.0);
    }
}
