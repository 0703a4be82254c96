//! Reading from the log: alone over chosen partitions, or as a member of a group.

pub(crate) mod group;
mod offsets;
pub(crate) mod subscription;

pub use offsets::OffsetAndMetadata;
