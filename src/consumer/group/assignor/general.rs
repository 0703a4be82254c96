//! The sticky strategy if members are subscribed to different topics: leaves every partition with
//! its owner if it may stay, deals the rest, then moves partitions from members with more to
//! members with fewer until no move makes the shares more even.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    GroupSubscription,
    sticky::{Previous, Racks},
};
use crate::record::TopicPartition;

/// The member that gives and the member that gets.
type Move = (usize, usize);

struct Balance<'a> {
    group: &'a GroupSubscription,
    racks: &'a Racks<'a>,
    /// The members that are subscribed to each existing topic.
    wanted_by: BTreeMap<&'a str, Vec<usize>>,
    shares: Vec<BTreeSet<TopicPartition>>,
    owner: BTreeMap<TopicPartition, usize>,
    /// The members that take part, by the size of their shares.
    order: BTreeSet<(usize, usize)>,
    /// Owner of each partition in an earlier generation.
    before: BTreeMap<TopicPartition, usize>,
    moved: Movements,
}

pub(super) fn assign(
    group: &GroupSubscription,
    previous: Previous,
    racks: &Racks<'_>,
) -> Vec<BTreeSet<TopicPartition>> {
    let wanted_by = group.topics.keys().map(|topic| {
        let wants = group.members.iter().enumerate().filter(|(_, member)| member.wants(topic));
        (&**topic, wants.map(|(place, _)| place).collect())
    });
    let wanted_by: BTreeMap<&str, Vec<usize>> = wanted_by.collect();
    let mut balance = Balance {
        group,
        racks,
        shares: previous.owned,
        owner: BTreeMap::new(),
        order: BTreeSet::new(),
        before: previous.before,
        moved: Movements::default(),
        wanted_by,
    };
    balance.run();
    balance.shares
}

