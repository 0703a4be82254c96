//! An open transaction, as the program holds it.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    action::Reply,
    commit_error::{CommitError, committed},
    handle::{TransactionHandle, Unanswered, unexpected},
    offsets::check_arguments,
    shared::TransactionCall,
    transaction_sender::TransactionSender,
};
use crate::{
    error::Result,
    producer::{Deliveries, Delivery, PurgeScope, TrySendError},
    record::{GroupMetadata, OffsetAndMetadata, Record, TopicPartition},
};

/// A transaction that was begun: its records and offsets become visible to consumers with
/// `isolation.level=read_committed` all together, by [`commit`](Self::commit), or not at all.
///
/// [`TransactionalProducer::begin`](super::TransactionalProducer::begin) returns it. It borrows the
/// producer, so that the next transaction cannot begin before this one ends. Dropping it aborts the
/// transaction in the background.
///
/// # Failed transactions
/// A record or offset that fails makes the whole transaction fail, because it cannot become visible
/// as a whole any more. Later calls are refused at once with
/// [`TransactionFailed`](crate::ErrorKind::TransactionFailed), whose source is the first cause, and
/// `commit` returns [`Aborted`](CommitError::Aborted) with it. So a program may leave single
/// deliveries unread, and rely on the result of `commit`.
///
/// # Time
/// The coordinator aborts a transaction `transaction.timeout.ms` after its first write (60 s by
/// default), and each read_committed consumer of its partitions waits for its end meanwhile: keep
/// transactions short.
///
/// ```
/// # use ottla::testkit::{Cluster, Options};
/// use ottla::Record;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// # let cluster = Cluster::start(Options::new().in_memory()).await?;
/// let mut producer = cluster.producer().transactional_id("shop").build().await?;
/// let transaction = producer.begin().await?;
/// drop(transaction.send(Record::to("orders").with_value("shipped")).await?);
/// drop(transaction.send(Record::to("audit").with_value("shipped by shop")).await?);
/// transaction.commit().await?; // both records, or neither
/// # Ok(()) }
/// ```
///
/// Two transactions at once do not compile:
/// ```compile_fail,E0499
/// # async fn example(mut producer: ottla::TransactionalProducer) -> ottla::Result<()> {
/// let first = producer.begin().await?;
/// let second = producer.begin().await?;
/// first.commit().await?;
/// # second.commit().await?;
/// # Ok(()) }
/// ```
#[must_use = "a transaction that is dropped is aborted"]
pub struct Transaction<'p> {
    handle: &'p Arc<TransactionHandle>,
    number: u64,
    is_ended: bool,
}

impl<'p> Transaction<'p> {
    pub(crate) fn new(handle: &'p Arc<TransactionHandle>, number: u64) -> Self {
        Self { handle, number, is_ended: false }
    }

    /// Puts a record into the transaction, like [`Producer::send`](crate::Producer::send).
    ///
    /// The [`Delivery`] resolves when the record is in the log, which is before the transaction
    /// commits. It may be dropped: `commit` fails if any record has failed.
    ///
    /// # Errors
    /// Those of [`Producer::send`](crate::Producer::send) fail the transaction, because they may be
    /// dropped unseen: the error has the kind
    /// [`TransactionFailed`](crate::ErrorKind::TransactionFailed), and the refused record's own
    /// error as its source. [`TransactionFailed`](crate::ErrorKind::TransactionFailed) also if the
    /// transaction has failed before, with the first cause: end the transaction, and do its work in
    /// another one. If the error [is fatal](crate::Error::is_fatal), the producer cannot be used
    /// any more.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the record was not sent, and the transaction
    /// goes on.
    pub async fn send(&self, record: Record<'_>) -> Result<Delivery> {
        self.handle.check(self.number)?;
        self.handle.send(record).await
    }

