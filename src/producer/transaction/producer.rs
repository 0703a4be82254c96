//! The transactional producer.

use std::{fmt, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    action::Reply,
    handle::{TransactionHandle, Unanswered, unexpected},
    open::Transaction,
    outcome::Outcome,
    shared::TransactionCall,
    status::TransactionStatus,
};
use crate::{
    cluster::PartitionInfo,
    config::parse::FOREVER,
    error::{Error, ErrorKind, Result},
    producer::{DeliveryReports, Producer, ProducerMetrics, sender_mailbox::Phase},
};

/// Sends records and consumed offsets to Kafka in transactions: consumers with
/// `isolation.level=read_committed` see all of a transaction or nothing of it (KIP-98).
///
/// [`begin`](Self::begin) returns a [`Transaction`], which borrows the producer until it ends. A
/// program that needs several transactions at once builds several producers, each with a
/// `transactional.id` of its own.
///
/// The `transactional.id` names the producer across restarts: an instance that starts takes it
/// over, aborts what an older instance has left open, and fences that instance. Two instances that
/// are meant to run side by side need different ids.
///
/// Both protocols of brokers are used, by the cluster's `transaction.version`: brokers from 4.0 on
/// add partitions to the transaction themselves and raise the producer's epoch with each
/// transaction (KIP-890). The change from one to the other needs no restart.
///
/// ```
/// # use ottla::testkit::{Cluster, Options};
/// use std::time::Duration;
/// use ottla::Record;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// # let cluster = Cluster::start(Options::new().in_memory()).await?;
/// let mut producer = cluster.producer().transactional_id("shop-1").build().await?;
/// for order in ["42", "43"] {
///     let transaction = producer.begin().await?;
///     let shipped = Record::to("orders").with_key(order).with_value("shipped");
///     drop(transaction.send(shipped).await?);
///     drop(transaction.send(Record::to("invoices").with_key(order)).await?);
///     transaction.commit().await?; // an error says whether anything of it is visible
/// }
/// producer.close(Duration::from_secs(10)).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// | the error | the transaction | next |
/// |---|---|---|
/// | [`is_retriable`](Error::is_retriable) | goes on | make the call again |
/// | [`is_abortable`](Error::is_abortable) | is or will be aborted | begin another, do its work again |
/// | [`is_fatal`](Error::is_fatal) | see the error of `commit` | make a new producer |
///
/// The error of [`commit`](Transaction::commit) alone says whether a transaction may have been
/// committed.
pub struct TransactionalProducer {
    handle: Arc<TransactionHandle>,
}

impl TransactionalProducer {
    /// Returns the handle that outlives the producer, for its status and metrics.
    pub(crate) fn handle(&self) -> &Arc<TransactionHandle> {
        &self.handle
    }

    /// # Errors
    /// `Internal` for a producer that was built without a `transactional.id`.
    pub(crate) fn of(producer: Producer) -> Result<Self> {
        let transactions = producer.0.shared.transactions.clone();
        let transactions =
            transactions.ok_or_else(|| Error::new(ErrorKind::Internal, "the producer has no transactional.id"))?;
        Ok(Self { handle: Arc::new(TransactionHandle::new(producer, transactions)) })
    }

    /// Takes over the `transactional.id`, at most within `max.block.ms`: fences older instances,
    /// and aborts the transaction that they have left open. Does nothing if the producer has done
    /// so.
    ///
    /// `begin` does it as well. Call this first if the program reads something, such as committed
    /// offsets, that an older instance may still change.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let mut producer = cluster.producer().transactional_id("shop").build().await?;
    /// producer.init().await?; // no older instance can change anything from here on
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// - [`Timeout`](ErrorKind::Timeout) after `max.block.ms`: call it again.
    /// - [`Authorization`](ErrorKind::Authorization): call it again once the permission is granted.
    /// - Errors that [are fatal](Error::is_fatal): make a new producer. `Fenced` means that another
    ///   instance uses the `transactional.id`; `Configuration` that the broker does not allow
    ///   `transaction.timeout.ms`.
    ///
    /// # Cancel safety
    /// Safe: it may be called again.
    pub async fn init(&mut self) -> Result<()> {
        match self.handle.ask(TransactionCall::Init, self.handle.deadline()).await {
            Ok(Reply::Initialized(result)) => result,
            Ok(reply) => Err(unexpected(&reply)),
            Err(Unanswered::TimedOut) => {
                Err(self.handle.timed_out("the producer was not initialized", "it goes on: call `init` again"))
            }
            Err(Unanswered::Ended(error)) => Err(error),
        }
    }

