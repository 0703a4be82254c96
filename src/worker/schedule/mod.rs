//! The schedule: decides which records may run, which are done, and which are tried again and when.
//!
//! ```text
//!            offer                next                   finished
//!  feeder ──────────► slots ─ queues ── ready ──────────► handler task ─► done: prefix to the mark
//!                                  ▲                        │ failed
//!                                  └── due ◄── parked ◄─────┘ backoff, or sent to the dead letters
//! ```
//! A partition's records lie in *slots*, in the order of the log; the completed prefix may be
//! committed. Each record belongs to an *ordered queue*: one job of a queue runs at a time, so
//! order is kept. A partition has one queue, or many over which keys are spread. Jobs run on
//! *handler tasks*; their number is the concurrency.
//!
//! With transactions, a [`Cycle`] says when jobs may begin. Completed records are reported to the
//! mark only once their transaction is committed, and a failed record is not parked: the
//! transaction is aborted, and its records are read again.
//!
//! Sans-IO.
use crate::worker::schedule::rules::Rules;

mod completion_target;
mod job;
mod partition;
mod report;
pub(super) mod rules;
#[cfg(test)]
mod tests;
mod uncommitted;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::Waker,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

pub(super) use self::completion_target::CompletionTarget;
pub(super) use self::job::{Job, Load, Outcome, Task, Verdict};
use self::partition::{BatchReadiness, BatchRule, Begun, ScheduledPartition};
use super::{
    Failed, WorkerMetrics,
    exactly_once::{
        cycle::{Admission, Cycle, Failure},
        failed_records::{FailedRange, Fate},
    },
};
use crate::{
    config::parse::FOREVER,
    error::Error,
    record::{ConsumerRecord, TopicPartition},
};

pub(super) type PartitionId = usize;
pub(super) type HandlerId = usize;

/// Number of records and of bytes that may be offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OfferRoom {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// The tasks to wake after a change.
#[derive(Debug, Default)]
pub(super) struct Signals {
    pub(super) wakers: Vec<Waker>,
    /// Wakes the worker's own task: to start handler tasks, for a retry that is due earlier, or for
    /// the end.
    pub(super) driver: bool,
    /// Wakes the transaction task.
    pub(super) transactions: bool,
    /// Handler tasks whose jobs are ended, because their transaction does not commit.
    pub(super) cancelled: Vec<HandlerId>,
}

/// Records of a partition to commit: the offset after the last one, and their mark.
#[derive(Clone, Debug)]
pub(super) struct ToCommit<M> {
    pub(super) partition: TopicPartition,
    pub(super) mark: M,
    pub(super) next: i64,
}

#[derive(Debug, Default)]
struct HandlerSlot {
    idle: Option<Waker>,
    running: Option<RunningHandler>,
}

/// A job that a handler task runs.
#[derive(Clone, Debug)]
struct RunningHandler {
    partition: PartitionId,
    offset: i64,
    records: usize,
    attempt: u32,
    dead_lettering: bool,
    since: Instant,
    cancelled: bool,
}

#[derive(Debug)]
pub(super) struct Schedule<M> {
    rules: Rules,
    rng: StdRng,
    partitions: Vec<Option<ScheduledPartition<M>>>,
    ready: VecDeque<(PartitionId, usize)>,
    /// Queues that became ready while none of their jobs may begin.
    deferred: Vec<(PartitionId, usize)>,
    /// Retries that are due; they come before all ready jobs.
    due: VecDeque<Job>,
    /// Retries by the time at which they are due.
    parked: BTreeMap<(Instant, u64), Job>,
    parkings: u64,
    /// Partitions by the time at which a batch that is not full begins; at most one entry of each
    /// partition counts.
    lingering: BTreeSet<(Instant, PartitionId)>,
    handlers: Vec<HandlerSlot>,
    /// Handler tasks that wait; some of them may have got a job meanwhile.
    idle: Vec<HandlerId>,
    running: usize,
    bytes: usize,
    /// Partitions with feeders that wait until bytes are freed.
    starved: Vec<PartitionId>,
    closing: bool,
    closer: Option<Waker>,
    failure: Option<Error>,
    /// Set if records are handled exactly once.
    cycle: Option<Cycle>,
    /// Records of the open transaction that are done: handled, delivered to the dead letter topic,
    /// and skipped.
    done: [u64; 3],
    metrics: WorkerMetrics,
    signals: Signals,
}

