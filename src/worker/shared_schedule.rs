//! State shared by the worker's tasks: the schedule under its lock, the wakers, and the
//! cancellation of attempts.

use std::{
    future::poll_fn,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Poll, Waker},
    time::Instant as StdInstant,
};

use tokio::{sync::Notify, time::Instant};

use crate::worker::{
    attempt::Cancel,
    schedule::{CompletionTarget, HandlerId, Job, OfferRoom, Outcome, PartitionId, Schedule, Verdict},
};
use crate::{
    consumer::CompletionMark,
    error::{Error, ErrorCode},
    log::{Limiter, Origin, event},
    record::{ConsumerRecord, TopicPartition},
};

impl CompletionTarget for CompletionMark {
    fn finish_to(&self, next: i64) {
        Self::complete_to(self, next);
    }

    fn is_over(&self) -> bool {
        Self::is_over(self)
    }

    fn is_same(&self, other: &Self) -> bool {
        Self::is_same_progress(self, other)
    }
}

#[derive(Debug)]
pub(super) struct SharedSchedule {
    schedule: Mutex<Schedule<CompletionMark>>,
    /// One for each handler task; used under the schedule's lock, so that the cancelled job is the
    /// one that runs.
    cancels: Mutex<Vec<Arc<Cancel>>>,
    /// Wakes the worker's own task.
    pub(super) driver: Notify,
    /// Wakes the transaction task.
    pub(super) transactions: Notify,
    last_error: Mutex<Option<Error>>,
    closing: AtomicBool,
    /// The consumer, as named in log lines.
    pub(super) origin: Origin,
    lines: Mutex<Limiter<(&'static str, Option<ErrorCode>)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn now() -> StdInstant {
    Instant::now().into_std()
}

impl SharedSchedule {
    pub(super) fn new(schedule: Schedule<CompletionMark>, origin: Origin) -> Arc<Self> {
        Arc::new(Self {
            schedule: Mutex::new(schedule),
            cancels: Mutex::default(),
            driver: Notify::new(),
            transactions: Notify::new(),
            last_error: Mutex::default(),
            closing: AtomicBool::new(false),
            origin,
            lines: Mutex::default(),
        })
    }

    /// Returns the number of log lines of that kind that were suppressed recently, if this one may
    /// be written.
    pub(super) fn admit_line(&self, kind: &'static str, error: Option<&Error>) -> Option<u64> {
        lock(&self.lines).admit((kind, error.and_then(Error::code)), now())
    }

    /// Logs an error of the consumer that does not end the worker.
    pub(super) fn warn_of_error(&self, partition: Option<&TopicPartition>, error: &Error) {
        if let Some(suppressed) = self.admit_line("trouble", Some(error)) {
            let partition = partition.map(tracing::field::display);
            event!(
                WARN, self.origin, partition, %error, advice = error.advice(), suppressed,
                "the worker's consumer reported an error; the worker goes on"
            );
        }
    }

    /// Does something with the schedule, and wakes the tasks that are concerned.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Schedule<CompletionMark>) -> R) -> R {
        let mut schedule = lock(&self.schedule);
        let result = act(&mut schedule);
        let signals = schedule.take_signals();
        if !signals.cancelled.is_empty() {
            self.cancel_jobs(&signals.cancelled);
        }
        drop(schedule);
        if signals.driver {
            self.driver.notify_one();
        }
        if signals.transactions {
            self.transactions.notify_one();
        }
        signals.wakers.into_iter().for_each(Waker::wake);
        result
    }

    // ---- handler tasks

    /// Returns the handle that ends the attempts of that handler task.
    pub(super) fn cancel_of(&self, lane: HandlerId) -> Arc<Cancel> {
        let mut cancels = lock(&self.cancels);
        if cancels.len() <= lane {
            cancels.resize_with(lane + 1, Arc::default);
        }
        cancels.get(lane).cloned().unwrap_or_default()
    }

    /// Waits for the next job of a handler task.
    pub(super) async fn next_job(&self, lane: HandlerId, cancel: &Cancel) -> Job {
        poll_fn(|cx| {
            self.with(|schedule| match schedule.next(lane, now()) {
                Some(job) => {
                    cancel.reset();
                    Poll::Ready(job)
                }
                None => {
                    schedule.wait(lane, cx.waker());
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Reports the outcome of a handler task's attempt. Returns its verdict, and the task's next
    /// job if there is one.
    pub(super) fn finished(
        &self,
        lane: HandlerId,
        job: Job,
        outcome: Outcome,
        cancel: &Cancel,
    ) -> (Verdict, Option<Job>) {
        let now = now();
        self.with(|schedule| {
            let verdict = schedule.finished(lane, job, outcome, now);
            cancel.reset();
            (verdict, schedule.next(lane, now))
        })
    }

    /// Cancels the running jobs of that partition, or of all.
    pub(super) fn cancel(&self, partition: Option<PartitionId>) {
        self.with(|schedule| self.cancel_jobs(&schedule.cancel(partition)));
    }

    /// Ends the attempts of these handler tasks. Must be called under the schedule's lock, so that
    /// the jobs that are ended are those that run.
    fn cancel_jobs(&self, lanes: &[HandlerId]) {
        let cancels = lock(&self.cancels);
        lanes.iter().filter_map(|lane| cancels.get(*lane)).for_each(|cancel| cancel.cancel());
    }

    // ---- partition tasks

    /// Waits until records of that partition may be offered; returns how many.
    pub(super) async fn room(&self, partition: PartitionId) -> OfferRoom {
        poll_fn(|cx| self.with(|schedule| schedule.room(partition, cx.waker())).map_or(Poll::Pending, Poll::Ready))
            .await
    }

    pub(super) fn offer(&self, partition: PartitionId, mark: CompletionMark, records: &mut Vec<ConsumerRecord>) {
        let now = now();
        self.with(|schedule| schedule.offer(partition, mark, records.drain(..), now));
    }

    /// Waits until all offered records of that partition are done.
    pub(super) async fn settled(&self, partition: PartitionId) {
        poll_fn(|cx| match self.with(|schedule| schedule.is_settled(partition, cx.waker())) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Waits until no job of that partition runs or waits.
    pub(super) async fn drained(&self, partition: PartitionId) {
        poll_fn(|cx| match self.with(|schedule| schedule.is_drained(partition, cx.waker())) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    // ---- the end

    pub(super) fn close(&self) {
        self.closing.store(true, SeqCst);
        self.with(Schedule::close);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// Waits until no job runs or waits.
    pub(super) async fn idle(&self) {
        poll_fn(|cx| match self.with(|schedule| schedule.is_idle(cx.waker())) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        })
        .await;
    }

    /// Stores an error that did not end the worker.
    pub(super) fn record_error(&self, error: Error) {
        *lock(&self.last_error) = Some(error);
    }

    pub(super) fn last_error(&self) -> Option<Error> {
        lock(&self.last_error).clone()
    }
}
