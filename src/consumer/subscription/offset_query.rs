//! Requests by which a partition's position is found out.

use crate::{consumer::subscription::fetch_position::ResetTarget, record::TopicPartition};

/// One partition that is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OffsetQuery<T> {
    pub(crate) partition: TopicPartition,
    /// The positioning that asks; an answer to an older one is stale.
    pub(crate) seek_epoch: u64,
    /// Of the leader that is asked; once another one leads, its answer is stale as well.
    pub(crate) leader_epoch: i32,
    pub(crate) query: T,
}

/// A request to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OffsetRequest {
    /// What has the group committed?
    Committed(Vec<OffsetQuery<()>>),
    /// ListOffsets to that broker.
    Offsets(i32, Vec<OffsetQuery<ResetTarget>>),
    /// OffsetForLeaderEpoch to that broker: where do these (offset, epoch) end?
    Epochs(i32, Vec<OffsetQuery<(i64, i32)>>),
}
