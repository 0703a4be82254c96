//! The assigned partitions, and the ownership periods in which the group assigned them.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use crate::consumer::{
    fetch::connections::FetchConnections,
    subscription::{
        delivery_progress::DeliveryProgress, fetch_position::FetchState, ownership::Ownership,
        partition_state::PartitionState,
    },
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::TopicPartition,
};

#[derive(Debug, Default)]
pub(crate) struct Partitions {
    by_name: HashMap<TopicPartition, PartitionState>,
    /// Partitions that the group assigned, that a call of the user replaced, and for which the
    /// rebalance listener was not told of the revocation; the group has yet to revoke them. Maps to
    /// the number of the ownership.
    replaced: BTreeMap<TopicPartition, u64>,
    seek_epochs: SeekEpochs,
    /// True if the consumer's own task has to be woken: partitions came or went, have a new leader,
    /// or need an offset request.
    wakes_task: bool,
}

/// Numbers each change of a partition's position, so that requests and records from before the
/// change are recognized as stale.
#[derive(Debug, Default)]
pub(crate) struct SeekEpochs(u64);

impl SeekEpochs {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// One partition's state, with what all partitions share.
pub(crate) struct PartitionEntry<'a> {
    pub(crate) state: &'a mut PartitionState,
    pub(crate) seek_epochs: &'a mut SeekEpochs,
    pub(crate) wakes_task: &'a mut bool,
}

/// Returns the error that says that a partition is not assigned.
pub(crate) fn not_assigned(partition: &TopicPartition) -> Error {
    Error::new(ErrorKind::NotAssigned, format!("{partition} is not assigned to this consumer"))
}

impl Partitions {
    // ---- access

    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    pub(crate) fn get(&self, partition: &TopicPartition) -> Option<&PartitionState> {
        self.by_name.get(partition)
    }

    pub(crate) fn get_mut(&mut self, partition: &TopicPartition) -> Option<&mut PartitionState> {
        self.by_name.get_mut(partition)
    }

    /// Returns the partition's state, or an error that says that it is not assigned.
    pub(crate) fn assigned(&self, partition: &TopicPartition) -> Result<&PartitionState> {
        self.get(partition).ok_or_else(|| not_assigned(partition))
    }

