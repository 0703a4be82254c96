//! A membership, as the handles, commits and other requests see it.
//!
//! Sans-IO.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    consumer::GroupProtocol,
    error::{Error, ErrorKind, Result},
    record::{GroupMetadata, TopicPartition},
};

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

    /// Adds the member to the metadata of its group, for offsets that are committed in a
    /// transaction.
    ///
    /// # Errors
    /// `NotAssigned` without a generation: the coordinator would accept offsets without one even if
    /// other members have the partitions by then. The error by which the membership has ended.
    pub(super) fn add_to(&self, group: GroupMetadata, protocol: GroupProtocol) -> Result<GroupMetadata> {
        let (identity, owned) = match self {
            Self::Member { identity, owned } | Self::Rebalancing { identity, owned } if identity.generation >= 0 => {
                (identity, owned)
            }
            Self::Ended(error) => return Err(error.clone()),
            Self::Fenced => return Err(no_member(&group, "is out of the group until its reader polls again")),
            Self::NoGroup | Self::Member { .. } | Self::Rebalancing { .. } => {
                return Err(no_member(&group, "has not joined the group yet"));
            }
        };
        let member = match protocol {
            GroupProtocol::Classic => group.with_generation(identity.member_id.clone(), identity.generation),
            GroupProtocol::Consumer => group.with_member_epoch(identity.member_id.clone(), identity.generation),
        };
        Ok(member.with_owned(owned.clone()))
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

fn no_member(group: &GroupMetadata, what: &str) -> Error {
    let message = format!(
        "metadata of group {}: the consumer {what}, so its offsets cannot be committed; ask again when it has records \
         to read",
        group.group_id()
    );
    Error::new(ErrorKind::NotAssigned, message).with_retriable(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned() -> Arc<Owned> {
        Arc::new(BTreeMap::from([(TopicPartition::new("t", 0), 3)]))
    }

    fn identity(generation: i32) -> Identity {
        Identity { generation, member_id: "m".into() }
    }

    #[test]
    fn member_metadata_has_its_protocol_and_partitions() {
        let rebalancing = MemberSnapshot::Rebalancing { identity: identity(4), owned: owned() };
        for member in [MemberSnapshot::Member { identity: identity(4), owned: owned() }, rebalancing] {
            for (protocol, is_epoch) in [(GroupProtocol::Classic, false), (GroupProtocol::Consumer, true)] {
                let group = GroupMetadata::without_member("g").with_instance_id(Some("i".into()));
                let metadata = member.add_to(group, protocol).unwrap();
                assert_eq!((metadata.member_id(), metadata.generation()), ("m", 4));
                assert_eq!((metadata.has_member_epoch(), metadata.instance_id()), (is_epoch, Some("i")));
                assert!(metadata.owns(&TopicPartition::new("t", 0)) && !metadata.owns(&TopicPartition::new("t", 1)));
            }
        }
    }

    #[test]
    fn metadata_without_generation_is_refused() {
        let joining = MemberSnapshot::Rebalancing { identity: identity(-1), owned: Arc::default() };
        for (member, retriable) in [
            (joining, true),
            (MemberSnapshot::NoGroup, true),
            (MemberSnapshot::Fenced, true),
            (MemberSnapshot::Ended(Error::new(ErrorKind::NotAssigned, "over")), false),
        ] {
            for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
                let refused = member.add_to(GroupMetadata::without_member("g"), protocol).unwrap_err();
                assert_eq!((refused.kind(), refused.is_retriable()), (ErrorKind::NotAssigned, retriable), "{refused}");
            }
        }
    }
}
