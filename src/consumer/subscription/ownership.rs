//! Ownership periods of partitions that the group assigns.

use crate::record::TopicPartition;

/// Identifies one ownership period of a partition that the group assigned, so that a late
/// revocation cannot revoke a later assignment of the same partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) partition: TopicPartition,
    pub(crate) number: u64,
}
