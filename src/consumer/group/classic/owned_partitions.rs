//! The partitions that a classic member owns, and those that it gives up.
//!
//! Sans-IO.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    consumer::group::{assignor::LastAssignment, member_snapshot::Owned},
    record::TopicPartition,
};

#[derive(Debug, Default)]
pub(super) struct OwnedPartitions {
    owned: Arc<Owned>,
    /// Number of accepted assignments.
    assignments: u64,
    /// The last assignment, for assignors that remember it, and the generation in which the owned
    /// partitions were confirmed.
    last: LastAssignment,
    /// The consumer unsubscribed, and may have dropped any of the owned partitions: all of them are
    /// given up first, even if it has subscribed again since.
    revoke_all: bool,
}

/// An accepted assignment, as it differs from the owned partitions.
#[derive(Debug)]
pub(super) struct AssignmentChange {
    pub(super) added: Vec<TopicPartition>,
    /// Owned partitions that other members are to have.
    pub(super) taken: BTreeSet<TopicPartition>,
}

impl OwnedPartitions {
    pub(super) fn is_empty(&self) -> bool {
        self.owned.is_empty()
    }

    /// Returns the owned partitions in the form that the handles see.
    pub(super) fn shown(&self) -> Arc<Owned> {
        self.owned.clone()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &TopicPartition> {
        self.owned.keys()
    }

    pub(super) fn last_assignment(&self) -> &LastAssignment {
        &self.last
    }

    /// Takes over an assignment. The taken partitions stay owned until they are given up.
    pub(super) fn assign(&mut self, assigned: BTreeSet<TopicPartition>, generation: i32) -> AssignmentChange {
        self.assignments += 1;
        self.last = LastAssignment { partitions: assigned.iter().cloned().collect(), generation };
        let taken = self.iter().filter(|partition| !assigned.contains(*partition)).cloned().collect();
        let added: Vec<TopicPartition> =
            assigned.into_iter().filter(|partition| !self.owned.contains_key(partition)).collect();
        let since = self.assignments;
        Arc::make_mut(&mut self.owned).extend(added.iter().map(|partition| (partition.clone(), since)));
        AssignmentChange { added, taken }
    }

    /// Records that the consumer unsubscribed.
    pub(super) fn unsubscribed(&mut self) {
        self.revoke_all |= !self.is_empty();
    }

    /// Returns the partitions to give up. Those of the topics in `kept` stay, unless the consumer
    /// has unsubscribed in the meantime.
    pub(super) fn select_for_revocation(&mut self, kept: Option<&BTreeSet<Arc<str>>>) -> BTreeSet<TopicPartition> {
        let kept = if std::mem::take(&mut self.revoke_all) { None } else { kept };
        let stays = |partition: &&TopicPartition| kept.is_some_and(|topics| topics.contains(&partition.topic));
        self.iter().filter(|partition| !stays(partition)).cloned().collect()
    }

    pub(super) fn remove(&mut self, partitions: &BTreeSet<TopicPartition>) {
        Arc::make_mut(&mut self.owned).retain(|partition, _| !partitions.contains(partition));
    }

    /// Removes all partitions, and returns them.
    pub(super) fn lose_all(&mut self) -> Vec<TopicPartition> {
        self.revoke_all = false;
        let lost = self.iter().cloned().collect();
        self.owned = Arc::default();
        lost
    }
}
