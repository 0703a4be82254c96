//! The assignors: Kafka's `range`, and a `uniform` that moves as few partitions as it can.
//!
//! Sans-IO.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::Held;

type Members = BTreeMap<String, BTreeSet<Uuid>>;
type Counts = BTreeMap<Uuid, i32>;

/// Assigns each topic in consecutive runs to the members that subscribe to it; the first members
/// get one partition more if the division leaves a remainder.
pub(super) fn range(members: &Members, counts: &Counts) -> BTreeMap<String, Held> {
    let mut target: BTreeMap<String, Held> = members.keys().map(|id| (id.clone(), Held::new())).collect();
    for (topic, &count) in counts {
        let takers: Vec<&String> =
            members.iter().filter(|(_, wanted)| wanted.contains(topic)).map(|(id, _)| id).collect();
        let all = i32::try_from(takers.len()).unwrap_or(i32::MAX);
        let (Some(each), Some(more)) = (count.checked_div(all), count.checked_rem(all)) else { continue };
        let mut next = 0;
        for (place, id) in (0..).zip(takers) {
            let end = next + each + i32::from(place < more);
            let held = target.entry(id.clone()).or_default();
            if next < end {
                held.insert(*topic, (next..end).collect());
            }
            next = end;
        }
    }
    target
}

/// Assigns as evenly as the subscriptions allow.
pub(super) fn uniform(members: &Members, counts: &Counts, before: &BTreeMap<String, Held>) -> BTreeMap<String, Held> {
    let mut target: BTreeMap<String, Held> = members.keys().map(|id| (id.clone(), Held::new())).collect();
    let wants = |id: &str, topic: &Uuid| members.get(id).is_some_and(|wanted| wanted.contains(topic));
    for (topic, &count) in counts {
        for partition in 0..count {
            let had = |held: &Held| held.get(topic).is_some_and(|had| had.contains(&partition));
            let stays = before.iter().find(|(id, held)| had(held) && wants(id, topic)).map(|(id, _)| id.clone());
            let least = || target.iter().filter(|(id, _)| wants(id, topic)).min_by_key(|(_, held)| size(held));
            let Some(taker) = stays.or_else(|| least().map(|(id, _)| id.clone())) else { continue };
            target.entry(taker).or_default().entry(*topic).or_default().insert(partition);
        }
    }
    // Moves partitions from members with more to members with fewer, as long as that makes the
    // assignment more even.
    while let Some((from, to, topic, partition)) = one_move(&target, wants) {
        if let Some(held) = target.get_mut(&from) {
            held.entry(topic).or_default().remove(&partition);
            held.retain(|_, partitions| !partitions.is_empty());
        }
        target.entry(to).or_default().entry(topic).or_default().insert(partition);
    }
    target
}

fn size(held: &Held) -> usize {
    held.values().map(BTreeSet::len).sum()
}

fn one_move(
    target: &BTreeMap<String, Held>,
    wants: impl Fn(&str, &Uuid) -> bool,
) -> Option<(String, String, Uuid, i32)> {
    let mut by_size: Vec<(&String, &Held)> = target.iter().collect();
    by_size.sort_by_key(|(_, held)| size(held));
    for (from, held) in by_size.iter().rev() {
        for (to, less) in by_size.iter().take_while(|(_, less)| size(less) + 1 < size(held)) {
            debug_assert!(size(less) < size(held));
            let movable = held.iter().rev().find(|(topic, _)| wants(to, topic));
            if let Some((topic, partition)) = movable.and_then(|(topic, all)| Some((topic, all.last()?))) {
                return Some(((*from).clone(), (*to).clone(), *topic, *partition));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn members(all: &[(&str, &[Uuid])]) -> Members {
        all.iter().map(|(id, topics)| ((*id).to_owned(), topics.iter().copied().collect())).collect()
    }

    #[test]
    fn range_assigns_consecutive_partitions_per_topic() {
        let counts = Counts::from([(A, 3), (B, 4)]);
        let target = range(&members(&[("m1", &[A, B]), ("m2", &[A, B])]), &counts);
        assert_eq!(target["m1"], Held::from([(A, [0, 1].into()), (B, [0, 1].into())]));
        assert_eq!(target["m2"], Held::from([(A, [2].into()), (B, [2, 3].into())]));
        assert_eq!(range(&members(&[("m1", &[])]), &counts)["m1"], Held::new());
    }

    #[test]
    fn uniform_balances_with_fewest_partition_moves() {
        let counts = Counts::from([(A, 6)]);
        let one = uniform(&members(&[("m1", &[A])]), &counts, &BTreeMap::new());
        let two = uniform(&members(&[("m1", &[A]), ("m2", &[A])]), &counts, &one);
        assert_eq!((size(&two["m1"]), size(&two["m2"])), (3, 3));
        assert!(two["m1"][&A].is_subset(&one["m1"][&A]));
        let three = uniform(&members(&[("m1", &[A]), ("m2", &[A]), ("m3", &[A, B])]), &counts, &two);
        assert!(three.values().all(|held| size(held) == 2));
        let back = uniform(&members(&[("m1", &[A]), ("m3", &[B])]), &Counts::from([(A, 6), (B, 1)]), &three);
        assert_eq!((size(&back["m1"]), size(&back["m3"])), (6, 1));
    }
}
