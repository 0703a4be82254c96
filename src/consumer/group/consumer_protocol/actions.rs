//! What the membership asks its task to do, and what it is told back.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::{error::Error, record::TopicPartition};

/// Which heartbeat or revocation an answer belongs to: an answer to any other than the awaited one
/// is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId(pub(super) u64);

/// Partitions as the protocol names them.
pub(crate) type PartitionsByTopicId = BTreeMap<Uuid, BTreeSet<i32>>;

/// What is subscribed to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicsToSubscribe {
    pub(crate) names: BTreeSet<Arc<str>>,
    /// As the coordinator takes it: it has to match a topic's whole name.
    pub(crate) regex: Option<Arc<str>>,
}

/// A partition that is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnedPartition {
    pub(crate) topic_id: Uuid,
    /// Grows each time that a partition becomes ours: what was read under an earlier ownership is
    /// not committed under this one.
    pub(crate) since: u64,
}

/// One heartbeat. What is `None` is as it was in the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeartbeatFields {
    pub(crate) member_id: Arc<str>,
    /// 0 joins.
    pub(crate) epoch: i32,
    /// Says everything, also what never changes: the rebalance timeout, the rack, the assignor.
    pub(crate) full: bool,
    pub(crate) names: Option<BTreeSet<Arc<str>>>,
    /// Empty where there is none any more.
    pub(crate) regex: Option<Arc<str>>,
    pub(crate) owned: Option<PartitionsByTopicId>,
}

/// What the coordinator answers to a heartbeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeartbeatResponse {
    /// The broker that answered.
    pub(crate) node: i32,
    pub(crate) member_id: Option<String>,
    pub(crate) epoch: i32,
    /// When the next heartbeat is due; `None` where the broker said nothing that can be used.
    pub(crate) interval: Option<Duration>,
    /// All that the member may own, where that changed or everything was said.
    pub(crate) assignment: Option<PartitionsByTopicId>,
}

/// What the task is to do next, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// ConsumerGroupHeartbeat, answered by `answered`.
    Heartbeat { ticket: AttemptId, beat: HeartbeatFields },
    /// A heartbeat that leaves (−1), or leaves a static member's place to its next incarnation
    /// (−2); `said_goodbye` tells when it has been answered, or will not be tried again.
    Leave { member_id: Arc<str>, epoch: i32 },
    /// Nothing goes on before the reader asks for records again, which `polled` tells.
    AwaitPoll,
    /// Tell the consumer that these partitions are its own now.
    Assigned { partitions: Vec<TopicPartition> },
    /// Tell the consumer to give these up, answered by `revoked`.
    Revoke { ticket: AttemptId, partitions: Vec<TopicPartition> },
    /// Tell the consumer that these are gone.
    Lost { partitions: Vec<TopicPartition> },
    /// Tell the reader.
    Error { error: Error, fatal: bool },
}