    pub(crate) fn entry(&mut self, partition: &TopicPartition) -> Option<PartitionEntry<'_>> {
        let Self { by_name, seek_epochs, wakes_task, .. } = self;
        by_name.get_mut(partition).map(|state| PartitionEntry { state, seek_epochs, wakes_task })
    }

    /// Returns the state of the progress's partition, if that was not positioned again since.
    pub(crate) fn of_progress_mut(&mut self, progress: &Arc<DeliveryProgress>) -> Option<&mut PartitionState> {
        self.get_mut(progress.partition()).filter(|state| state.is_under(progress))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &PartitionState)> {
        self.by_name.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&TopicPartition, &mut PartitionState)> {
        self.by_name.iter_mut()
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = &PartitionState> {
        self.by_name.values()
    }

    /// Returns the names of all assigned partitions, sorted.
    pub(crate) fn names(&self) -> Vec<TopicPartition> {
        self.names_where(|_| true)
    }

    /// Returns the names of the partitions in that state, sorted.
    pub(crate) fn names_where(&self, wanted: impl Fn(&PartitionState) -> bool) -> Vec<TopicPartition> {
        let wanted = self.by_name.iter().filter(|(_, state)| wanted(state));
        let mut names: Vec<_> = wanted.map(|(partition, _)| partition.clone()).collect();
        names.sort_unstable();
        names
    }

    // ---- changes

    pub(crate) fn insert(&mut self, partition: TopicPartition, state: PartitionState) {
        self.by_name.insert(partition, state);
    }

    pub(crate) fn remove(&mut self, partition: &TopicPartition) -> Option<PartitionState> {
        self.by_name.remove(partition)
    }

    pub(crate) fn next_seek_epoch(&mut self) -> u64 {
        self.seek_epochs.next()
    }

    /// Returns the number of the last positioning of any partition.
    pub(crate) fn last_seek_epoch(&self) -> u64 {
        self.seek_epochs.0
    }

    /// Wakes the consumer's own task.
    pub(crate) fn wake_task(&mut self) {
        self.wakes_task = true;
    }

    /// Returns true once if the consumer's own task has to be woken.
    pub(crate) fn take_task_wakeup(&mut self) -> bool {
        std::mem::take(&mut self.wakes_task)
    }

    /// Fetches a partition again from an offset up to which everything is buffered or was
    /// delivered.
    pub(crate) fn refetch_from(&mut self, partition: &TopicPartition, offset: i64, connections: &mut FetchConnections) {
        let Some(state) = self.by_name.get_mut(partition) else { return };
        let unknown = FetchState::Fetching { offset, epoch: -1 };
        let fetching = state.progress.as_ref().map_or(unknown, |progress| progress.fetching_from(offset));
        self.wakes_task |= state.enter_fetch_state(partition, fetching);
        connections.mark_changed(state.connection_id(), partition);
    }

    // ---- ownership

    /// Returns true if the partition is assigned and not being revoked.
    pub(crate) fn is_owned(&self, partition: &TopicPartition) -> bool {
        self.get(partition).is_some_and(|state| !state.revoking)
    }

    /// Records that a call of the user replaces the partition. The group will revoke it if it
    /// assigned it, and the rebalance listener has yet to be told.
    pub(crate) fn record_replacement(&mut self, partition: &TopicPartition) {
        let untold = self.by_name.get(partition).filter(|state| state.of_group && !state.revocation_announced);
        if let Some(number) = untold.map(|state| state.ownership) {
            self.replaced.insert(partition.clone(), number);
        }
    }

    /// Returns those of these partitions (without a list, of all that the group assigned) that the
    /// rebalance listener does not yet know to be revoked, and marks them as announced.
    pub(crate) fn announce_revocation(&mut self, only: Option<&[Ownership]>) -> Vec<TopicPartition> {
        let wanted = |partition: &TopicPartition, number: u64| {
            only.is_none_or(|only| only.iter().any(|one| one.number == number && one.partition == *partition))
        };
        let mut announced = Vec::new();
        for (partition, state) in &mut self.by_name {
            if state.of_group && !state.revocation_announced && wanted(partition, state.ownership) {
                state.revocation_announced = true;
                announced.push(partition.clone());
            }
        }
        self.replaced.retain(|partition, number| {
            let announces = wanted(partition, *number);
            if announces {
                announced.push(partition.clone());
            }
            !announces
        });
        announced.sort_unstable();
        announced
    }

    /// Returns true if the rebalance listener was told of the revocation of any of these. Without a
    /// list it returns true, because for all partitions together this is not known.
    pub(crate) fn any_revocation_announced(&self, only: Option<&[Ownership]>) -> bool {
        let announced = |one: &Ownership| self.get(&one.partition).is_some_and(|state| state.revocation_announced);
        only.is_none_or(|only| only.iter().any(announced))
    }

    /// Returns the ownerships that the group revokes now, given the partitions' names: the latest
    /// that it assigned, even if they are no longer read.
    pub(crate) fn ownerships(&self, partitions: &[TopicPartition]) -> Vec<Ownership> {
        let number = |partition: &TopicPartition| {
            let read = self.get(partition).filter(|state| state.of_group).map(|state| state.ownership);
            read.or_else(|| self.replaced.get(partition).copied())
        };
        let known = partitions.iter().filter_map(|partition| Some((partition, number(partition)?)));
        known.map(|(partition, number)| Ownership { partition: partition.clone(), number }).collect()
    }

    /// Returns the partitions of those ownerships that are still read.
    pub(crate) fn still_owned(&self, ownerships: &[Ownership]) -> Vec<TopicPartition> {
        let read = |one: &&Ownership| self.get(&one.partition).is_some_and(|state| state.ownership == one.number);
        ownerships.iter().filter(read).map(|one| one.partition.clone()).collect()
    }
}
