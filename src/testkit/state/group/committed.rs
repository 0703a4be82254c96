//! A committed offset.

/// A group's commit for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    /// −1 if the consumer did not know it.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

/// A commit with its place in the order of all commits of the group.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub(super) order: u64,
    pub(super) committed: Committed,
}
