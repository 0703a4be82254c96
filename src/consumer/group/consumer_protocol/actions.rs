//! The heartbeats of a member, and their responses.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use uuid::Uuid;

use crate::consumer::group::actions;

pub(crate) type Action = actions::Action<HeartbeatFields, LeavingHeartbeat>;

/// Partitions by topic id, as the protocol names them.
pub(crate) type PartitionsByTopicId = BTreeMap<Uuid, BTreeSet<i32>>;

/// The subscribed topics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicsToSubscribe {
    pub(crate) names: BTreeSet<Arc<str>>,
    /// Regular expression for the coordinator: it has to match a topic's whole name.
    pub(crate) regex: Option<Arc<str>>,
}

/// One heartbeat, answered by `handle_response`. Fields that are `None` have not changed since the
/// one before.
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

/// A heartbeat that leaves the group (−1), or leaves a static member's place to its next
/// incarnation (−2).
#[derive(Debug)]
pub(crate) struct LeavingHeartbeat {
    pub(crate) member_id: Arc<str>,
    pub(crate) epoch: i32,
}
