//! Committed offsets, as passed to and returned by the public functions.

use super::ConsumerRecord;

/// An offset to commit for a partition, or one that was committed: the *next* record to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OffsetAndMetadata {
    /// The offset of the next record to be read.
    pub offset: i64,
    /// The leader epoch of the last record that was read, if it is known (KIP-320). It lets a later
    /// reader detect truncation.
    pub leader_epoch: Option<i32>,
    /// Free text stored with the offset; empty by default. The broker limits its length
    /// (`offset.metadata.max.bytes`).
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// Creates an offset to commit, without a leader epoch or text.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: None, metadata: String::new() }
    }

    /// Creates the offset after a record, with the leader epoch under which it was appended
    /// (KIP-320).
    pub fn behind(record: &ConsumerRecord) -> Self {
        Self { leader_epoch: record.leader_epoch, ..Self::new(record.offset.saturating_add(1)) }
    }

    /// Sets the text.
    #[must_use]
    pub fn with_metadata(self, metadata: impl Into<String>) -> Self {
        Self { metadata: metadata.into(), ..self }
    }
}

impl From<i64> for OffsetAndMetadata {
    fn from(offset: i64) -> Self {
        Self::new(offset)
    }
}
