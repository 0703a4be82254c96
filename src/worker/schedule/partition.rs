//! The records of one partition: waiting, running, and completed ones.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    hash::{DefaultHasher, Hash, Hasher},
    task::Waker,
    time::{Duration, Instant},
};

use super::{CompletionTarget, Load, Task, uncommitted::Uncommitted};
use crate::{
    record::{ConsumerRecord, TopicPartition},
    worker::exactly_once::failed_records::{FailedRecords, Fate},
};

#[derive(Debug)]
pub(super) struct ScheduledPartition<M> {
    pub(super) name: TopicPartition,
    /// Slots from the first record that is not done, in the log's order.
    pub(super) slots: VecDeque<RecordSlot>,
    /// The number of the first slot.
    base: u64,
    /// Marks, each with the number of its first slot.
    runs: VecDeque<(u64, M)>,
    queues: Box<[OrderedQueue]>,
    /// Set if the partition's batches wait for more records.
    batch: Option<BatchRule>,
    /// Time at which the schedule looks at the next batch.
    lingers_until: Option<Instant>,
    /// Jobs that run.
    pub(super) running: usize,
    /// Bytes of its records that are not done.
    pub(super) bytes: usize,
    /// Records that wait for their turn.
    pub(super) waiting: usize,
    pub(super) ending: bool,
    /// Offset after the last record that is done together with all records before it.
    pub(super) done: Option<i64>,
    /// The feeder, if it waits for room or for the last job to end.
    pub(super) feeder: Option<Waker>,
    /// True if its completed records are reported only when their transaction is committed.
    is_transactional: bool,
    /// Its part in the open transaction, from its first record on.
    pub(super) uncommitted: Option<Uncommitted<M>>,
    /// Records that come again because their handler failed.
    pub(super) failed: FailedRecords,
    /// True if its records are read again, and none has come yet.
    pub(super) is_rewound: bool,
    /// Time before which no job begins, because a handler failed.
    pub(super) held_until: Option<Instant>,
}

/// Records of a job that begins.
#[derive(Debug)]
pub(super) struct Begun {
    /// The slot of the first one.
    pub(super) first: u64,
    pub(super) load: Load,
    pub(super) attempt: u32,
    pub(super) undelivered: u32,
    pub(super) task: Task,
}

#[derive(Debug)]
pub(super) struct RecordSlot {
    offset: i64,
    size: usize,
    /// Time at which the record came.
    at: Instant,
    /// The record, while it waits.
    record: Option<ConsumerRecord>,
    done: bool,
}

/// The number of records that a batch waits for, and the time. A partition with batches has one
/// queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchRule {
    pub(super) records: usize,
    pub(super) linger: Duration,
}

/// The state of a partition's next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BatchReadiness {
    /// It is full, or has lingered: that queue is listed from now on.
    Ready(usize),
    /// Time of the next look.
    LingersUntil(Instant),
    /// There is no waiting record, or the batch before it is not done, or the next look is already
    /// scheduled.
    Nothing,
}

/// Records that follow each other: one job at a time.
#[derive(Debug, Default)]
struct OrderedQueue {
    /// The numbers of its slots that wait.
    waiting: VecDeque<u64>,
    /// True while one of its jobs runs, or waits for a retry.
    busy: bool,
    /// True while it is listed as ready.
    listed: bool,
}

impl OrderedQueue {
    /// Returns true if it becomes ready now.
    fn becomes_ready(&mut self) -> bool {
        !self.busy && !self.waiting.is_empty() && !std::mem::replace(&mut self.listed, true)
    }
}

impl<M: CompletionTarget> ScheduledPartition<M> {
    pub(super) fn new(name: TopicPartition, queues: usize, batch: Option<BatchRule>, is_transactional: bool) -> Self {
        Self {
            name,
            slots: VecDeque::new(),
            base: 0,
            runs: VecDeque::new(),
            queues: (0..queues.max(1)).map(|_| OrderedQueue::default()).collect(),
            batch,
            lingers_until: None,
            running: 0,
            bytes: 0,
            waiting: 0,
            ending: false,
            done: None,
            feeder: None,
            is_transactional,
            uncommitted: None,
            failed: FailedRecords::default(),
            is_rewound: false,
            held_until: None,
        }
    }

