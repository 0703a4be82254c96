//! The sticky strategies: an assignment that is as even as possible, and among the even ones the
//! one that moves fewest partitions.
//!
//! Both use `constrained` if all members are subscribed to the same topics, and `general`
//! otherwise. They differ in the source of the previous assignment: data remembered by the eager
//! member's assignor, or the partitions that the cooperative member still owns.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;

use super::{
    Assignments, Assignor, GroupMember, GroupSubscription, LastAssignment, PartitionRacks, RebalanceProtocol,
    constrained, general, racks_matter,
};
use crate::{consumer::group::classic::member_metadata, error::BoxError, record::TopicPartition};

/// `sticky`: assigns partitions as evenly as possible, and moves as few as that allows. Members
/// give up all partitions before they join, as with every eager assignor, and most of them return.
#[derive(Clone, Copy, Debug, Default)]
pub struct StickyAssignor;

/// `cooperative-sticky`: like [`StickyAssignor`], but members keep partitions that do not move, and
/// continue to read them (KIP-429).
#[derive(Clone, Copy, Debug, Default)]
pub struct CooperativeStickyAssignor;

impl Assignor for StickyAssignor {
    fn name(&self) -> &str {
        "sticky"
    }

    fn user_data(&self, _: &BTreeSet<Arc<str>>, last: &LastAssignment) -> Option<Bytes> {
        // An assignment that is too long to encode is left out; its partitions may then move.
        (last.generation >= 0).then(|| member_metadata::encode_previous(&last.partitions, last.generation).ok())?
    }

    fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError> {
        let had = |member: &GroupMember| {
            let data = member.user_data.as_deref().filter(|data| !data.is_empty());
            data.and_then(member_metadata::decode_previous).unwrap_or_default()
        };
        Ok(assign(group, had))
    }
}

impl Assignor for CooperativeStickyAssignor {
    fn name(&self) -> &str {
        "cooperative-sticky"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Cooperative
    }

    /// The generation, for leaders that do not read it from the subscription (KIP-792).
    fn user_data(&self, _: &BTreeSet<Arc<str>>, last: &LastAssignment) -> Option<Bytes> {
        Some(Bytes::copy_from_slice(&last.generation.to_be_bytes()))
    }

    fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError> {
        let had = |member: &GroupMember| {
            let said = || member.user_data.as_deref()?.first_chunk().map(|bytes| i32::from_be_bytes(*bytes));
            (member.owned.clone(), member.generation.or_else(said))
        };
        Ok(assign(group, had))
    }
}

/// The previous assignments, as far as they still count. Members are identified by their place in
/// the group's list.
pub(super) struct Previous {
    /// Each member's partitions, from the newest generation in which any member owned them.
    pub(super) owned: Vec<BTreeSet<TopicPartition>>,
    /// Partitions that several members claim from one generation: they have no owner.
    pub(super) contested: BTreeSet<TopicPartition>,
    /// Owner of each partition in an earlier generation.
    pub(super) before: BTreeMap<TopicPartition, usize>,
}

fn assign(group: &GroupSubscription, had: impl Fn(&GroupMember) -> (Vec<TopicPartition>, Option<i32>)) -> Assignments {
    if group.members.is_empty() {
        return Assignments::new();
    }
    let wanted: BTreeSet<&Arc<str>> = group.members.iter().flat_map(|member| &member.topics).collect();
    let claims: Vec<(Vec<TopicPartition>, i32)> = group
        .members
        .iter()
        .map(|member| {
            let (mut partitions, generation) = had(member);
            partitions.retain(|partition| wanted.contains(&partition.topic) && group.racks(partition).is_some());
            (partitions, generation.unwrap_or(-1))
        })
        .collect();
    let previous = previous(&claims);
    let racks = Racks::new(group);
    let topics = |member: &GroupMember| member.topics.iter().cloned().collect::<BTreeSet<_>>();
    let mut wanted = group.members.iter().map(topics);
    let first = wanted.next().unwrap_or_default();
    let shares = if wanted.all(|others| others == first) {
        constrained::assign(group, &previous, &racks)
    } else {
        general::assign(group, previous, &racks)
    };
    let ids = group.members.iter().map(|member| member.member_id.clone());
    ids.zip(shares.into_iter().map(|share| share.into_iter().collect())).collect()
}

