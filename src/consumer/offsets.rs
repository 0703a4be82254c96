//! Committed offsets as users see them.

/// An offset to commit for a partition, or one that was committed: the *next* record to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OffsetAndMetadata {
    /// The offset of the next record to be read.
    pub offset: i64,
    /// The leader epoch of the last record that was read, if it is known (KIP-320); lets a later reader notice truncation.
    pub leader_epoch: Option<i32>,
    /// Free text kept beside the offset; empty by default. The broker limits it (`offset.metadata.max.bytes`).
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// That offset, without a leader epoch or text.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: None, metadata: String::new() }
    }
}

impl From<i64> for OffsetAndMetadata {
    fn from(offset: i64) -> Self {
        Self::new(offset)
    }
}
