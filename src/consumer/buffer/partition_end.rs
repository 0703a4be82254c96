//! Reasons for which a partition is no longer read.

/// Why a partition is no longer read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartitionEnd {
    /// The group waits for it: finish what is in hand, then drop the hand.
    Revoking,
    /// It is gone, perhaps to another member that reads the same records.
    Gone,
}
