//! The meeting point of fetch tasks and readers: the locks of the state and of the readers, and the
//! wake-ups after a change.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    task::Waker,
};

use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::Notify,
    time::{Instant, timeout_at},
};

use crate::consumer::lock::lock;
use crate::consumer::{
    buffer::{
        fetched_batch::DecodeConfig, partition_buffer::Decompression, record_reader::RecordReader, split::SplitId,
        wakeups::Wakeups,
    },
    fetch::{connection_id::FetchConnectionId, memory_budget::QuotaWaker},
    state::ConsumerState,
};
use crate::{
    error::{Error, ErrorKind, Result},
    record::TopicPartition,
    wire::batch::Decompressor,
};

/// Wakers of the fetch tasks.
#[derive(Debug, Default)]
pub(crate) struct FetchWakers(Mutex<HashMap<FetchConnectionId, Arc<Notify>>>);

impl FetchWakers {
    pub(crate) fn get(&self, connection: FetchConnectionId) -> Arc<Notify> {
        lock(&self.0).entry(connection).or_default().clone()
    }

    /// Returns a function that creates the waker of a broker's quota, called when the quota has
    /// room again.
    pub(crate) fn factory(self: &Arc<Self>) -> Box<dyn Fn(i32) -> QuotaWaker + Send> {
        let wakers = self.clone();
        Box::new(move |broker| {
            let wakers = wakers.clone();
            Box::new(move || {
                let wakers = lock(&wakers.0);
                let here = wakers.iter().filter(|(connection, _)| connection.broker == broker);
                here.for_each(|(_, waker)| waker.notify_one());
            })
        })
    }
}

/// Fetched batches and the consumer's state, shared by the consumer, its tasks, and the records
/// that a reader holds.
pub(crate) struct FetchBuffer {
    me: Weak<FetchBuffer>,
    state: Mutex<ConsumerState>,
    reader: Mutex<RecordReader>,
    /// Readers of partitions that are split off. Their locks are taken after the common reader's
    /// and before that of `state`.
    split: Mutex<Vec<Arc<Mutex<RecordReader>>>>,
    reading: AtomicBool,
    pub(crate) wakers: Arc<FetchWakers>,
    /// Wakes the consumer's own task.
    pub(crate) task: Notify,
    /// Wakes callers that wait for partitions to be assigned or revoked.
    pub(crate) position_waiters: Notify,
    /// True while a close waits for the readers of partitions that are split off.
    closing: AtomicBool,
    /// Number of revocations that wait for the reader.
    pub(crate) revocations: AtomicUsize,
    runtime: Handle,
    /// True if the runtime has one thread: a reader that never waits would keep the fetch tasks
    /// from running.
    one_thread: bool,
    decompressors: Mutex<Vec<Decompressor>>,
    decode_config: DecodeConfig,
}

