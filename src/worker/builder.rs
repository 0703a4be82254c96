//! The builder of a worker.

use std::{fmt, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::watch;

use super::{
    Handler, HandlerResult, OrderBy, Worker,
    dead_letter::DeadLetters,
    handler::{Batches, ByRef, Each, Work},
    schedule::Schedule,
    settings::{Failed, Settings},
    worker_task::{ChildTask, Shutdown, WorkerTask},
};
use crate::worker::{
    exactly_once::{outputs::OutputsSlot, transactions::Transactions},
    handler_task::HandlerContext,
    shared_schedule::SharedSchedule,
};
use crate::{
    consumer::{Consumer, ManualReader},
    error::Result,
    net::runtime,
    producer::Producer,
    record::{ConsumerRecord, TopicName, check_topic_name},
};

/// Configures a [`Worker`], from [`Consumer::worker`].
///
/// The `run` methods start the worker and wait for its end; dropping their future ends it at once,
/// without a commit. The `start` methods return the running worker.
///
/// ```no_run
/// # async fn example(consumer: ottla::Consumer, producer: ottla::Producer) -> ottla::Result<()> {
/// use ottla::{record::KafkaFormats, worker::OrderBy};
///
/// consumer.subscribe(["orders"])?;
/// consumer
///     .worker()
///     .concurrency(64)
///     .order_by(OrderBy::Key)
///     .retries(3)
///     .dead_letter(&producer, "orders.dead")
///     .shutdown(async { tokio::signal::ctrl_c().await.unwrap_or(()) })
///     .run(|record| async move {
///         let cents: Option<i64> = record.value_as(&KafkaFormats)?;
///         println!("{:?}: {cents:?}", record.key);
///         Ok::<_, ottla::Error>(())
///     })
///     .await
/// # }
/// ```
#[must_use = "a worker does nothing until it is run or started"]
pub struct WorkerBuilder {
    consumer: Consumer,
    settings: Settings,
    dead_letters: Option<(Option<Producer>, Arc<str>)>,
    shutdown: Option<Shutdown>,
    seed: Option<u64>,
}

impl Consumer {
    /// Runs `handler` for every record, with partitions in parallel and each partition in order,
    /// until a record cannot be handled. Subscribe first. This is short for
    /// [`worker`](Self::worker)`().run(handler)`; the builder sets concurrency, retries, dead
    /// letters and the shutdown. [`Worker`] describes the guarantees.
    ///
    /// ```no_run
    /// # async fn example(consumer: ottla::Consumer) -> ottla::Result<()> {
    /// consumer.subscribe(["orders"])?;
    /// consumer
    ///     .run(|record| async move { println!("{}: {:?}", record.offset, record.value) })
    ///     .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The errors of [`Worker::wait`].
    ///
    /// # Cancel safety
    /// Dropping the future ends handlers and consumer at once; records that were completed since
    /// the last commit are handled again.
    pub async fn run<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(ConsumerRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.worker().run(handler).await
    }

    /// Returns a builder for a [`Worker`] that runs a handler for every record. The worker is the
    /// consumer's only reader; clones of the consumer may pause and seek partitions while it runs.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// consumer.subscribe(["orders"])?;
    /// let worker = consumer.worker().concurrency(64).start(|record| async move {
    ///     println!("{}: {:?}", record.offset, record.value); // done when this returns
    /// })?;
    /// worker.close(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    pub fn worker(self) -> WorkerBuilder {
        WorkerBuilder::new(self)
    }
}

impl WorkerBuilder {
    fn new(consumer: Consumer) -> Self {
        Self { consumer, settings: Settings::default(), dead_letters: None, shutdown: None, seed: None }
    }

    pub(super) fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Sets the number of handlers that may run at once, over all partitions. Default: 16.
    pub fn concurrency(self, handlers: usize) -> Self {
        self.set(|s| s.concurrency = handlers)
    }

    /// Selects the records that are handled one after the other. Default: [`OrderBy::Partition`].
    pub fn order_by(self, order: OrderBy) -> Self {
        self.set(|s| s.order_by = order)
    }

