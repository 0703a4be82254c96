//! How `send` reaches the sender's task: once per batch at most, and only when it would otherwise
//! sleep too long.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};

use super::{
    accumulator::{News, Partition},
    purge::Purge,
};

/// What the task is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Go on.
    Running = 0,
    /// Send what there is at once, then end.
    Draining = 1,
    /// Fail what there is and end.
    Aborting = 2,
}

/// News for the sender's task.
#[derive(Debug)]
pub(crate) struct Inbox {
    noticed: Mutex<Vec<Arc<Partition>>>,
    bell: Notify,
    /// Until when the task sleeps if it is not woken, in nanoseconds since `start`.
    asleep_until: AtomicU64,
    start: Instant,
    linger: Duration,
    flushes: AtomicU64,
    phase: AtomicU8,
    questions: Mutex<Vec<Question>>,
}

/// Something that somebody waits for the task to do.
#[derive(Debug)]
pub(crate) enum Question {
    /// Take a topic over from the metadata.
    TakeOver { topic: Arc<str>, done: oneshot::Sender<()> },
    /// Give records up, and say how many.
    Purge { what: Purge, done: oneshot::Sender<usize> },
}

impl Inbox {
    pub(crate) fn new(start: Instant, linger: Duration) -> Self {
        Self {
            noticed: Mutex::default(),
            bell: Notify::new(),
            asleep_until: AtomicU64::new(0),
            start,
            linger,
            flushes: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Running as u8),
            questions: Mutex::default(),
        }
    }

    /// A partition has something new. `is_short`: whether somebody waits for room, so that nothing
    /// lingers.
    pub(crate) fn tell(&self, partition: &Arc<Partition>, news: News, is_short: impl FnOnce() -> bool) {
        let wake = match news {
            News::None => return,
            News::Full => {
                self.push(partition);
                true
            }
            News::Opened(at) => {
                self.push(partition);
                // The task reads the inbox whenever it wakes: it need not wake for this if it will
                // in time anyway. Who comes to wait, or ends the producer, rings afterwards; who
                // did before the push is seen here.
                is_short()
                    || self.phase() != Phase::Running
                    || self.nanos(at + self.linger) < self.asleep_until.load(Ordering::SeqCst)
            }
        };
        if wake {
            self.ring();
        }
    }

    fn push(&self, partition: &Arc<Partition>) {
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner).push(partition.clone());
    }

    /// Takes the partitions that have something new, in the order of the news.
    pub(crate) fn take(&self, into: &mut Vec<Arc<Partition>>) {
        std::mem::swap(&mut *self.noticed.lock().unwrap_or_else(PoisonError::into_inner), into);
    }

    /// The task is about to sleep until then (for ever, if `None`). Gives `false` when there is
    /// news to be read first.
    pub(crate) fn lie_down(&self, until: Option<Instant>) -> bool {
        self.asleep_until.store(until.map_or(u64::MAX, |at| self.nanos(at)), Ordering::SeqCst);
        // Whoever put something in before this look is seen; whoever does after it sees when the
        // task will wake.
        self.noticed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The task is awake: nobody has to wake it.
    pub(crate) fn get_up(&self) {
        self.asleep_until.store(0, Ordering::SeqCst);
    }

    /// Wakes the task.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }

    /// Waits to be woken. A ring that came before is not lost.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    /// Asks for a topic to be taken over from the metadata.
    pub(crate) fn ask_for(&self, topic: &str) -> oneshot::Receiver<()> {
        let (done, answer) = oneshot::channel();
        self.ask(Question::TakeOver { topic: topic.into(), done });
        answer
    }

    /// Asks for records to be given up; the answer says how many were.
    pub(crate) fn purge(&self, what: Purge) -> oneshot::Receiver<usize> {
        let (done, answer) = oneshot::channel();
        self.ask(Question::Purge { what, done });
        answer
    }

    fn ask(&self, question: Question) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).push(question);
        self.ring();
    }

    /// Takes what was asked for. Before the news, so that who asks finds taken in what it sent
    /// before.
    pub(crate) fn take_questions(&self) -> Vec<Question> {
        std::mem::take(&mut *self.questions.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets all open batches leave.
    pub(crate) fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::AcqRel);
        self.ring();
    }

    /// How many flushes were asked for.
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

    /// Goes to a later phase; never back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.fetch_max(phase as u8, Ordering::AcqRel);
        self.ring();
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    fn rung(inbox: &Inbox) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        pin!(inbox.rung()).as_mut().poll(&mut cx).is_ready()
    }

    #[test]
    fn a_begun_batch_wakes_the_task_only_if_it_would_sleep_past_its_linger() {
        let start = Instant::now();
        let inbox = Inbox::new(start, Duration::from_millis(5));
        let partition = Arc::new(Partition::new(0, "t".into(), 0, Arc::default()));
        inbox.tell(&partition, News::Opened(start), || false);
        assert!(!inbox.lie_down(None), "there is news to be read first");
        inbox.take(&mut Vec::new());
        assert!(inbox.lie_down(Some(start + Duration::from_millis(5))));
        inbox.tell(&partition, News::Opened(start + Duration::from_millis(1)), || false);
        assert!(!rung(&inbox));
        inbox.tell(&partition, News::Opened(start + Duration::from_millis(1)), || true);
        assert!(rung(&inbox), "nothing lingers while somebody waits for room");
        inbox.lie_down(None);
        inbox.tell(&partition, News::Opened(start + Duration::from_millis(2)), || false);
        assert!(rung(&inbox));
        inbox.tell(&partition, News::None, || true);
        assert!(!rung(&inbox));
        inbox.tell(&partition, News::Full, || false);
        assert!(rung(&inbox), "a full batch does not wait");
        inbox.lie_down(Some(start));
        inbox.enter(Phase::Draining);
        assert!(rung(&inbox));
        inbox.tell(&partition, News::Opened(start), || false);
        assert!(rung(&inbox), "nothing lingers at the end");
    }

    #[test]
    fn phases_only_go_forward() {
        let inbox = Inbox::new(Instant::now(), Duration::ZERO);
        inbox.enter(Phase::Aborting);
        inbox.enter(Phase::Draining);
        assert_eq!(inbox.phase(), Phase::Aborting);
    }
}