impl<M: CompletionTarget> Schedule<M> {
    pub(super) fn new(rules: Rules, rng: StdRng) -> Self {
        Self {
            rules,
            rng,
            partitions: Vec::new(),
            ready: VecDeque::new(),
            deferred: Vec::new(),
            due: VecDeque::new(),
            parked: BTreeMap::new(),
            parkings: 0,
            lingering: BTreeSet::new(),
            handlers: Vec::new(),
            idle: Vec::new(),
            running: 0,
            bytes: 0,
            starved: Vec::new(),
            closing: false,
            closer: None,
            failure: None,
            cycle: None,
            done: [0; 3],
            metrics: WorkerMetrics::default(),
            signals: Signals::default(),
        }
    }

    /// Handles records exactly once, in transactions.
    pub(super) fn with_transactions(self, cycle: Cycle) -> Self {
        Self { cycle: Some(cycle), ..self }
    }

    pub(super) fn take_signals(&mut self) -> Signals {
        std::mem::take(&mut self.signals)
    }

    fn partition(&mut self, id: PartitionId) -> Option<&mut ScheduledPartition<M>> {
        self.partitions.get_mut(id)?.as_mut()
    }

    // ---- partitions are added and removed

    pub(super) fn add(&mut self, name: TopicPartition) -> PartitionId {
        let lingers = !self.rules.linger.is_zero();
        let batch =
            self.rules.batch.filter(|_| lingers).map(|records| BatchRule { records, linger: self.rules.linger });
        let mut new = ScheduledPartition::new(name, self.rules.queues, batch, self.cycle.is_some());
        new.ending = self.closing;
        let new = Some(new);
        match self.partitions.iter().position(Option::is_none) {
            Some(free) => {
                self.partitions[free] = new;
                free
            }
            None => {
                self.partitions.push(new);
                self.partitions.len() - 1
            }
        }
    }

    /// Drains a partition: begins only records that lie before records that were begun already.
    /// Later waiting records are dropped, and the partition's next owner reads them. So no
    /// completed record has to be handled again.
    pub(super) fn drain(&mut self, id: PartitionId) {
        // Retries are not waited for: the partition is given up at the first of them.
        let waits = self.parked.values().chain(&self.due).filter(|job| job.partition == id);
        let left = waits.map(|job| job.first).min().unwrap_or(u64::MAX);
        self.forget_retries(id);
        if let Some(partition) = self.partition(id) {
            partition.ending = true;
            let begun = partition.first_never_begun();
            let freed = partition.drop_from(begun.min(left));
            self.free(freed);
            self.wake_feeder(id);
        }
        // The partition is given up once its records are committed.
        if let Some(cycle) = &mut self.cycle
            && cycle.holds(id)
        {
            cycle.close();
            self.review_transaction();
        }
    }

    /// Begins no more records of that partition.
    pub(super) fn end(&mut self, id: PartitionId) {
        self.forget_retries(id);
        if let Some(partition) = self.partition(id) {
            partition.ending = true;
            let freed = partition.drop_from(0);
            self.free(freed);
        }
        if let Some(cycle) = &mut self.cycle {
            cycle.lose(id);
            self.review_transaction();
        }
        self.wake_feeder(id);
    }

    fn forget_retries(&mut self, id: PartitionId) {
        self.due.retain(|job| job.partition != id);
        self.parked.retain(|_, job| job.partition != id);
    }

    /// Marks the jobs of that partition (or all jobs) as cancelled, and returns their handler
    /// tasks.
    pub(super) fn cancel(&mut self, id: Option<PartitionId>) -> Vec<HandlerId> {
        let lanes = self.handlers.iter_mut().enumerate();
        let working = lanes.filter_map(|(lane, state)| Some((lane, state.running.as_mut()?)));
        let wanted = working.filter(|(_, running)| id.is_none_or(|id| running.partition == id));
        wanted
            .map(|(lane, running)| {
                running.cancelled = true;
                lane
            })
            .collect()
    }

    /// Returns true if no job of that partition runs or waits, and no open transaction has its
    /// records; otherwise its feeder is woken when that is the case.
    pub(super) fn is_drained(&mut self, id: PartitionId, feeder: &Waker) -> bool {
        let is_held = self.cycle.as_ref().is_some_and(|cycle| cycle.holds(id));
        let Some(partition) = self.partition(id) else { return true };
        let is_drained = partition.is_quiet() && !is_held;
        if !is_drained {
            partition.feeder = Some(feeder.clone());
        }
        is_drained
    }

