//! The membership's actions for its task, and the results that the task returns.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::{error::Error, record::TopicPartition};

/// Identifies a heartbeat or revocation: a response to any other than the awaited one is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId(pub(super) u64);

/// Partitions by topic id, as the protocol names them.
pub(crate) type PartitionsByTopicId = BTreeMap<Uuid, BTreeSet<i32>>;

/// The subscribed topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicsToSubscribe {
    pub(crate) names: BTreeSet<Arc<str>>,
    /// Regular expression for the coordinator: it has to match a topic's whole name.
    pub(crate) regex: Option<Arc<str>>,
}

/// An owned partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnedPartition {
    pub(crate) topic_id: Uuid,
    /// Grows each time that a partition becomes owned: records read in an earlier ownership period
    /// are not committed in this one.
    pub(crate) since: u64,
}

/// One heartbeat. Fields that are `None` have not changed since the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeartbeatFields {
    pub(crate) member_id: Arc<str>,
    /// 0 joins the group.
    pub(crate) epoch: i32,
    /// True if all fields are sent, including those that never change: the rebalance timeout, the
    /// rack, the assignor.
    pub(crate) full: bool,
    pub(crate) names: Option<BTreeSet<Arc<str>>>,
    /// Empty if there is none any more.
    pub(crate) regex: Option<Arc<str>>,
    pub(crate) owned: Option<PartitionsByTopicId>,
}

/// The coordinator's response to a heartbeat.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeartbeatResponse {
    /// The broker that answered.
    pub(crate) node: i32,
    pub(crate) member_id: Option<String>,
    pub(crate) epoch: i32,
    /// Interval until the next heartbeat; `None` if the broker sent no valid one.
    pub(crate) interval: Option<Duration>,
    /// All partitions that the member may own, if they changed or all fields were sent.
    pub(crate) assignment: Option<PartitionsByTopicId>,
}

/// Actions of the task, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// ConsumerGroupHeartbeat, answered by `handle_response`.
    Heartbeat { attempt: AttemptId, beat: HeartbeatFields },
    /// A heartbeat that leaves (−1), or leaves a static member's place to its next incarnation
    /// (−2); `leave_ended` reports that it was answered, or will not be retried.
    Leave { member_id: Arc<str>, epoch: i32 },
    /// Do nothing until the reader polls again, which `polled` reports.
    AwaitPoll,
    /// Tell the consumer that it owns these partitions now.
    Assigned { partitions: Vec<TopicPartition> },
    /// Tell the consumer to give these up, answered by `revoked`.
    Revoke { attempt: AttemptId, partitions: Vec<TopicPartition> },
    /// Tell the consumer that these are lost.
    Lost { partitions: Vec<TopicPartition> },
    /// Report an error to the reader.
    Error { error: Error, fatal: bool },
}
