//! How partitions are positioned, anew or for the first time, paused and stopped. Decides; does no
//! IO.

use std::sync::Arc;

use super::{
    assignment::Assignment,
    lease::Lease,
    position::{Position, Start, State},
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::{Offset, TopicPartition},
};

impl Assignment {
    /// Positions a partition anew. `asked_for` by the user: what lies before is then done with,
    /// whatever it was.
    pub(super) fn begin(&mut self, partition: &TopicPartition, state: State, asked_for: bool) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        self.generation += 1;
        if let Some(lease) = found.lease.take() {
            lease.replace();
            let (done, handed) = (lease.done(), lease.handed());
            found.unfinished = found.unfinished.or((done < handed).then_some(done));
        }
        if asked_for {
            found.unfinished = None;
            found.resets.clear();
        }
        found.queue.clear();
        found.committed_by_user = None;
        found.full = false;
        found.held = false;
        found.damage = None;
        found.search = None;
        found.seen.begin();
        found.reported = false;
        found.fetch_bytes = self.rules.partition_bytes;
        found.retries = self.rules.backoff.clone();
        found.position = Position::new(State::Stopped, self.generation);
        self.enter(partition, state);
    }

    /// Goes on to another state of the same positioning; before a fetch to the question whether the
    /// leader has what was read, where that is not known.
    pub(super) fn enter(&mut self, partition: &TopicPartition, state: State) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let state = found.checked_first(state);
        found.position.enter(state);
        found.seen.trouble = None;
        if let State::Fetch { offset, .. } = state {
            found.seen.fetched_from(offset);
        }
        match state {
            State::Fetch { offset, epoch } if found.lease.is_none() => {
                let done = found.unfinished.take().map_or(offset, |done| done.min(offset));
                let lease = Lease::new(partition.clone(), found.position.generation(), offset, done, epoch);
                found.lease = Some(Arc::new(lease.counting(&found.given)));
            }
            State::Committed | State::Reset(_) | State::Validate { .. } => self.signals.driver = true,
            State::Fetch { .. } | State::Stopped => {}
        }
        self.touch(partition);
    }

    /// Fetches anew from an offset on, up to which all of it is here or was handed out.
    pub(super) fn enter_again(&mut self, partition: &TopicPartition, offset: i64) {
        let lease = self.partitions.get(partition).and_then(|found| found.lease.as_ref());
        let epoch = lease.and_then(|lease| lease.to_commit(offset).leader_epoch).unwrap_or(-1);
        self.enter(partition, State::Fetch { offset, epoch });
    }

    /// The user wants to read from there.
    pub(super) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.get(partition)?;
        self.begin(partition, State::at(offset), true);
        Ok(())
    }

    /// Starts anew as `auto.offset.reset` says, or tells the reader why not. `cause` is the same
    /// for all partitions to which the same happened; `from` is the offset that it happened to.
    pub(super) fn reset(
        &mut self,
        partition: &TopicPartition,
        start: Option<Start>,
        cause: &'static str,
        from: Option<i64>,
    ) {
        match start {
            Some(start) => {
                self.journal.reset(partition, cause, from, start);
                self.begin(partition, State::Reset(start), false);
            }
            None => {
                self.stop(partition);
                let offset = self.position(partition).ok().flatten().unwrap_or(-1);
                let at = from.map_or_else(String::new, |from| format!(" (offset {from})"));
                let error = Error::new(
                    ErrorKind::NoOffset,
                    format!("{partition} has no position to read from: {cause}{at}, and auto.offset.reset is none"),
                );
                self.tell(partition, error.at(partition.topic.clone(), partition.partition, offset));
            }
        }
    }

    /// Reads a partition no further until the user seeks. What was handed out stays handed out.
    pub(super) fn stop(&mut self, partition: &TopicPartition) {
        if let Some(found) = self.partitions.get_mut(partition) {
            found.queue.clear();
            found.full = false;
            self.enter(partition, State::Stopped);
        }
    }

    /// The next offset to be handed out; `None` where it is not known yet.
    pub(super) fn position(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        Ok(self.get(partition)?.lease.as_ref().map(|lease| lease.handed()))
    }

    /// Stops fetching and handing out a partition, or goes on with it.
    pub(super) fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<()> {
        self.get(partition)?;
        if let Some(found) = self.partitions.get_mut(partition) {
            found.paused = paused;
        }
        self.touch(partition);
        self.queue_up(partition);
        Ok(())
    }

    pub(super) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.partitions.iter().filter(|(_, found)| found.paused);
        let mut paused: Vec<_> = paused.map(|(partition, _)| partition.clone()).collect();
        paused.sort_unstable();
        paused
    }
}