    /// Removes a partition without running jobs.
    pub(super) fn remove(&mut self, id: PartitionId) {
        self.end(id);
        self.ready.retain(|(partition, _)| *partition != id);
        self.deferred.retain(|(partition, _)| *partition != id);
        if let Some(place) = self.partitions.get_mut(id)
            && let Some(gone) = place.take_if(|partition| partition.running == 0)
        {
            self.free(gone.bytes);
        }
    }

    // ---- records are offered

    /// Returns the room for records of a partition; if there is none, its feeder is woken when that
    /// changes.
    pub(super) fn room(&mut self, id: PartitionId, feeder: &Waker) -> Option<OfferRoom> {
        let (bound, bytes, used) = (self.rules.buffer_records, self.rules.buffer_bytes, self.bytes);
        let partition = self.partition(id)?;
        let held = partition.slots.len();
        // Only when half of the buffer is free, so that the feeder is not woken for each record;
        // but a batch that lingers may fill the buffer.
        let full = held > bound / 2 && !(partition.is_lingering() && held < bound);
        let starved = held > 0 && used >= bytes;
        if full || starved {
            partition.feeder = Some(feeder.clone());
            if !full && !self.starved.contains(&id) {
                self.starved.push(id);
            }
            self.end_linger(id);
            return None;
        }
        Some(OfferRoom { records: bound - held, bytes: bytes.saturating_sub(used).max(1) })
    }

    /// Returns true if all offered records of a partition are done; otherwise its feeder is woken
    /// when that may be the case.
    pub(super) fn is_settled(&mut self, id: PartitionId, feeder: &Waker) -> bool {
        let is_held = self.cycle.as_ref().is_some_and(|cycle| cycle.holds(id));
        let Some(partition) = self.partition(id) else { return true };
        if partition.slots.is_empty() && !is_held {
            return true;
        }
        partition.feeder = Some(feeder.clone());
        self.end_linger(id);
        false
    }

    /// Returns true if the partition's records are read again, and none has come yet.
    pub(super) fn is_rewound(&self, id: PartitionId) -> bool {
        self.partitions.get(id).and_then(Option::as_ref).is_some_and(|partition| partition.is_rewound)
    }

    /// Takes over records of a partition that came now, in the log's order, all under one mark.
    pub(super) fn offer(
        &mut self,
        id: PartitionId,
        mark: M,
        records: impl IntoIterator<Item = ConsumerRecord>,
        now: Instant,
    ) {
        let Some(partition) = self.partitions.get_mut(id).and_then(Option::as_mut) else { return };
        if partition.ending {
            return;
        }
        partition.is_rewound &= mark.is_over();
        let freed = partition.begin_run(mark);
        let mut begun = 0;
        for record in records {
            self.bytes += record.size();
            if let Some(queue) = partition.push(record, now) {
                self.ready.push_back((id, queue));
                begun += 1;
            }
        }
        begun += self.list_batch(id, now);
        self.free(freed);
        self.wake_lanes(begun);
    }

    // ---- batches that wait for more records

    /// Lists a partition's next batch as ready if it is full or has lingered; otherwise notes when
    /// it will have. Returns the number of jobs that became ready.
    fn list_batch(&mut self, id: PartitionId, now: Instant) -> usize {
        let Some(partition) = self.partitions.get_mut(id).and_then(Option::as_mut) else { return 0 };
        match partition.next_batch(now) {
            BatchReadiness::Ready(queue) => {
                self.ready.push_back((id, queue));
                1
            }
            BatchReadiness::LingersUntil(at) => {
                self.signals.driver |= self.lingering.first().is_none_or(|(first, _)| at < *first);
                self.lingering.insert((at, id));
                0
            }
            BatchReadiness::Nothing => 0,
        }
    }

    /// Begins a partition's lingering batch, because no more records come before it has ended.
    fn end_linger(&mut self, id: PartitionId) {
        let queue = self.partition(id).and_then(ScheduledPartition::end_linger);
        if let Some(queue) = queue {
            self.ready.push_back((id, queue));
            self.wake_lanes(1);
        }
    }

    // ---- handler tasks

