//! The range strategy: for each topic, each subscribed member gets a run of neighbouring
//! partitions; if racks differ, as many of them as possible in the member's own rack (KIP-881).
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Assignments, Assignor, GroupMember, GroupSubscription, PartitionRacks, racks_matter};
use crate::{error::BoxError, record::TopicPartition};

/// `range`: for each topic, the subscribed members get runs of neighbouring partitions of equal
/// length; if the number does not divide evenly, the first members get one more. If it helps,
/// members get partitions with a replica in their own rack (`client.rack`).
///
/// Topics with an equal number of partitions and equal members are assigned alike, so one member
/// gets equal partition numbers of all of them, which joins of co-partitioned topics need.
#[derive(Clone, Copy, Debug, Default)]
pub struct RangeAssignor;

impl Assignor for RangeAssignor {
    fn name(&self) -> &str {
        "range"
    }

    fn assign(&self, group: &GroupSubscription) -> Result<Assignments, BoxError> {
        let mut ordered: Vec<&GroupMember> = group.members.iter().collect();
        ordered.sort_by_key(|member| member.order());
        let mut shares: Vec<Share<'_>> =
            group.topics.iter().filter_map(|(topic, racks)| Share::new(topic, racks, &ordered)).collect();
        let mut assignments = Assignments::new();
        let by_rack = shares.iter().any(|share| share.by_rack);
        if by_rack {
            match_racks(&mut shares, &mut assignments);
        }
        for share in &mut shares {
            share.hand_out(|_, _, _| true, &mut assignments);
        }
        if by_rack {
            assignments.values_mut().for_each(|partitions| partitions.sort_unstable());
        }
        Ok(assignments)
    }
}

/// The assignment of one topic.
struct Share<'a> {
    topic: &'a Arc<str>,
    racks: &'a [PartitionRacks],
    /// The subscribed members, each with the number of its partitions of this topic.
    members: Vec<(&'a GroupMember, usize)>,
    left: BTreeSet<usize>,
    each: usize,
    /// Number of members that may still get one more.
    extra: usize,
    by_rack: bool,
}