    /// Begins a transaction, at most within `max.block.ms`. Waits for the end of the previous one
    /// if that was dropped, and [initializes](Self::init) the producer if needed; otherwise it
    /// sends nothing.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # use ottla::Record;
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let mut producer = cluster.producer().transactional_id("shop").build().await?;
    /// let transaction = producer.begin().await?;
    /// drop(transaction.send(Record::to("orders").with_value("shipped")).await?);
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`init`](Self::init). No transaction is open after an error.
    ///
    /// # Cancel safety
    /// Safe: if the future is dropped, no transaction is open, and `begin` may be called again.
    pub async fn begin(&mut self) -> Result<Transaction<'_>> {
        match self.handle.ask(TransactionCall::Begin, self.handle.deadline()).await {
            Ok(Reply::Began(result)) => result.map(|number| Transaction::new(&self.handle, number)),
            Ok(reply) => Err(unexpected(&reply)),
            Err(Unanswered::TimedOut) => {
                Err(self.handle.timed_out("no transaction was begun", "nothing is lost: call `begin` again"))
            }
            Err(Unanswered::Ended(error)) => Err(error),
        }
    }

    /// Returns the number and the outcome of the last transaction that has one; `None` before the
    /// first. It tells the outcome of a commit whose future was dropped.
    pub fn last_outcome(&self) -> Option<(u64, Outcome)> {
        self.handle.transactions().last_outcome()
    }

    /// Returns the state of the producer and of its transaction.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let mut producer = cluster.producer().transactional_id("shop").build().await?;
    /// producer.init().await?;
    /// let status = producer.status();
    /// println!("{:?}: id {:?}", status.state, status.producer_id);
    /// # assert!(status.producer_id.is_some());
    /// # Ok(()) }
    /// ```
    pub fn status(&self) -> TransactionStatus {
        self.handle.transactions().status()
    }

    /// Returns what the producer has counted so far, like
    /// [`Producer::metrics`](crate::Producer::metrics).
    pub fn metrics(&self) -> ProducerMetrics {
        self.handle.producer().metrics()
    }

    /// Returns a stream with the reports of all records that are sent from now on, like
    /// [`Producer::delivery_reports`](crate::Producer::delivery_reports). A report says that a
    /// record is in the log, which is before its transaction commits.
    pub fn delivery_reports(&self) -> DeliveryReports {
        self.handle.producer().delivery_reports()
    }

    /// Returns the partitions of a topic, like
    /// [`Producer::partitions_for`](crate::Producer::partitions_for).
    ///
    /// # Errors
    /// Those of [`Producer::partitions_for`](crate::Producer::partitions_for).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>> {
        self.handle.producer().partitions_for(topic).await
    }

    /// Waits for the end of a transaction that was dropped or whose commit was, at most for
    /// `timeout`, and ends the producer.
    ///
    /// Dropping the producer does the same in the background.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) if `timeout` was too short, with the outcome as far as it is
    /// known: a transaction that was not being committed is aborted by the coordinator after
    /// `transaction.timeout.ms`. Otherwise those of
    /// [`Producer::close`](crate::Producer::close).
    ///
    /// # Cancel safety
    /// If the future is dropped, the producer is dropped.
    pub async fn close(self, timeout: Duration) -> Result<()> {
        let (handle, before) = (&self.handle, self.last_outcome().map(|(number, _)| number));
        let deadline = Instant::now() + timeout.min(FOREVER);
        let in_time = !matches!(handle.ask(TransactionCall::Close, deadline).await, Err(Unanswered::TimedOut));
        if !in_time {
            handle.tell(TransactionCall::CloseNow);
        }
        let closed = handle.producer().close(deadline.saturating_duration_since(Instant::now())).await;
        if in_time {
            return closed;
        }
        let millis = timeout.as_millis();
        let outcome = match self.last_outcome() {
            Some((number, Outcome::Unknown(_))) if Some(number) != before => {
                format!("transaction {number} may have been committed")
            }
            _ => "the coordinator aborts what is still open after transaction.timeout.ms".to_owned(),
        };
        Err(Error::new(
            ErrorKind::Timeout,
            format!("closed before the coordinator had answered within {millis} ms: {outcome}"),
        ))
    }
}

impl Drop for TransactionalProducer {
    fn drop(&mut self) {
        // Senders of its transactions may still hold the inner producer.
        self.handle.producer().0.shared.mailbox.enter(Phase::Draining);
    }
}

impl fmt::Debug for TransactionalProducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let transactions = self.handle.transactions();
        f.debug_struct("TransactionalProducer")
            .field("transactional_id", &transactions.rules().transactional_id)
            .field("producer", self.handle.producer())
            .finish_non_exhaustive()
    }
}
