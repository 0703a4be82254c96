//! A group's committed offsets: OffsetCommit and OffsetFetch.

pub(super) mod commit;
mod commit_attempts;
#[cfg(test)]
mod commit_attempts_tests;
pub(super) mod commit_order;
mod commit_response;
pub(super) mod commit_task;
#[cfg(test)]
pub(super) mod commit_tests;
pub(super) mod committed;
