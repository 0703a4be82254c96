//! The membership's actions for its task, and the results that the task returns.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{error::Error, record::TopicPartition};

/// Identifies an attempt: a response to any other than the awaited one is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId(pub(super) u64);

/// A member's id and generation, as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The generation; in the consumer protocol (KIP-848), the member epoch.
    pub(crate) generation: i32,
    pub(crate) member_id: Arc<str>,
}

/// Actions of the task, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// JoinGroup, answered by `joined`. It may take as long as the rebalance timeout, until the
    /// group's other members have joined.
    Join { attempt: AttemptId, member_id: Arc<str>, protocols: Vec<(Arc<str>, Bytes)>, reason: String },
    /// Look up the partitions of these topics as the leader, answered by `partitions_counted`.
    Count { attempt: AttemptId, topics: BTreeSet<Arc<str>> },
    /// SyncGroup, answered by `synced`.
    Sync { attempt: AttemptId, identity: Identity, protocol: Arc<str>, assignments: Vec<(Arc<str>, Bytes)> },
    /// Heartbeat, answered by `heartbeat_answered`.
    Heartbeat { attempt: AttemptId, identity: Identity },
    /// LeaveGroup; the membership does not wait for the response.
    Leave { member_id: Arc<str>, reason: &'static str },
    /// Do nothing until the reader polls again, which `polled` reports.
    AwaitPoll,
    /// Tell the consumer that it owns these partitions now, besides those that it keeps. Then call
    /// `metadata_changed`, because the metadata may have changed while the group was joining.
    Assigned { partitions: Vec<TopicPartition> },
    /// Tell the consumer to give these up, answered by `revoked`.
    Revoke { attempt: AttemptId, partitions: Vec<TopicPartition> },
    /// Tell the consumer that these are lost.
    Lost { partitions: Vec<TopicPartition> },
    /// Report an error to the reader.
    Error { error: Error, fatal: bool },
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

/// The owned partitions, each with the number of the assignment in which it came. A partition that
/// was lost in between comes with another number; records read before must not be committed then.
pub(crate) type Owned = BTreeMap<TopicPartition, u64>;

/// The membership, as commits and other requests are checked against it.
#[derive(Clone, Debug)]
pub(crate) enum MemberSnapshot {
    /// Not subscribed: commits go without a generation, for any partition.
    NoGroup,
    /// Subscribed, and the group is rebalancing. Partitions that are kept over it (incremental
    /// rebalances only) are owned all the time, and can be committed in the old generation until
    /// the next one begins.
    Rebalancing { identity: Identity, owned: Arc<Owned> },
    /// Subscribed, and out of the group until the reader polls again.
    Fenced,
    /// In the group; owns these partitions.
    Member { identity: Identity, owned: Arc<Owned> },
    /// Ended for good.
    Ended(Error),
}

impl MemberSnapshot {
    /// Returns the member that requests are sent for; `None` outside of the group, and while the
    /// member has no generation.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Member { identity, .. } | Self::Rebalancing { identity, .. } => {
                Some(identity).filter(|identity| identity.generation >= 0)
            }
            Self::NoGroup | Self::Fenced | Self::Ended(_) => None,
        }
    }

    /// Returns true if both allow the same commits.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::NoGroup, Self::NoGroup) | (Self::Fenced, Self::Fenced) | (Self::Ended(_), Self::Ended(_)) => true,
            (Self::Rebalancing { identity, owned }, Self::Rebalancing { identity: other, owned: others })
            | (Self::Member { identity, owned }, Self::Member { identity: other, owned: others }) => {
                identity == other && owned == others
            }
            _ => false,
        }
    }
}