impl FetchBuffer {
    pub(crate) fn new(
        state: ConsumerState,
        wakers: Arc<FetchWakers>,
        decode_config: DecodeConfig,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            state: Mutex::new(state),
            reader: Mutex::new(RecordReader::new(decode_config.clone(), None)),
            split: Mutex::default(),
            reading: AtomicBool::new(false),
            wakers,
            task: Notify::new(),
            position_waiters: Notify::new(),
            closing: AtomicBool::new(false),
            revocations: AtomicUsize::new(0),
            one_thread: runtime.runtime_flavor() == RuntimeFlavor::CurrentThread,
            runtime,
            decompressors: Mutex::default(),
            decode_config,
        })
    }

    /// Calls `act` with the state under its lock, then sends the wake-ups of the change.
    pub(crate) fn with_state<R>(&self, act: impl FnOnce(&mut ConsumerState) -> R) -> R {
        let mut state = lock(&self.state);
        let result = act(&mut state);
        let signals = state.take_wakeups();
        drop(state);
        self.wake(signals);
        result
    }

    /// Like [`with_state`](Self::with_state), for changes that withdraw or reposition partitions:
    /// when this returns, no reader delivers their old records any more.
    pub(crate) fn with_state_and_readers<R>(&self, act: impl FnOnce(&mut ConsumerState) -> R) -> R {
        let mut reader = lock(&self.reader);
        let split = lock(&self.split).clone();
        // No deadlock: only callers that hold the common reader's lock take more than one of these
        // locks.
        let mut split: Vec<_> = split.iter().map(|reader| lock(reader)).collect();
        self.with_state(|state| {
            let result = act(state);
            return_withdrawn(&mut reader, state);
            split.iter_mut().for_each(|reader| return_withdrawn(reader, state));
            result
        })
    }

    /// Gives a partition a reader of its own; with `by_hand`, one with manual completion.
    pub(crate) fn split(
        &self,
        partition: &TopicPartition,
        by_hand: bool,
    ) -> Result<(SplitId, Arc<Mutex<RecordReader>>)> {
        let mut reader = lock(&self.reader);
        let holds = reader.holds(partition);
        let id = self.with_state(|state| {
            let id = state.split(partition, holds)?;
            return_withdrawn(&mut reader, state);
            Ok::<_, Error>(id)
        })?;
        reader.release(partition);
        let its_own = RecordReader::new(self.decode_config.clone(), Some(id.clone())).inheriting(holds);
        let its_own = Arc::new(Mutex::new(if by_hand { its_own.with_manual_completion() } else { its_own }));
        lock(&self.split).push(its_own.clone());
        Ok((id, its_own))
    }

    /// Returns the partition to the common reader, with all its undelivered records.
    pub(crate) fn join_split(&self, id: &SplitId, its_own: &Arc<Mutex<RecordReader>>) {
        let lent = lock(its_own).lent;
        self.with_state_and_readers(|state| state.unsplit(id, lent));
        lock(&self.split).retain(|reader| !Arc::ptr_eq(reader, its_own));
        let mut reader = lock(&self.reader);
        let mut its_own = lock(its_own);
        its_own.release(&id.partition);
        reader.add_delivered_records(its_own.delivered_records());
        drop((reader, its_own));
        self.notify_completed();
    }

    /// Returns the number of records that all readers together have returned.
    pub(crate) fn delivered_records(&self) -> u64 {
        let mut reader = lock(&self.reader);
        let split = lock(&self.split).clone();
        reader.delivered_records() + split.iter().map(|reader| lock(reader).delivered_records()).sum::<u64>()
    }

    /// Waits until the readers of partitions that are split off hold no records, until the deadline
    /// at the latest.
    pub(crate) async fn wait_for_split_readers(&self, deadline: Instant) {
        self.closing.store(true, SeqCst);
        loop {
            let mut moved = pin!(self.position_waiters.notified());
            // Registers before the readers are checked, so that no completion is missed.
            moved.as_mut().enable();
            let split = lock(&self.split).clone();
            if !split.iter().any(|reader| lock(reader).holds_records()) || timeout_at(deadline, moved).await.is_err() {
                return;
            }
        }
    }

    /// Drops the records of these partitions that readers hold, without completing them: a
    /// revocation waits for them no longer.
    pub(crate) fn release_held(&self, partitions: &[&TopicPartition]) {
        let mut reader = lock(&self.reader);
        let split = lock(&self.split).clone();
        for partition in partitions {
            reader.release(partition);
            split.iter().for_each(|reader| lock(reader).release(partition));
        }
        drop(reader);
        self.notify_completed();
    }

    /// Returns true if any reader holds records of one of these partitions.
    pub(crate) fn holds(&self, partitions: &[TopicPartition]) -> bool {
        let reader = lock(&self.reader);
        let split = lock(&self.split).clone();
        let holds = |reader: &RecordReader| partitions.iter().any(|partition| reader.holds(partition));
        holds(&reader) || split.iter().any(|reader| holds(&lock(reader)))
    }

    pub(crate) fn reader(&self) -> MutexGuard<'_, RecordReader> {
        lock(&self.reader)
    }

    /// Returns the common reader, which reads all partitions that are not split off.
    pub(crate) fn common_reader(&self) -> &Mutex<RecordReader> {
        &self.reader
    }

    fn wake(&self, signals: Wakeups) {
        for node in signals.connections {
            self.wakers.get(node).notify_one();
        }
        if signals.task {
            self.task.notify_one();
        }
        if signals.position_waiters {
            self.position_waiters.notify_waiters();
        }
        signals.reader.into_iter().chain(signals.readers).for_each(Waker::wake);
        for job in signals.decompressions {
            self.spawn_decompression(job);
        }
    }

    /// Decompresses a batch on the blocking pool.
    fn spawn_decompression(&self, job: Decompression) {
        let Some(buffer) = self.me.upgrade() else { return };
        self.runtime.spawn_blocking(move || {
            let mut decompressor = lock(&buffer.decompressors).pop().unwrap_or_default();
            let Decompression { batch, expected } = job;
            let batch = batch.decode(&mut decompressor, &buffer.decode_config);
            // The decompressed size is charged by now.
            drop(expected);
            lock(&buffer.decompressors).push(decompressor);
            buffer.with_state(|state| state.handle_decompressed(batch));
        });
    }

    /// Becomes the one reader. Completes the records that the previous read holds, so that a
    /// revocation that waits for them continues.
    ///
    /// # Errors
    /// `InvalidArgument` while another call reads, or records of a poll are still held.
    pub(crate) fn start_reading(&self) -> Result<ReadGuard<'_>> {
        if self.reading.swap(true, SeqCst) {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "another call reads from this consumer, or the records of the last poll are still held: a consumer has one reader at a time",
            ));
        }
        self.complete_delivered();
        Ok(ReadGuard(Some(self)))
    }

    /// Returns true if the reader should yield before it reads, because it has taken over new
    /// batches since the last call and uses the only thread.
    pub(crate) fn should_yield(&self, reader: &Mutex<RecordReader>) -> bool {
        self.one_thread && lock(reader).take_refilled()
    }

    /// Like [`should_yield`](Self::should_yield), for the common reader.
    pub(crate) fn reader_should_yield(&self) -> bool {
        self.should_yield(&self.reader)
    }

    /// Completes the records that the common reader holds, because its user asks for the next ones.
    pub(crate) fn complete_delivered(&self) {
        lock(&self.reader).complete_delivered();
        self.notify_completed();
    }

    /// Wakes a close and revocations that wait for readers to complete their records.
    pub(crate) fn notify_completed(&self) {
        if self.closing.load(SeqCst) {
            self.position_waiters.notify_waiters();
        }
        if self.revocations.load(SeqCst) > 0 {
            self.task.notify_one();
        }
    }
}

