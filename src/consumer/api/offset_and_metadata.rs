//! Committed offsets as users see them.

use crate::record::ConsumerRecord;

/// An offset to commit for a partition, or one that was committed: the *next* record to be read.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OffsetAndMetadata {
    /// The offset of the next record to be read.
    pub offset: i64,
    /// The leader epoch of the last record that was read, if it is known (KIP-320); lets a later
    /// reader notice truncation.
    pub leader_epoch: Option<i32>,
    /// Free text kept beside the offset; empty by default. The broker limits it
    /// (`offset.metadata.max.bytes`).
    pub metadata: String,
}

impl OffsetAndMetadata {
    /// That offset, without a leader epoch or text.
    pub fn new(offset: i64) -> Self {
        Self { offset, leader_epoch: None, metadata: String::new() }
    }

    /// The offset behind a record, with the leader epoch that it was appended under (KIP-320).
    pub fn behind(record: &ConsumerRecord) -> Self {
        Self { leader_epoch: record.leader_epoch, ..Self::new(record.offset.saturating_add(1)) }
    }

    /// The same with that text.
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
