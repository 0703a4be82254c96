//! The member and generation that a transactional producer commits offsets for.

use std::{collections::BTreeMap, sync::Arc};

use super::topic::TopicPartition;

/// A consumer's membership in its group at one time (KIP-447), from
/// [`Consumer::group_metadata`](crate::Consumer::group_metadata).
///
/// A transactional producer sends it with the offsets of a transaction. The group coordinator
/// refuses offsets of a member that has left, or that a rebalance has overtaken, and the producer
/// refuses offsets of partitions that the member did not own, so that two members cannot both
/// commit the same records. It holds for one generation: ask the consumer again for each
/// transaction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupMetadata {
    group_id: Arc<str>,
    generation: i32,
    member_id: Arc<str>,
    instance_id: Option<Arc<str>>,
    has_member_epoch: bool,
    cluster_id: Option<Arc<str>>,
    /// The partitions that the member owns, each with the number of its ownership period; `None`
    /// without a member, for which partitions are not checked.
    owned: Option<Arc<BTreeMap<TopicPartition, u64>>>,
}

impl GroupMetadata {
    /// Makes the metadata of a consumer that assigns its partitions by hand, and so is no member of
    /// the group whose offsets it commits. The group coordinator accepts its offsets as long as the
    /// group has no members.
    pub(crate) fn without_member(group_id: impl Into<Arc<str>>) -> Self {
        Self {
            group_id: group_id.into(),
            generation: -1,
            member_id: "".into(),
            instance_id: None,
            has_member_epoch: false,
            cluster_id: None,
            owned: None,
        }
    }

    /// Sets a member of a classic group, with its generation.
    #[must_use]
    pub(crate) fn with_generation(self, member_id: impl Into<Arc<str>>, generation: i32) -> Self {
        Self { member_id: member_id.into(), generation, has_member_epoch: false, ..self }
    }

    /// Sets a member of the consumer protocol (KIP-848), with its epoch.
    #[must_use]
    pub(crate) fn with_member_epoch(self, member_id: impl Into<Arc<str>>, epoch: i32) -> Self {
        Self { member_id: member_id.into(), generation: epoch, has_member_epoch: true, ..self }
    }

    /// Sets the instance id of a static member (KIP-345).
    #[must_use]
    pub(crate) fn with_instance_id(self, instance_id: Option<Arc<str>>) -> Self {
        Self { instance_id, ..self }
    }

    /// Sets the id of the cluster that the consumer reads from.
    #[must_use]
    pub(crate) fn with_cluster_id(self, cluster_id: Option<Arc<str>>) -> Self {
        Self { cluster_id, ..self }
    }

    /// Sets the partitions that the member owns, each with the number of its ownership period: a
    /// partition that was lost and assigned again has another one.
    #[must_use]
    pub(crate) fn with_owned(self, owned: Arc<BTreeMap<TopicPartition, u64>>) -> Self {
        Self { owned: Some(owned), ..self }
    }

    /// Returns true if offsets of the partition may be committed for the member.
    pub(crate) fn owns(&self, partition: &TopicPartition) -> bool {
        self.owned.as_ref().is_none_or(|owned| owned.contains_key(partition))
    }

    /// Returns true if this is the member of `earlier`, in the same generation or in a later one,
    /// and has owned these partitions all the time since. Offsets of records that were read under
    /// `earlier` may then be committed under this one.
    #[cfg_attr(not(test), expect(dead_code, reason = "the exactly-once worker asks in a later change"))]
    pub(crate) fn continues<'a>(
        &self,
        earlier: &Self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> bool {
        let is_same_member = self.group_id == earlier.group_id
            && self.member_id == earlier.member_id
            && self.has_member_epoch == earlier.has_member_epoch
            && self.generation >= earlier.generation;
        let period = |of: &Self, partition| of.owned.as_ref().map(|owned| owned.get(partition).copied());
        // Without a member both are `None`, with one the partition needs a period.
        let is_kept = |partition| {
            let now = period(self, partition);
            now != Some(None) && now == period(earlier, partition)
        };
        is_same_member && partitions.into_iter().all(is_kept)
    }
}

