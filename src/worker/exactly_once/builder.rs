//! The builder of an exactly-once worker.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    handlers::{Batches, ByRef, Each, ExactlyOnceHandler},
    outputs::Outputs,
    transactions::Transactions,
};
use crate::{
    error::{Error, ErrorKind, Result},
    producer::TransactionalProducerBuilder,
    record::{ConsumerRecord, TopicName},
    worker::{HandlerResult, Worker, WorkerBuilder, handler::Work, settings::Settings},
};

/// Configures a [`Worker`] that handles each record exactly once, from
/// [`WorkerBuilder::exactly_once`].
///
/// # The guarantee
/// Each record has its results once in the output topics, for consumers that read `read_committed`,
/// whatever happens: a crash between sending and committing, a rebalance, a broker that goes, an
/// answer that is lost. Handlers may be called more than once for a record; only the results of a
/// call whose transaction committed are visible. Results that a handler writes elsewhere (a
/// database, a service) are not part of it.
///
/// # Transactions
/// A transaction begins with the first record that is ready and commits after
/// [`transaction_records`](Self::transaction_records),
/// [`transaction_bytes`](Self::transaction_bytes) or
/// [`transaction_interval`](Self::transaction_interval), whichever comes first. Before it commits,
/// no new records are begun, and running handlers finish. All partitions of the worker share one
/// transaction at a time. More records in a transaction mean more throughput, and results that
/// become visible later.
///
/// - A partition that the group revokes is given up when the transaction with its records has
///   ended, and after `drain_timeout` at the latest; then the transaction is aborted.
/// - A handler that fails aborts the transaction, with the other records in it: all of them are
///   handled again. The failed record waits for its backoff, and its attempts are counted; the
///   other partitions go on meanwhile. After the last attempt the record is dead-lettered or
///   skipped, in the next transaction, or the worker ends.
/// - `handler_timeout` and `drain_timeout` together must not exceed the producer's
///   `transaction.timeout.ms`. `drain_timeout` is at most half of that if it is not set, and
///   `handler_timeout` is then what is left: 30 s each, with the default of 60 s.
/// - A fenced producer (another one uses its `transactional.id`, or the coordinator aborted a
///   transaction that was too old) is replaced, and the records are handled again. After five such
///   failures within `max.poll.interval.ms` the worker ends with an error that names the cause.
///
/// # The consumer
/// The worker's consumer must have a group. It reads `read_committed` and does not commit by
/// itself: `isolation.level=read_uncommitted` and `enable.auto.commit=true` are refused if they
/// were set explicitly.
#[must_use = "a worker does nothing until it is run or started"]
pub struct ExactlyOnceBuilder {
    worker: WorkerBuilder,
    producer: TransactionalProducerBuilder,
}

impl WorkerBuilder {
    /// Handles each record exactly once: what the handlers send and the offsets of the records that
    /// they handled commit together, in transactions of this producer, one at a time over all
    /// partitions. The returned builder starts the worker with handlers that get [`Outputs`];
    /// [`ExactlyOnceBuilder`] describes the guarantee. Everything of this builder comes before.
    ///
    /// Give each worker a `transactional.id` of its own that stays the same when it is started
    /// again (`billing-1`, `billing-2` …): then it ends the transaction that it left open when it
    /// crashed.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.create_topic("invoices", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_key("42").with_value("7")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// consumer.subscribe(["orders"])?;
    /// let producer = cluster.producer().transactional_id("billing-1");
    /// let worker = consumer
    ///     .worker()
    ///     .retries(3)
    ///     .exactly_once(producer)
    ///     .start(|order, outputs| async move { outputs.send(Record::forward("invoices", &order)).await })?;
    /// # while worker.metrics().transactions_committed == 0 { tokio::time::sleep(Duration::from_millis(1)).await }
    /// worker.close(Duration::from_secs(10)).await?;
    /// # assert_eq!(cluster.committed("billing", "orders", 0), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// [`Outputs`]: super::Outputs
    pub fn exactly_once(self, producer: TransactionalProducerBuilder) -> ExactlyOnceBuilder {
        ExactlyOnceBuilder::new(self, producer)
    }
}

impl ExactlyOnceBuilder {
    pub(crate) fn new(worker: WorkerBuilder, producer: TransactionalProducerBuilder) -> Self {
        Self { worker, producer }
    }

    fn set(self, change: impl FnOnce(&mut Settings)) -> Self {
        Self { worker: self.worker.set(change), ..self }
    }

