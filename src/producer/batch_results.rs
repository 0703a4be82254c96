//! The results of a batch: one object for all of its records, and one wake-up for each waiting
//! task.
//!
//! It holds results, never bytes. Results come as segments: usually one for the whole batch, more
//! if the batch was split or the broker rejected single records. Each index gets exactly one
//! result.
//!
//! Sans-IO.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use smallvec::SmallVec;

use crate::error::Error;
use crate::producer::revocable_batch::RevocableState;

/// The outcome of a run of records.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The records are in the log (or, with acks=0, written to the connection).
    Persisted {
        topic: Arc<str>,
        partition: i32,
        /// The offset of the run's first record, if the broker returned it.
        first_offset: Option<i64>,
        /// The broker's timestamp, if the topic has LogAppendTime.
        log_append_millis: Option<i64>,
    },
    Failed(Error),
}

impl Outcome {
    /// Returns the outcome for the record that is `records` later in the run.
    pub(crate) fn advanced(&self, records: u32) -> Self {
        let mut later = self.clone();
        if let Outcome::Persisted { first_offset: Some(offset), .. } = &mut later {
            *offset = offset.saturating_add(i64::from(records));
        }
        later
    }

    /// Returns the broker's timestamp, if the topic has LogAppendTime.
    pub(crate) fn log_append_millis(&self) -> Option<i64> {
        match self {
            Outcome::Persisted { log_append_millis, .. } => *log_append_millis,
            Outcome::Failed(_) => None,
        }
    }
}

#[derive(Debug)]
struct Segment {
    first: u32,
    count: u32,
    outcome: Outcome,
}

/// The results of the records of a batch.
#[derive(Debug)]
pub(crate) struct BatchResults {
    id: u64,
    revocable_state: RevocableState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Segments sorted by `first`, without overlap.
    segments: SmallVec<[Segment; 1]>,
    /// One slot for each delivery that was polled before its result was known; a delivery keeps its
    /// slot until it is dropped.
    waiting: SmallVec<[Option<Waker>; 1]>,
    unused_slots: Vec<usize>,
}

