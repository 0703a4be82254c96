//! The requests of a classic member, and their results.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    consumer::group::{actions, assignor::PartitionRacks, member_snapshot::Identity},
    error::Error,
};

/// Protocol type of classic consumer groups in JoinGroup and SyncGroup.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// The partitions of each topic.
pub(crate) type TopicPartitions = BTreeMap<Arc<str>, Vec<PartitionRacks>>;

pub(crate) type Action = actions::Action<ClassicRequest, LeaveGroup>;

#[derive(Debug)]
pub(crate) enum ClassicRequest {
    /// JoinGroup, answered by `joined`. It may take as long as the rebalance timeout, until the
    /// group's other members have joined.
    Join { member_id: Arc<str>, protocols: Vec<(Arc<str>, Bytes)>, reason: String },
    /// Looks up the partitions of these topics as the leader, answered by `partitions_counted`.
    Count { topics: BTreeSet<Arc<str>> },
    /// SyncGroup, answered by `synced`.
    Sync { identity: Identity, protocol: Arc<str>, assignments: Vec<(Arc<str>, Bytes)> },
    /// Heartbeat, answered by `heartbeat_answered`.
    Heartbeat { identity: Identity },
}

/// LeaveGroup; the membership does not wait for the response.
#[derive(Debug)]
pub(crate) struct LeaveGroup {
    pub(crate) member_id: Arc<str>,
    pub(crate) reason: &'static str,
}

/// Result of a JoinGroup.
#[derive(Debug)]
pub(crate) enum JoinOutcome {
    Member(JoinAnswer),
    /// The coordinator asks the member to join again with this id (KIP-394).
    MemberIdRequired(String),
    Failed(Error),
}

#[derive(Clone, Debug)]
pub(crate) struct JoinAnswer {
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    /// Not sent before version 7.
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leads: bool,
    /// The group keeps its assignment; the leader only watches the topics from now on (KIP-814).
    pub(crate) skip_assignment: bool,
    /// For the leader: id, instance id and subscription of all members.
    pub(crate) members: Vec<JoinedMember>,
}

#[derive(Clone, Debug)]
pub(crate) struct JoinedMember {
    pub(crate) id: String,
    pub(crate) instance_id: Option<String>,
    pub(crate) metadata: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) struct SyncAnswer {
    /// Not sent before version 5.
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}
