//! Chooses the partition of a record in one topic, by the partitioner's rule and the topic's
//! leaders.
//!
//! Sans-IO.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::{
    Partitioning, Rule,
    custom::{Leader, TopicSnapshot, ask},
    load::{BrokerUnavailable, PartitionLoad},
    sticky::{Candidate, Preference, Sticky},
};
use crate::{error::Error, record::Record};

/// The choice for a record.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This partition, if the topic has it.
    Partition(usize),
    /// The partition of the current turn.
    Any,
    /// The custom partitioner failed.
    Refused(Error),
}

/// The state by which partitions of a topic are chosen, as long as its leaders stay.
#[derive(Debug)]
pub(crate) struct Chooser {
    /// Leaders in the order of the partitions.
    leaders: Vec<Leader>,
    pub(crate) sticky: Sticky,
    /// Number of the next record for round robin.
    next: AtomicU32,
}

impl Chooser {
    /// Creates the chooser of a topic with these leaders, in the order of the partitions. `rack` is
    /// the producer's own; `before` is the chooser that this one replaces.
    pub(crate) fn new(
        seed: u64,
        leaders: Vec<Leader>,
        partitioning: &Partitioning,
        rack: Option<&str>,
        load: impl Fn(usize) -> Arc<PartitionLoad>,
        mut clogged: impl FnMut(i32) -> BrokerUnavailable,
        before: Option<&Self>,
    ) -> Self {
        let nobody_leads = leaders.iter().all(|leader| leader.node.is_none());
        let there = leaders.iter().enumerate().filter(|(_, leader)| leader.node.is_some() || nobody_leads);
        let candidates = there
            .map(|(index, leader)| Candidate {
                partition: u32::try_from(index).unwrap_or(u32::MAX),
                local: rack.is_some() && leader.rack.as_deref() == rack,
                load: load(index),
                clogged: leader.node.map(&mut clogged).unwrap_or_default(),
            })
            .collect();
        let preference = Preference {
            adaptive: partitioning.adaptive,
            available: partitioning.availability().is_some(),
            local: partitioning.rack_aware,
        };
        let next = before.map_or(0, |before| before.next.load(Ordering::Relaxed));
        Self { leaders, sticky: Sticky::new(seed, candidates, preference), next: AtomicU32::new(next) }
    }

    /// Returns true if this chooser may stay in use with these leaders. If only the existence of
    /// leaders matters (`heeds_leaders` is false), it stays while the same partitions have a
    /// leader, and also while none has one.
    pub(crate) fn suits(&self, leaders: &[Leader], heeds_leaders: bool) -> bool {
        if heeds_leaders || self.leaders.len() != leaders.len() {
            return self.leaders == leaders;
        }
        let led = |leader: &Leader| leader.node.is_some();
        !leaders.iter().any(led) || leaders.iter().map(led).eq(self.leaders.iter().map(led))
    }

    /// Returns the choice for a record of the topic. Calls `let_go` before the custom partitioner.
    #[inline]
    pub(crate) fn choose(
        &self,
        record: &Record<'_>,
        topic: &str,
        partitioning: &Partitioning,
        let_go: impl FnOnce(),
    ) -> Choice {
        if let Some(partition) = record.partition() {
            return Choice::Partition(usize::try_from(partition).unwrap_or(usize::MAX));
        }
        let key = record.key();
        match partitioning.rule(key, self.leaders.len()) {
            Rule::Partition(partition) => Choice::Partition(partition),
            Rule::Any => Choice::Any,
            Rule::Random => Choice::Partition(self.sticky.random() as usize),
            Rule::Next => Choice::Partition(self.next() as usize),
            Rule::Ask(custom) => {
                let_go();
                match ask(custom, record, &TopicSnapshot::new(topic, &self.leaders)) {
                    Ok(Some(partition)) => Choice::Partition(partition),
                    Ok(None) => Choice::Any,
                    Err(error) => Choice::Refused(error),
                }
            }
        }
    }

    fn next(&self) -> u32 {
        let candidates = self.sticky.candidates();
        // As in Java, the turn jumps when the number overflows.
        let next = self.next.fetch_add(1, Ordering::Relaxed) as usize;
        let at = next.checked_rem(candidates.len()).unwrap_or(0);
        candidates.get(at).map_or(0, |candidate| candidate.partition)
    }
}
