//! A group's committed offsets: OffsetCommit and OffsetFetch.

pub(super) mod commit;
pub(super) mod commit_order;
pub(super) mod commit_task;
#[cfg(test)]
pub(super) mod commit_tests;
pub(super) mod committed;