    /// Returns new handler tasks to start now, because there is work that none of the existing ones
    /// takes.
    pub(super) fn new_lanes(&mut self) -> std::ops::Range<HandlerId> {
        let lanes = self.handlers.len();
        let fresh = self.handlers.iter().filter(|lane| lane.idle.is_none() && lane.running.is_none()).count();
        let wanted = (self.ready.len() + self.due.len()).saturating_sub(fresh);
        let more = if self.closing { 0 } else { wanted.min(self.rules.concurrency.saturating_sub(lanes)) };
        self.handlers.resize_with(lanes + more, HandlerSlot::default);
        lanes..lanes + more
    }

    fn wake_lanes(&mut self, jobs: usize) {
        let mut left = jobs;
        while left > 0
            && let Some(lane) = self.idle.pop()
        {
            if let Some(waker) = self.handlers.get_mut(lane).and_then(|lane| lane.idle.take()) {
                self.signals.wakers.push(waker);
                left -= 1;
            }
        }
        self.signals.driver |= left > 0 && self.handlers.len() < self.rules.concurrency;
    }

    /// Returns the next job for a handler task.
    pub(super) fn next(&mut self, lane: HandlerId, now: Instant) -> Option<Job> {
        let job = match self.due.pop_front() {
            Some(job) => job,
            None => self.next_ready(now)?,
        };
        let running = RunningHandler {
            partition: job.partition,
            offset: job.load.records().first().map_or(-1, |record| record.offset),
            records: job.load.records().len(),
            attempt: job.attempt,
            dead_lettering: matches!(job.task, Task::DeadLetter(_)),
            since: now,
            cancelled: false,
        };
        let state = self.handlers.get_mut(lane)?;
        state.idle = None;
        state.running = Some(running);
        self.running += 1;
        if let Some(partition) = self.partition(job.partition) {
            partition.running += 1;
        }
        Some(job)
    }

    /// Registers a handler task that waits for a job.
    pub(super) fn wait(&mut self, lane: HandlerId, waker: &Waker) {
        if let Some(state) = self.handlers.get_mut(lane)
            && state.idle.replace(waker.clone()).is_none()
        {
            self.idle.push(lane);
        }
    }

    fn next_ready(&mut self, now: Instant) -> Option<Job> {
        while let Some((id, queue)) = self.ready.pop_front() {
            if !self.admits(id, queue, now) {
                self.deferred.push((id, queue));
                continue;
            }
            let batch = self.rules.batch;
            let Some(partition) = self.partitions.get_mut(id).and_then(Option::as_mut) else { continue };
            let (begun, freed) = partition.begin(queue, batch);
            self.free(freed);
            if freed > 0 || begun.is_none() {
                // The feeder, or the end of the worker, may have waited only for the dropped
                // records.
                self.wake_feeder(id);
                if self.is_quiet() {
                    self.signals.wakers.extend(self.closer.take());
                }
            }
            if let Some(Begun { first, load, attempt, undelivered: buried, task }) = begun {
                if let Some(cycle) = &mut self.cycle {
                    cycle.job_begun(id, load.records().len(), now);
                    // The transaction's time counts from its first job on.
                    self.signals.driver = true;
                }
                return Some(Job { partition: id, queue, first, load, attempt, buried, task });
            }
        }
        None
    }

