//! Requests that find a partition's position.

use crate::{
    consumer::subscription::{fetch_position::ResetTarget, partition_state::PartitionState},
    record::TopicPartition,
};

/// The request for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetQuery<T> {
    pub(crate) partition: TopicPartition,
    /// Seek epoch of the positioning that asks; a response to an older one is stale.
    pub(crate) seek_epoch: u64,
    /// Epoch of the leader that is asked; if another one leads by then, its response is stale as
    /// well.
    pub(crate) leader_epoch: i32,
    pub(crate) query: T,
}

impl OffsetQuery<()> {
    /// Returns the same request with a query of another kind.
    pub(crate) fn with<T>(self, query: T) -> OffsetQuery<T> {
        let Self { partition, seek_epoch, leader_epoch, query: () } = self;
        OffsetQuery { partition, seek_epoch, leader_epoch, query }
    }
}

impl<T> OffsetQuery<T> {
    /// Returns true if the partition still waits for the response: it was not positioned again
    /// since, and no other leader was asked.
    pub(crate) fn is_awaited(&self, state: &PartitionState) -> bool {
        state.position.awaits(self.seek_epoch, self.leader_epoch)
    }
}

/// A request to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OffsetRequest {
    /// OffsetFetch: the group's committed offsets.
    Committed(Vec<OffsetQuery<()>>),
    /// ListOffsets to that broker.
    Offsets(i32, Vec<OffsetQuery<ResetTarget>>),
    /// OffsetForLeaderEpoch to that broker, for these (offset, epoch).
    Epochs(i32, Vec<OffsetQuery<(i64, i32)>>),
}
