//! A membership, as the handles, commits and other requests see it.
//!
//! Sans-IO.

use std::{collections::BTreeMap, sync::Arc};

use crate::{error::Error, record::TopicPartition};

/// A member's id and generation, as the coordinator knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The generation; in the consumer protocol (KIP-848), the member epoch.
    pub(crate) generation: i32,
    pub(crate) member_id: Arc<str>,
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
