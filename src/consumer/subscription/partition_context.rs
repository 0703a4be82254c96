//! One partition with the parts of the consumer's state that a change of its position concerns.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::{
    buffer::{delivery_queue::DeliveryQueue, readers::Readers},
    fetch::connections::FetchConnections,
    observability::log_digest::LogDigest,
    subscription::{
        fetch_position::{FetchState, ResetTarget},
        partition_retries::PartitionRetries,
        partition_state::PartitionState,
        partitions::SeekEpochs,
        rules::ConsumerRules,
    },
};
use crate::{
    error::{Error, ErrorKind},
    record::TopicPartition,
};

pub(crate) struct PartitionContext<'a> {
    pub(crate) name: &'a TopicPartition,
    pub(crate) state: &'a mut PartitionState,
    pub(crate) rules: &'a ConsumerRules,
    pub(crate) seek_epochs: &'a mut SeekEpochs,
    /// Set to true to wake the consumer's own task.
    pub(crate) wakes_task: &'a mut bool,
    pub(crate) connections: &'a mut FetchConnections,
    pub(crate) delivery: &'a mut DeliveryQueue,
    pub(crate) readers: &'a mut Readers,
    pub(crate) retries: &'a mut PartitionRetries,
    pub(crate) journal: &'a mut LogDigest,
}

impl PartitionContext<'_> {
    // ---- positions

    /// Positions the partition again. If the user asked for it (`asked_for`), everything before
    /// counts as completed.
    pub(crate) fn reposition(&mut self, state: FetchState, asked_for: bool) {
        let seek_epoch = self.seek_epochs.next();
        self.state.clear_position(self.rules, seek_epoch, asked_for);
        self.enter_fetch_state(state);
        self.readers.wake_position_waiters();
    }

    /// Enters another state of the same positioning.
    pub(crate) fn enter_fetch_state(&mut self, state: FetchState) {
        *self.wakes_task |= self.state.enter_fetch_state(self.name, state);
        self.mark_changed();
    }

    /// Resets the position as `auto.offset.reset` says, or reports the error to the reader. `cause`
    /// is equal for all partitions with the same reason; `from` is the offset concerned.
    pub(crate) fn reset(&mut self, start: Option<ResetTarget>, cause: &'static str, from: Option<i64>) {
        if let Some(start) = start {
            self.journal.reset(self.name, cause, from, start);
            return self.reposition(FetchState::AwaitReset(start), false);
        }
        self.stop();
        let (partition, offset) = (self.name, self.state.next_offset().unwrap_or(-1));
        let at = from.map_or_else(String::new, |from| format!(" (offset {from})"));
        let error = Error::new(
            ErrorKind::NoOffset,
            format!("{partition} has no position to read from: {cause}{at}, and auto.offset.reset is none"),
        );
        self.report(error.at(partition.topic.clone(), partition.partition, offset));
    }

    /// Invalidates records that a reader received but has not iterated, so that they cannot be
    /// delivered after records of another reader. Fetching restarts after the last delivered
    /// record.
    pub(crate) fn refetch_undelivered(&mut self) {
        let Some(progress) = &self.state.progress else { return };
        let fetching = progress.fetching_from(progress.delivered());
        // A pending check that the log still has what was read is repeated if there is still a
        // reason for it.
        self.reposition(fetching, false);
    }

    /// Stops reading until the user seeks. Delivered records stay delivered.
    pub(crate) fn stop(&mut self) {
        self.state.queue.clear();
        self.state.full = false;
        self.enter_fetch_state(FetchState::Stopped);
    }

    /// Stops fetching, after an entry for the reader was added behind the buffered records. The
    /// reader receives these first; its arrival at the entry decides what follows.
    pub(crate) fn stop_behind_buffered(&mut self) {
        self.enter_fetch_state(FetchState::Stopped);
        self.enqueue();
        self.readers.wake_common();
    }

    /// Pauses fetching and delivery, or resumes them.
    pub(crate) fn pause(&mut self, paused: bool) {
        self.state.paused = paused;
        self.mark_changed();
        self.enqueue();
    }

    // ---- failures

    /// Fetches again after the partition's next backoff. Returns the time at which that ends.
    pub(crate) fn fetch_later(&mut self, now: Instant) -> Instant {
        let at = now + self.retries.wait(&mut self.state.retries);
        self.state.position.retry_at(at);
        at
    }

    /// Tries again after the partition's next backoff, or after `wait` in place of it, together
    /// with other partitions that fail.
    pub(crate) fn retry_later(&mut self, wait: Option<Duration>, now: Instant) {
        let backoff = self.retries.wait(&mut self.state.retries);
        let at = self.retries.common_instant(now, wait.unwrap_or(backoff));
        self.state.position.retry_at(at);
    }

    /// Reports an error to the partition's reader.
    pub(crate) fn report(&mut self, error: Error) {
        self.readers.push_partition_error(self.name, error);
    }

    /// Reports the partition's present error to its reader, unless one was reported already.
    pub(crate) fn report_once(&mut self, error: Error) {
        if !std::mem::replace(&mut self.state.reported, true) {
            self.report(error);
        }
    }

    // ---- neighbours

    /// Marks the partition as one for which the next fetch may differ from the last one.
    pub(crate) fn mark_changed(&mut self) {
        self.connections.mark_changed(self.state.connection_id(), self.name);
    }

    /// Gives the partition its turn for delivery, and wakes its reader.
    pub(crate) fn enqueue(&mut self) {
        self.delivery.enqueue(self.name, self.state, self.readers);
    }
}
