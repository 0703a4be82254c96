//! The turns of the partitions that have buffered batches: which partition the reader takes from
//! next, and which batches are decompressed ahead of it.
//!
//! A partition that is split off has its turn too, so that its batches are decompressed ahead, but
//! only its own reader takes batches from it.
//!
//! Sans-IO.

use std::{collections::VecDeque, sync::Arc};

use crate::consumer::{
    buffer::{
        decoded_batch::DecodedBatch,
        partition_buffer::{BufferedItem, CollectedItem, Decompression},
        readers::Readers,
    },
    fetch::connections::FetchConnections,
    subscription::{delivery_progress::DeliveryProgress, partition_state::PartitionState, partitions::Partitions},
};
use crate::{error::Result, record::TopicPartition};

#[derive(Debug)]
pub(crate) struct DeliveryQueue {
    /// Partitions with buffered entries, in the order of their turns.
    rotation: VecDeque<TopicPartition>,
    /// Number of batches that are being decompressed.
    running_jobs: usize,
    max_jobs: usize,
    /// True if there may be compressed batches to decompress ahead.
    has_compressed: bool,
    /// True if unread batches of a partition of the common reader were evicted.
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
        out: &mut Vec<CollectedItem>,
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
            let Some(progress) = state.progress.as_ref().filter(|_| state.is_deliverable()) else {
                state.in_rotation = false;
                continue;
            };
            count += state.queue.take(progress, records - count, out);
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
        out: &mut Vec<CollectedItem>,
    ) {
        let Some(state) = partitions.get_mut(partition) else { return };
        let evicted = std::mem::take(&mut state.evicted);
        let Some(progress) = state.progress.as_ref().filter(|_| !state.paused) else { return };
        state.queue.take(progress, records, out);
        if evicted || state.has_room_again() {
            connections.mark_changed(state.connection_id(), partition);
        }
        self.start_decompressions(partitions, readers);
    }

    /// Returns an undelivered entry to the buffer, from which it is delivered when the partition
    /// may be read again. Entries must be returned in reverse order.
    pub(crate) fn return_unread(&mut self, taken: CollectedItem, partitions: &mut Partitions, readers: &mut Readers) {
        let progress = taken.progress().clone();
        if let Some(state) = partitions.of_progress_mut(&progress) {
            state.queue.return_unread(taken);
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

    /// Starts decompressing batches ahead, as many at a time as there are cores and room for.
    pub(crate) fn start_decompressions(&mut self, partitions: &mut Partitions, readers: &Readers) {
        if !self.has_compressed {
            return;
        }
        // The first partition without room that the common reader takes from, and the first that
        // its own reader waits for.
        let (mut wanted, mut awaited) = (None, None);
        let (mut is_readable, mut is_compressed) = (false, false);
        for partition in &self.rotation {
            if self.running_jobs >= self.max_jobs {
                return;
            }
            let Some(state) = partitions.get_mut(partition).filter(|state| state.is_deliverable()) else { continue };
            let Some(progress) = &state.progress else { continue };
            let is_split = readers.is_split(partition);
            if state.queue.has_compressed() {
                match state.queue.start_decompression(progress, false) {
                    Some(job) => {
                        self.running_jobs += 1;
                        self.started.push(job);
                    }
                    None if !is_split => wanted = wanted.or(Some(partition)),
                    None if readers.split_waits(partition) => awaited = awaited.or(Some(partition)),
                    None => {}
                }
                is_compressed |= state.queue.has_compressed();
            }
            is_readable |= !is_split && state.queue.is_readable();
        }
        self.has_compressed = is_compressed;
        // If no batch is readable and there is room for none, a reader would wait forever: one
        // batch is decompressed regardless of room.
        let needed = awaited.or(wanted.filter(|_| !is_readable));
        if self.running_jobs == 0
            && let Some(state) = needed.and_then(|partition| partitions.get_mut(partition))
            && let Some(job) =
                state.progress.as_ref().and_then(|progress| state.queue.start_decompression(progress, true))
        {
            self.running_jobs += 1;
            self.started.push(job);
        }
    }

    /// Handles the result of a decompression.
    pub(crate) fn handle_decompressed(
        &mut self,
        progress: &Arc<DeliveryProgress>,
        end: i64,
        opened: Result<Option<DecodedBatch>>,
        partitions: &mut Partitions,
        readers: &mut Readers,
    ) {
        self.running_jobs = self.running_jobs.saturating_sub(1);
        let held = match opened {
            Ok(Some(part)) => BufferedItem::Decoded(part),
            Ok(None) => BufferedItem::Skip,
            Err(error) => BufferedItem::Corrupt(error),
        };
        if let Some(state) = partitions.of_progress_mut(progress)
            && state.queue.handle_decompressed(end, held)
        {
            readers.wake_for(progress.partition());
        }
        self.start_decompressions(partitions, readers);
    }
}
