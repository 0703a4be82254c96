//! The turns of the partitions that have buffered batches: which partition the reader takes from
//! next, and which batches are decompressed ahead of it.
//!
//! A partition that is split off has its turn too, so that its batches are decompressed ahead, but
//! only its own reader takes batches from it.
//!
//! Sans-IO.

use std::collections::VecDeque;

use crate::consumer::{
    buffer::{fetched_batch::FetchedBatch, partition_buffer::Decompression, readers::Readers},
    fetch::connections::FetchConnections,
    subscription::{partition_state::PartitionState, partitions::Partitions},
};
use crate::record::TopicPartition;

#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    /// Partitions with buffered entries, in the order of their turns.
    rotation: VecDeque<TopicPartition>,
    /// Number of batches that are being decompressed.
    running_jobs: usize,
    max_jobs: usize,
    /// True if there may be compressed batches to decompress ahead.
    has_compressed: bool,
    /// True if unread batches were evicted since the common reader last asked for records.
    evicted: bool,
    /// Batches to decompress on the blocking pool.
    started: Vec<Decompression>,
}

impl DeliveryQueue {
    pub(crate) fn new(max_jobs: usize) -> Self {
        Self {
            rotation: VecDeque::new(),
            running_jobs: 0,
            max_jobs,
            has_compressed: false,
            evicted: false,
            started: Vec::new(),
        }
    }

    /// Returns the number of batches that are being decompressed.
    pub(crate) fn running_jobs(&self) -> usize {
        self.running_jobs
    }

    /// Takes the batches to decompress on the blocking pool.
    pub(crate) fn take_started(&mut self) -> Vec<Decompression> {
        std::mem::take(&mut self.started)
    }

    // ---- turns

    /// Gives a partition with buffered entries a turn, and wakes its reader.
    pub(crate) fn enqueue(&mut self, partition: &TopicPartition, state: &mut PartitionState, readers: &mut Readers) {
        if !state.is_deliverable() || state.queue.is_empty() {
            return;
        }
        self.has_compressed |= state.queue.has_compressed();
        if !std::mem::replace(&mut state.in_rotation, true) {
            self.rotation.push_back(partition.clone());
            readers.wake_for(partition);
        } else {
            readers.wake_split(partition);
        }
    }

    /// Removes the turn of a partition that is no longer read. Nothing else would: only the common
    /// reader drops stale turns, and it takes no batches if all partitions are split off.
    pub(crate) fn remove(&mut self, partition: &TopicPartition, state: &PartitionState) {
        if state.in_rotation
            && let Some(at) = self.rotation.iter().position(|other| other == partition)
        {
            self.rotation.remove(at);
        }
    }

