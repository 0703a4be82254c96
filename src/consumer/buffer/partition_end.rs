//! Reasons for which a partition is no longer read.

/// The reason for which a partition is no longer read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartitionEnd {
    /// The group or a close waits for the partition: finish the records that are held, then drop
    /// the reader.
    Revoking,
    /// The partition is gone, perhaps to another member that reads the same records.
    Gone,
}
