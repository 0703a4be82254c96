//! The partitions of a transaction of the first protocol: those to add, and those added.
//!
//! Sans-IO.

use std::collections::BTreeMap;

use crate::record::TopicPartition;

/// The place of a partition in the sender.
pub(crate) type Slot = usize;

#[derive(Debug, Default)]
pub(crate) struct Partitions {
    wanted: BTreeMap<TopicPartition, Slot>,
    adding: BTreeMap<TopicPartition, Slot>,
    added: BTreeMap<TopicPartition, Slot>,
}

impl Partitions {
    /// Notes a partition that the next records go to.
    pub(crate) fn want(&mut self, partition: TopicPartition, slot: Slot) {
        if !self.added.contains_key(&partition) && !self.adding.contains_key(&partition) {
            self.wanted.insert(partition, slot);
        }
    }

    /// Returns the partitions of the next request; empty if there is nothing to add.
    pub(crate) fn start_adding(&mut self) -> Vec<TopicPartition> {
        self.adding = std::mem::take(&mut self.wanted);
        self.adding.keys().cloned().collect()
    }

    /// Records that the coordinator has added the partitions of the request; returns their slots.
    pub(crate) fn confirm_added(&mut self) -> Vec<Slot> {
        let slots = self.adding.values().copied().collect();
        self.added.append(&mut self.adding);
        slots
    }

    /// Drops the partitions that are not added yet, because the transaction will not commit.
    pub(crate) fn drop_wanted(&mut self) {
        self.wanted.clear();
    }

    pub(crate) fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }

    pub(crate) fn has_added(&self) -> bool {
        !self.added.is_empty()
    }
}
