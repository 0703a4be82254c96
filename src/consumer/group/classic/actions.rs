//! What the membership asks its task to do, and what it is told back.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use crate::{error::Error, record::TopicPartition};

/// Which attempt an answer belongs to: an answer to any other than the awaited one is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttemptId(pub(super) u64);

/// Who we are to the coordinator in one generation of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The generation; under the protocol of KIP-848, the member epoch.
    pub(crate) generation: i32,
    pub(crate) member_id: Arc<str>,
}

/// What the task is to do next, in this order.
#[derive(Debug)]
pub(crate) enum Action {
    /// JoinGroup, answered by `joined`. The group's other members may take the rebalance timeout to
    /// come.
    Join { ticket: AttemptId, member_id: Arc<str>, protocols: Vec<(Arc<str>, Bytes)>, reason: String },
    /// We lead: look up which partitions these topics have, answered by `counted`.
    Count { ticket: AttemptId, topics: BTreeSet<Arc<str>> },
    /// SyncGroup, answered by `synced`.
    Sync { ticket: AttemptId, identity: Identity, protocol: Arc<str>, assignments: Vec<(Arc<str>, Bytes)> },
    /// Heartbeat, answered by `heartbeat_answered`.
    Heartbeat { ticket: AttemptId, identity: Identity },
    /// LeaveGroup; nobody waits for its answer.
    Leave { member_id: Arc<str>, reason: &'static str },
    /// Nothing goes on before the reader asks for records again, which `polled` tells.
    AwaitPoll,
    /// Tell the consumer that these partitions are its own now, beside those that it keeps. Then
    /// call `metadata_changed`: the picture of the cluster may have changed while the group was
    /// joining.
    Assigned { partitions: Vec<TopicPartition> },
    /// Tell the consumer to give these up, answered by `revoked`.
    Revoke { ticket: AttemptId, partitions: Vec<TopicPartition> },
    /// Tell the consumer that these are gone.
    Lost { partitions: Vec<TopicPartition> },
    /// Tell the reader.
    Error { error: Error, fatal: bool },
}

/// How a JoinGroup came out.
#[derive(Debug)]
pub(crate) enum JoinOutcome {
    Member(JoinAnswer),
    /// The coordinator wants us to come again under this name (KIP-394).
    MemberIdRequired(String),
    Failed(Error),
}

#[derive(Clone, Debug)]
pub(crate) struct JoinAnswer {
    pub(crate) generation: i32,
    pub(crate) member_id: String,
    /// Not said before version 7.
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leads: bool,
    /// The group keeps its assignment; the leader only watches the topics from now on (KIP-814).
    pub(crate) skip_assignment: bool,
    /// For the leader: everyone's id, instance id and subscription.
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
    /// Not said before version 5.
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

/// The partitions that are owned, each with the number of the assignment in which it came. A
/// partition that was away in between comes with another number; what was read of it before must
/// not be committed then.
pub(crate) type Owned = BTreeMap<TopicPartition, u64>;

/// What the consumer may commit for, as of now.
#[derive(Clone, Debug)]
pub(crate) enum MemberSnapshot {
    /// Not subscribed: commits go without a generation, for any partition.
    NoGroup,
    /// Subscribed, and the group is rebalancing. What is kept over it (incremental rebalances only)
    /// is owned all the while, and can be committed in the old name until the next generation
    /// begins.
    Rebalancing { identity: Identity, owned: Arc<Owned> },
    /// Subscribed, and out of the group until the reader polls again.
    Fenced,
    /// In the group; owns these partitions.
    Member { identity: Identity, owned: Arc<Owned> },
    /// Ended for good.
    Ended(Error),
}

impl MemberSnapshot {
    /// The member that requests go in the name of; `None` outside of the group, and while the
    /// member has no generation.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Member { identity, .. } | Self::Rebalancing { identity, .. } => {
                Some(identity).filter(|identity| identity.generation >= 0)
            }
            Self::NoGroup | Self::Fenced | Self::Ended(_) => None,
        }
    }

    /// Whether it allows the same.
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