    /// Processes the outcome of a handler task's attempt.
    pub(super) fn finished(&mut self, lane: HandlerId, mut job: Job, outcome: Outcome, now: Instant) -> Verdict {
        let records = job.load.records().len() as u64;
        if let Some(running) = self.handlers.get_mut(lane).and_then(|lane| lane.running.take()) {
            self.running -= 1;
            self.count(&running, &outcome, now);
            // The worker's task is woken, because a member that was excluded from the group for
            // this job may rejoin.
            self.signals.driver |= self.is_overdue_since(running.since, now);
        }
        let given_up = self.partition(job.partition).is_none_or(|partition| {
            partition.running = partition.running.saturating_sub(1);
            partition.ending
        });
        if self.cycle.is_some() {
            let verdict = self.finished_in_transaction(&job, outcome, given_up, now);
            self.review_transaction();
            return verdict;
        }
        let verdict = match outcome {
            Outcome::Skipped => self.complete(&job, now),
            Outcome::Handled => {
                self.metrics.records_processed += records;
                self.complete(&job, now)
            }
            Outcome::Buried => {
                self.metrics.records_dead_lettered += records;
                self.complete(&job, now)
            }
            Outcome::Cancelled | Outcome::Refused => self.abandon(&job),
            // Records that belong to another member now, or soon will, are not retried or skipped
            // here.
            Outcome::Failed { .. } | Outcome::BuryingFailed(_) if given_up => self.abandon(&job),
            Outcome::Failed { again: true, .. } if job.attempt <= self.rules.retries => {
                self.metrics.retries += 1;
                let wait = self.rules.backoff.after(job.attempt - 1, &mut self.rng);
                job.attempt += 1;
                self.park(job, wait, now)
            }
            Outcome::Failed { error, .. } => match self.rules.failed {
                Failed::Stop => self.stop(&job, error),
                Failed::Skip => {
                    self.metrics.records_skipped += records;
                    self.complete(&job, now);
                    Verdict::Skipped
                }
                Failed::DeadLetter => {
                    job.task = Task::DeadLetter(error);
                    // Its handler task continues with it at once.
                    self.due.push_front(job);
                    Verdict::ToTheDeadLetters
                }
            },
            Outcome::BuryingFailed(error) if error.is_retriable() => {
                self.metrics.dead_letters_retried += 1;
                let wait = self.rules.backoff.after(job.buried, &mut self.rng);
                job.buried = job.buried.saturating_add(1);
                self.park(job, wait, now)
            }
            Outcome::BuryingFailed(error) => self.stop(&job, error),
        };
        if self.is_quiet() {
            self.signals.wakers.extend(self.closer.take());
        }
        verdict
    }

    /// Completes the records of a job.
    fn complete(&mut self, job: &Job, now: Instant) -> Verdict {
        let Some(partition) = self.partitions.get_mut(job.partition).and_then(Option::as_mut) else {
            return Verdict::Done;
        };
        let freed = partition.complete(job.first, job.load.records().len());
        if partition.release(job.queue) {
            // The job's own handler task asks for the next job at once: this one, or one that has
            // waited longer.
            self.ready.push_back((job.partition, job.queue));
        }
        self.list_batch(job.partition, now);
        self.free(freed);
        self.wake_feeder(job.partition);
        Verdict::Done
    }

    /// Leaves the records of a job incomplete, without a retry here.
    fn abandon(&mut self, job: &Job) -> Verdict {
        self.metrics.records_abandoned += job.load.records().len() as u64;
        if let Some(partition) = self.partition(job.partition)
            && partition.ending
        {
            // Records after it are read again anyway.
            let freed = partition.drop_from(job.first);
            self.free(freed);
        }
        self.wake_feeder(job.partition);
        Verdict::Abandoned
    }

    fn stop(&mut self, job: &Job, error: Error) -> Verdict {
        // Its queue never becomes free again, so that waiting records behind it would block the
        // end.
        if let Some(partition) = self.partition(job.partition) {
            partition.ending = true;
        }
        self.abandon(job);
        self.fail(error);
        Verdict::Stopped
    }

    fn park(&mut self, job: Job, wait: Duration, now: Instant) -> Verdict {
        self.parkings += 1;
        let at = (now + wait.min(FOREVER), self.parkings);
        self.signals.driver |= self.parked.first_key_value().is_none_or(|(first, _)| at < *first);
        self.parked.insert(at, job);
        Verdict::Again(wait)
    }

    /// Wakes a waiting feeder if there is room, or if its partition is drained.
    fn wake_feeder(&mut self, id: PartitionId) {
        let (bound, starved) = (self.rules.buffer_records, self.bytes >= self.rules.buffer_bytes);
        let is_held = self.cycle.as_ref().is_some_and(|cycle| cycle.holds(id));
        if let Some(partition) = self.partition(id) {
            let held = partition.slots.len();
            let has_room = (held <= bound / 2 || partition.is_lingering()) && !(starved && held > 0);
            if if partition.ending { partition.is_quiet() && !is_held } else { has_room } {
                let feeder = partition.feeder.take();
                self.signals.wakers.extend(feeder);
            }
        }
    }

    /// Releases bytes of the buffer.
    fn free(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        if self.bytes <= self.rules.buffer_bytes / 2 {
            for id in std::mem::take(&mut self.starved) {
                self.wake_feeder(id);
            }
        }
    }

    // ---- time

