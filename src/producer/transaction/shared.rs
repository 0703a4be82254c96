//! State shared by a transactional producer's handles and its task.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use tokio::sync::oneshot;

use super::{
    action::Reply,
    gate::Gate,
    manager::TransactionRules,
    metrics::{TransactionCounters, TransactionMetrics},
    outcome::Outcome,
    request::CallId,
    status::TransactionStatus,
};
use crate::{
    error::Error,
    record::{GroupMetadata, OffsetAndMetadata, TopicPartition},
};

/// The calls of the handles on their way to the task, and the results that the task publishes.
#[derive(Debug)]
pub(crate) struct TransactionShared {
    rules: TransactionRules,
    gate: Gate,
    calls: Mutex<Calls>,
    status: Mutex<TransactionStatus>,
    last_outcome: Mutex<Option<(u64, Outcome)>>,
    counters: Mutex<TransactionCounters>,
}

#[derive(Debug, Default)]
struct Calls {
    made: u64,
    waiting: Vec<PendingCall>,
}

/// A call that the task has not taken yet. `reply` is dropped without a reply only if the task
/// ends.
#[derive(Debug)]
pub(crate) struct PendingCall {
    pub(crate) id: CallId,
    pub(crate) call: TransactionCall,
    pub(crate) reply: oneshot::Sender<Reply>,
}

/// A call of a handle. `AbortUnseen`, `Fail`, `CloseNow` and `Forget` have no reply.
#[derive(Debug)]
pub(crate) enum TransactionCall {
    Init,
    Begin,
    SendOffsets(GroupMetadata, Vec<(TopicPartition, OffsetAndMetadata)>),
    Commit,
    Abort,
    /// Aborts a transaction that was dropped.
    AbortUnseen,
    /// Fails the transaction, because a record was refused by a `send` whose result may be dropped
    /// unseen.
    Fail(Error),
    Close,
    /// Gives up what `Close` waits for.
    CloseNow,
    /// Forgets a call whose future was dropped or whose time is over.
    Forget(CallId),
}

impl TransactionShared {
    pub(crate) fn new(rules: TransactionRules) -> Self {
        Self {
            rules,
            gate: Gate::default(),
            calls: Mutex::default(),
            status: Mutex::new(TransactionStatus::uninitialized()),
            last_outcome: Mutex::default(),
            counters: Mutex::default(),
        }
    }

    pub(crate) fn rules(&self) -> &TransactionRules {
        &self.rules
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    // ---- the handles' side

    /// Queues a call; the caller wakes the task afterwards.
    pub(crate) fn call(&self, call: TransactionCall) -> (CallId, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.made += 1;
        let id = CallId(calls.made);
        calls.waiting.push(PendingCall { id, call, reply });
        (id, answer)
    }

    pub(crate) fn status(&self) -> TransactionStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number and the outcome of the last transaction that has one.
    pub(crate) fn last_outcome(&self) -> Option<(u64, Outcome)> {
        self.last_outcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn metrics(&self) -> TransactionMetrics {
        self.counters().metrics()
    }

    fn counters(&self) -> MutexGuard<'_, TransactionCounters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- the task's side

    /// Takes the calls, in the order in which they were made.
    pub(crate) fn take_calls(&self) -> Vec<PendingCall> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner).waiting)
    }

    /// Publishes the state for `status`.
    pub(crate) fn publish(&self, status: TransactionStatus, now: Instant) {
        self.counters().published(&status, now);
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }

    /// Publishes an outcome. It must be there before the reply to the call that waits for it.
    pub(crate) fn set_last_outcome(&self, number: u64, outcome: Outcome) {
        let mut last = self.last_outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(known, _)| *known != number) {
            self.counters().ended(&outcome);
        }
        *last = Some((number, outcome));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn shared() -> TransactionShared {
        TransactionShared::new(TransactionRules {
            transactional_id: "t".into(),
            timeout: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            seed: 1,
        })
    }

    #[test]
    fn task_takes_calls_in_order_once() {
        let shared = shared();
        let (begin, mut begun) = shared.call(TransactionCall::Begin);
        shared.call(TransactionCall::Forget(begin));
        let calls = shared.take_calls();
        let [first, second] = &calls[..] else { panic!("two calls: {calls:?}") };
        assert_eq!(first.id, begin);
        assert!(matches!(second.call, TransactionCall::Forget(id) if id == begin));
        assert_ne!(second.id, begin);
        assert!(shared.take_calls().is_empty());
        for call in calls {
            let _ = call.reply.send(Reply::Began(Ok(1)));
        }
        assert!(matches!(begun.try_recv(), Ok(Reply::Began(Ok(1)))));
    }

    #[test]
    fn outcome_stays_until_next_one() {
        let shared = shared();
        assert!(shared.last_outcome().is_none());
        shared.set_last_outcome(1, Outcome::Committed);
        shared.set_last_outcome(2, Outcome::Aborted(None));
        assert!(matches!(shared.last_outcome(), Some((2, Outcome::Aborted(None)))));
        assert_eq!(&*shared.rules().transactional_id, "t");
    }
}