impl BatchResults {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, revocable_state: RevocableState::default(), state: Mutex::default() }
    }

    /// Returns the revocation state of the batch that these results were created for.
    pub(crate) fn revocable_state(&self) -> &RevocableState {
        &self.revocable_state
    }

    /// Returns the id, which is unique within a producer.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Stores the result of `count` records from index `first` and wakes waiting tasks. An index
    /// keeps the first result that it gets.
    pub(crate) fn complete(&self, first: u32, count: u32, outcome: Outcome) {
        let mut state = self.lock();
        let at = state.segments.partition_point(|segment| segment.first < first);
        let overlaps_before =
            at.checked_sub(1).and_then(|i| state.segments.get(i)).is_some_and(|s| s.first + s.count > first);
        let overlaps_after = state.segments.get(at).is_some_and(|s| s.first < first.saturating_add(count));
        debug_assert!(!overlaps_before && !overlaps_after, "a record was given two results");
        if overlaps_before || overlaps_after {
            return;
        }
        state.segments.insert(at, Segment { first, count, outcome });
        let wakers: SmallVec<[Waker; 1]> = state.waiting.iter_mut().filter_map(Option::take).collect();
        drop(state);
        let mut last: Option<&Waker> = None;
        for waker in &wakers {
            // A task that awaits several deliveries, one after the other or joined, is woken once.
            if !last.is_some_and(|last| last.will_wake(waker)) {
                waker.wake_by_ref();
            }
            last = Some(waker);
        }
    }

    /// Polls the outcome of the record at `index`.
    pub(crate) fn poll(&self, index: u32, slot: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<Outcome> {
        self.poll_run(index, slot, cx).map(|(outcome, _)| outcome)
    }

    /// Polls the outcome of the record at `index`; also returns the number of records from there on
    /// that share it.
    pub(crate) fn poll_run(&self, index: u32, slot: &mut Option<usize>, cx: &mut Context<'_>) -> Poll<(Outcome, u32)> {
        let mut state = self.lock();
        if let Some(found) = state.result(index) {
            return Poll::Ready(found);
        }
        let waker = cx.waker();
        match slot.and_then(|slot| state.waiting.get_mut(slot)) {
            Some(Some(known)) if known.will_wake(waker) => {}
            Some(place) => *place = Some(waker.clone()),
            None => *slot = Some(state.register(waker.clone())),
        }
        Poll::Pending
    }

    /// Returns the outcome of the record at `index`, if it is known.
    pub(crate) fn try_outcome(&self, index: u32) -> Option<Outcome> {
        self.lock().result(index).map(|(outcome, _)| outcome)
    }

    /// Frees a delivery's slot.
    pub(crate) fn forget(&self, slot: usize) {
        let mut state = self.lock();
        if let Some(place) = state.waiting.get_mut(slot) {
            *place = None;
            state.unused_slots.push(slot);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn result(&self, index: u32) -> Option<(Outcome, u32)> {
        let at = self.segments.partition_point(|segment| segment.first <= index).checked_sub(1)?;
        let segment = self.segments.get(at)?;
        let place = index - segment.first;
        (place < segment.count).then(|| (segment.outcome.advanced(place), segment.count - place))
    }

    fn register(&mut self, waker: Waker) -> usize {
        match self.unused_slots.pop() {
            Some(slot) if slot < self.waiting.len() => {
                self.waiting[slot] = Some(waker);
                slot
            }
            _ => {
                self.waiting.push(Some(waker));
                self.waiting.len() - 1
            }
        }
    }
}

/// Consecutive records of a batch, and the place of their results.
#[derive(Clone, Debug)]
pub(crate) struct ResultRun {
    pub(crate) results: Arc<BatchResults>,
    pub(crate) first: u32,
    pub(crate) count: u32,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use crate::error::ErrorKind;
    use crate::producer::batch_results::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn persisted(offset: i64) -> Outcome {
        Outcome::Persisted { topic: "t".into(), partition: 3, first_offset: Some(offset), log_append_millis: None }
    }

    fn offset(results: &BatchResults, index: u32) -> Option<i64> {
        match results.poll(index, &mut None, &mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Outcome::Persisted { first_offset, .. }) => first_offset,
            Poll::Ready(Outcome::Failed(_)) => Some(-1),
            Poll::Pending => None,
        }
    }

    #[test]
    fn segments_completed_unordered_return_correct_results() {
        let results = BatchResults::new(1);
        results.complete(5, 3, persisted(100));
        results.complete(0, 2, persisted(40));
        results.complete(2, 1, Outcome::Failed(Error::new(ErrorKind::Timeout, "late")));
        let results: Vec<_> = (0..9).map(|i| offset(&results, i)).collect();
        assert_eq!(results, [Some(40), Some(41), Some(-1), None, None, Some(100), Some(101), Some(102), None]);
    }

    #[test]
    fn wakes_waiting_task_once_per_completed_batch() {
        let results = BatchResults::new(1);
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let mut slots = vec![None; 50];
        for (i, slot) in slots.iter_mut().enumerate() {
            assert!(results.poll(i as u32, slot, &mut Context::from_waker(&waker)).is_pending());
        }
        results.complete(0, 50, persisted(0));
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn wakes_remaining_deliveries_after_partial_completion() {
        let results = BatchResults::new(1);
        let (a, b) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let (wake_a, wake_b) = (Waker::from(a.clone()), Waker::from(b.clone()));
        let (mut slot_a, mut slot_b) = (None, None);
        assert!(results.poll(1, &mut slot_a, &mut Context::from_waker(&wake_a)).is_pending());
        assert!(results.poll(2, &mut slot_b, &mut Context::from_waker(&wake_b)).is_pending());
        results.complete(0, 1, persisted(0));
        assert!(results.poll(2, &mut slot_b, &mut Context::from_waker(&wake_b)).is_pending());
        assert!(results.poll(1, &mut slot_a, &mut Context::from_waker(&wake_a)).is_pending());
        results.complete(1, 2, persisted(1));
        assert_eq!((a.0.load(Ordering::Relaxed), b.0.load(Ordering::Relaxed)), (2, 2));
        results.forget(slot_a.unwrap());
        let mut again = None;
        assert!(results.poll(9, &mut again, &mut Context::from_waker(&wake_a)).is_pending());
        assert_eq!(again, slot_a, "a slot that was given back is used again");
    }
}