    /// Returns the time at which the first retry is due, or the first batch has lingered.
    pub(super) fn next_due(&self) -> Option<Instant> {
        let retry = self.parked.first_key_value().map(|((at, _), _)| *at);
        let batch = self.lingering.first().map(|(at, _)| *at);
        let transaction = self.cycle.as_ref().and_then(Cycle::next_due);
        let held = self.deferred.iter().filter_map(|(id, _)| self.partitions.get(*id)?.as_ref()?.held_until);
        retry.into_iter().chain(batch).chain(transaction).chain(held).min()
    }

    /// Makes retries ready that are due, and batches that have lingered.
    pub(super) fn tick(&mut self, now: Instant) {
        let mut begun = 0;
        while let Some(first) = self.parked.first_entry()
            && first.key().0 <= now
        {
            self.due.push_back(first.remove());
            begun += 1;
        }
        while let Some((at, id)) = self.lingering.first().copied()
            && at <= now
        {
            self.lingering.pop_first();
            if self.partition(id).is_some_and(|partition| partition.lingered(at)) {
                begun += self.list_batch(id, now);
            }
        }
        self.wake_lanes(begun);
        if let Some(cycle) = &mut self.cycle {
            cycle.tick(now);
            self.release_held(now);
            self.review_transaction();
        }
    }

    // ---- transactions

    /// Returns true if a job of that queue may begin; otherwise the job waits for a transaction.
    fn admits(&mut self, id: PartitionId, queue: usize, now: Instant) -> bool {
        let Some(cycle) = &mut self.cycle else { return true };
        let Some(partition) = self.partitions.get(id).and_then(Option::as_ref) else { return true };
        if partition.held_until.is_some_and(|until| now < until) {
            self.signals.driver = true;
            return false;
        }
        match cycle.admission() {
            Admission::All => true,
            Admission::Gaps => partition.is_gap(queue),
            Admission::None => {
                cycle.want(now);
                self.signals.transactions |= cycle.has_step();
                self.signals.driver = true;
                false
            }
        }
    }

    /// Makes jobs ready that were deferred.
    fn resume_deferred(&mut self) {
        let deferred = std::mem::take(&mut self.deferred);
        let jobs = deferred.len();
        self.ready.extend(deferred);
        self.wake_lanes(jobs);
    }

    /// Makes jobs ready of partitions that were held because a handler failed.
    fn release_held(&mut self, now: Instant) {
        let mut is_due = false;
        for (id, _) in &self.deferred {
            let partition = self.partitions.get_mut(*id).and_then(Option::as_mut);
            is_due |= partition.is_some_and(|partition| partition.held_until.take_if(|until| *until <= now).is_some());
        }
        if is_due {
            self.resume_deferred();
        }
    }

    /// Processes an outcome in a transaction.
    fn finished_in_transaction(&mut self, job: &Job, outcome: Outcome, given_up: bool, now: Instant) -> Verdict {
        let is_failed = self.cycle.as_ref().is_some_and(Cycle::is_failed);
        match outcome {
            _ if is_failed && given_up => self.abandon(job),
            _ if is_failed => Verdict::Undone,
            // The transaction cannot commit, and is aborted at the latest when it tries to.
            Outcome::Refused => Verdict::Undone,
            Outcome::Handled => self.complete_in_transaction(job, 0, now),
            Outcome::Buried => self.complete_in_transaction(job, 1, now),
            Outcome::Skipped => self.complete_in_transaction(job, 2, now),
            Outcome::Cancelled => {
                self.fail_transaction(Failure::Lost);
                self.abandon(job)
            }
            Outcome::Failed { error, again } => {
                let again = again && job.attempt <= self.rules.retries;
                self.fail_in_transaction(job, error, again, given_up, now)
            }
            Outcome::BuryingFailed(error) => {
                let again = error.is_retriable();
                self.fail_in_transaction(job, error, again, given_up, now)
            }
        }
    }

    fn complete_in_transaction(&mut self, job: &Job, kind: usize, now: Instant) -> Verdict {
        if let Some(done) = self.done.get_mut(kind) {
            *done += job.load.records().len() as u64;
        }
        self.complete(job, now)
    }