    /// Sets the number of records of each partition that may be read ahead without being completed.
    /// With [`OrderBy::Key`] it also bounds how far other keys may get ahead of a slow key.
    /// Default: 500.
    pub fn buffer_records(self, records: usize) -> Self {
        self.set(|s| s.buffer_records = records)
    }

    /// Sets the number of bytes of records, over all partitions, that may be read ahead without
    /// being completed. At this bound a partition still keeps the records that it received last, so
    /// the bound may be exceeded by one fetched batch for each partition. Records that are fetched
    /// and not read by the worker are bounded by the consumer (`queued.max.messages.kbytes`).
    /// Default: 67108864.
    pub fn buffer_bytes(self, bytes: usize) -> Self {
        self.set(|s| s.buffer_bytes = bytes)
    }

    /// Sets the maximum number of records in a batch of [`run_batches`](Self::run_batches).
    /// Default: 500.
    pub fn max_batch(self, records: usize) -> Self {
        self.set(|s| s.max_batch = records)
    }

    /// Sets the time that a batch of [`run_batches`](Self::run_batches) waits to become full
    /// ([`max_batch`](Self::max_batch)), counted from the arrival of its first record. It begins
    /// earlier if no more records can come: because the buffer is full
    /// ([`buffer_bytes`](Self::buffer_bytes)), or because an error of the partition follows them.
    /// The wait does not count as the handler's time: it takes none of the
    /// [`concurrency`](Self::concurrency), and the group revokes the partition without waiting for
    /// it (the next owner reads the records again). While a batch is handled, the next one fills
    /// only up to [`buffer_records`](Self::buffer_records), which should be twice `max_batch`.
    /// Default: none, so that a batch has the records that are available.
    ///
    /// ```
    /// use std::{sync::Arc, time::Duration};
    /// use ottla::{ConsumerRecord, Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// cluster.create_topic("orders", 1)?;
    /// for _ in 0..3 {
    ///     cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// }
    /// let builder = cluster.consumer().group("archive");
    /// let consumer = builder.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// consumer.subscribe(["orders"])?;
    /// let (sizes, mut seen) = tokio::sync::mpsc::unbounded_channel();
    /// let builder = consumer.worker().max_batch(3).batch_linger(Duration::from_secs(1));
    /// let worker = builder.start_batches(
    ///     move |records: Arc<[ConsumerRecord]>| {
    ///         let sizes = sizes.clone();
    ///         async move { sizes.send(records.len()) } // one write to the archive for all of them
    ///     },
    /// )?;
    /// assert_eq!(seen.recv().await, Some(3)); // full, so it did not wait for a second
    /// worker.close(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Starting returns `Configuration` if the handler takes single records, and if
    /// `buffer_records` is less than `max_batch`.
    pub fn batch_linger(self, linger: Duration) -> Self {
        self.set(|s| s.batch_linger = linger)
    }

