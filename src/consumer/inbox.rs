//! Where the tasks that fetch and the reader that takes meet: two locks, and whom to wake.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Waker,
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{
    assignment::{Assignment, Signals},
    budget::Wake,
    lanes::Source,
    part::{Opening, Part},
    queue::Job,
    reader::Reader,
    split::SplitId,
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::TopicPartition,
    wire::batch::Decompressor,
};

/// A lock that outlives a panic elsewhere: what it protects is changed in whole steps.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What wakes the tasks that fetch.
#[derive(Debug, Default)]
pub(super) struct Wakers(Mutex<HashMap<Source, Arc<Notify>>>);

impl Wakers {
    pub(super) fn get(&self, source: Source) -> Arc<Notify> {
        lock(&self.0).entry(source).or_default().clone()
    }

    /// Makes what a broker's account calls when it has room again.
    pub(super) fn factory(self: &Arc<Self>) -> Box<dyn Fn(i32) -> Wake + Send> {
        let wakers = self.clone();
        Box::new(move |broker| {
            let wakers = wakers.clone();
            Box::new(move || {
                let wakers = lock(&wakers.0);
                let here = wakers.iter().filter(|(source, _)| source.broker == broker);
                here.for_each(|(_, waker)| waker.notify_one());
            })
        })
    }
}

/// Shared by the consumer, its tasks, and the records that a reader holds.
pub(super) struct Inbox {
    me: Weak<Inbox>,
    assignment: Mutex<Assignment>,
    reader: Mutex<Reader>,
    /// Those of partitions that are split off; their locks are taken after the common one's and
    /// before the assignment's.
    split: Mutex<Vec<Arc<Mutex<Reader>>>>,
    reading: AtomicBool,
    pub(super) wakers: Arc<Wakers>,
    /// Wakes the consumer's own task.
    pub(super) driver: Notify,
    /// Wakes those who wait for partitions to come or to be given back.
    pub(super) moved: Notify,
    /// A close waits for the readers of partitions that are split off.
    closing: AtomicBool,
    /// Revocations that wait for the reader.
    pub(super) revocations: AtomicUsize,
    runtime: Handle,
    /// One thread does everything: who reads without waiting keeps the fetches from going on.
    one_thread: bool,
    decompressors: Mutex<Vec<Decompressor>>,
    opening: Opening,
}