/// Returns the batches that a reader may not deliver now to the buffer, after partitions were
/// paused, repositioned or revoked.
fn return_withdrawn(reader: &mut RecordReader, state: &mut ConsumerState) {
    let withdrawn = reader.withdraw(|of, progress| state.is_deliverable_by(of, progress));
    withdrawn.into_iter().rev().for_each(|batch| state.return_unread(batch));
}

impl fmt::Debug for FetchBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FetchBuffer").field("reading", &self.reading).finish_non_exhaustive()
    }
}

/// Exclusive right to read, until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadGuard<'a>(Option<&'a FetchBuffer>);

impl ReadGuard<'_> {
    /// Converts the guard into one without a lifetime; `None` if the buffer is being dropped.
    pub(crate) fn into_owned_guard(mut self) -> Option<OwnedReadGuard> {
        let buffer = self.0.and_then(|buffer| buffer.me.upgrade())?;
        self.0 = None;
        Some(OwnedReadGuard(buffer))
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        if let Some(buffer) = self.0 {
            buffer.reading.store(false, SeqCst);
        }
    }
}

/// Exclusive right to read that keeps its buffer alive.
#[derive(Debug)]
pub(crate) struct OwnedReadGuard(Arc<FetchBuffer>);

impl OwnedReadGuard {
    pub(crate) fn buffer(&self) -> &Arc<FetchBuffer> {
        &self.0
    }
}

impl Drop for OwnedReadGuard {
    fn drop(&mut self) {
        self.0.reading.store(false, SeqCst);
    }
}