    /// Begins a run: the records that are pushed next came under that mark. Returns the bytes of
    /// records that are no longer wanted because of it.
    pub(super) fn begin_run(&mut self, mark: M) -> usize {
        let next = self.base + self.slots.len() as u64;
        if let Some((first, last)) = self.runs.back() {
            if last.is_same(&mark) {
                return 0;
            }
            // A mark without slots has nothing left to report.
            if *first == next {
                self.runs.pop_back();
            }
        }
        let freed = if self.runs.iter().any(|(_, mark)| mark.is_over()) { self.pass_over() } else { 0 };
        self.runs.push_back((next, mark));
        freed
    }

    /// Completes waiting records under a mark that is over: the partition was sought, or is read
    /// again from another offset.
    fn pass_over(&mut self) -> usize {
        let mut freed = 0;
        for at in 0..self.queues.len() {
            let Some(queue) = self.queues.get_mut(at) else { continue };
            let (over, wanted): (VecDeque<u64>, _) =
                std::mem::take(&mut queue.waiting).into_iter().partition(|number| self.run_of(*number).1);
            if let Some(queue) = self.queues.get_mut(at) {
                queue.waiting = wanted;
            }
            for number in over {
                if let Some(slot) = self.slot(number) {
                    slot.record = None;
                }
                self.waiting = self.waiting.saturating_sub(1);
                freed += self.complete(number, 1);
            }
        }
        freed
    }

    /// Adds a record that came now; returns its queue if that becomes ready. With a linger none
    /// becomes ready here: [`next_batch`](Self::next_batch) decides.
    pub(super) fn push(&mut self, record: ConsumerRecord, now: Instant) -> Option<usize> {
        let at = self.queue_of(&record);
        let number = self.base + self.slots.len() as u64;
        let size = record.size();
        self.bytes += size;
        self.waiting += 1;
        self.slots.push_back(RecordSlot { offset: record.offset, size, at: now, record: Some(record), done: false });
        let queue = self.queues.get_mut(at)?;
        queue.waiting.push_back(number);
        (self.batch.is_none() && queue.becomes_ready()).then_some(at)
    }

    // ---- batches that linger

    /// Returns true while a batch that is not full waits for more records.
    pub(super) fn is_lingering(&self) -> bool {
        let waits = |batch: BatchRule| {
            self.queues.first().is_some_and(|queue| !queue.busy && !queue.listed && queue.waiting.len() < batch.records)
        };
        self.batch.is_some_and(waits)
    }

    /// Lists the next batch as ready, if it is, or returns when it will be. Without a linger its
    /// queue is listed elsewhere.
    pub(super) fn next_batch(&mut self, now: Instant) -> BatchReadiness {
        let (Some(batch), Some(queue)) = (self.batch, self.queues.first()) else { return BatchReadiness::Nothing };
        let Some(first) = queue.waiting.front().copied().filter(|_| !queue.busy && !queue.listed) else {
            return BatchReadiness::Nothing;
        };
        let full = queue.waiting.len() >= batch.records;
        // Its slot exists as long as it waits.
        let came = self.slot(first).map_or(now, |slot| slot.at);
        if full || now.saturating_duration_since(came) >= batch.linger {
            return self.end_linger().map_or(BatchReadiness::Nothing, BatchReadiness::Ready);
        }
        if self.lingers_until.is_some() {
            // The scheduled look is not later than this one, because records come in order.
            return BatchReadiness::Nothing;
        }
        let until = came + batch.linger;
        self.lingers_until = Some(until);
        BatchReadiness::LingersUntil(until)
    }

    /// Begins a batch that is not full; returns its queue if there is one.
    pub(super) fn end_linger(&mut self) -> Option<usize> {
        self.batch?;
        self.queues.first_mut()?.becomes_ready().then_some(0)
    }

    /// Handles the scheduled look; returns true if the schedule is to look at the next batch.
    pub(super) fn lingered(&mut self, at: Instant) -> bool {
        self.lingers_until.take_if(|until| *until == at).is_some()
    }

