//! Ownership periods of partitions that the group assigns.

use crate::record::TopicPartition;

/// A partition in the group's gift, from when it came to when it goes: who takes one back takes
/// back no later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    pub(crate) partition: TopicPartition,
    pub(crate) number: u64,
}
