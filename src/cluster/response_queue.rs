//! Targets of responses: one caller that waits for its own, or the queue of a caller with many
//! requests in flight.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::error::{DeliveryStatus, Error, ErrorKind, Result};

/// Results of one caller's requests, by the ids that it gave them, in the order of their arrival.
///
/// All requests share one queue and one waker, so that a request needs no allocation and no future
/// of its own. When the queue is dropped, requests that were not written yet are not sent.
#[derive(Debug)]
pub(crate) struct ResponseQueue {
    queue: Arc<Queue>,
    /// Results that were taken out of the shared queue and not returned yet.
    taken: VecDeque<(u64, Result<Bytes>)>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Set when the [`ResponseQueue`] is dropped.
    deserted: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    come: VecDeque<(u64, Result<Bytes>)>,
    waker: Option<Waker>,
}

impl ResponseQueue {
    pub(crate) fn new() -> Self {
        Self { queue: Arc::default(), taken: VecDeque::new() }
    }

    /// Returns the next result. Each queued request has exactly one.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(u64, Result<Bytes>)> {
        if self.taken.is_empty() {
            let mut state = self.queue.lock();
            std::mem::swap(&mut state.come, &mut self.taken);
            if self.taken.is_empty() {
                match &mut state.waker {
                    Some(known) => known.clone_from(cx.waker()),
                    none => *none = Some(cx.waker().clone()),
                }
                return Poll::Pending;
            }
        }
        self.taken.pop_front().map_or(Poll::Pending, Poll::Ready)
    }

    /// Returns the target for the result of the request with that id.
    pub(super) fn reply(&self, id: u64) -> ResponseTarget {
        ResponseTarget::Queued(ResponseSlot { id, queue: Some(Arc::clone(&self.queue)) })
    }
}

impl Drop for ResponseQueue {
    fn drop(&mut self) {
        self.queue.deserted.store(true, Ordering::Release);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, id: u64, answer: Result<Bytes>) {
        let waker = {
            let mut state = self.lock();
            state.come.push_back((id, answer));
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The target of a request's result.
#[derive(Debug)]
pub(super) enum ResponseTarget {
    One(oneshot::Sender<Result<Bytes>>),
    Queued(ResponseSlot),
}

/// A place in a queue of results. Dropped empty, it is filled with an error.
#[derive(Debug)]
pub(super) struct ResponseSlot {
    id: u64,
    /// `None` once the result is delivered.
    queue: Option<Arc<Queue>>,
}

impl ResponseTarget {
    /// Delivers the result; discards it if the caller is gone.
    pub(super) fn deliver(self, answer: Result<Bytes>) {
        match self {
            ResponseTarget::One(caller) => drop(caller.send(answer)),
            ResponseTarget::Queued(mut place) => {
                if let Some(queue) = place.queue.take() {
                    queue.put(place.id, answer);
                }
            }
        }
    }

    /// Returns true if the caller is gone.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            ResponseTarget::One(caller) => caller.is_closed(),
            ResponseTarget::Queued(place) => {
                place.queue.as_ref().is_none_or(|queue| queue.deserted.load(Ordering::Acquire))
            }
        }
    }
}

impl Drop for ResponseSlot {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.put(self.id, Err(unanswered()));
        }
    }
}

/// Returns the error of a request that was still in a pipeline when the pipeline was dropped; a
/// live pipeline answers every request that it holds.
pub(super) fn unanswered() -> Error {
    Error::new(ErrorKind::Closed, "the connection's task ended").with_status(DeliveryStatus::PossiblyPersisted)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use crate::cluster::response_queue::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl std::task::Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn next(answers: &mut ResponseQueue, waker: &Waker) -> Option<(u64, Result<Bytes>)> {
        match answers.poll_next(&mut Context::from_waker(waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    #[test]
    fn responses_keep_order_and_wake_reader_once() {
        let mut answers = ResponseQueue::new();
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let replies = [7, 3, 5].map(|id| answers.reply(id));
        assert!(next(&mut answers, &waker).is_none());
        for (size, reply) in replies.into_iter().enumerate() {
            reply.deliver(Ok(Bytes::from(vec![0; size])));
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        for (id, size) in [(7, 0), (3, 1), (5, 2)] {
            let (got, answer) = next(&mut answers, &waker).unwrap();
            assert_eq!((got, answer.unwrap().len()), (id, size));
        }
        assert!(next(&mut answers, &waker).is_none());
        answers.reply(8).deliver(Ok(Bytes::new()));
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn dropped_reply_returns_possibly_persisted_error() {
        let mut answers = ResponseQueue::new();
        drop(answers.reply(4));
        let (id, answer) = next(&mut answers, Waker::noop()).unwrap();
        let error = answer.unwrap_err();
        assert_eq!((id, error.delivery_status()), (4, Some(DeliveryStatus::PossiblyPersisted)));
    }

    #[test]
    fn dropped_queue_closes_pending_replies() {
        let answers = ResponseQueue::new();
        let reply = answers.reply(1);
        assert!(!reply.is_closed());
        drop(answers);
        assert!(reply.is_closed());
        reply.deliver(Ok(Bytes::new()));
    }
}