    /// Returns the queue of a record. Records of one key share a queue. Records without a key have
    /// no order among them and are spread.
    fn queue_of(&self, record: &ConsumerRecord) -> usize {
        let queues = self.queues.len() as u64;
        if queues == 1 {
            return 0;
        }
        let hash = match &record.key {
            Some(key) => {
                let mut hasher = DefaultHasher::new();
                key.hash(&mut hasher);
                hasher.finish()
            }
            None => record.offset.unsigned_abs(),
        };
        usize::try_from(hash % queues).unwrap_or(0)
    }

    fn slot(&mut self, number: u64) -> Option<&mut RecordSlot> {
        let index = usize::try_from(number.checked_sub(self.base)?).ok()?;
        self.slots.get_mut(index)
    }

    /// Returns the run of a slot, and true if its mark is over.
    fn run_of(&self, number: u64) -> (u64, bool) {
        let run = self.runs.iter().rev().find(|(first, _)| *first <= number);
        run.map_or((0, true), |(first, mark)| (*first, mark.is_over()))
    }

    /// Begins the next job of a queue: a record, or up to `batch` records, all of one run. Also
    /// returns the bytes that were freed by records that are no longer wanted.
    pub(super) fn begin(&mut self, at: usize, batch: Option<usize>) -> (Option<Begun>, usize) {
        let Some(queue) = self.queues.get_mut(at) else { return (None, 0) };
        queue.listed = false;
        if queue.busy {
            return (None, 0);
        }
        let mut waiting = std::mem::take(&mut queue.waiting);
        let mut freed = 0;
        let begun = loop {
            let Some(first) = waiting.pop_front() else { break None };
            let (run, over) = self.run_of(first);
            self.waiting = self.waiting.saturating_sub(1);
            let Some(record) = self.slot(first).and_then(|slot| slot.record.take()) else { continue };
            if over {
                // The partition was sought, or is read again from another offset: the records
                // before count as done.
                freed += self.complete(first, 1);
                continue;
            }
            let (end, history) = (self.failed.batch_end(record.offset), self.history(record.offset));
            let (attempt, undelivered, task) = history;
            let Some(max) = batch else {
                break Some(Begun { first, load: Load::One(record), attempt, undelivered, task });
            };
            let mut records = vec![record];
            while records.len() < max
                && let Some(next) = waiting.front().copied()
                && self.run_of(next).0 == run
                && self.slot(next).is_none_or(|slot| slot.offset < end)
                && let Some(record) = self.slot(next).and_then(|slot| slot.record.take())
            {
                waiting.pop_front();
                self.waiting = self.waiting.saturating_sub(1);
                records.push(record);
            }
            break Some(Begun { first, load: Load::Many(records.into()), attempt, undelivered, task });
        };
        if let Some(queue) = self.queues.get_mut(at) {
            queue.waiting = waiting;
            queue.busy = begun.is_some();
        }
        if let Some(begun) = begun.as_ref().filter(|_| self.is_transactional) {
            self.add_to_transaction(begun);
        }
        (begun, freed)
    }

    /// Returns the attempt, the failed deliveries to the dead letter topic, and the task of a
    /// record that begins.
    fn history(&self, offset: i64) -> (u32, u32, Task) {
        let Some(failed) = self.failed.at(offset) else { return (1, 0, Task::Handle) };
        match &failed.fate {
            Fate::Retry => (failed.attempts + 1, 0, Task::Handle),
            Fate::DeadLetter(error) => (failed.attempts, failed.undelivered, Task::DeadLetter(error.clone())),
            Fate::Skip => (failed.attempts, 0, Task::Skip),
        }
    }

    // ---- transactions

    fn add_to_transaction(&mut self, begun: &Begun) {
        let run = self.runs.iter().rev().find(|(first, _)| *first <= begun.first);
        let (Some((_, mark)), Some(front)) = (run, self.slots.front()) else { return };
        let end = begun.first + begun.load.records().len() as u64;
        match &mut self.uncommitted {
            Some(uncommitted) => uncommitted.add(mark, end),
            none => *none = Some(Uncommitted::new(mark.clone(), front.offset, end)),
        }
    }

