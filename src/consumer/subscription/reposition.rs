//! Positions partitions for the first time or again, and pauses and stops them.
//!
//! Sans-IO.

use std::sync::Arc;

use crate::consumer::{
    state::ConsumerState,
    subscription::{
        delivery_progress::DeliveryProgress,
        fetch_position::{FetchPosition, FetchState, ResetTarget},
    },
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{Offset, TopicPartition},
};

impl ConsumerState {
    /// Positions a partition again. If the user asked for it (`asked_for`), everything before
    /// counts as completed.
    pub(crate) fn reposition(&mut self, partition: &TopicPartition, state: FetchState, asked_for: bool) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        self.seek_epoch += 1;
        if let Some(progress) = found.progress.take() {
            progress.supersede();
            let (done, handed) = (progress.completed(), progress.delivered());
            found.incomplete_from = found.incomplete_from.or((done < handed).then_some(done));
        }
        if asked_for {
            found.incomplete_from = None;
            found.resets.clear();
        }
        found.queue.clear();
        found.committed_by_user = None;
        found.full = false;
        found.awaits_listener = false;
        found.corruption = None;
        found.corruption_skip = None;
        found.offsets.reset();
        found.reported = false;
        found.fetch_bytes = self.rules.partition_bytes;
        found.retries = self.rules.backoff.clone();
        found.position = FetchPosition::new(FetchState::Stopped, self.seek_epoch);
        self.enter_fetch_state(partition, state);
    }

    /// Enters another state of the same positioning. Before fetching, the position is validated if
    /// the leader's log is not known to have everything before it.
    pub(crate) fn enter_fetch_state(&mut self, partition: &TopicPartition, state: FetchState) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let state = found.validated_first(state);
        found.position.enter(state);
        found.offsets.error = None;
        if let FetchState::Fetching { offset, .. } = state {
            found.offsets.fetched_from(offset);
        }
        match state {
            FetchState::Fetching { offset, epoch } if found.progress.is_none() => {
                let done = found.incomplete_from.take().map_or(offset, |done| done.min(offset));
                let progress =
                    DeliveryProgress::new(partition.clone(), found.position.seek_epoch(), offset, done, epoch);
                found.progress = Some(Arc::new(progress.counting_into(&found.delivered)));
            }
            FetchState::Initializing | FetchState::AwaitReset(_) | FetchState::AwaitValidation { .. } => {
                self.signals.task = true
            }
            FetchState::Fetching { .. } | FetchState::Stopped => {}
        }
        self.mark_changed(partition);
    }

    /// Fetches again from an offset up to which everything is buffered or was delivered.
    pub(crate) fn refetch_from(&mut self, partition: &TopicPartition, offset: i64) {
        let progress = self.partitions.get(partition).and_then(|state| state.progress.as_ref());
        let epoch = progress.and_then(|progress| progress.to_commit(offset).leader_epoch).unwrap_or(-1);
        self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch });
    }

    /// Seeks to an offset for the user.
    pub(crate) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.get(partition)?;
        self.reposition(partition, FetchState::at(offset), true);
        Ok(())
    }

    /// Resets the position as `auto.offset.reset` says, or reports the error to the reader. `cause`
    /// is equal for all partitions with the same reason; `from` is the offset concerned.
    pub(crate) fn reset(
        &mut self,
        partition: &TopicPartition,
        start: Option<ResetTarget>,
        cause: &'static str,
        from: Option<i64>,
    ) {
        match start {
            Some(start) => {
                self.journal.reset(partition, cause, from, start);
                self.reposition(partition, FetchState::AwaitReset(start), false);
            }
            None => {
                self.stop(partition);
                let offset = self.position(partition).ok().flatten().unwrap_or(-1);
                let at = from.map_or_else(String::new, |from| format!(" (offset {from})"));
                let error = Error::new(
                    ErrorKind::NoOffset,
                    format!("{partition} has no position to read from: {cause}{at}, and auto.offset.reset is none"),
                );
                self.push_partition_error(partition, error.at(partition.topic.clone(), partition.partition, offset));
            }
        }
    }

    /// Stops reading a partition until the user seeks. Delivered records stay delivered.
    pub(crate) fn stop(&mut self, partition: &TopicPartition) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.queue.clear();
            state.full = false;
            self.enter_fetch_state(partition, FetchState::Stopped);
        }
    }

    /// Returns the offset of the next record to deliver; `None` if it is not known yet.
    pub(crate) fn position(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        Ok(self.get(partition)?.progress.as_ref().map(|progress| progress.delivered()))
    }

    /// Pauses the fetching and delivery of a partition, or resumes it.
    pub(crate) fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<()> {
        self.get(partition)?;
        if let Some(state) = self.partitions.get_mut(partition) {
            state.paused = paused;
        }
        self.mark_changed(partition);
        self.enqueue_for_delivery(partition);
        Ok(())
    }

    pub(crate) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.partitions.iter().filter(|(_, state)| state.paused);
        let mut paused: Vec<_> = paused.map(|(partition, _)| partition.clone()).collect();
        paused.sort_unstable();
        paused
    }
}
