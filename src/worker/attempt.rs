//! One attempt of a handler: catches its panics, and can be ended from outside.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Poll, Waker},
};

use crate::error::said;

/// The end of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended<T> {
    With(T),
    Panicked(String),
    Cancelled,
}

/// Ends attempts; a handler task has one for all of its attempts.
#[derive(Debug, Default)]
pub(super) struct Cancel {
    cancelled: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Cancel {
    /// Ends the attempt that runs, at its next `.await`.
    pub(super) fn cancel(&self) {
        self.cancelled.store(true, SeqCst);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }

    /// Prepares for the next attempt.
    pub(super) fn reset(&self) {
        self.cancelled.store(false, SeqCst);
    }

    fn register(&self, waker: &Waker) {
        let mut known = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *known {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }
}

/// Runs a future to its end, or until it is cancelled; then it is dropped at its current `.await`.
pub(super) async fn run<T>(future: impl Future<Output = T>, cancel: &Cancel) -> Ended<T> {
    let mut future = pin!(Some(future));
    let ended = poll_fn(|cx| {
        let Some(running) = future.as_mut().as_pin_mut() else { return Poll::Ready(Ended::Cancelled) };
        if cancel.cancelled.load(SeqCst) {
            return Poll::Ready(Ended::Cancelled);
        }
        match catch_unwind(AssertUnwindSafe(|| running.poll(cx))) {
            Ok(Poll::Ready(output)) => Poll::Ready(Ended::With(output)),
            Ok(Poll::Pending) => {
                cancel.register(cx.waker());
                // It may have been cancelled just before.
                if cancel.cancelled.load(SeqCst) { Poll::Ready(Ended::Cancelled) } else { Poll::Pending }
            }
            Err(panic) => Poll::Ready(Ended::Panicked(said(&*panic).into_owned())),
        }
    })
    .await;
    // Values that the future holds may panic as well when they are dropped.
    match (catch_unwind(AssertUnwindSafe(|| future.set(None))), ended) {
        (Err(panic), Ended::With(_)) => Ended::Panicked(said(&*panic).into_owned()),
        (_, ended) => ended,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::Arc};

    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in a drop");
        }
    }

    #[tokio::test]
    async fn contains_panics_of_every_handler_stage() {
        let cancel = Cancel::default();
        assert_eq!(run(async { 7 }, &cancel).await, Ended::With(7));
        assert_eq!(run(async { panic!("at once") }, &cancel).await, Ended::<()>::Panicked("at once".into()));
        let late = async {
            tokio::task::yield_now().await;
            panic!("{}", 3)
        };
        assert_eq!(run(late, &cancel).await, Ended::<()>::Panicked("3".into()));
        assert!(matches!(run(async { std::panic::panic_any(5) }, &cancel).await, Ended::<()>::Panicked(_)));
        let bomb = Bomb;
        let holding = std::future::poll_fn(move |_| {
            let _held = &bomb;
            Poll::Ready(())
        });
        assert_eq!(run(holding, &cancel).await, Ended::Panicked("in a drop".into()));
    }

    #[tokio::test]
    async fn cancel_ends_attempt_until_reset() {
        let cancel = Arc::new(Cancel::default());
        let other = cancel.clone();
        let running = tokio::spawn(async move {
            let _bomb = Bomb;
            run(
                async move {
                    let _held = Bomb;
                    pending::<()>().await
                },
                &other,
            )
            .await
        });
        tokio::task::yield_now().await;
        cancel.cancel();
        assert!(running.await.is_err_and(|error| error.is_panic()), "the task's own drop");
        assert_eq!(run(async { 1 }, &cancel).await, Ended::Cancelled, "not begun at all");
        cancel.reset();
        assert_eq!(run(async { 1 }, &cancel).await, Ended::With(1));
    }
}