impl Inbox {
    pub(super) fn new(assignment: Assignment, wakers: Arc<Wakers>, opening: Opening, runtime: Handle) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            assignment: Mutex::new(assignment),
            reader: Mutex::new(Reader::new(opening.clone(), None)),
            split: Mutex::default(),
            reading: AtomicBool::new(false),
            wakers,
            driver: Notify::new(),
            moved: Notify::new(),
            closing: AtomicBool::new(false),
            revocations: AtomicUsize::new(0),
            one_thread: runtime.runtime_flavor() == RuntimeFlavor::CurrentThread,
            runtime,
            decompressors: Mutex::default(),
            opening,
        })
    }

    /// Does something with the assignment, and wakes whom it concerns.
    pub(super) fn with<R>(&self, act: impl FnOnce(&mut Assignment) -> R) -> R {
        let mut assignment = lock(&self.assignment);
        let result = act(&mut assignment);
        let signals = assignment.take_signals();
        drop(assignment);
        self.fire(signals);
        result
    }

    /// The same where it takes partitions, or positions in them, away from the reader: when this
    /// returns, nothing more of them is handed out.
    pub(super) fn control<R>(&self, act: impl FnOnce(&mut Assignment) -> R) -> R {
        let mut reader = lock(&self.reader);
        let split = lock(&self.split).clone();
        // Nobody else takes more than one of them, but under the common reader's lock.
        let mut split: Vec<_> = split.iter().map(|reader| lock(reader)).collect();
        self.with(|assignment| {
            let result = act(assignment);
            reader.reconcile(assignment);
            split.iter_mut().for_each(|reader| reader.reconcile(assignment));
            result
        })
    }

    /// Gives a partition a reader of its own; `by_hand`: one that says by itself what it is done
    /// with.
    pub(super) fn split(&self, partition: &TopicPartition, by_hand: bool) -> Result<(SplitId, Arc<Mutex<Reader>>)> {
        let mut reader = lock(&self.reader);
        let holds = reader.holds(partition);
        let id = self.with(|assignment| {
            let id = assignment.split(partition, holds)?;
            reader.reconcile(assignment);
            Ok::<_, Error>(id)
        })?;
        reader.let_go(partition);
        let its_own = Reader::new(self.opening.clone(), Some(id.clone())).inherits(holds);
        let its_own = Arc::new(Mutex::new(if by_hand { its_own.by_hand() } else { its_own }));
        lock(&self.split).push(its_own.clone());
        Ok((id, its_own))
    }

    /// The partition goes back to the common reader, with all that was not handed out of it.
    pub(super) fn unsplit(&self, id: &SplitId, its_own: &Arc<Mutex<Reader>>) {
        let lent = lock(its_own).lent;
        self.control(|assignment| assignment.unsplit(id, lent));
        lock(&self.split).retain(|reader| !Arc::ptr_eq(reader, its_own));
        let mut reader = lock(&self.reader);
        let mut its_own = lock(its_own);
        its_own.let_go(&id.partition);
        reader.add_given(its_own.given());
        drop((reader, its_own));
        self.finished();
    }

    /// Records that all readers together were given.
    pub(super) fn records_given(&self) -> u64 {
        let mut reader = lock(&self.reader);
        let split = lock(&self.split).clone();
        reader.given() + split.iter().map(|reader| lock(reader).given()).sum::<u64>()
    }

    /// Waits until the readers of partitions that are split off hold nothing more, until then at
    /// the latest.
    pub(super) async fn split_readers_finish(&self, deadline: Instant) {
        self.closing.store(true, SeqCst);
        loop {
            let mut moved = pin!(self.moved.notified());
            // From here on it hears of whoever is done.
            moved.as_mut().enable();
            let split = lock(&self.split).clone();
            if !split.iter().any(|reader| lock(reader).holds_any()) || timeout_at(deadline, moved).await.is_err() {
                return;
            }
        }
    }

    /// Whether any reader holds records of one of these.
    pub(super) fn holds(&self, partitions: &[TopicPartition]) -> bool {
        let reader = lock(&self.reader);
        let split = lock(&self.split).clone();
        let holds = |reader: &Reader| partitions.iter().any(|partition| reader.holds(partition));
        holds(&reader) || split.iter().any(|reader| holds(&lock(reader)))
    }

    pub(super) fn reader(&self) -> MutexGuard<'_, Reader> {
        lock(&self.reader)
    }

    /// The reader of all that is not split off, under its lock.
    pub(super) fn common_reader(&self) -> &Mutex<Reader> {
        &self.reader
    }

    fn fire(&self, signals: Signals) {
        for node in signals.nodes {
            self.wakers.get(node).notify_one();
        }
        if signals.driver {
            self.driver.notify_one();
        }
        if signals.moved {
            self.moved.notify_waiters();
        }
        signals.reader.into_iter().chain(signals.readers).for_each(Waker::wake);
        for job in signals.jobs {
            self.spawn(job);
        }
    }

    /// Opens a batch on a thread that may block.
    fn spawn(&self, job: Job) {
        let Some(inbox) = self.me.upgrade() else { return };
        self.runtime.spawn_blocking(move || {
            let mut decompressor = lock(&inbox.decompressors).pop().unwrap_or_default();
            let Job { lease, batch, charge, start, end, opening } = job;
            let opened = Part::open(&lease, &batch, start..end, charge, &mut decompressor, &inbox.opening);
            // What it became is charged by now.
            drop(opening);
            lock(&inbox.decompressors).push(decompressor);
            inbox.with(|assignment| assignment.opened(&lease, end, opened));
        });
    }

    /// Becomes the one reader. What the last one held is done with, and what waits for that goes
    /// on.
    ///
    /// # Errors
    /// `InvalidArgument` while another call reads, or records of one are still held.
    pub(super) fn read(&self) -> Result<ReadGuard<'_>> {
        if self.reading.swap(true, SeqCst) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "another call reads from this consumer, or the records of the last poll are still held: one reader at a time",
            ));
        }
        self.next();
        Ok(ReadGuard(Some(self)))
    }

    /// Whether the reader should let others go on before it reads: it has taken over new batches
    /// since it last did, and has the only thread.
    pub(super) fn should_yield(&self, reader: &Mutex<Reader>) -> bool {
        self.one_thread && lock(reader).take_refilled()
    }

    /// The same of the common reader.
    pub(super) fn reader_should_yield(&self) -> bool {
        self.should_yield(&self.reader)
    }

    /// The reader asks for the next records: it is done with those that it holds.
    pub(super) fn next(&self) {
        lock(&self.reader).finish();
        self.finished();
    }

    /// Revocations that waited for a reader may go on.
    pub(super) fn finished(&self) {
        if self.closing.load(SeqCst) {
            self.moved.notify_waiters();
        }
        if self.revocations.load(SeqCst) > 0 {
            self.driver.notify_one();
        }
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("reading", &self.reading).finish_non_exhaustive()
    }
}

/// The right to read, for as long as it lives.
#[derive(Debug)]
pub(super) struct ReadGuard<'a>(Option<&'a Inbox>);

impl ReadGuard<'_> {
    /// The same, to be kept as long as one likes; `None` where the inbox is being dropped.
    pub(super) fn into_owned(mut self) -> Option<Reading> {
        let inbox = self.0.and_then(|inbox| inbox.me.upgrade())?;
        self.0 = None;
        Some(Reading(inbox))
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        if let Some(inbox) = self.0 {
            inbox.reading.store(false, SeqCst);
        }
    }
}

/// The right to read, with all that it reads from.
#[derive(Debug)]
pub(super) struct Reading(Arc<Inbox>);

impl Reading {
    pub(super) fn inbox(&self) -> &Arc<Inbox> {
        &self.0
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.reading.store(false, SeqCst);
    }
}