impl GroupMetadata {
    /// Returns the group's id (`group.id`).
    pub fn group_id(&self) -> &str {
        &self.group_id
    }

    /// Returns the generation of a classic group, or the member epoch in the consumer protocol; -1
    /// for a consumer that is no member.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Returns the member's id; empty for a consumer that is no member.
    pub fn member_id(&self) -> &str {
        &self.member_id
    }

    /// Returns the instance id of a static member (`group.instance.id`).
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }

    /// Returns true if [`generation`](Self::generation) is the member epoch of the consumer
    /// protocol (`group.protocol=consumer`), and false if it is the generation of a classic group.
    pub fn has_member_epoch(&self) -> bool {
        self.has_member_epoch
    }

    /// Returns the id of the cluster that the consumer reads from, if a broker has named it.
    /// Offsets of a consumer of another cluster cannot be part of a transaction.
    pub fn cluster_id(&self) -> Option<&str> {
        self.cluster_id.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumer_without_membership_has_no_generation() {
        let metadata = GroupMetadata::without_member("orders");
        assert_eq!((metadata.group_id(), metadata.generation(), metadata.member_id()), ("orders", -1, ""));
        assert_eq!((metadata.instance_id(), metadata.cluster_id()), (None, None));
        assert!(!metadata.has_member_epoch());
    }

    #[test]
    fn keeps_member_with_its_kind_of_generation() {
        let group = GroupMetadata::without_member("orders").with_instance_id(Some("i".into()));
        let classic = group.clone().with_generation("m", 7).with_cluster_id(Some("c".into()));
        assert_eq!((classic.member_id(), classic.generation(), classic.has_member_epoch()), ("m", 7, false));
        assert_eq!((classic.instance_id(), classic.cluster_id()), (Some("i"), Some("c")));
        let consumer = group.with_member_epoch("m", 7);
        assert!(consumer.has_member_epoch());
        assert_ne!(classic.with_cluster_id(None), consumer, "a generation is not a member epoch");
    }

    fn member(epoch: i32, owned: &[(i32, u64)]) -> GroupMetadata {
        let owned = owned.iter().map(|(partition, since)| (TopicPartition::new("t", *partition), *since));
        GroupMetadata::without_member("orders").with_member_epoch("m", epoch).with_owned(Arc::new(owned.collect()))
    }

    #[test]
    fn member_owns_only_its_partitions() {
        let (zero, one) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let metadata = member(4, &[(0, 1)]);
        assert!(metadata.owns(&zero) && !metadata.owns(&one));
        assert!(GroupMetadata::without_member("orders").owns(&one), "assigned by hand");
    }

    #[test]
    fn later_epoch_continues_kept_partitions_only() {
        let (zero, one) = (TopicPartition::new("t", 0), TopicPartition::new("t", 1));
        let earlier = member(4, &[(0, 1), (1, 1)]);
        assert!(earlier.continues(&earlier, [&zero, &one]));
        let later = member(6, &[(0, 1), (1, 3)]);
        assert!(later.continues(&earlier, [&zero]), "kept over the rebalance");
        assert!(!later.continues(&earlier, [&zero, &one]), "t[1] was lost and assigned again");
        assert!(!member(6, &[(0, 1)]).continues(&earlier, [&one]), "t[1] was lost");
        assert!(!earlier.continues(&later, [&zero]), "an older epoch");
        let rejoined = later.clone().with_member_epoch("n", 6);
        assert!(!rejoined.continues(&earlier, [&zero]), "another member");
        assert!(!later.with_generation("m", 6).continues(&earlier, [&zero]), "another protocol");
        let by_hand = GroupMetadata::without_member("orders");
        assert!(by_hand.continues(&by_hand, [&zero]) && !by_hand.continues(&earlier, [&zero]));
        assert!(!GroupMetadata::without_member("other").continues(&by_hand, [&zero]), "another group");
    }
}