    /// Aborts the transaction because of a job, and decides what is done with the job's records
    /// when they come again.
    fn fail_in_transaction(&mut self, job: &Job, error: Error, again: bool, given_up: bool, now: Instant) -> Verdict {
        self.fail_transaction(Failure::Handler);
        if given_up {
            return self.abandon(job);
        }
        let (fate, wait, undelivered) = match (&job.task, again, self.rules.failed) {
            (Task::DeadLetter(cause), true, _) => {
                self.metrics.dead_letters_retried += 1;
                let wait = self.rules.backoff.after(job.buried, &mut self.rng);
                (Fate::DeadLetter(cause.clone()), Some(wait), job.buried.saturating_add(1))
            }
            (_, true, _) => {
                self.metrics.retries += 1;
                let wait = self.rules.backoff.after(job.attempt - 1, &mut self.rng);
                (Fate::Retry, Some(wait), 0)
            }
            (Task::DeadLetter(_), false, _) | (_, false, Failed::Stop) => return self.stop(job, error),
            (_, false, Failed::Skip) => (Fate::Skip, None, 0),
            (_, false, Failed::DeadLetter) => (Fate::DeadLetter(error), None, 0),
        };
        let verdict = match (&fate, wait) {
            (_, Some(wait)) => Verdict::Again(wait),
            (Fate::DeadLetter(_), None) => Verdict::ToTheDeadLetters,
            (_, None) => Verdict::Skipped,
        };
        if let (Some(first), Some(last)) = (job.load.records().first(), job.load.records().last())
            && let Some(partition) = self.partitions.get_mut(job.partition).and_then(Option::as_mut)
        {
            let range = FailedRange { end: last.offset + 1, attempts: job.attempt, undelivered, fate };
            partition.failed.note(first.offset, range);
            partition.held_until = wait.map(|wait| now + wait.min(FOREVER)).max(partition.held_until);
        }
        verdict
    }

    /// Aborts the transaction.
    pub(super) fn fail_transaction(&mut self, failure: Failure) {
        self.cycle(|cycle| cycle.fail(failure));
    }

    /// Moves the transaction on if none of its records runs, ends the jobs of one that failed, and
    /// wakes the tasks that wait for its end.
    fn review_transaction(&mut self) {
        let Some(cycle) = &mut self.cycle else { return };
        if cycle.awaits_settling() && self.running == 0 {
            let mut members = cycle.partitions().filter_map(|id| self.partitions.get(id)?.as_ref());
            if cycle.is_failed() || !members.any(ScheduledPartition::has_gap) {
                cycle.settled();
            }
        }
        self.signals.transactions |= cycle.has_step();
        let is_idle = cycle.is_idle();
        let is_running = |lane: &HandlerSlot| lane.running.as_ref().is_some_and(|running| !running.cancelled);
        if cycle.is_failed() && self.handlers.iter().any(is_running) {
            let lanes = self.cancel(None);
            self.signals.cancelled.extend(lanes);
        }
        if is_idle && self.is_quiet() {
            self.signals.wakers.extend(self.closer.take());
        }
    }

    /// Does something with the cycle, if there is one.
    pub(super) fn cycle<R>(&mut self, act: impl FnOnce(&mut Cycle) -> R) -> Option<R> {
        let result = act(self.cycle.as_mut()?);
        self.review_transaction();
        // Its next time may be an earlier one.
        self.signals.driver = true;
        Some(result)
    }

    /// Handles the result of beginning a transaction.
    pub(super) fn transaction_begun(&mut self, result: Result<(), Error>, now: Instant) {
        let is_begun = result.is_ok();
        self.cycle(|cycle| cycle.begun(result, now));
        self.done = [0; 3];
        if is_begun {
            self.resume_deferred();
        }
    }

    /// Collects the offsets to commit; `None` if the transaction must not commit, because one of
    /// its partitions is no longer read or was sought: it is then aborted.
    pub(super) fn offsets_to_commit(&mut self, now: Instant) -> Option<Vec<ToCommit<M>>> {
        let mut offsets = Vec::new();
        for id in self.cycle.as_ref()?.partitions() {
            let partition = self.partitions.get(id).and_then(Option::as_ref);
            let part = partition.and_then(|partition| Some((&partition.name, partition.uncommitted.as_ref()?)));
            let Some((name, part)) = part.filter(|(_, part)| part.is_whole()) else {
                self.fail_transaction(Failure::Lost);
                return None;
            };
            let to_commit = part.to_commit();
            offsets.extend(to_commit.map(|(mark, next)| ToCommit {
                partition: name.clone(),
                mark: mark.clone(),
                next,
            }));
        }
        let is_committing = self.cycle(|cycle| cycle.committing(now))?;
        is_committing.then_some(offsets)
    }

