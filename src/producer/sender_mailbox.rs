//! Notifies the sender's task from `send`: at most once for each batch, and only if the task would
//! otherwise sleep too long.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use crate::producer::{
    accumulator::{Partition, SenderEvent},
    purge::PurgeScope,
};

/// The phase of the task's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Send records as they come.
    Running = 0,
    /// Send the remaining records at once, then end.
    Draining = 1,
    /// Fail the remaining records and end.
    Aborting = 2,
}

/// Notifications for the sender's task.
#[derive(Debug)]
pub(crate) struct SenderMailbox {
    notified: Mutex<Vec<Arc<Partition>>>,
    waker: Notify,
    /// Time until which the task sleeps if it is not woken, in nanoseconds since `start`.
    parked_until: AtomicU64,
    start: Instant,
    linger: Duration,
    flushes: AtomicU64,
    phase: AtomicU8,
    requests: Mutex<Vec<SenderRequest>>,
}

/// A request that its caller waits for.
#[derive(Debug)]
pub(crate) enum SenderRequest {
    /// Update a topic from the metadata.
    UpdateTopic { topic: Arc<str>, done: oneshot::Sender<()> },
    /// Give up records, and return their number.
    Purge { what: PurgeScope, done: oneshot::Sender<usize> },
}

impl SenderMailbox {
    pub(crate) fn new(start: Instant, linger: Duration) -> Self {
        Self {
            notified: Mutex::default(),
            waker: Notify::new(),
            parked_until: AtomicU64::new(0),
            start,
            linger,
            flushes: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Running as u8),
            requests: Mutex::default(),
        }
    }

    /// Notifies the task of an event of a partition. `is_short` returns true if a call waits for
    /// room, so that batches must not linger.
    pub(crate) fn notify(&self, partition: &Arc<Partition>, event: SenderEvent, is_short: impl FnOnce() -> bool) {
        let wake = match event {
            SenderEvent::None => return,
            SenderEvent::BatchFull => {
                self.push(partition);
                true
            }
            SenderEvent::BatchOpened(at) => {
                self.push(partition);
                // The task reads the mailbox whenever it wakes, so it is woken only if it would
                // sleep past the linger. A call that starts to wait for room, or ends the producer,
                // wakes the task afterwards; one that did so before the push is seen here.
                is_short()
                    || self.phase() != Phase::Running
                    || self.nanos(at + self.linger) < self.parked_until.load(Ordering::SeqCst)
            }
        };
        if wake {
            self.wake();
        }
    }

    fn push(&self, partition: &Arc<Partition>) {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner).push(partition.clone());
    }

    /// Takes the notified partitions, in order.
    pub(crate) fn take_notified(&self, into: &mut Vec<Arc<Partition>>) {
        std::mem::swap(&mut *self.notified.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    /// Announces that the task will sleep until `until` (forever, if `None`). Returns `false` if
    /// there are notifications to read first.
    pub(crate) fn park(&self, until: Option<Instant>) -> bool {
        self.parked_until.store(until.map_or(u64::MAX, |at| self.nanos(at)), Ordering::SeqCst);
        // A notification from before this check is seen here; a later one sees the time at which
        // the task will wake.
        self.notified.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Announces that the task is awake, so that it need not be woken.
    pub(crate) fn unpark(&self) {
        self.parked_until.store(0, Ordering::SeqCst);
    }

    /// Wakes the task.
    pub(crate) fn wake(&self) {
        self.waker.notify_one();
    }

    /// Waits to be woken. An earlier wake-up is not lost.
    pub(crate) async fn woken(&self) {
        self.waker.notified().await;
    }

    /// Requests that a topic is updated from the metadata.
    pub(crate) fn request_topic(&self, topic: &str) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        self.request(SenderRequest::UpdateTopic { topic: topic.into(), done });
        answer
    }

    /// Requests that records are given up; the answer is their number.
    pub(crate) fn purge(&self, what: PurgeScope) -> oneshot::Receiver<usize> {
        let (done, answer) = oneshot::channel();
        self.request(SenderRequest::Purge { what, done });
        answer
    }

    fn request(&self, question: SenderRequest) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(question);
        self.wake();
    }

    /// Takes the requests. They are taken before the notifications, so that a request covers the
    /// records that its caller sent before.
    pub(crate) fn take_requests(&self) -> Vec<SenderRequest> {
        std::mem::take(&mut *self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets all open batches leave.
    pub(crate) fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    /// Returns the number of flushes that were requested.
    pub(crate) fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Aborting,
        }
    }

    /// Enters a later phase; never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.wake();
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use crate::producer::sender_mailbox::*;

    fn rung(mailbox: &SenderMailbox) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        pin!(mailbox.woken()).as_mut().poll(&mut cx).is_ready()
    }

    #[test]
    fn opened_batch_wakes_sender_sleeping_past_linger() {
        let start = Instant::now();
        let mailbox = SenderMailbox::new(start, Duration::from_millis(5));
        let partition = Arc::new(Partition::new(0, "t".into(), 0, Arc::default()));
        mailbox.notify(&partition, SenderEvent::BatchOpened(start), || false);
        assert!(!mailbox.park(None), "there is a notification to read first");
        mailbox.take_notified(&mut Vec::new());
        assert!(mailbox.park(Some(start + Duration::from_millis(5))));
        mailbox.notify(&partition, SenderEvent::BatchOpened(start + Duration::from_millis(1)), || false);
        assert!(!rung(&mailbox));
        mailbox.notify(&partition, SenderEvent::BatchOpened(start + Duration::from_millis(1)), || true);
        assert!(rung(&mailbox), "batches do not linger while a call waits for room");
        mailbox.park(None);
        mailbox.notify(&partition, SenderEvent::BatchOpened(start + Duration::from_millis(2)), || false);
        assert!(rung(&mailbox));
        mailbox.notify(&partition, SenderEvent::None, || true);
        assert!(!rung(&mailbox));
        mailbox.notify(&partition, SenderEvent::BatchFull, || false);
        assert!(rung(&mailbox), "a full batch does not wait");
        mailbox.park(Some(start));
        mailbox.enter(Phase::Draining);
        assert!(rung(&mailbox));
        mailbox.notify(&partition, SenderEvent::BatchOpened(start), || false);
        assert!(rung(&mailbox), "batches do not linger when the producer ends");
    }

    #[test]
    fn phases_only_go_forward() {
        let mailbox = SenderMailbox::new(Instant::now(), Duration::ZERO);
        mailbox.enter(Phase::Aborting);
        mailbox.enter(Phase::Draining);
        assert_eq!(mailbox.phase(), Phase::Aborting);
    }
}