fn previous(claims: &[(Vec<TopicPartition>, i32)]) -> Previous {
    let mut owned = vec![BTreeSet::new(); claims.len()];
    let mut contested = BTreeSet::new();
    let mut owner: BTreeMap<&TopicPartition, (usize, i32)> = BTreeMap::new();
    let drop_from = |owned: &mut Vec<BTreeSet<TopicPartition>>, member: usize, partition: &TopicPartition| {
        if let Some(owned) = owned.get_mut(member) {
            owned.remove(partition);
        }
    };
    for (member, (partitions, generation)) in claims.iter().enumerate() {
        for partition in partitions {
            match owner.get(partition) {
                Some((other, _)) if *other == member => continue,
                Some((_, newer)) if newer > generation => continue,
                Some((other, same)) if same == generation => {
                    contested.insert(partition.clone());
                    drop_from(&mut owned, *other, partition);
                    owner.insert(partition, (member, *generation));
                    continue;
                }
                Some((other, _)) => drop_from(&mut owned, *other, partition),
                None => {}
            }
            owner.insert(partition, (member, *generation));
            if let Some(owned) = owned.get_mut(member) {
                owned.insert(partition.clone());
            }
        }
    }
    let newest = claims.iter().map(|(_, generation)| *generation).max().unwrap_or(-1);
    let mut before: BTreeMap<TopicPartition, (usize, i32)> = BTreeMap::new();
    for (member, (partitions, generation)) in claims.iter().enumerate().filter(|(_, (_, old))| *old < newest) {
        for partition in partitions {
            if before.get(partition).is_none_or(|(_, older)| generation > older) {
                before.insert(partition.clone(), (member, *generation));
            }
        }
    }
    let before = before.into_iter().map(|(partition, (member, _))| (partition, member)).collect();
    Previous { owned, contested, before }
}

/// The racks of members and replicas, if they matter.
pub(super) struct Racks<'a> {
    group: &'a GroupSubscription,
    matter: bool,
}

impl<'a> Racks<'a> {
    fn new(group: &'a GroupSubscription) -> Self {
        let members = group.members.iter().filter_map(|member| member.rack.as_ref());
        let partitions: Vec<&PartitionRacks> = group.topics.values().flatten().collect();
        Self { group, matter: racks_matter(members, partitions) }
    }

    pub(super) fn matter(&self) -> bool {
        self.matter
    }

    fn rack(&self, member: usize) -> Option<&Arc<str>> {
        self.group.members.get(member).and_then(|member| member.rack.as_ref()).filter(|_| self.matter)
    }

    /// Returns true if the member's rack is known, and no replica is in it.
    pub(super) fn mismatch(&self, member: usize, partition: &TopicPartition) -> bool {
        self.rack(member).is_some() && !self.is_near(member, partition)
    }

    /// Returns true if the member's rack is known, and a replica is in it.
    pub(super) fn is_near(&self, member: usize, partition: &TopicPartition) -> bool {
        let racks = self.group.racks(partition);
        self.rack(member).is_some_and(|rack| racks.is_some_and(|racks| racks.contains(rack)))
    }

    /// Returns the number of members with a replica of the partition in their rack.
    pub(super) fn takers(&self, partition: &TopicPartition) -> usize {
        (0..self.group.members.len()).filter(|member| self.is_near(*member, partition)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tp(partition: i32) -> TopicPartition {
        TopicPartition::new("t", partition)
    }

    #[test]
    fn prefers_newest_claim_and_contests_equal_claims() {
        let claims = [(vec![tp(0), tp(1), tp(2)], 4), (vec![tp(1), tp(2)], 5), (vec![tp(2), tp(3), tp(3)], 5)];
        let previous = previous(&claims);
        assert_eq!(previous.owned, [[tp(0)].into(), [tp(1)].into(), [tp(3)].into()]);
        assert_eq!(previous.contested, [tp(2)].into());
        assert_eq!(previous.before, [(tp(0), 0), (tp(1), 0), (tp(2), 0)].into());
    }

    #[test]
    fn decodes_user_data_and_ignores_truncated_data() {
        let last = LastAssignment { partitions: vec![tp(0), tp(2)], generation: 7 };
        let data = StickyAssignor.user_data(&BTreeSet::new(), &last).unwrap();
        assert_eq!(member_metadata::decode_previous(&data), Some((vec![tp(0), tp(2)], Some(7))));
        // Version 0 has no generation.
        assert_eq!(member_metadata::decode_previous(&data[..data.len() - 4]), Some((vec![tp(0), tp(2)], None)));
        assert_eq!(member_metadata::decode_previous(&data[..5]), None);
        assert_eq!(StickyAssignor.user_data(&BTreeSet::new(), &LastAssignment::default()), None);
        let data = CooperativeStickyAssignor.user_data(&BTreeSet::new(), &last).unwrap();
        assert_eq!(data.as_ref(), [0, 0, 0, 7]);
    }
}