    /// Returns true if the next job of that queue lies before a record that was begun already.
    pub(super) fn is_gap(&self, at: usize) -> bool {
        let end = self.uncommitted.as_ref().map_or(0, Uncommitted::end);
        self.queues.get(at).and_then(|queue| queue.waiting.front()).is_some_and(|first| *first < end)
    }

    /// Returns true if a record waits before one that was begun already: the records after it
    /// cannot be committed yet.
    pub(super) fn has_gap(&self) -> bool {
        let end = self.uncommitted.as_ref().map_or(0, Uncommitted::end);
        self.waiting > 0 && (self.base..end).zip(&self.slots).any(|(_, slot)| slot.record.is_some())
    }

    /// Drops all records, because they are read again. Returns the freed bytes, and the offset of
    /// the transaction's first record unless the partition was positioned elsewhere meanwhile.
    pub(super) fn rewind(&mut self) -> (usize, Option<i64>) {
        let start = self.uncommitted.take().filter(Uncommitted::is_whole).map(|uncommitted| uncommitted.start());
        self.base += self.slots.len() as u64;
        self.slots.clear();
        self.runs.clear();
        self.queues.fill_with(OrderedQueue::default);
        self.is_rewound = true;
        self.waiting = 0;
        (std::mem::take(&mut self.bytes), start)
    }

    /// Completes consecutive records: reports the progress to the marks, and returns the freed
    /// bytes.
    pub(super) fn complete(&mut self, first: u64, records: usize) -> usize {
        let mut freed = 0;
        for number in first..first + records as u64 {
            if let Some(slot) = self.slot(number) {
                slot.done = true;
                freed += slot.size;
            }
        }
        self.bytes = self.bytes.saturating_sub(freed);
        let mut next = None;
        while self.slots.front().is_some_and(|slot| slot.done)
            && let Some(slot) = self.slots.pop_front()
        {
            // Its run ends where the next one begins.
            while self.runs.get(1).is_some_and(|(begins, _)| *begins <= self.base) {
                let ended = self.runs.pop_front();
                if let (Some((_, mark)), Some(next)) = (ended, next.take())
                    && !self.is_transactional
                {
                    mark.finish_to(next);
                }
            }
            next = Some(slot.offset + 1);
            self.base += 1;
        }
        if let (Some((_, mark)), Some(next)) = (self.runs.front(), next) {
            match &mut self.uncommitted {
                Some(uncommitted) => uncommitted.complete(mark, next),
                None if self.is_transactional => {}
                None => mark.finish_to(next),
            }
            self.done = Some(next);
        }
        freed
    }

    /// Releases a queue after its job has ended; returns true if the queue becomes ready. With a
    /// linger it does not: [`next_batch`](Self::next_batch) decides.
    pub(super) fn release(&mut self, at: usize) -> bool {
        self.queues.get_mut(at).is_some_and(|queue| {
            queue.busy = false;
            self.batch.is_none() && queue.becomes_ready()
        })
    }

    /// Returns true if none of its records runs or waits.
    pub(super) fn is_quiet(&self) -> bool {
        self.running == 0 && self.waiting == 0
    }

    /// Returns the number of the first slot after all slots that were ever begun.
    pub(super) fn first_never_begun(&self) -> u64 {
        let begun = self.slots.iter().rposition(|slot| slot.record.is_none());
        self.base + begun.map_or(0, |last| last as u64 + 1)
    }

    /// Drops waiting records from that slot on; returns the freed bytes.
    pub(super) fn drop_from(&mut self, first: u64) -> usize {
        let mut freed = 0;
        for (number, slot) in (self.base..).zip(&mut self.slots) {
            if number >= first && slot.record.take().is_some() {
                freed += std::mem::take(&mut slot.size);
                self.waiting = self.waiting.saturating_sub(1);
            }
        }
        self.queues.iter_mut().for_each(|queue| queue.waiting.retain(|number| *number < first));
        self.bytes = self.bytes.saturating_sub(freed);
        freed
    }
}
