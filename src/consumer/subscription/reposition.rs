//! How partitions are positioned, anew or for the first time, paused and stopped.
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
    /// Positions a partition anew. `asked_for` by the user: what lies before is then done with,
    /// whatever it was.
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

    /// Goes on to another state of the same positioning; before a fetch to the question whether the
    /// leader has what was read, where that is not known.
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

    /// Fetches anew from an offset on, up to which all of it is here or was handed out.
    pub(crate) fn refetch_from(&mut self, partition: &TopicPartition, offset: i64) {
        let progress = self.partitions.get(partition).and_then(|state| state.progress.as_ref());
        let epoch = progress.and_then(|progress| progress.to_commit(offset).leader_epoch).unwrap_or(-1);
        self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch });
    }

    /// The user wants to read from there.
    pub(crate) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.get(partition)?;
        self.reposition(partition, FetchState::at(offset), true);
        Ok(())
    }

    /// Starts anew as `auto.offset.reset` says, or tells the reader why not. `cause` is the same
    /// for all partitions to which the same happened; `from` is the offset that it happened to.
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

    /// Reads a partition no further until the user seeks. What was handed out stays handed out.
    pub(crate) fn stop(&mut self, partition: &TopicPartition) {
        if let Some(state) = self.partitions.get_mut(partition) {
            state.queue.clear();
            state.full = false;
            self.enter_fetch_state(partition, FetchState::Stopped);
        }
    }

    /// The next offset to be handed out; `None` where it is not known yet.
    pub(crate) fn position(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        Ok(self.get(partition)?.progress.as_ref().map(|progress| progress.delivered()))
    }

    /// Stops fetching and handing out a partition, or goes on with it.
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