    /// Sets how often a handler that failed is called again with the same record; 0 for never,
    /// `u32::MAX` for no limit. Errors that are [`NonRetriable`](super::NonRetriable) or of kind
    /// [`Deserialization`](crate::ErrorKind::Deserialization) are not retried. Default: 5.
    ///
    /// ```
    /// # async fn save(order: ottla::ConsumerRecord) -> std::io::Result<()> { Ok(()) }
    /// # use std::time::Duration;
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// # consumer.subscribe(["orders"])?;
    /// let worker = consumer
    ///     .worker()
    ///     .retries(u32::MAX) // until `save` succeeds; other partitions are handled meanwhile
    ///     .retry_backoff(Duration::from_millis(50), Duration::from_secs(30))
    ///     .start(|order| async move { save(order).await })?;
    /// worker.close(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    pub fn retries(self, retries: u32) -> Self {
        self.set(|s| s.retries = retries)
    }

    /// Sets the backoff before the first retry, and its maximum: the backoff doubles with each
    /// retry, with a jitter of ±20 %. Failed deliveries to the dead letter topic wait in the same
    /// way. Defaults: 100 ms and 10 s.
    pub fn retry_backoff(self, first: Duration, max: Duration) -> Self {
        self.set(|s| s.backoff = (first, max))
    }

    /// Sets the time that one call of the handler may take. A call that takes longer is ended and
    /// counts as failed. Default: no limit of its own; `max.poll.interval.ms` of the group still
    /// applies.
    pub fn handler_timeout(self, timeout: Duration) -> Self {
        self.set(|s| s.timeout = Some(timeout))
    }

    /// Sends a record to this topic after its last attempt has failed, unchanged, with headers that
    /// name its origin and the error: `__ottla.errors.topic`, `.partition`, `.offset`, `.message`,
    /// `.attempts` and `.group`, as text. The record is done when the dead letter is acknowledged.
    /// A dead letter that is not acknowledged is sent again, so it may be in the topic twice. If
    /// sending again cannot help (the topic does not exist, the right to write is missing, the
    /// record is too large), the worker ends with the error. Default: none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::{Record, consumer::OffsetReset, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let consumer = cluster.consumer().group("billing");
    /// # let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// # cluster.create_topic("orders.dead", 1)?;
    /// # let producer = cluster.producer().build().await?;
    /// # let mut reports = producer.delivery_reports();
    /// consumer.subscribe(["orders"])?;
    /// let worker = consumer
    ///     .worker()
    ///     .retries(1)
    ///     .dead_letter(&producer, "orders.dead") // after two attempts
    ///     .start(|order| async move { Err::<(), _>(format!("no order: {:?}", order.value)) })?;
    /// # reports.next().await.expect("a dead letter").result?;
    /// # worker.close(Duration::from_secs(10)).await?;
    /// # assert_eq!(cluster.records("orders.dead", 0)?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn dead_letter<'a>(mut self, producer: &Producer, topic: impl TopicName<'a>) -> Self {
        self.dead_letters = Some((Some(producer.clone()), topic.into_arc()));
        self.set(|s| s.failed = Failed::DeadLetter)
    }

    /// Sets the topic of dead letters that are part of transactions.
    pub(super) fn dead_letter_in_transaction(mut self, topic: Arc<str>) -> Self {
        self.dead_letters = Some((None, topic));
        self.set(|s| s.failed = Failed::DeadLetter)
    }

    /// Returns true if dead letters have a producer of their own.
    pub(super) fn has_dead_letter_producer(&self) -> bool {
        matches!(&self.dead_letters, Some((Some(_), _)))
    }

    /// Skips a record after its last attempt has failed: it counts as done, and is logged with
    /// `tracing` at ERROR. Default: the worker ends.
    pub fn skip_failed(self) -> Self {
        self.set(|s| s.failed = Failed::Skip)
    }

    /// Sets whether stored records that are damaged are skipped ([`Consumer::skip_corrupt`]).
    /// Default: false, so the worker ends with the [`Corrupt`](crate::ErrorKind::Corrupt) error.
    pub fn skip_corrupt(self, skip: bool) -> Self {
        self.set(|s| s.skip_corrupt = skip)
    }

    /// Sets the time that handlers have to finish when the group revokes their partition (at most
    /// half of `max.poll.interval.ms`), and when the worker ends; after that they are
    /// [ended](Worker#when-a-handler-is-ended). After a [shutdown](Self::shutdown) or a failure,
    /// committing and leaving the group may take that time once more. Default: 30 s.
    pub fn drain_timeout(self, timeout: Duration) -> Self {
        self.set(|s| s.drain = Some(timeout))
    }

    /// Ends the worker when this future is ready: a signal, a cancelled token. Default: never.
    pub fn shutdown(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(Box::pin(shutdown));
        self
    }

    #[cfg(test)]
    pub(super) fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    // ---- run

    /// Starts the worker and waits for its end. A record is done when the handler returns `()` or
    /// `Ok(())`.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`Worker::wait`].
    ///
    /// # Cancel safety
    /// Dropping the future ends handlers and consumer at once; records that were completed since
    /// the last commit are handled again.
    pub async fn run<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(ConsumerRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start(handler)?.wait().await
    }

    /// Runs the worker like [`run`](Self::run), with a handler that gets batches of a partition's
    /// records, in order: the available records, up to [`max_batch`](Self::max_batch), or those
    /// that come within [`batch_linger`](Self::batch_linger). A batch is done, or fails, as a
    /// whole.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`Worker::wait`]; `Configuration` with
    /// [`OrderBy::Key`].
    ///
    /// # Cancel safety
    /// Like [`run`](Self::run).
    pub async fn run_batches<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(Arc<[ConsumerRecord]>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_batches(handler)?.wait().await
    }

    /// Runs the worker like [`run`](Self::run), with a [`Handler`], which is a type of its own.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start) and [`Worker::wait`].
    ///
    /// # Cancel safety
    /// Like [`run`](Self::run).
    pub async fn run_handler(self, handler: impl Handler) -> Result<()> {
        self.start_handler(handler)?.wait().await
    }

    /// Starts the worker on the current tokio runtime.
    ///
    /// # Errors
    /// `Configuration` for settings that allow nothing, and without a tokio runtime that has
    /// timers; `InvalidArgument` for a dead letter topic with a name that Kafka forbids, and while
    /// another reader of the consumer is active; `Closed`.
    pub fn start<F, Fut>(self, handler: F) -> Result<Worker>
    where
        F: Fn(ConsumerRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_work(Each(handler), None)
    }

    /// Starts the worker like [`start`](Self::start), for [batches](Self::run_batches).
    ///
    /// # Errors
    /// The errors of [`start`](Self::start); `Configuration` with [`OrderBy::Key`].
    pub fn start_batches<F, Fut>(self, handler: F) -> Result<Worker>
    where
        F: Fn(Arc<[ConsumerRecord]>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_work(Batches(handler), None)
    }

    /// Starts the worker like [`start`](Self::start), with a [`Handler`], which is a type of its
    /// own.
    ///
    /// # Errors
    /// The errors of [`start`](Self::start).
    pub fn start_handler(self, handler: impl Handler) -> Result<Worker> {
        self.start_work(ByRef(handler), None)
    }

    /// Starts the worker, in transactions if they are given.
    pub(super) fn start_work<W: Work>(self, work: W, transactions: Option<Transactions>) -> Result<Worker> {
        let Self { consumer, mut settings, dead_letters, shutdown, seed } = self;
        let runtime = runtime("a worker")?;
        let patience = consumer.max_poll_interval();
        if let Some(transactions) = &transactions {
            settings.fit_to_transactions(transactions.timeout)?;
        }
        let rules = settings.rules(W::BATCHES, patience)?;
        let dead_letters = match dead_letters {
            Some((producer, topic)) => {
                check_topic_name(&topic)?;
                Some(DeadLetters { producer, topic, group: consumer.group_id() })
            }
            None => None,
        };
        let seed = seed.unwrap_or_else(|| rand::rng().random());
        let mut schedule = Schedule::new(rules, StdRng::seed_from_u64(seed));
        if let Some(transactions) = &transactions {
            consumer.commit_in_transactions()?;
            schedule =
                schedule.with_transactions(transactions.cycle(&settings, patience, StdRng::seed_from_u64(!seed)));
        }
        let plan = SharedSchedule::new(schedule, consumer.origin().clone());
        let watched = Arc::downgrade(&plan);
        let busy_since = move || watched.upgrade().and_then(|plan| plan.with(|schedule| schedule.busy_since()));
        let hands = ManualReader::new(consumer.clone(), busy_since)?;
        let (close, closed) = watch::channel(None);
        let (says, ended) = watch::channel(None);
        let mut running = ChildTask::default();
        let outputs = transactions.map(|transactions| {
            let outputs = Arc::new(OutputsSlot::new(&plan, settings.transaction_bytes));
            running.start_transactions(transactions.task(plan.clone(), consumer.clone(), outputs.clone()));
            outputs
        });
        let driver = WorkerTask {
            context: Arc::new(HandlerContext {
                schedule: plan.clone(),
                handler: work,
                timeout: settings.timeout,
                dead_letters,
                outputs: outputs.clone(),
            }),
            plan: plan.clone(),
            consumer: consumer.clone(),
            hands,
            close: closed,
            shutdown,
            drain: settings.drain(patience),
            skip_corrupt: settings.skip_corrupt,
            running,
        };
        let task = runtime.spawn(async move {
            let result = driver.run().await;
            says.send_replace(Some(result));
        });
        Ok(Worker::new(plan, consumer, outputs, close, ended, task.abort_handle()))
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