    /// Puts a record into the transaction if there is room for it at once; otherwise returns it to
    /// the caller, like [`Producer::try_send`](crate::Producer::try_send).
    ///
    /// # Errors
    /// Those of [`Producer::try_send`](crate::Producer::try_send). They do not fail the
    /// transaction, because the caller has the record back.
    /// [`TransactionFailed`](crate::ErrorKind::TransactionFailed) if the transaction has failed
    /// before.
    #[inline]
    pub fn try_send<'a>(&self, record: Record<'a>) -> Result<Delivery, TrySendError<'a>> {
        match self.handle.check(self.number) {
            Ok(()) => self.handle.try_send(record),
            Err(error) => Err(TrySendError::new(record, error)),
        }
    }

    /// Puts several records into the transaction, in order, like
    /// [`Producer::send_batch`](crate::Producer::send_batch). A record that is refused fails the
    /// transaction.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, some records from the start of the iterator
    /// were sent and the rest were not. The transaction goes on: abort it unless that is enough.
    pub async fn send_batch<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Deliveries {
        match self.handle.check(self.number) {
            Ok(()) => self.handle.send_batch(records).await,
            Err(error) => Deliveries::refused(records.into_iter().count(), &error),
        }
    }

    /// Adds a group's offsets to the transaction: they are committed if the transaction commits
    /// (Java: `sendOffsetsToTransaction`). Each is the offset of the *next* record to be read, as
    /// in [`OffsetAndMetadata`]; a plain `i64` will do. The consumer's
    /// [`group_metadata`](GroupMetadata) lets the group coordinator refuse the offsets if the group
    /// has rebalanced meanwhile (KIP-447).
    ///
    /// Returns when the group coordinator has them, at most after `max.block.ms`. Several calls are
    /// served in order; the last offset of a partition counts. Without offsets it returns at once.
    ///
    /// ```
    /// use ottla::{Record, TopicPartition, Transaction, record::GroupMetadata};
    ///
    /// async fn copy(
    ///     transaction: &Transaction<'_>,
    ///     record: Record<'_>,
    ///     next: i64,
    ///     group: &GroupMetadata,
    /// ) -> ottla::Result<()> {
    ///     drop(transaction.send(record).await?);
    ///     let orders = TopicPartition::new("orders", 0);
    ///     transaction.send_offsets([(orders, next)], group).await
    /// }
    /// ```
    ///
    /// # Errors
    /// - [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a consumer without `group.id`
    ///   or of another cluster, and for a negative offset. The transaction goes on.
    /// - [`TransactionFailed`](crate::ErrorKind::TransactionFailed) if the coordinator refuses the
    ///   offsets, or the transaction has failed before. If the source is of kind
    ///   [`NotAssigned`](crate::ErrorKind::NotAssigned), the group has rebalanced: the records that
    ///   were read may belong to another member now.
    /// - [`Timeout`](crate::ErrorKind::Timeout) after `max.block.ms`. The offsets are still being
    ///   sent, and `commit` waits for them.
    /// - Errors that [are fatal](crate::Error::is_fatal): the producer cannot be used any more.
    ///
    /// # Cancel safety
    /// If the future is dropped after it was polled, the offsets are added all the same, and
    /// `commit` waits for them.
    pub async fn send_offsets<O: Into<OffsetAndMetadata>>(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, O)>,
        group: &GroupMetadata,
    ) -> Result<()> {
        let offsets: Vec<_> = offsets.into_iter().map(|(partition, offset)| (partition, offset.into())).collect();
        let handle = self.handle;
        check_arguments(group, &offsets, handle.cluster_id().as_deref())?;
        handle.gate().check(self.number)?;
        if offsets.is_empty() {
            return Ok(());
        }
        let call = TransactionCall::SendOffsets(group.clone(), offsets);
        match handle.ask(call, handle.deadline()).await {
            Ok(Reply::Offsets(result)) => result,
            Ok(reply) => Err(unexpected(&reply)),
            Err(Unanswered::TimedOut) => {
                let what = format!("the offsets of group \"{}\" were not added", group.group_id());
                Err(handle.timed_out(&what, "they are still being sent, and `commit` waits for them"))
            }
            Err(Unanswered::Ended(error)) => Err(error),
        }
    }

    /// Sends the buffered records without waiting for `linger.ms`, and waits until every record
    /// that was sent before has its result, at most for `timeout`. Returns the number of records
    /// that are outstanding then, like [`Producer::flush`](crate::Producer::flush). `commit` needs
    /// no flush.
    ///
    /// # Cancel safety
    /// Safe: the records are still sent.
    pub async fn flush(&self, timeout: Duration) -> usize {
        self.handle.producer().flush(timeout).await
    }

    /// Gives up records that have no result yet, and returns their number, like
    /// [`Producer::purge`](crate::Producer::purge). The transaction fails if there are any.
    ///
    /// # Cancel safety
    /// If the future is dropped after it was polled, the records are given up all the same.
    pub async fn purge(&self, what: PurgeScope) -> usize {
        self.handle.producer().purge(what).await
    }

    /// Returns the number of the transaction, counted from 1 for each producer. Log lines, errors
    /// and [`last_outcome`](super::TransactionalProducer::last_outcome) name it.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Returns a handle that puts records into this transaction from spawned tasks. It can be
    /// cloned, and outlives the transaction: its calls are refused then.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::Record;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let mut producer = cluster.producer().transactional_id("shop").build().await?;
    /// let transaction = producer.begin().await?;
    /// let sender = transaction.sender();
    /// let task = tokio::spawn(async move {
    ///     sender.send(Record::to("orders").with_value("shipped")).await.map(drop)
    /// });
    /// task.await.expect("the task does not panic")?; // a record that is sent later is refused
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    pub fn sender(&self) -> TransactionSender {
        TransactionSender::new(self.handle.clone(), self.number)
    }

    /// Commits the transaction: waits until its records and offsets have their results, without
    /// waiting for `linger.ms`, and for the coordinator's confirmation, at most for `max.block.ms`
    /// altogether. An empty transaction needs no request.
    ///
    /// Calls of [`TransactionSender`]s that are in progress still belong to the transaction.
    ///
    /// Send after commit does not compile, and neither does a second commit:
    /// ```compile_fail,E0382
    /// # async fn example(mut producer: ottla::TransactionalProducer) -> ottla::Result<()> {
    /// let transaction = producer.begin().await?;
    /// transaction.commit().await?;
    /// drop(transaction.send(ottla::Record::to("orders")).await?);
    /// # Ok(()) }
    /// ```
    /// ```compile_fail,E0382
    /// # async fn example(mut producer: ottla::TransactionalProducer) -> ottla::Result<()> {
    /// let transaction = producer.begin().await?;
    /// transaction.commit().await?;
    /// transaction.commit().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`CommitError`] says what is known: the transaction is
    /// [`Aborted`](CommitError::Aborted), it may be committed
    /// ([`Unknown`](CommitError::Unknown)), or it is still being committed
    /// ([`Pending`](CommitError::Pending)). With `?` it becomes an [`Error`](crate::Error), whose
    /// [`delivery_status`](crate::Error::delivery_status) is
    /// [`NotPersisted`](crate::DeliveryStatus::NotPersisted) only if the transaction is aborted. A
    /// transaction whose record or offset has failed is aborted at once, and the error is its first
    /// cause.
    ///
    /// # Cancel safety
    /// Once the future was polled, the decision stands: if it is dropped, the commit goes on in the
    /// background. The next [`begin`](super::TransactionalProducer::begin) waits for it, and
    /// [`last_outcome`](super::TransactionalProducer::last_outcome) tells its outcome. Dropped
    /// before it was polled, it aborts the transaction.
    pub async fn commit(mut self) -> Result<(), CommitError<'p>> {
        self.is_ended = true;
        let (handle, number) = (self.handle, self.number);
        let reply = handle.end(TransactionCall::Commit).await;
        committed(handle, number, reply)
    }

    /// Aborts the transaction: records that are not sent yet are dropped with
    /// [`TransactionAborted`](crate::ErrorKind::TransactionAborted), and consumers with
    /// `isolation.level=read_committed` never see the others. Waits for the coordinator's
    /// confirmation, at most for `max.block.ms`. Dropping the transaction does this in the
    /// background.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::{Record, producer::Outcome};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let mut producer = cluster.producer().transactional_id("shop").build().await?;
    /// let transaction = producer.begin().await?;
    /// drop(transaction.send(Record::to("orders").with_value("shipped")).await?);
    /// transaction.abort().await?;
    /// assert!(matches!(producer.last_outcome(), Some((1, Outcome::Aborted(None)))));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The transaction will not commit in any case.
    /// - [`Timeout`](crate::ErrorKind::Timeout) after `max.block.ms`: the abort goes on, and the
    ///   next `begin` waits for it.
    /// - Errors that [are fatal](crate::Error::is_fatal): the producer cannot be used any more, and
    ///   the coordinator aborts the transaction after `transaction.timeout.ms`, unless another
    ///   instance has done so.
    ///
    /// # Cancel safety
    /// If the future is dropped, the abort goes on in the background.
    pub async fn abort(mut self) -> Result<()> {
        self.is_ended = true;
        let handle = self.handle;
        match handle.end(TransactionCall::Abort).await {
            Ok(Reply::Aborted(result)) => result,
            Ok(reply) => Err(unexpected(&reply)),
            Err(Unanswered::TimedOut) => {
                let what = format!("the abort of transaction {} was not confirmed", self.number);
                Err(handle.timed_out(&what, "it goes on, and the next `begin` waits for it"))
            }
            Err(Unanswered::Ended(error)) => Err(error),
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.handle.gate().close();
            self.handle.tell(TransactionCall::AbortUnseen);
        }
    }
}

impl fmt::Debug for Transaction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = &self.handle.transactions().rules().transactional_id;
        f.debug_struct("Transaction").field("transactional_id", id).field("number", &self.number).finish()
    }
}