impl Balance<'_> {
    fn run(&mut self) {
        // Topics with few subscribers come first.
        let mut topics: Vec<&Arc<str>> = self.group.topics.keys().collect();
        topics.sort_by_key(|topic| (self.takers(topic).len(), *topic));
        let all = self.group.partitions(topics);
        let taken_away = self.keep();
        self.order = self.shares.iter().enumerate().map(|(member, share)| (share.len(), member)).collect();
        let fresh = self.shares.iter().all(BTreeSet::is_empty);
        let mut new: Vec<TopicPartition> =
            all.iter().filter(|partition| !self.owner.contains_key(*partition)).cloned().collect();
        self.deal(&new);

        // Partitions with only one possible owner take no part from here on, nor do members that
        // have nothing else.
        let mut movable = all;
        movable.retain(|partition| self.takers(&partition.topic).len() >= 2);
        new.retain(|partition| self.takers(&partition.topic).len() >= 2);
        let (shares, group) = (&self.shares, self.group);
        let takes_part = |member: usize| {
            let has = shares.get(member).map_or(0, BTreeSet::len);
            has < self.could_have(member)
                || shares.get(member).into_iter().flatten().any(|partition| self.takers(&partition.topic).len() >= 2)
        };
        let fixed: BTreeSet<usize> = (0..group.members.len()).filter(|member| !takes_part(*member)).collect();
        self.order.retain(|(_, member)| !fixed.contains(member));

        let untouched = (self.shares.clone(), self.owner.clone());
        if !taken_away {
            self.even_out(&new);
        }
        let moved = self.even_out(&movable);
        let score = |shares: &[BTreeSet<TopicPartition>]| {
            let sizes = shares.iter().enumerate().filter(|(member, _)| !fixed.contains(member));
            unevenness(sizes.map(|(_, share)| share.len()).collect())
        };
        if !fresh && moved && score(&self.shares) >= score(&untouched.0) {
            (self.shares, self.owner) = untouched;
        }
    }

    fn takers(&self, topic: &str) -> &[usize] {
        self.wanted_by.get(topic).map_or(&[], Vec::as_slice)
    }

    fn wants(&self, member: usize, topic: &str) -> bool {
        self.group.members.get(member).is_some_and(|member| member.wants(topic))
    }

    fn has(&self, member: usize) -> usize {
        self.shares.get(member).map_or(0, BTreeSet::len)
    }

    fn could_have(&self, member: usize) -> usize {
        let topics = self.group.members.get(member).into_iter().flat_map(|member| &member.topics);
        topics.filter_map(|topic| self.group.topics.get(topic)).map(Vec::len).sum()
    }

    /// Takes away partitions that members may not keep. Returns true if there were any.
    fn keep(&mut self) -> bool {
        let (group, racks) = (self.group, self.racks);
        let mut taken_away = false;
        for (member, share) in self.shares.iter_mut().enumerate() {
            let wants = |topic: &str| group.members.get(member).is_some_and(|member| member.wants(topic));
            share.retain(|partition| {
                let stays = wants(&partition.topic) && !racks.mismatch(member, partition);
                taken_away |= !stays;
                stays
            });
            self.owner.extend(share.iter().map(|partition| (partition.clone(), member)));
        }
        taken_away
    }

    /// Gives each partition to the subscribed member with the smallest share; members with a
    /// replica in their rack come first.
    fn deal(&mut self, new: &[TopicPartition]) {
        let far: Vec<&TopicPartition> = if self.racks.matter() {
            new.iter().filter(|partition| !self.deal_one(partition, true)).collect()
        } else {
            new.iter().collect()
        };
        for partition in far {
            self.deal_one(partition, false);
        }
    }

    fn deal_one(&mut self, partition: &TopicPartition, replica: bool) -> bool {
        let suits = |member: usize| {
            self.wants(member, &partition.topic) && !(replica && self.racks.mismatch(member, partition))
        };
        let Some(member) = self.order.iter().map(|(_, member)| *member).find(|member| suits(*member)) else {
            return false;
        };
        self.change(member, |share| share.insert(partition.clone()));
        self.owner.insert(partition.clone(), member);
        true
    }

    /// Changes a member's share and keeps the order.
    fn change(&mut self, member: usize, change: impl FnOnce(&mut BTreeSet<TopicPartition>) -> bool) {
        self.order.remove(&(self.has(member), member));
        if let Some(share) = self.shares.get_mut(member) {
            change(share);
        }
        self.order.insert((self.has(member), member));
    }

    /// Returns true if no member could take a partition from a member that has at least two more.
    fn is_even(&self) -> bool {
        let (Some((least, _)), Some((most, _))) = (self.order.first(), self.order.last()) else { return true };
        if least + 1 >= *most {
            return true;
        }
        let mut most_by_topic: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for (size, member) in &self.order {
            for partition in self.shares.get(*member).into_iter().flatten() {
                let most = most_by_topic.entry(&partition.topic).or_default();
                *most = (*most).max(*size);
            }
        }
        self.order.iter().all(|(size, member)| {
            let topics = self.group.members.get(*member).into_iter().flat_map(|member| &member.topics);
            topics.filter_map(|topic| most_by_topic.get(topic)).all(|most| size + 1 >= *most)
        })
    }

    /// Moves these partitions until no move makes the shares more even. Returns true if any moved.
    fn even_out(&mut self, partitions: &[TopicPartition]) -> bool {
        let mut any = false;
        loop {
            let mut moved = false;
            for partition in partitions {
                if self.is_even() {
                    break;
                }
                let Some(&owner) = self.owner.get(partition) else { continue };
                let has = self.has(owner);
                if let Some(&former) = self.before.get(partition)
                    && self.wants(former, &partition.topic)
                    && has > self.has(former) + 1
                {
                    moved |= self.give(partition, owner, former);
                    continue;
                }
                let has_less = |member: &&usize| has > self.has(**member) + 1;
                if self.takers(&partition.topic).iter().any(|member| has_less(&member)) {
                    let mut by_need = self.order.iter().map(|(_, member)| *member);
                    if let Some(taker) = by_need.find(|member| self.wants(*member, &partition.topic)) {
                        moved |= self.give(partition, owner, taker);
                    }
                }
            }
            any |= moved;
            if !moved {
                return any;
            }
        }
    }

    /// Gives a partition to another member; or in its place one that was moved the other way, so
    /// that it returns.
    fn give(&mut self, partition: &TopicPartition, from: usize, to: usize) -> bool {
        let partition = self.moved.instead_of(partition, from, to);
        let Some(&from) = self.owner.get(&partition) else { return false };
        if from == to {
            return false;
        }
        self.moved.note(&partition, from, to);
        self.change(from, |share| share.remove(&partition));
        self.change(to, |share| share.insert(partition.clone()));
        self.owner.insert(partition, to);
        true
    }
}

/// Returns the sum of the differences between all pairs.
fn unevenness(sizes: Vec<usize>) -> usize {
    let pairs =
        sizes.iter().enumerate().flat_map(|(at, one)| sizes.iter().skip(at + 1).map(|other| one.abs_diff(*other)));
    pairs.sum()
}

/// The moves so far, so that no two members swap partitions of a topic needlessly.
#[derive(Default)]
struct Movements {
    by_partition: BTreeMap<TopicPartition, Move>,
    by_topic: BTreeMap<Arc<str>, BTreeMap<Move, BTreeSet<TopicPartition>>>,
}

impl Movements {
    fn instead_of(&self, partition: &TopicPartition, from: usize, to: usize) -> TopicPartition {
        let from = self.by_partition.get(partition).map_or(from, |(connection, _)| *connection);
        let back = self.by_topic.get(&partition.topic).and_then(|moves| moves.get(&(to, from))?.first());
        back.unwrap_or(partition).clone()
    }

    fn note(&mut self, partition: &TopicPartition, from: usize, to: usize) {
        let moves = self.by_topic.entry(partition.topic.clone()).or_default();
        let connection = match self.by_partition.remove(partition) {
            Some(former) => {
                if let Some(same) = moves.get_mut(&former) {
                    same.remove(partition);
                    if same.is_empty() {
                        moves.remove(&former);
                    }
                }
                former.0
            }
            None => from,
        };
        if connection != to {
            moves.entry((connection, to)).or_default().insert(partition.clone());
            self.by_partition.insert(partition.clone(), (connection, to));
        }
    }
}
