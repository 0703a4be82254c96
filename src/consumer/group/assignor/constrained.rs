//! The sticky strategy where all members want the same topics: each gets `least` partitions, or one
//! more.
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
    /// Members that are to get more than `least`, and those that have.
    to_exceed: usize,
    exceeding: usize,
    /// Members that have less than `least`, in order.
    short: Vec<usize>,
    /// Members that have `least` and may get one more.
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
        // Those first that fewest can take.
        let takers: BTreeMap<TopicPartition, usize> =
            left.iter().map(|partition| (partition.clone(), racks.takers(partition))).collect();
        left.sort_by_key(|partition| takers.get(partition).copied().unwrap_or(0));
        dealing.deal_nearby(&mut left);
    }
    dealing.deal(left);
    dealing.shares
}

impl Dealing<'_> {
    /// Leaves members what they had, as far as it is not too much and not far away.
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

    /// One more member has more than `least`; when enough have, all others are done at `least`.
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

    /// Gives, in turn, to members that have a replica in their rack, and takes what was given out
    /// of the list.
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

    /// Gives to those that are short in turn, then one more each to those that are level.
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
                    // There is one for each partition that is left, by the numbers above.
                    if let Some(member) = self.level.pop_front() {
                        self.give(member, partition);
                    }
                }
            }
        }
    }
}