    /// Sets the number of records after which a transaction commits. Default: 1,000.
    pub fn transaction_records(self, records: u64) -> Self {
        self.set(|s| s.transaction_records = records)
    }

    /// Sets the bytes of outputs (keys, values and headers) after which a transaction commits.
    /// Default: 8388608.
    pub fn transaction_bytes(self, bytes: u64) -> Self {
        self.set(|s| s.transaction_bytes = bytes)
    }

    /// Sets the time after its first record at which a transaction commits. Default: 100 ms.
    pub fn transaction_interval(self, interval: Duration) -> Self {
        self.set(|s| s.transaction_interval = interval)
    }

    /// Sends a record to this topic after its last attempt has failed, as
    /// [`WorkerBuilder::dead_letter`] does, but as part of the transaction that commits the
    /// record's offset: a dead letter is in the topic once. Default: none.
    pub fn dead_letter<'a>(self, topic: impl TopicName<'a>) -> Self {
        Self { worker: self.worker.dead_letter_in_transaction(topic.into_arc()), ..self }
    }

    // ---- run

    /// Starts the worker and waits for its end. The handler gets a record and the [`Outputs`] for
    /// its results; it is done when it returns `()` or `Ok(())`.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`Worker::wait`].
    ///
    /// # Cancel safety
    /// Dropping the future ends handlers and consumer at once, and aborts the open transaction: its
    /// records are handled again.
    pub async fn run<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(ConsumerRecord, Outputs) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start(handler)?.wait().await
    }

    /// Runs the worker like [`run`](Self::run), for [batches](WorkerBuilder::run_batches).
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`Worker::wait`]; `Configuration` with
    /// [`OrderBy::Key`](crate::worker::OrderBy::Key).
    ///
    /// # Cancel safety
    /// Like [`run`](Self::run).
    pub async fn run_batches<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(Arc<[ConsumerRecord]>, Outputs) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_batches(handler)?.wait().await
    }

    /// Runs the worker like [`run`](Self::run), with an [`ExactlyOnceHandler`], which is a type of
    /// its own.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`Worker::wait`].
    ///
    /// # Cancel safety
    /// Like [`run`](Self::run).
    pub async fn run_handler(self, handler: impl ExactlyOnceHandler) -> Result<()> {
        self.start_handler(handler)?.wait().await
    }

    /// Starts the worker on the current tokio runtime. The producer is made and takes over its
    /// `transactional.id` in the background; [`Worker::wait`] returns the error if it cannot.
    ///
    /// # Errors
    /// Those of [`WorkerBuilder::start`]. `Configuration`: the consumer has no group, or settings
    /// that do not fit ([the consumer](Self#the-consumer)); `handler_timeout` and `drain_timeout`
    /// are together more than `transaction.timeout.ms`; dead letters with a producer of their own
    /// ([`WorkerBuilder::dead_letter`]); a producer without `transactional.id`.
    pub fn start<F, Fut>(self, handler: F) -> Result<Worker>
    where
        F: Fn(ConsumerRecord, Outputs) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_work(Each(handler))
    }

    /// Starts the worker like [`start`](Self::start), for [batches](WorkerBuilder::run_batches).
    ///
    /// # Errors
    /// The errors of [`start`](Self::start); `Configuration` with
    /// [`OrderBy::Key`](crate::worker::OrderBy::Key).
    pub fn start_batches<F, Fut>(self, handler: F) -> Result<Worker>
    where
        F: Fn(Arc<[ConsumerRecord]>, Outputs) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_work(Batches(handler))
    }

    /// Starts the worker like [`start`](Self::start), with an [`ExactlyOnceHandler`], which is a
    /// type of its own.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start).
    pub fn start_handler(self, handler: impl ExactlyOnceHandler) -> Result<Worker> {
        self.start_work(ByRef(handler))
    }

    fn start_work<W: Work>(self, work: W) -> Result<Worker> {
        let Self { worker, producer } = self;
        if worker.has_dead_letter_producer() {
            let message = "dead letters of an exactly-once worker are part of its transactions: set their topic by \
                           ExactlyOnceBuilder::dead_letter, after exactly_once";
            return Err(Error::new(ErrorKind::Configuration, message));
        }
        worker.start_work(work, Some(Transactions::new(producer)?))
    }
}

impl fmt::Debug for ExactlyOnceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExactlyOnceBuilder").field("worker", &self.worker).finish_non_exhaustive()
    }
}
