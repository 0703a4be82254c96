//! Collects batches for the reader in turn over the partitions, and schedules decompression ahead
//! of it.
//!
//! Sans-IO.

use std::sync::Arc;

use crate::consumer::{
    buffer::{
        decoded_batch::DecodedBatch,
        partition_buffer::{BufferedItem, CollectedItem},
    },
    state::ConsumerState,
    subscription::{delivery_progress::DeliveryProgress, partition_state::Corruption},
};
use crate::{error::Result, record::TopicPartition};

impl ConsumerState {
    /// Adds a partition with buffered entries to the rotation, and wakes its reader.
    pub(crate) fn enqueue_for_delivery(&mut self, partition: &TopicPartition) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        if state.paused || state.revoking || state.queue.is_empty() {
            return;
        }
        self.has_compressed |= state.queue.has_compressed();
        if !std::mem::replace(&mut state.in_rotation, true) {
            self.rotation.push_back(partition.clone());
            self.wake_reader_of(partition);
        } else {
            self.wake_split(partition);
        }
    }

    /// Takes batches until there are `records` records or no more batches; decompresses none.
    pub(crate) fn collect(&mut self, records: usize, out: &mut Vec<CollectedItem>) {
        if self.has_ended() {
            return;
        }
        let mut count = 0;
        for _ in 0..self.rotation.len() {
            if count >= records {
                break;
            }
            let Some(partition) = self.rotation.pop_front() else { break };
            let Some(state) = self.partitions.get_mut(&partition) else { continue };
            if state.split.is_some() {
                // The partition's own reader takes its batches; it is in the rotation only for
                // their decompression.
                state.in_rotation = !state.queue.is_empty();
                if state.in_rotation {
                    self.rotation.push_back(partition);
                }
                continue;
            }
            let Some(progress) = state.progress.as_ref().filter(|_| !state.paused && !state.revoking) else {
                state.in_rotation = false;
                continue;
            };
            count += state.queue.take(progress, records - count, out);
            let room = state.full && state.queue.bytes() <= state.queue_bound() / 2;
            state.in_rotation = !state.queue.is_empty();
            if state.in_rotation {
                self.rotation.push_back(partition.clone());
            }
            if room {
                self.mark_changed(&partition);
            }
        }
        self.plan_decompressions();
    }

    /// Returns an undelivered entry to the buffer, from which it is delivered when the partition
    /// may be read again. Entries must be returned in reverse order.
    pub(crate) fn return_unread(&mut self, taken: CollectedItem) {
        let progress = taken.progress();
        let partition = progress.partition().clone();
        if let Some(state) = self.partitions.get_mut(&partition)
            && state.progress.as_ref().is_some_and(|current| Arc::ptr_eq(current, progress))
        {
            state.queue.return_unread(taken);
            self.enqueue_for_delivery(&partition);
        }
    }

    /// Returns true if records of this progress may be delivered now, false if later; `None` if
    /// never again.
    pub(crate) fn is_deliverable(&self, progress: &Arc<DeliveryProgress>) -> Option<bool> {
        let state = self.partitions.get(progress.partition())?;
        let current = state.progress.as_ref().is_some_and(|current| Arc::ptr_eq(current, progress));
        (current && !state.revoking).then_some(!state.paused)
    }

    /// Stops a partition until a seek, because the reader reached bytes that it cannot read.
    pub(crate) fn stop_at_corruption(&mut self, progress: &Arc<DeliveryProgress>, end: i64) {
        let state = self.partitions.get(progress.partition());
        if state.is_some_and(|state| state.position.seek_epoch() == progress.seek_epoch()) {
            self.stop(progress.partition());
            if let Some(state) = self.partitions.get_mut(progress.partition()) {
                let at = progress.delivered();
                state.corruption = Some(Corruption { at, end: Some(end).filter(|end| *end > at) });
            }
        }
    }

    /// Starts decompressing batches ahead, as many at a time as there are cores and room for.
    pub(crate) fn plan_decompressions(&mut self) {
        if !self.has_compressed {
            return;
        }
        // The first partition without room that the common reader takes from, and the first that
        // its own reader waits for.
        let (mut in_want, mut readable, mut awaited, mut heavy) = (None, false, None, false);
        for partition in &self.rotation {
            if self.running_jobs >= self.rules.max_decompressions {
                return;
            }
            let Some(state) = self.partitions.get_mut(partition) else { continue };
            let Some(progress) = state.progress.as_ref().filter(|_| !state.paused && !state.revoking) else { continue };
            if state.queue.has_compressed() {
                match state.queue.start_decompression(progress, false) {
                    Some(job) => {
                        self.running_jobs += 1;
                        self.signals.decompressions.push(job);
                    }
                    None => match &state.split {
                        Some(split) if split.is_waiting() => awaited = awaited.or(Some(partition)),
                        Some(_) => {}
                        None => in_want = in_want.or(Some(partition)),
                    },
                }
                heavy |= state.queue.has_compressed();
            }
            readable |= state.split.is_none() && state.queue.is_readable();
        }
        self.has_compressed = heavy;
        // If no batch is readable and there is room for none, a reader would wait forever: one
        // batch is decompressed regardless of room.
        let in_want = awaited.or(in_want.filter(|_| !readable));
        if self.running_jobs == 0
            && let Some(state) = in_want.and_then(|partition| self.partitions.get_mut(partition))
            && let Some(job) =
                state.progress.as_ref().and_then(|progress| state.queue.start_decompression(progress, true))
        {
            self.running_jobs += 1;
            self.signals.decompressions.push(job);
        }
    }

    /// Handles the result of a decompression.
    pub(crate) fn handle_decompressed(
        &mut self,
        progress: &Arc<DeliveryProgress>,
        end: i64,
        opened: Result<Option<DecodedBatch>>,
    ) {
        self.running_jobs = self.running_jobs.saturating_sub(1);
        let held = match opened {
            Ok(Some(part)) => BufferedItem::Decoded(part),
            Ok(None) => BufferedItem::Skip,
            Err(error) => BufferedItem::Corrupt(error),
        };
        if let Some(state) = self.partitions.get_mut(progress.partition())
            && state.progress.as_ref().is_some_and(|current| Arc::ptr_eq(current, progress))
            && state.queue.handle_decompressed(end, held)
        {
            self.wake_reader_of(progress.partition());
        }
        self.plan_decompressions();
        if self.running_jobs == 0 {
            // The batch may no longer be wanted (after a seek or an eviction). A waiting reader
            // then depends on the next fetch, so wake the connections that have no room.
            self.wake_starved();
        }
    }
}
