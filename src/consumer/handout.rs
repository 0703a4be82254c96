//! What the reader takes, in fair turns over the partitions, and what is opened ahead of it.
//! Decides; does no IO.

use std::sync::Arc;

use super::{
    assignment::ConsumerState,
    lease::DeliveryProgress,
    part::DecodedBatch,
    partition::Corruption,
    queue::{BufferedItem, CollectedItem},
};
use crate::{error::Result, record::TopicPartition};

impl ConsumerState {
    /// A partition that has something to read takes its turn.
    pub(super) fn enqueue_for_delivery(&mut self, partition: &TopicPartition) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        if found.paused || found.revoking || found.queue.is_empty() {
            return;
        }
        self.has_compressed |= found.queue.has_compressed();
        if !std::mem::replace(&mut found.in_rotation, true) {
            self.rotation.push_back(partition.clone());
            self.wake_reader_of(partition);
        } else {
            self.wake_split(partition);
        }
    }

    /// Takes batches until `records` are reached or there are no more; nothing is opened here.
    pub(super) fn collect(&mut self, records: usize, out: &mut Vec<CollectedItem>) {
        if self.has_ended() {
            return;
        }
        let mut count = 0;
        for _ in 0..self.rotation.len() {
            if count >= records {
                break;
            }
            let Some(partition) = self.rotation.pop_front() else { break };
            let Some(found) = self.partitions.get_mut(&partition) else { continue };
            if found.split.is_some() {
                // Not ours to take; here for its batches to be opened.
                found.in_rotation = !found.queue.is_empty();
                if found.in_rotation {
                    self.rotation.push_back(partition);
                }
                continue;
            }
            let Some(lease) = found.progress.as_ref().filter(|_| !found.paused && !found.revoking) else {
                found.in_rotation = false;
                continue;
            };
            count += found.queue.take(lease, records - count, out);
            let room = found.full && found.queue.bytes() <= found.queue_bound() / 2;
            found.in_rotation = !found.queue.is_empty();
            if found.in_rotation {
                self.rotation.push_back(partition.clone());
            }
            if room {
                self.mark_changed(&partition);
            }
        }
        self.plan_decompressions();
    }

    /// Takes back what the reader did not hand out, for when the partition may be read again; the
    /// last first.
    pub(super) fn return_unread(&mut self, taken: CollectedItem) {
        let lease = taken.progress();
        let partition = lease.partition().clone();
        if let Some(found) = self.partitions.get_mut(&partition)
            && found.progress.as_ref().is_some_and(|current| Arc::ptr_eq(current, lease))
        {
            found.queue.return_unread(taken);
            self.enqueue_for_delivery(&partition);
        }
    }

    /// Whether records of this lease may be handed out now: `None` when never again.
    pub(super) fn is_deliverable(&self, lease: &Arc<DeliveryProgress>) -> Option<bool> {
        let found = self.partitions.get(lease.partition())?;
        let current = found.progress.as_ref().is_some_and(|current| Arc::ptr_eq(current, lease));
        (current && !found.revoking).then_some(!found.paused)
    }

    /// The reader came to something that it cannot read: the partition waits for a seek.
    pub(super) fn stop_at_corruption(&mut self, lease: &Arc<DeliveryProgress>, end: i64) {
        let found = self.partitions.get(lease.partition());
        if found.is_some_and(|found| found.position.seek_epoch() == lease.seek_epoch()) {
            self.stop(lease.partition());
            if let Some(found) = self.partitions.get_mut(lease.partition()) {
                let at = lease.delivered();
                found.corruption = Some(Corruption { at, end: Some(end).filter(|end| *end > at) });
            }
        }
    }

    /// Begins to open batches ahead, as many at a time as there are cores and room for.
    pub(super) fn plan_decompressions(&mut self) {
        if !self.has_compressed {
            return;
        }
        // Of the common reader; and the first that its own reader waits for.
        let (mut in_want, mut readable, mut awaited, mut heavy) = (None, false, None, false);
        for partition in &self.rotation {
            if self.running_jobs >= self.rules.max_decompressions {
                return;
            }
            let Some(found) = self.partitions.get_mut(partition) else { continue };
            let Some(lease) = found.progress.as_ref().filter(|_| !found.paused && !found.revoking) else { continue };
            if found.queue.has_compressed() {
                match found.queue.start_decompression(lease, false) {
                    Some(job) => {
                        self.running_jobs += 1;
                        self.signals.decompressions.push(job);
                    }
                    None => match &found.split {
                        Some(split) if split.is_waiting() => awaited = awaited.or(Some(partition)),
                        Some(_) => {}
                        None => in_want = in_want.or(Some(partition)),
                    },
                }
                heavy |= found.queue.has_compressed();
            }
            readable |= found.split.is_none() && found.queue.is_readable();
        }
        self.has_compressed = heavy;
        // Where there is nothing to read and room for nothing, a reader would wait for ever: one is
        // opened all the same.
        let in_want = awaited.or(in_want.filter(|_| !readable));
        if self.running_jobs == 0
            && let Some(found) = in_want.and_then(|partition| self.partitions.get_mut(partition))
            && let Some(job) = found.progress.as_ref().and_then(|lease| found.queue.start_decompression(lease, true))
        {
            self.running_jobs += 1;
            self.signals.decompressions.push(job);
        }
    }

    /// A batch was opened, or could not be.
    pub(super) fn handle_decompressed(
        &mut self,
        lease: &Arc<DeliveryProgress>,
        end: i64,
        opened: Result<Option<DecodedBatch>>,
    ) {
        self.running_jobs = self.running_jobs.saturating_sub(1);
        let held = match opened {
            Ok(Some(part)) => BufferedItem::Decoded(part),
            Ok(None) => BufferedItem::Skip,
            Err(error) => BufferedItem::Corrupt(error),
        };
        if let Some(found) = self.partitions.get_mut(lease.partition())
            && found.progress.as_ref().is_some_and(|current| Arc::ptr_eq(current, lease))
            && found.queue.handle_decompressed(end, held)
        {
            self.wake_reader_of(lease.partition());
        }
        self.plan_decompressions();
        if self.running_jobs == 0 {
            // What was opened may be for nobody any more (it was sought away from, or dropped): a
            // reader that waits has nothing to hope for now but a fetch.
            self.wake_starved();
        }
    }
}
