//! The gate of a transaction: decides at each send whether the transaction takes the record.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::sync::Notify;

use crate::{
    error::{Error, ErrorKind, Result},
    producer::sender_mailbox::SenderMailbox,
};

/// Opened by the task when a transaction begins; closed by the user's handle when it ends the
/// transaction, and by the task when the transaction fails.
///
/// A handle that borrows the transaction cannot outlive it and only calls [`check`](Self::check).
/// Handles that can outlive it count their calls ([`enter`](Self::enter)), so that the end of the
/// transaction waits for the calls that it has overtaken.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// The number of the transaction that takes records; 0 if none does.
    open: AtomicU64,
    last: Mutex<Last>,
    /// Counted calls in progress.
    senders: AtomicUsize,
    senders_left: Notify,
}

/// The transaction that was opened last.
#[derive(Debug, Default)]
struct Last {
    number: u64,
    failure: Option<Error>,
}

/// A counted call in progress. The last one that ends behind a closed gate wakes the end of the
/// transaction: the handle that waits for it, and the task.
#[must_use]
pub(crate) struct SenderCall<'a> {
    gate: &'a Gate,
    mailbox: &'a SenderMailbox,
}

impl Gate {
    /// Takes records of this transaction from now on.
    pub(crate) fn open(&self, number: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Last { number, failure: None };
        self.open.store(number, Ordering::SeqCst);
    }

    /// Takes no more records.
    pub(crate) fn close(&self) {
        self.open.store(0, Ordering::SeqCst);
    }

    /// Takes no more records, and refuses those of the transaction with this error, unless it has
    /// failed before.
    pub(crate) fn fail(&self, error: Error) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.failure.get_or_insert(error);
        self.open.store(0, Ordering::SeqCst);
    }

    /// Returns `Ok` if this transaction takes records.
    ///
    /// # Errors
    /// The first cause if the transaction has failed; otherwise `InvalidArgument`, because it has
    /// ended.
    #[inline]
    pub(crate) fn check(&self, number: u64) -> Result<()> {
        if self.open.load(Ordering::Acquire) == number { Ok(()) } else { Err(self.refusal(number)) }
    }

    #[cold]
    fn refusal(&self, number: u64) -> Error {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &last.failure {
            Some(error) if last.number == number => error.clone(),
            _ => Error::new(ErrorKind::InvalidArgument, format!("transaction {number} has ended")),
        }
    }

    /// Counts a call that puts records into this transaction, until the returned value is dropped.
    ///
    /// # Errors
    /// Those of [`check`](Self::check).
    pub(crate) fn enter<'a>(&'a self, number: u64, mailbox: &'a SenderMailbox) -> Result<SenderCall<'a>> {
        // The call counts itself before it looks at the gate, and the end of the transaction closes
        // the gate before it looks at the count. All four operations have one order (`SeqCst`), so
        // that either the call finds the gate closed, or the end of the transaction finds the call.
        self.senders.fetch_add(1, Ordering::SeqCst);
        let call = SenderCall { gate: self, mailbox };
        if self.open.load(Ordering::SeqCst) == number { Ok(call) } else { Err(self.refusal(number)) }
    }

    /// Returns the number of counted calls in progress. After [`close`](Self::close) and a 0, no
    /// call puts a record into the transaction any more.
    pub(crate) fn senders(&self) -> usize {
        self.senders.load(Ordering::SeqCst)
    }

    /// Waits until no counted call is in progress. The gate must be closed.
    pub(crate) async fn senders_left(&self) {
        loop {
            // Made before the count is read: it is notified by every call that ends later.
            let left = self.senders_left.notified();
            if self.senders() == 0 {
                return;
            }
            left.await;
        }
    }
}