    /// Iterates over the partitions that have a turn.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &TopicPartition> {
        self.rotation.iter()
    }

    // ---- batches for the readers

    /// Takes batches for the common reader until there are `records` records or no more batches;
    /// decompresses none.
    pub(crate) fn collect(
        &mut self,
        records: usize,
        partitions: &mut Partitions,
        readers: &Readers,
        connections: &mut FetchConnections,
        out: &mut Vec<FetchedBatch>,
    ) {
        let mut count = 0;
        for _ in 0..self.rotation.len() {
            if count >= records {
                break;
            }
            let Some(partition) = self.rotation.pop_front() else { break };
            let Some(state) = partitions.get_mut(&partition) else { continue };
            if readers.is_split(&partition) {
                // The partition's own reader takes its batches; it is in the rotation only for
                // their decompression.
                state.in_rotation = !state.queue.is_empty();
                if state.in_rotation {
                    self.rotation.push_back(partition);
                }
                continue;
            }
            if !state.is_deliverable() {
                state.in_rotation = false;
                continue;
            }
            count += state.queue.take(records - count, out);
            state.in_rotation = !state.queue.is_empty();
            if state.has_room_again() {
                connections.mark_changed(state.connection_id(), &partition);
            }
            if state.in_rotation {
                self.rotation.push_back(partition);
            }
        }
        self.start_decompressions(partitions, readers);
    }

    /// Takes batches of a partition that is split off, for its own reader.
    pub(crate) fn collect_split(
        &mut self,
        partition: &TopicPartition,
        records: usize,
        partitions: &mut Partitions,
        readers: &Readers,
        connections: &mut FetchConnections,
        out: &mut Vec<FetchedBatch>,
    ) {
        let Some(state) = partitions.get_mut(partition) else { return };
        let evicted = std::mem::take(&mut state.evicted);
        if state.paused || state.progress.is_none() {
            return;
        }
        state.queue.take(records, out);
        if evicted || state.has_room_again() {
            connections.mark_changed(state.connection_id(), partition);
        }
        self.start_decompressions(partitions, readers);
    }

    /// Returns an undelivered batch to the buffer, from which it is delivered when the partition
    /// may be read again. Batches must be returned in reverse order.
    pub(crate) fn return_unread(&mut self, batch: FetchedBatch, partitions: &mut Partitions, readers: &mut Readers) {
        let progress = batch.progress.clone();
        if let Some(state) = partitions.of_progress_mut(&progress) {
            state.queue.return_unread(batch);
            self.enqueue(progress.partition(), state, readers);
        }
    }

    // ---- evicted batches

    /// Records that unread batches of a partition were evicted: they are fetched again when its
    /// reader asks for records.
    pub(crate) fn record_eviction(&mut self, state: &mut PartitionState) {
        state.evicted = true;
        self.evicted = true;
    }

    /// Lets the evicted batches of the common reader's partitions be fetched again.
    pub(crate) fn refetch_evicted(
        &mut self,
        partitions: &mut Partitions,
        readers: &Readers,
        connections: &mut FetchConnections,
    ) {
        if !std::mem::take(&mut self.evicted) {
            return;
        }
        for (partition, state) in partitions.iter_mut().filter(|(partition, _)| !readers.is_split(partition)) {
            if std::mem::take(&mut state.evicted) {
                connections.mark_changed(state.connection_id(), partition);
            }
        }
    }

    // ---- decompression ahead

    /// Starts decompressing batches ahead, as many at a time as there are cores and room for. If a
    /// reader would otherwise wait forever, one batch is decompressed regardless of room.
    pub(crate) fn start_decompressions(&mut self, partitions: &mut Partitions, readers: &Readers) {
        if !std::mem::take(&mut self.has_compressed) {
            return;
        }
        for partition in &self.rotation {
            if self.running_jobs >= self.max_jobs {
                self.has_compressed = true;
                return;
            }
            let state = partitions.get_mut(partition).filter(|state| state.is_deliverable());
            if let Some(state) = state.filter(|state| state.queue.has_compressed()) {
                let job = state.queue.start_decompression(false);
                self.running_jobs += usize::from(job.is_some());
                self.started.extend(job);
                self.has_compressed |= state.queue.has_compressed();
            }
        }
        if self.running_jobs == 0
            && self.has_compressed
            && let Some(state) = self.blocked_partition(partitions, readers).and_then(|name| partitions.get_mut(name))
            && let Some(job) = state.queue.start_decompression(true)
        {
            self.running_jobs += 1;
            self.started.push(job);
        }
    }

    /// Returns a partition of which a reader cannot continue without a batch being decompressed:
    /// one that its own reader waits for, or the first of the common reader if no batch is
    /// readable.
    fn blocked_partition(&self, partitions: &Partitions, readers: &Readers) -> Option<&TopicPartition> {
        let deliverable = |name: &TopicPartition| partitions.get(name).filter(|state| state.is_deliverable());
        let is_compressed = |name: &TopicPartition| deliverable(name).is_some_and(|state| state.queue.has_compressed());
        let is_readable = |name: &TopicPartition| deliverable(name).is_some_and(|state| state.queue.is_readable());
        let awaited = self.rotation.iter().find(|name| readers.split_waits(name) && is_compressed(name));
        awaited.or_else(|| {
            let mut common = self.rotation.iter().filter(|name| !readers.is_split(name));
            let first = common.clone().find(|name| is_compressed(name));
            first.filter(|_| !common.any(is_readable))
        })
    }

    /// Handles the result of a decompression.
    pub(crate) fn handle_decompressed(
        &mut self,
        batch: FetchedBatch,
        partitions: &mut Partitions,
        readers: &mut Readers,
    ) {
        self.running_jobs = self.running_jobs.saturating_sub(1);
        let progress = batch.progress.clone();
        if let Some(state) = partitions.of_progress_mut(&progress)
            && state.queue.handle_decompressed(batch)
        {
            readers.wake_for(progress.partition());
        }
        self.start_decompressions(partitions, readers);
    }
}