impl<'a> Share<'a> {
    fn new(topic: &'a Arc<str>, racks: &'a [PartitionRacks], ordered: &[&'a GroupMember]) -> Option<Self> {
        let members: Vec<_> = ordered.iter().filter(|member| member.wants(topic)).map(|member| (*member, 0)).collect();
        if members.is_empty() || racks.is_empty() {
            return None;
        }
        let by_rack = racks_matter(members.iter().filter_map(|(member, _)| member.rack.as_ref()), racks);
        let (each, extra) = (racks.len() / members.len(), racks.len() % members.len());
        Some(Self { topic, racks, left: (0..racks.len()).collect(), each, extra, by_rack, members })
    }

    /// Returns the number of partitions that the member at that place may still get.
    fn room(&self, place: usize) -> usize {
        let has = self.members.get(place).map_or(usize::MAX, |(_, has)| *has);
        (self.each + usize::from(self.extra > 0)).saturating_sub(has)
    }

    /// Returns true if a replica is in the member's rack, or if the member's rack is not known.
    fn is_near(&self, place: usize, partition: usize) -> bool {
        let rack = self.members.get(place).and_then(|(member, _)| member.rack.as_ref());
        rack.is_none_or(|rack| self.racks.get(partition).is_some_and(|racks| racks.contains(rack)))
    }

    fn give(&mut self, place: usize, partitions: &[usize], assignments: &mut Assignments) {
        let Some((member, has)) = self.members.get_mut(place) else { return };
        *has += partitions.len();
        if *has > self.each {
            self.extra = self.extra.saturating_sub(1);
        }
        let given = assignments.entry(member.member_id.clone()).or_default();
        for number in partitions {
            self.left.remove(number);
            let partition = i32::try_from(*number).unwrap_or(i32::MAX);
            given.push(TopicPartition { topic: self.topic.clone(), partition });
        }
    }

    /// Gives each member in turn as many suitable partitions as it may have.
    fn hand_out(&mut self, suits: impl Fn(&Self, usize, usize) -> bool, assignments: &mut Assignments) {
        for place in 0..self.members.len() {
            let suitable = self.left.iter().copied().filter(|partition| suits(self, place, *partition));
            let partitions: Vec<usize> = suitable.take(self.room(place)).collect();
            if !partitions.is_empty() {
                self.give(place, &partitions, assignments);
            }
        }
    }
}

/// Assigns partitions with a replica in the member's own rack. Topics with an equal number of
/// partitions and equal members stay alike.
fn match_racks(shares: &mut [Share<'_>], assignments: &mut Assignments) {
    let mut groups: BTreeMap<(Vec<&Arc<str>>, usize), Vec<usize>> = BTreeMap::new();
    for (at, share) in shares.iter().enumerate() {
        let placed = share.members.iter().any(|(member, _)| member.rack.is_some());
        let members = share.members.iter().map(|(member, _)| &member.member_id).collect();
        groups.entry((members, if placed { share.racks.len() } else { 0 })).or_default().push(at);
    }
    let groups: Vec<(usize, usize, Vec<usize>)> =
        groups.into_iter().map(|((members, count), alike)| (members.len(), count, alike)).collect();
    for (members, count, alike) in groups {
        if let [alone] = &*alike {
            if let Some(share) = shares.get_mut(*alone).filter(|share| share.by_rack) {
                share.hand_out(Share::is_near, assignments);
            }
            continue;
        }
        for partition in 0..count {
            let near = |place: &usize| {
                let mut alike = alike.iter().filter_map(|at| shares.get(*at));
                alike.all(|share| share.is_near(*place, partition) && share.room(*place) > 0)
            };
            let Some(place) = (0..members).find(near) else { continue };
            for at in &alike {
                if let Some(share) = shares.get_mut(*at) {
                    share.give(place, &[partition], assignments);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, instance_id: Option<&str>, topics: &[&str]) -> GroupMember {
        GroupMember {
            member_id: id.into(),
            instance_id: instance_id.map(Arc::from),
            topics: topics.iter().map(|&topic| topic.into()).collect(),
            ..GroupMember::default()
        }
    }

    fn assign(members: &[GroupMember], topics: &[(&str, usize)]) -> Assignments {
        let topics = topics.iter().map(|&(topic, count)| (topic.into(), vec![PartitionRacks::new(); count])).collect();
        RangeAssignor.assign(&GroupSubscription::new(members.to_vec(), topics)).unwrap()
    }

    fn shown(members: &[GroupMember], topics: &[(&str, usize)]) -> String {
        let assignment = assign(members, topics);
        let of = |member: &GroupMember| {
            let partitions = assignment.get(&member.member_id).cloned().unwrap_or_default();
            partitions.iter().map(|p| format!("{}-{}", p.topic, p.partition)).collect::<Vec<_>>().join(",")
        };
        members.iter().map(of).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn matches_javas_range_assignor() {
        let two = [member("C0", None, &["t0", "t1"]), member("C1", None, &["t1", "t0"])];
        assert_eq!(shown(&two, &[("t0", 3), ("t1", 3)]), "t0-0,t0-1,t1-0,t1-1 | t0-2,t1-2");
        let uneven =
            [member("C0", None, &["t0"]), member("C1", None, &["t0", "t1"]), member("C2", None, &["t0", "t1", "t2"])];
        assert_eq!(shown(&uneven, &[("t0", 1), ("t1", 2), ("t2", 3)]), "t0-0 | t1-0 | t1-1,t2-0,t2-1,t2-2");
    }

    #[test]
    fn orders_members_by_id_static_first() {
        let members = [member("b", None, &["t"]), member("a", None, &["t"]), member("z", Some("i1"), &["t"])];
        assert_eq!(shown(&members, &[("t", 4)]), "t-3 | t-2 | t-0,t-1");
        // A static member keeps its place under a new id.
        let members = [member("b", None, &["t"]), member("a", None, &["t"]), member("0", Some("i1"), &["t"])];
        assert_eq!(shown(&members, &[("t", 4)]), "t-3 | t-2 | t-0,t-1");
    }

    #[test]
    fn unknown_topics_and_surplus_members_get_nothing() {
        let members = [member("a", None, &["gone", "t", "t"]), member("b", None, &["t"]), member("c", None, &[])];
        assert_eq!(shown(&members, &[("t", 1), ("other", 5)]), "t-0 |  | ");
        assert!(assign(&[], &[("t", 1)]).is_empty());
    }

    proptest::proptest! {
        /// Each partition of each topic goes to exactly one subscribed member, and shares differ by
        /// one at most.
        #[test]
        fn balances_partitions_with_one_owner_each(
            wants in proptest::collection::vec(proptest::collection::btree_set(0..4usize, 0..4), 1..7),
            sizes in proptest::collection::vec(0..9usize, 4),
        ) {
            let names = ["t0", "t1", "t2", "t3"];
            let members: Vec<GroupMember> = wants.iter().enumerate().map(|(i, topics)| {
                member(&format!("m{i}"), None, &topics.iter().map(|&t| names[t]).collect::<Vec<_>>())
            }).collect();
            let sizes: Vec<(&str, usize)> = names.into_iter().zip(sizes).collect();
            let assignment = assign(&members, &sizes);
            for (t, &(name, size)) in sizes.iter().enumerate() {
                let mut seen = Vec::new();
                let mut shares = Vec::new();
                for (i, topics) in wants.iter().enumerate() {
                    let given = assignment.get(&*format!("m{i}")).cloned().unwrap_or_default();
                    let mine: Vec<i32> = given.iter().filter(|p| &*p.topic == name).map(|p| p.partition).collect();
                    if topics.contains(&t) { shares.push(mine.len()) } else { proptest::prop_assert!(mine.is_empty()) }
                    seen.extend(mine);
                }
                seen.sort_unstable();
                let expected: Vec<i32> = if shares.is_empty() { Vec::new() } else { (0..size as i32).collect() };
                proptest::prop_assert_eq!(seen, expected);
                let (least, most) = (shares.iter().min().copied(), shares.iter().max().copied());
                proptest::prop_assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1);
            }
        }
    }
}
