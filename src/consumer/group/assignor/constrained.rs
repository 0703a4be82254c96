//! The sticky strategy if all members are subscribed to the same topics: each gets `least`
//! partitions, or one more.
//!
//! Sans-IO.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{
    GroupSubscription,
    sticky::{Previous, Racks},
};
use crate::record::TopicPartition;

struct Dealing<'a> {
    racks: &'a Racks<'a>,
    least: usize,
    most: usize,
    /// Number of members that get more than `least`, and of those that already have more.
    to_exceed: usize,
    exceeding: usize,
    /// Members with fewer than `least` partitions, in order.
    short: Vec<usize>,
    /// Members with `least` partitions that may get one more.
    level: VecDeque<usize>,
    shares: Vec<BTreeSet<TopicPartition>>,
}

pub(super) fn assign(
    group: &GroupSubscription,
    previous: &Previous,
    racks: &Racks<'_>,
) -> Vec<BTreeSet<TopicPartition>> {
    let topics: BTreeSet<_> = group.members.iter().flat_map(|member| &member.topics).collect();
    let all = group.partitions(topics);
    let members = group.members.len();
    let mut dealing = Dealing {
        racks,
        least: all.len() / members,
        most: all.len().div_ceil(members),
        to_exceed: all.len() % members,
        exceeding: 0,
        short: Vec::new(),
        level: VecDeque::new(),
        shares: vec![BTreeSet::new(); members],
    };
    dealing.keep(previous);
    let kept: BTreeSet<TopicPartition> = dealing.shares.iter().flatten().cloned().collect();
    let mut left: Vec<TopicPartition> = all.into_iter().filter(|partition| !kept.contains(partition)).collect();
    if racks.matter() {
        // Partitions that few members are near come first.
        let takers: BTreeMap<TopicPartition, usize> =
            left.iter().map(|partition| (partition.clone(), racks.takers(partition))).collect();
        left.sort_by_key(|partition| takers.get(partition).copied().unwrap_or(0));
        dealing.deal_nearby(&mut left);
    }
    dealing.deal(left);
    dealing.shares
}

impl Dealing<'_> {
    /// Leaves members the partitions that they had, up to their share, unless their rack has no
    /// replica.
    fn keep(&mut self, previous: &Previous) {
        for (member, owned) in previous.owned.iter().enumerate() {
            let racks = self.racks;
            let mut owned: Vec<TopicPartition> =
                owned.iter().filter(|partition| !racks.mismatch(member, partition)).cloned().collect();
            owned.retain(|partition| !previous.contested.contains(partition));
            owned.sort_by(|one, other| (one.partition, &one.topic).cmp(&(other.partition, &other.topic)));
            let keeps = if owned.len() < self.least {
                self.short.push(member);
                owned.len()
            } else if owned.len() >= self.most && self.exceeding < self.to_exceed {
                self.exceed();
                self.most
            } else {
                if self.exceeding < self.to_exceed {
                    self.level.push_back(member);
                }
                self.least
            };
            if let Some(share) = self.shares.get_mut(member) {
                share.extend(owned.into_iter().take(keeps));
            }
        }
        self.level.make_contiguous().sort_unstable();
    }

    /// Counts a member with more than `least`; once there are enough, all others are complete at
    /// `least`.
    fn exceed(&mut self) {
        self.exceeding += 1;
        if self.exceeding == self.to_exceed {
            self.level.clear();
        }
    }

    fn give(&mut self, member: usize, partition: TopicPartition) -> usize {
        let Some(share) = self.shares.get_mut(member) else { return 0 };
        share.insert(partition);
        share.len()
    }

    fn has(&self, member: usize) -> usize {
        self.shares.get(member).map_or(0, BTreeSet::len)
    }

    /// Deals partitions in turn to members with a replica in their rack, and removes these
    /// partitions from the list.
    fn deal_nearby(&mut self, left: &mut Vec<TopicPartition>) {
        let mut next = 0;
        left.retain(|partition| {
            let mut in_turn = (0..self.short.len()).map(|turn| (next + turn) % self.short.len());
            let near = |at: &usize| self.short.get(*at).is_some_and(|member| self.racks.is_near(*member, partition));
            if let Some(at) = in_turn.find(near) {
                let Some(&member) = self.short.get(at) else { return true };
                let will_have = self.has(member) + 1;
                next = at + 1;
                if will_have >= self.least {
                    self.short.remove(at);
                    next = at;
                    if will_have < self.most && self.exceeding < self.to_exceed {
                        self.level.push_back(member);
                    }
                }
                next = if self.short.is_empty() { 0 } else { next % self.short.len() };
                self.give(member, partition.clone());
                return false;
            }
            let Some(at) = self.level.iter().position(|member| self.racks.is_near(*member, partition)) else {
                return true;
            };
            let Some(&member) = self.level.get(at) else { return true };
            if self.has(member) + 1 == self.most {
                self.level.remove(at);
                self.exceed();
            }
            self.give(member, partition.clone());
            false
        });
    }

    /// Deals to the members below `least` in turn, then one more each to the level ones.
    fn deal(&mut self, left: Vec<TopicPartition>) {
        let mut next = 0;
        for partition in left {
            if next >= self.short.len() {
                next = 0;
            }
            match self.short.get(next).copied() {
                Some(member) if self.give(member, partition.clone()) == self.least => {
                    self.short.remove(next);
                    self.level.push_back(member);
                }
                Some(_) => next += 1,
                None => {
                    // By the numbers above there is one for each remaining partition.
                    if let Some(member) = self.level.pop_front() {
                        self.give(member, partition);
                    }
                }
            }
        }
    }
}
