//! The range strategy: topic by topic, each member that wants it gets a run of neighbouring partitions.
//!
//! Topics with as many partitions and the same members are shared out alike, so one member gets the same numbers of all
//! of them (which is what joins of co-partitioned topics need).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::assignor::{Assignor, Member};
use crate::record::TopicPartition;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Range;

impl Assignor for Range {
    fn name(&self) -> &'static str {
        "range"
    }

    fn assign(&self, members: &[Member], counts: &BTreeMap<Arc<str>, usize>) -> HashMap<String, Vec<TopicPartition>> {
        let mut ordered: Vec<&Member> = members.iter().collect();
        ordered.sort_by_key(|member| member.order());

        let mut wanted_by: BTreeMap<&Arc<str>, Vec<&Member>> = BTreeMap::new();
        for member in ordered {
            for topic in &member.subscription.topics {
                let wanting = wanted_by.entry(topic).or_default();
                // A member that names a topic twice is still one member.
                if wanting.last().is_none_or(|last| last.id != member.id) {
                    wanting.push(member);
                }
            }
        }

        let mut assignment: HashMap<String, Vec<TopicPartition>> = HashMap::new();
        for (topic, members) in wanted_by {
            let Some(&count) = counts.get(topic) else { continue };
            let (each, extra) = (count / members.len(), count % members.len());
            let mut numbers = (0..i32::try_from(count).unwrap_or(i32::MAX)).peekable();
            for (place, member) in members.into_iter().enumerate() {
                if numbers.peek().is_none() {
                    break;
                }
                let run = numbers.by_ref().take(each + usize::from(place < extra));
                let partitions = run.map(|partition| TopicPartition { topic: topic.clone(), partition });
                assignment.entry(member.id.clone()).or_default().extend(partitions);
            }
        }
        assignment
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::group::protocol::MemberSubscription;

    fn member(id: &str, instance_id: Option<&str>, topics: &[&str]) -> Member {
        let topics = topics.iter().map(|&topic| topic.into()).collect();
        Member {
            id: id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
            subscription: MemberSubscription { topics, generation: -1, ..MemberSubscription::default() },
        }
    }

    fn counts(topics: &[(&str, usize)]) -> BTreeMap<Arc<str>, usize> {
        topics.iter().map(|&(topic, count)| (topic.into(), count)).collect()
    }

    fn shown(members: &[Member], topics: &[(&str, usize)]) -> String {
        let assignment = Range.assign(members, &counts(topics));
        let of = |member: &Member| {
            let partitions = assignment.get(&member.id).cloned().unwrap_or_default();
            partitions.iter().map(|p| format!("{}-{}", p.topic, p.partition)).collect::<Vec<_>>().join(",")
        };
        members.iter().map(of).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn goldens_of_kafkas_range_assignor() {
        let two = [member("C0", None, &["t0", "t1"]), member("C1", None, &["t1", "t0"])];
        assert_eq!(shown(&two, &[("t0", 3), ("t1", 3)]), "t0-0,t0-1,t1-0,t1-1 | t0-2,t1-2");
        let uneven =
            [member("C0", None, &["t0"]), member("C1", None, &["t0", "t1"]), member("C2", None, &["t0", "t1", "t2"])];
        assert_eq!(shown(&uneven, &[("t0", 1), ("t1", 2), ("t2", 3)]), "t0-0 | t1-0 | t1-1,t2-0,t2-1,t2-2");
    }

    #[test]
    fn members_are_ordered_by_id_and_static_ones_come_first() {
        let members = [member("b", None, &["t"]), member("a", None, &["t"]), member("z", Some("i1"), &["t"])];
        assert_eq!(shown(&members, &[("t", 4)]), "t-3 | t-2 | t-0,t-1");
        // The same static member under a new id keeps its place.
        let members = [member("b", None, &["t"]), member("a", None, &["t"]), member("0", Some("i1"), &["t"])];
        assert_eq!(shown(&members, &[("t", 4)]), "t-3 | t-2 | t-0,t-1");
    }

    #[test]
    fn topics_that_do_not_exist_and_members_too_many_get_nothing() {
        let members = [member("a", None, &["gone", "t", "t"]), member("b", None, &["t"]), member("c", None, &[])];
        assert_eq!(shown(&members, &[("t", 1), ("other", 5)]), "t-0 |  | ");
        assert!(Range.assign(&[], &counts(&[("t", 1)])).is_empty());
    }

    proptest::proptest! {
        /// Each partition of each wanted topic goes to exactly one member that wants it, and shares differ by one at most.
        #[test]
        fn every_partition_has_one_owner(
            wants in proptest::collection::vec(proptest::collection::btree_set(0..4usize, 0..4), 1..7),
            sizes in proptest::collection::vec(0..9usize, 4),
        ) {
            let names = ["t0", "t1", "t2", "t3"];
            let members: Vec<Member> = wants.iter().enumerate().map(|(i, topics)| {
                member(&format!("m{i}"), None, &topics.iter().map(|&t| names[t]).collect::<Vec<_>>())
            }).collect();
            let sizes: Vec<(&str, usize)> = names.into_iter().zip(sizes).collect();
            let assignment = Range.assign(&members, &counts(&sizes));
            for (t, &(name, size)) in sizes.iter().enumerate() {
                let mut seen = Vec::new();
                let mut shares = Vec::new();
                for (i, topics) in wants.iter().enumerate() {
                    let given = assignment.get(&format!("m{i}")).cloned().unwrap_or_default();
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
