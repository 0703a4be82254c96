//! Compression of record batches.

/// How a batch's records are compressed (`compression.type`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip, level 1 to 9 (−1: the codec's default); needs the feature `gzip`.
    Gzip(i32),
    /// Snappy; needs the feature `snappy`.
    Snappy,
    /// LZ4; needs the feature `lz4`.
    Lz4,
    /// Zstandard, level −7 to 4; needs the feature `zstd`.
    Zstd(i32),
}
