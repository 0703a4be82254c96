//! The readers of a consumer: the common one, and one for each partition that is split off. For
//! each of them its waker, the time of its last request and the errors that it has to receive.
//!
//! Sans-IO.

use std::{
    collections::{HashMap, VecDeque},
    task::Waker,
    time::Instant,
};

use crate::consumer::buffer::{
    split::{SplitId, SplitReader},
    wakeups::Wakeups,
};
use crate::{error::Error, record::TopicPartition};

#[derive(Debug, Default)]
pub(crate) struct Readers {
    /// Waker of the common reader, set while it waits for records.
    common: Option<Waker>,
    /// Errors for the common reader.
    errors: VecDeque<Error>,
    /// Readers of partitions that are split off; all of these partitions are assigned.
    splits: HashMap<TopicPartition, SplitReader>,
    /// Number of times that a partition was split off.
    split_count: u64,
    /// Approximate time of the common reader's last request for records.
    last_asked_at: Option<Instant>,
    /// Approximate current time: the time at which a fetch was last planned.
    clock: Option<Instant>,
    ended: bool,
    /// The common reader, if it has to be woken.
    woken: Option<Waker>,
    /// Readers of split-off partitions that have to be woken.
    woken_splits: Vec<Waker>,
    /// True if the callers that wait for a position or a partition have to be woken.
    position_waiters: bool,
}

impl Readers {
    // ---- waiting and waking

    /// Sets the approximate current time.
    pub(crate) fn set_clock(&mut self, now: Instant) {
        self.clock = Some(now);
    }

    /// Registers the waker of a reader that waits for records or errors: the common one, or that of
    /// a partition.
    pub(crate) fn register_waker(&mut self, of: Option<&SplitId>, waker: &Waker) {
        let slot = match of {
            None => &mut self.common,
            Some(of) => match self.splits.get_mut(&of.partition) {
                Some(split) => &mut split.waker,
                None => return,
            },
        };
        match slot {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Records that a reader asks for records now.
    pub(crate) fn record_request(&mut self, of: Option<&SplitId>) {
        let clock = self.clock;
        match of {
            None => self.last_asked_at = clock,
            Some(of) => {
                if let Some(split) = self.splits.get_mut(&of.partition) {
                    (split.last_asked_at, split.waker) = (clock, None);
                }
            }
        }
    }

    /// Returns true if the common reader waits for records now, given the number of assigned
    /// partitions. If all of them have streams of their own, it waits only for errors.
    pub(crate) fn common_waits(&self, partitions: usize) -> bool {
        self.common.is_some() && self.splits.len() < partitions
    }

    /// Returns true if the reader of that partition waits for records now.
    pub(crate) fn split_waits(&self, partition: &TopicPartition) -> bool {
        self.splits.get(partition).is_some_and(SplitReader::is_waiting)
    }

    /// Returns true if any reader of a split-off partition waits for records now.
    pub(crate) fn any_split_waits(&self) -> bool {
        self.splits.values().any(SplitReader::is_waiting)
    }

    /// Returns the approximate time at which the reader of a partition last asked for records.
    pub(crate) fn last_request_for(&self, partition: &TopicPartition) -> Option<Instant> {
        self.splits.get(partition).map_or(self.last_asked_at, |split| split.last_asked_at)
    }

    pub(crate) fn wake_common(&mut self) {
        self.woken = self.common.take().or(self.woken.take());
    }

    /// Wakes the reader of a partition if it is split off.
    pub(crate) fn wake_split(&mut self, partition: &TopicPartition) {
        self.woken_splits.extend(self.splits.get_mut(partition).and_then(|split| split.waker.take()));
    }

    /// Wakes the reader of a partition, because something arrived for it.
    pub(crate) fn wake_for(&mut self, partition: &TopicPartition) {
        match self.splits.get_mut(partition) {
            Some(split) => self.woken_splits.extend(split.waker.take()),
            None => self.wake_common(),
        }
    }

    /// Wakes the callers that wait for a position, a partition or the end of one.
    pub(crate) fn wake_position_waiters(&mut self) {
        self.position_waiters = true;
    }

    /// Takes the wake-ups that the last changes require.
    pub(crate) fn take_wakeups(&mut self, wakeups: &mut Wakeups) {
        wakeups.reader = self.woken.take();
        wakeups.readers = std::mem::take(&mut self.woken_splits);
        wakeups.position_waiters |= std::mem::take(&mut self.position_waiters);
    }

    // ---- errors and the end

    /// Queues an error for the common reader.
    pub(crate) fn push_error(&mut self, error: Error) {
        self.errors.push_back(error);
        self.wake_common();
        // Also wakes callers of `next_partition`; the first to poll receives the error.
        self.wake_position_waiters();
    }

    /// Queues an error for the partition's reader.
    pub(crate) fn push_partition_error(&mut self, partition: &TopicPartition, error: Error) {
        match self.splits.get_mut(partition) {
            Some(split) => {
                split.errors.push(error);
                self.wake_split(partition);
            }
            None => self.push_error(error),
        }
    }

    /// Removes and returns the common reader's next error.
    pub(crate) fn pop_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    /// Removes and returns the next error for that reader.
    pub(crate) fn pop_error_for(&mut self, of: Option<&SplitId>) -> Option<Error> {
        let Some(of) = of else { return self.pop_error() };
        let split = self.splits.get_mut(&of.partition)?;
        (split.id == of.id && !split.errors.is_empty()).then(|| split.errors.remove(0))
    }

    /// Ends the reading, with the last error for all readers.
    pub(crate) fn end(&mut self, error: Option<Error>) {
        if let Some(error) = &error {
            self.splits.values_mut().for_each(|split| split.errors.push(error.clone()));
        }
        self.errors.extend(error);
        self.ended = true;
        self.wake_common();
        self.woken_splits.extend(self.splits.values_mut().filter_map(|split| split.waker.take()));
        self.wake_position_waiters();
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    // ---- partitions that are split off

    /// Gives a partition a reader of its own.
    pub(crate) fn split(&mut self, partition: &TopicPartition) -> SplitId {
        self.split_count += 1;
        let id = self.split_count;
        let split = SplitReader { id, waker: None, last_asked_at: self.clock, errors: Vec::new() };
        self.splits.insert(partition.clone(), split);
        SplitId { partition: partition.clone(), id }
    }

    /// Returns a partition to the common reader, which receives the errors of its own reader.
    pub(crate) fn unsplit(&mut self, of: &SplitId) {
        let split = self.splits.remove(&of.partition);
        split.into_iter().flat_map(|split| split.errors).for_each(|error| self.push_error(error));
    }

    /// Ends the reader of a partition that is no longer assigned, if it has one of its own.
    pub(crate) fn forget(&mut self, partition: &TopicPartition) {
        self.woken_splits.extend(self.splits.remove(partition).and_then(|split| split.waker));
    }

    /// Returns the id of the partition's split; `None` if the common reader reads it.
    pub(crate) fn split_id(&self, partition: &TopicPartition) -> Option<u64> {
        self.splits.get(partition).map(|split| split.id)
    }

    /// Returns true if the partition has a reader of its own.
    pub(crate) fn is_split(&self, partition: &TopicPartition) -> bool {
        self.splits.contains_key(partition)
    }

    /// Returns true if that split still exists.
    pub(crate) fn has_split(&self, of: &SplitId) -> bool {
        self.split_id(&of.partition) == Some(of.id)
    }

    /// Returns true if any partition is split off.
    pub(crate) fn has_splits(&self) -> bool {
        !self.splits.is_empty()
    }
}