    /// Reports the records of the committed transaction as done.
    pub(super) fn transaction_committed(&mut self, now: Instant) {
        let Some(cycle) = &mut self.cycle else { return };
        let members: Vec<_> = cycle.partitions().collect();
        cycle.committed(now);
        let [handled, buried, skipped] = std::mem::take(&mut self.done);
        self.metrics.records_processed += handled;
        self.metrics.records_dead_lettered += buried;
        self.metrics.records_skipped += skipped;
        for id in members {
            if let Some(partition) = self.partitions.get_mut(id).and_then(Option::as_mut)
                && let Some(next) = partition.uncommitted.take().and_then(|part| part.commit())
            {
                partition.failed.forget_before(next);
            }
            self.wake_feeder(id);
        }
        self.want_next(now);
    }

    /// Drops the records of the transaction's partitions, because they are read again. Returns the
    /// offsets from which.
    pub(super) fn rewind_transaction(&mut self) -> Vec<(TopicPartition, i64)> {
        let Some(cycle) = &self.cycle else { return Vec::new() };
        let mut starts = Vec::new();
        for id in cycle.partitions() {
            let Some(partition) = self.partitions.get_mut(id).and_then(Option::as_mut) else { continue };
            let (freed, start) = partition.rewind();
            if !partition.ending {
                starts.extend(start.map(|start| (partition.name.clone(), start)));
            }
            self.ready.retain(|(ready, _)| *ready != id);
            self.deferred.retain(|(deferred, _)| *deferred != id);
            self.free(freed);
        }
        starts
    }

    /// Handles the end of the rewind.
    pub(super) fn transaction_rewound(&mut self, result: Result<(), Error>, now: Instant) {
        let Some(cycle) = &mut self.cycle else { return };
        let members: Vec<_> = cycle.partitions().collect();
        cycle.rewound(result, now);
        members.into_iter().for_each(|id| self.wake_feeder(id));
        self.want_next(now);
    }

    /// Asks for the next transaction if records wait for it.
    fn want_next(&mut self, now: Instant) {
        let is_free = |partition: &ScheduledPartition<M>| partition.held_until.is_none_or(|until| until <= now);
        let mut waiting = self.deferred.iter().filter_map(|(id, _)| self.partitions.get(*id)?.as_ref());
        let is_wanted = waiting.any(is_free);
        self.cycle(|cycle| {
            if is_wanted {
                cycle.want(now);
            }
        });
    }

    /// Returns the time at which the longest-running job began.
    pub(super) fn busy_since(&self) -> Option<Instant> {
        self.handlers.iter().filter_map(|lane| lane.running.as_ref()).map(|running| running.since).min()
    }

    /// Returns true if a job has run for longer than `max.poll.interval.ms`.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.busy_since().is_some_and(|since| self.is_overdue_since(since, now))
    }

    fn is_overdue_since(&self, since: Instant, now: Instant) -> bool {
        self.rules.patience.is_some_and(|patience| now.saturating_duration_since(since) >= patience)
    }

    // ---- the end

    /// Stores the first error that ends the worker.
    pub(super) fn fail(&mut self, error: Error) {
        self.failure.get_or_insert(error);
        self.signals.driver = true;
    }

    pub(super) fn failure(&self) -> Option<&Error> {
        self.failure.as_ref()
    }

    /// Drains all partitions, including those that are added later.
    pub(super) fn close(&mut self) {
        self.closing = true;
        (0..self.partitions.len()).for_each(|id| self.drain(id));
    }

    /// Begins no more records at all.
    pub(super) fn end_all(&mut self) {
        (0..self.partitions.len()).for_each(|id| self.end(id));
    }

    /// Returns true if no job runs or waits; otherwise `closer` is woken when that is the case.
    pub(super) fn is_idle(&mut self, closer: &Waker) -> bool {
        let idle = self.is_quiet() && self.cycle.as_ref().is_none_or(Cycle::is_idle);
        if !idle {
            self.closer = Some(closer.clone());
        }
        idle
    }

    fn is_quiet(&self) -> bool {
        self.running == 0 && !(self.closing && self.partitions.iter().flatten().any(|partition| !partition.is_quiet()))
    }
}
