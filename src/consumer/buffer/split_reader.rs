//! Partitions that are split off from the common reader: each has a reader of its own.
//!
//! A split-off partition stays in the rotation (so that its batches are decompressed ahead), but
//! only its own reader takes batches from it and is woken by it. When a broker's memory quota is
//! used up and another reader is waiting, buffered batches of readers that do not ask for records
//! are evicted, and fetched again when they do: a stream that is not read blocks no other.
//!
//! Sans-IO.

use std::{
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use crate::consumer::buffer::split::{SplitId, SplitReader};
use crate::consumer::{
    buffer::{partition_buffer::CollectedItem, partition_end::PartitionEnd},
    fetch::connection_id::FetchConnectionId,
    state::ConsumerState,
    subscription::fetch_position::FetchState,
};
use crate::{
    error::{Error, ErrorKind, Result},
    log::event,
    record::TopicPartition,
};

/// Time without a request for records after which a reader's buffered batches may be evicted to
/// make room for others.
const ABSENT: Duration = Duration::from_secs(1);

impl ConsumerState {
    /// Splits a partition off. If `holds`, the common reader holds records of the partition: these
    /// count as held by the new reader, which begins after them.
    pub(crate) fn split(&mut self, partition: &TopicPartition, holds: bool) -> Result<SplitId> {
        let state = self.get(partition)?;
        if state.split.is_some() {
            let message = format!("{partition} is split off already: drop its stream first");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if state.revoking {
            let message = format!("{partition} is being revoked by the group");
            return Err(Error::new(ErrorKind::NotAssigned, message));
        }
        if holds {
            self.refetch_undelivered(partition);
        }
        self.splits += 1;
        let id = self.splits;
        if let Some(state) = self.partitions.get_mut(partition) {
            state.evicted = false;
            state.split = Some(SplitReader { id, waker: None, last_asked_at: self.clock, errors: Vec::new() });
        }
        self.mark_changed(partition);
        Ok(SplitId { partition: partition.clone(), id })
    }

    /// Invalidates records that a reader received but has not iterated, so that they cannot be
    /// delivered after records of another reader. Fetching restarts after the last delivered
    /// record.
    fn refetch_undelivered(&mut self, partition: &TopicPartition) {
        let Some(state) = self.partitions.get(partition) else { return };
        let Some(progress) = &state.progress else { return };
        let offset = progress.delivered();
        let epoch = progress.to_commit(offset).leader_epoch;
        // A pending check that the log still has what was read is repeated if there is still a
        // reason for it.
        self.reposition(partition, FetchState::Fetching { offset, epoch: epoch.unwrap_or(-1) }, false);
    }

    /// Returns the partition to the common reader. `lent`: records of the split reader's last poll
    /// are still held.
    pub(crate) fn unsplit(&mut self, of: &SplitId, lent: bool) {
        if self.is_split(of)
            && let Some(state) = self.partitions.get_mut(&of.partition)
        {
            state.evicted = false;
            let errors = state.split.take().map(|split| split.errors).unwrap_or_default();
            for error in errors {
                self.push_error(error);
            }
            if lent {
                self.refetch_undelivered(&of.partition);
            }
            self.mark_changed(&of.partition);
            self.enqueue_for_delivery(&of.partition);
            self.wake_reader();
            self.signals.position_waiters = true;
        }
    }

    /// Returns a partition that can be split off, the first in order.
    pub(crate) fn unsplit_partition(&self) -> Option<TopicPartition> {
        let unsplit = self.partitions.iter().filter(|(_, state)| state.split.is_none() && !state.revoking);
        unsplit.map(|(partition, _)| partition).min().cloned()
    }

    /// Returns true if that split still exists.
    pub(crate) fn is_split(&self, of: &SplitId) -> bool {
        let state = self.partitions.get(&of.partition).and_then(|state| state.split.as_ref());
        state.is_some_and(|split| split.id == of.id)
    }

    /// Returns the reason for which that split must end, or has ended; `None` while it continues.
    pub(crate) fn partition_end(&self, of: &SplitId) -> Option<PartitionEnd> {
        if !self.is_split(of) {
            Some(PartitionEnd::Gone)
        } else {
            // A closing consumer also waits for records that the reader holds.
            (self.has_ended() || !self.is_owned(&of.partition)).then_some(PartitionEnd::Revoking)
        }
    }

    /// Returns true if a reader gets no more records: the consumer has ended, or its partition was
    /// revoked.
    pub(crate) fn has_ended_for(&self, of: Option<&SplitId>) -> bool {
        let gone = |of: &SplitId| !self.is_split(of) || !self.is_owned(&of.partition);
        self.has_ended() || of.is_some_and(gone)
    }

    /// Removes and returns the next error for that reader.
    pub(crate) fn pop_error_for(&mut self, of: Option<&SplitId>) -> Option<Error> {
        let Some(of) = of else { return self.pop_error() };
        let split = self.partitions.get_mut(&of.partition)?.split.as_mut()?;
        (split.id == of.id && !split.errors.is_empty()).then(|| split.errors.remove(0))
    }

    /// Reports an error to the partition's reader.
    pub(crate) fn push_partition_error(&mut self, partition: &TopicPartition, error: Error) {
        match self.partitions.get_mut(partition).and_then(|state| state.split.as_mut()) {
            Some(split) => {
                split.errors.push(error);
                self.wake_split(partition);
            }
            None => self.push_error(error),
        }
    }

    /// Reports an error to all readers of split-off partitions.
    pub(crate) fn push_error_to_splits(&mut self, error: &Error) {
        for split in self.partitions.values_mut().filter_map(|state| state.split.as_mut()) {
            split.errors.push(error.clone());
        }
    }

    /// Collects batches for one reader: the common one, or that of a partition.
    pub(crate) fn collect_for(&mut self, of: Option<&SplitId>, records: usize, out: &mut Vec<CollectedItem>) {
        let Some(of) = of else {
            self.last_asked_at = self.clock;
            if std::mem::take(&mut self.evicted) {
                let back = self.partitions.iter_mut().filter(|(_, state)| state.split.is_none());
                let back = back.filter_map(|(p, state)| std::mem::take(&mut state.evicted).then(|| p.clone()));
                for partition in back.collect::<Vec<_>>() {
                    self.mark_changed(&partition);
                }
            }
            return self.collect(records, out);
        };
        if self.has_ended_for(Some(of)) {
            return;
        }
        let clock = self.clock;
        let Some(state) = self.partitions.get_mut(&of.partition) else { return };
        let Some(split) = state.split.as_mut() else { return };
        split.last_asked_at = clock;
        split.waker = None;
        let evicted = std::mem::take(&mut state.evicted);
        let Some(progress) = state.progress.as_ref().filter(|_| !state.paused) else { return };
        state.queue.take(progress, records, out);
        if evicted || (state.full && state.queue.bytes() <= state.queue_bound() / 2) {
            self.mark_changed(&of.partition);
        }
        self.plan_decompressions();
    }

    /// Registers the waker of a reader that waits for records or errors.
    pub(crate) fn register_waker_for(&mut self, of: Option<&SplitId>, waker: &Waker) {
        match of {
            None => self.register_waker(waker),
            Some(of) => {
                if let Some(split) = self.partitions.get_mut(&of.partition).and_then(|state| state.split.as_mut()) {
                    match &mut split.waker {
                        Some(known) => known.clone_from(waker),
                        none => *none = Some(waker.clone()),
                    }
                }
            }
        }
        if self.partitions.values().any(|state| state.split.is_some()) {
            // Connections without room may have to evict batches for this reader.
            let bytes = usize::try_from(self.rules.partition_bytes).unwrap_or(0);
            let full = self
                .connections
                .iter()
                .filter(|(_, node)| node.quota.is_starved() || !node.quota.has_room_to_fetch(bytes));
            self.signals.connections.extend(full.map(|(id, _)| *id));
            // The batch that it waits for may be buffered without room to decompress it.
            self.plan_decompressions();
        }
    }

    /// Wakes the reader of a partition, because something arrived for it.
    pub(crate) fn wake_reader_of(&mut self, partition: &TopicPartition) {
        if self.partitions.get(partition).is_some_and(|state| state.split.is_some()) {
            self.wake_split(partition);
        } else {
            self.wake_reader();
        }
    }

    /// Wakes the reader of a partition that is split off.
    pub(crate) fn wake_split(&mut self, partition: &TopicPartition) {
        let split = self.partitions.get_mut(partition).and_then(|state| state.split.as_mut());
        self.signals.readers.extend(split.and_then(|split| split.waker.take()));
    }

    /// Wakes the readers of all partitions that are split off.
    pub(crate) fn wake_splits(&mut self) {
        let splits = self.partitions.values_mut().filter_map(|state| state.split.as_mut());
        self.signals.readers.extend(splits.filter_map(|split| split.waker.take()));
    }

    /// Returns the brokers that may have to evict batches for a fetch of that many bytes from
    /// `node`: `node` itself and, if the total budget is full, the brokers that exceed their share
    /// of it.
    pub(crate) fn quotas_to_evict(&self, node: i32, bytes: usize) -> Vec<i32> {
        let full = self.connections.get(&node.into()).is_some_and(|node| !node.quota.total_has_room_for(bytes));
        let beyond = self.connections.iter().filter(|(_, state)| full && state.quota.exceeds_share());
        beyond.map(|(connection, _)| connection.broker).filter(|id| *id != node).chain([node]).collect()
    }

    /// Evicts buffered batches when a broker's quota is full and a reader waits: those of readers
    /// that have not asked for longer than [`ABSENT`], the longest absent first, until `least`
    /// bytes are free. Returns the time at which to look again, if a reader is absent but not long
    /// enough yet.
    pub(crate) fn evict_unread(&mut self, node: FetchConnectionId, least: usize, now: Instant) -> Option<Instant> {
        let waits = |split: Option<&SplitReader>| split.is_some_and(SplitReader::is_waiting);
        let reader_waits = self.reader_waits();
        if !reader_waits && !self.partitions.values().any(|state| waits(state.split.as_ref())) {
            // All readers are busy with the batches that they have, and free them in time.
            return None;
        }
        let quota = self.connections.get(&node).map(|node| node.quota.clone())?;
        let makers = self.quotas_to_evict(node.broker, least);
        let unread = self.partitions.iter().filter_map(|(partition, state)| {
            let (waits, asked) = match &state.split {
                Some(split) => (split.is_waiting(), split.last_asked_at),
                None => (reader_waits, self.last_asked_at),
            };
            let fetched = matches!(state.position.state(), FetchState::Fetching { .. }) && !state.queue.is_empty();
            let here = state.broker.is_some_and(|node| makers.contains(&node));
            (here && fetched && !waits).then(|| (asked, partition.clone()))
        });
        let mut unread: Vec<_> = unread.collect();
        unread.sort_unstable();
        let rounds = [false, true].into_iter().flat_map(|opened| unread.iter().map(move |state| (opened, state)));
        for (opened, (asked, partition)) in rounds {
            if quota.has_room_to_fetch(least) {
                return None;
            }
            let patience = asked.map(|asked| asked + ABSENT).filter(|at| *at > now);
            if patience.is_some() {
                return patience;
            }
            if let Some(state) = self.partitions.get_mut(partition)
                && let Some(offset) = state.queue.evict(opened)
            {
                let what = "evicted the unread batches of a partition to make room for others; they are \
                            fetched again when its reader asks for records";
                event!(DEBUG, self.rules.origin, %partition, offset, "{what}");
                state.evicted = true;
                self.evicted = true;
                self.refetch_from(partition, offset);
            }
        }
        None
    }

    /// Returns true if that reader may now deliver the records taken under this progress; `None` if
    /// no reader may any more.
    pub(crate) fn is_deliverable_by(
        &self,
        of: Option<&SplitId>,
        progress: &Arc<crate::consumer::subscription::delivery_progress::DeliveryProgress>,
    ) -> Option<bool> {
        let may = self.is_deliverable(progress)?;
        let split = self.partitions.get(progress.partition()).and_then(|state| state.split.as_ref());
        let its_own = split.map(|split| split.id) == of.map(|of| of.id);
        Some(may && its_own)
    }
}
