//! The calls of a transactional producer's handles: each is queued for the task and waits for its
//! reply.

use std::sync::Arc;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    action::Reply,
    failure::transaction_failed,
    gate::{Gate, SenderCall},
    request::CallId,
    shared::{TransactionCall, TransactionShared},
    status::RepeatedRequest,
};
use crate::{
    config::parse::FOREVER,
    error::{Error, ErrorKind, Result},
    producer::{Deliveries, Delivery, Producer, ProducerShared, TrySendError, closed, not_sent},
    record::Record,
};

/// The producer and the state of its transactions, shared by all handles.
#[derive(Debug)]
pub(crate) struct TransactionHandle {
    producer: Producer,
    transactions: Arc<TransactionShared>,
}

/// The reason why a call has no reply.
pub(crate) enum Unanswered {
    /// The time was up; the task goes on with the call's work.
    TimedOut,
    /// The task has ended.
    Ended(Error),
}

/// A call that waits for its reply. Dropped without one, it is forgotten.
struct Asked<'h> {
    handle: &'h TransactionHandle,
    id: CallId,
    reply: oneshot::Receiver<Reply>,
    is_answered: bool,
}

/// The end of a transaction that waits for the calls of its senders. Dropped while it waits, it is
/// queued at once, because the decision stands; the task waits for the senders as well.
struct Ending<'h> {
    handle: &'h TransactionHandle,
    call: Option<TransactionCall>,
}

impl TransactionHandle {
    pub(crate) fn new(producer: Producer, transactions: Arc<TransactionShared>) -> Self {
        Self { producer, transactions }
    }

    pub(crate) fn producer(&self) -> &Producer {
        &self.producer
    }

    pub(crate) fn transactions(&self) -> &TransactionShared {
        &self.transactions
    }

    pub(crate) fn gate(&self) -> &Gate {
        self.transactions.gate()
    }

    fn shared(&self) -> &ProducerShared {
        &self.producer.0.shared
    }

    /// Returns the id of the producer's cluster, once it is known.
    pub(crate) fn cluster_id(&self) -> Option<String> {
        self.shared().client.metadata().cluster_id.clone()
    }

    /// Returns the end of a call that begins now.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.shared().max_block.min(FOREVER)
    }

    /// Returns the error of a call that had no reply within `max.block.ms`. `what` says what is not
    /// done yet, and `next` what becomes of it.
    pub(crate) fn timed_out(&self, what: &str, next: &str) -> Error {
        let millis = self.shared().max_block.as_millis();
        let id = &self.transactions.rules().transactional_id;
        let message = format!("transactional id \"{id}\": {what} within max.block.ms ({millis}); {next}");
        match self.transactions.status().repeated {
            Some(RepeatedRequest { failures, last_error, .. }) => Error::because_of(
                ErrorKind::Timeout,
                format!("{message}; after {failures} attempts the last error is: {last_error}"),
                last_error,
            ),
            None => Error::new(ErrorKind::Timeout, message),
        }
    }

    /// Queues a call without a reply.
    pub(crate) fn tell(&self, call: TransactionCall) {
        self.transactions.call(call);
        self.shared().mailbox.wake();
    }

    /// Makes a call and waits for its reply.
    pub(crate) async fn ask(&self, call: TransactionCall, deadline: Instant) -> Result<Reply, Unanswered> {
        let shared = self.shared();
        let (id, reply) = self.transactions.call(call);
        shared.mailbox.wake();
        let mut asked = Asked { handle: self, id, reply, is_answered: false };
        let mut ended = shared.ended.subscribe();
        let answer = async {
            tokio::select! {
                biased;
                reply = &mut asked.reply => reply.ok(),
                _ = ended.wait_for(|ended| *ended) => None,
            }
        };
        let reply = timeout_at(deadline, answer).await;
        match reply {
            Ok(Some(reply)) => {
                asked.is_answered = true;
                Ok(reply)
            }
            Ok(None) => Err(Unanswered::Ended(self.ended())),
            Err(_) => Err(Unanswered::TimedOut),
        }
    }

    /// Ends the transaction: takes no more records, and makes the call once no call of a sender is
    /// in progress.
    pub(crate) async fn end(&self, call: TransactionCall) -> Result<Reply, Unanswered> {
        let deadline = self.deadline();
        self.gate().close();
        let mut ending = Ending { handle: self, call: Some(call) };
        // After the deadline the task waits for the senders.
        let _ = timeout_at(deadline, self.gate().senders_left()).await;
        match ending.call.take() {
            Some(call) => self.ask(call, deadline).await,
            None => Err(Unanswered::Ended(self.ended())),
        }
    }

    fn ended(&self) -> Error {
        self.shared().gate.get().cloned().unwrap_or_else(closed)
    }

    // ---- records

    /// Returns `Ok` if the transaction takes records.
    #[inline]
    pub(crate) fn check(&self, number: u64) -> Result<()> {
        self.gate().check(number).map_err(not_sent)
    }

    /// Counts a call of a handle that may outlive the transaction, until the returned value is
    /// dropped.
    pub(crate) fn enter(&self, number: u64) -> Result<SenderCall<'_>> {
        self.gate().enter(number, &self.shared().mailbox).map_err(not_sent)
    }

    /// Sends a record, after the gate. A refused record fails the transaction.
    pub(crate) async fn send(&self, record: Record<'_>) -> Result<Delivery> {
        self.producer.send(record).await.map_err(|error| self.fail(error))
    }

    /// Sends a record if there is room at once, after the gate.
    #[inline]
    pub(crate) fn try_send<'a>(&self, record: Record<'a>) -> Result<Delivery, TrySendError<'a>> {
        self.producer.try_send(record)
    }

    /// Sends records, after the gate. A refused record fails the transaction.
    pub(crate) async fn send_batch<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Deliveries {
        let deliveries = self.producer.send_batch(records).await;
        if let Some(error) = deliveries.first_refused() {
            self.fail(error.clone());
        }
        deliveries
    }

    /// Fails the transaction, because a record was refused; returns the error for the caller.
    #[cold]
    fn fail(&self, refused: Error) -> Error {
        // A closed producer fails by itself.
        let error = if refused.is_fatal() { refused } else { not_sent(transaction_failed(refused)) };
        self.tell(TransactionCall::Fail(error.clone()));
        error
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        self.reply.close();
        match self.reply.try_recv() {
            // The transaction was begun, and the caller does not hold it.
            Ok(Reply::Began(Ok(_))) => self.handle.tell(TransactionCall::AbortUnseen),
            _ => self.handle.tell(TransactionCall::Forget(self.id)),
        }
    }
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        if let Some(call) = self.call.take() {
            self.handle.tell(call);
        }
    }
}

/// Returns the error for a reply that does not belong to its call.
pub(crate) fn unexpected(reply: &Reply) -> Error {
    Error::new(ErrorKind::Internal, format!("the transaction manager gave an unexpected reply: {reply:?}"))
}