impl Drop for SenderCall<'_> {
    fn drop(&mut self) {
        // No wake-up is lost. If this call finds the gate open, the end of the transaction closes
        // it later in the order of `SeqCst` and reads the count later still: it does not find this
        // call. Otherwise this call wakes it. The same holds for a task that reads the count when
        // it handles the closed gate, because a wake-up is kept until the task waits again.
        let was_last = self.gate.senders.fetch_sub(1, Ordering::SeqCst) == 1;
        if was_last && self.gate.open.load(Ordering::SeqCst) == 0 {
            self.gate.senders_left.notify_waiters();
            self.mailbox.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::Future,
        pin::pin,
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering},
        },
        task::Context,
        time::{Duration, Instant},
    };

    use super::*;

    fn mailbox() -> SenderMailbox {
        SenderMailbox::new(Instant::now(), Duration::ZERO)
    }

    fn is_woken(mailbox: &SenderMailbox) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        pin!(mailbox.woken()).as_mut().poll(&mut cx).is_ready()
    }

    fn refused(result: Result<()>) -> (ErrorKind, String) {
        let error = result.unwrap_err();
        (error.kind(), error.to_string())
    }

    #[test]
    fn takes_records_of_open_transaction_only() {
        let gate = Gate::default();
        assert!(gate.check(1).is_err(), "no transaction was begun");
        gate.open(7);
        gate.check(7).unwrap();
        let ended = |number| (ErrorKind::InvalidArgument, format!("transaction {number} has ended"));
        assert_eq!(refused(gate.check(6)), ended(6));
        gate.close();
        assert_eq!(refused(gate.check(7)), ended(7));
        gate.open(8);
        gate.check(8).unwrap();
        assert_eq!(refused(gate.check(7)), ended(7));
    }

    #[test]
    fn failed_transaction_is_refused_with_first_cause() {
        let gate = Gate::default();
        gate.open(7);
        gate.fail(Error::timeout("first"));
        gate.fail(Error::network("second"));
        let first = (ErrorKind::Timeout, "first".to_owned());
        assert_eq!(refused(gate.check(7)), first);
        assert_eq!(refused(gate.enter(7, &mailbox()).map(drop)), first);
        gate.close();
        assert_eq!(refused(gate.check(7)), first, "also after its end");
        gate.open(8);
        gate.check(8).unwrap();
        assert_eq!(refused(gate.check(7)), (ErrorKind::InvalidArgument, "transaction 7 has ended".to_owned()));
    }

    #[test]
    fn last_call_behind_closed_gate_wakes_task() {
        let (gate, mailbox) = (Gate::default(), mailbox());
        gate.open(7);
        drop(gate.enter(7, &mailbox).unwrap());
        assert!(!is_woken(&mailbox), "the transaction goes on");
        let first = gate.enter(7, &mailbox).unwrap();
        let second = gate.enter(7, &mailbox).unwrap();
        gate.close();
        drop(second);
        assert_eq!(gate.senders(), 1);
        assert!(!is_woken(&mailbox), "a call is in progress");
        drop(first);
        assert_eq!(gate.senders(), 0);
        assert!(is_woken(&mailbox));
    }

    #[test]
    fn refused_call_does_not_stay_counted() {
        let (gate, mailbox) = (Gate::default(), mailbox());
        assert!(gate.enter(7, &mailbox).is_err());
        assert_eq!(gate.senders(), 0);
        assert!(is_woken(&mailbox), "the task may have counted the call");
    }

    /// A counted call and the end of the transaction, with each thread's steps at any place between
    /// those of the other.
    #[test]
    fn end_of_transaction_finds_every_counted_call() {
        let rounds = if cfg!(miri) { 50 } else { 5_000 };
        for number in 1..=rounds {
            let (gate, mailbox) = (Arc::new(Gate::default()), Arc::new(mailbox()));
            let (placed, ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
            gate.open(number);
            let sender = std::thread::spawn({
                let (gate, mailbox, placed, ended) = (gate.clone(), mailbox.clone(), placed.clone(), ended.clone());
                move || {
                    while let Ok(call) = gate.enter(number, &mailbox) {
                        assert!(!ended.load(Ordering::SeqCst), "a record behind the end");
                        placed.fetch_add(1, Ordering::SeqCst);
                        drop(call);
                    }
                }
            });
            std::thread::yield_now();
            gate.close();
            // A lost wake-up would block here for ever.
            let parked = Parked(std::thread::current());
            let waker = Arc::new(parked).into();
            let mut cx = Context::from_waker(&waker);
            let mut left = pin!(gate.senders_left());
            while left.as_mut().poll(&mut cx).is_pending() {
                let since = Instant::now();
                std::thread::park_timeout(Duration::from_secs(20));
                assert!(since.elapsed() < Duration::from_secs(20), "the wake-up was lost");
            }
            ended.store(true, Ordering::SeqCst);
            let before = placed.load(Ordering::SeqCst);
            sender.join().unwrap();
            assert_eq!(placed.load(Ordering::SeqCst), before);
            // The task finds the count at 0 now, or is woken by the call that made it so.
            assert_eq!(gate.senders(), 0);
        }
    }

    struct Parked(std::thread::Thread);

    impl std::task::Wake for Parked {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
}
