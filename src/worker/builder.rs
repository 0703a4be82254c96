//! How a worker is set up and started.

use std::{fmt, sync::Arc, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::watch;

use super::{
    Handler, HandlerResult, OrderBy, Worker,
    dead_letter::DeadLetters,
    handler::{Batches, ByRef, Each, Work},
    schedule::Schedule,
    settings::{Failed, Settings},
    worker_task::{Shutdown, WorkerTask},
};
use crate::worker::{handler_task::HandlerContext, shared_schedule::SharedSchedule};
use crate::{
    config::parse::FOREVER,
    consumer::{Consumer, ManualReader},
    error::Result,
    net::runtime,
    producer::Producer,
    record::{ConsumerRecord, TopicName, check_topic_name},
};

/// Settings for a [`Worker`], from [`Consumer::worker`].
///
/// The `run` methods start the worker and wait for its end; dropping their future ends it at once,
/// without a commit. The `start` methods give the running worker.
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
    dead_letters: Option<(Producer, Arc<str>)>,
    shutdown: Option<Shutdown>,
    seed: Option<u64>,
}

impl Consumer {
    /// Runs `handler` for every record, partitions side by side and each in order, until something
    /// cannot be handled. Subscribe before. The same as [`worker`](Self::worker)`().run(handler)`:
    /// there is where to set concurrency, retries, dead letters and how to stop; [`Worker`] says
    /// what is promised.
    ///
    /// ```no_run
    /// # async fn example(consumer: ottla::Consumer) -> ottla::Result<()> {
    /// consumer.subscribe(["orders"])?;
    /// consumer.run(|record| async move { println!("{}: {:?}", record.offset, record.value) }).await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Worker::wait`].
    ///
    /// # Cancel safety
    /// Dropping the future ends handlers and consumer at once; what was done since the last commit
    /// is handled again.
    pub async fn run<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(ConsumerRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.worker().run(handler).await
    }

    /// Settings for a [`Worker`] that runs a handler for every record. It is the consumer's one
    /// reader; clones of the consumer pause and seek partitions while it runs.
    pub fn worker(self) -> WorkerBuilder {
        WorkerBuilder::new(self)
    }
}

impl WorkerBuilder {
    fn new(consumer: Consumer) -> Self {
        Self { consumer, settings: Settings::default(), dead_letters: None, shutdown: None, seed: None }
    }

    fn set(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// How many handlers may run at once, over all partitions. Default: 16.
    pub fn concurrency(self, handlers: usize) -> Self {
        self.set(|s| s.concurrency = handlers)
    }

    /// Which records are handled one after the other. Default: [`OrderBy::Partition`].
    pub fn order_by(self, order: OrderBy) -> Self {
        self.set(|s| s.order_by = order)
    }

    /// How many records of each partition may be taken ahead and not be done. With [`OrderBy::Key`]
    /// it is also how far others may get ahead of a key that is slow. Default: 500.
    pub fn buffer_records(self, records: usize) -> Self {
        self.set(|s| s.buffer_records = records)
    }

    /// How many bytes of records, of all partitions together, may be taken ahead and not be done.
    /// At this bound a partition still has what came to it last, so it may be exceeded by one
    /// fetched batch for each. What is fetched and not taken is bounded by the consumer
    /// (`queued.max.messages.kbytes`). Default: 67108864.
    pub fn buffer_bytes(self, bytes: usize) -> Self {
        self.set(|s| s.buffer_bytes = bytes)
    }

    /// The most records of one batch, for [`run_batches`](Self::run_batches). Default: 500.
    pub fn max_batch(self, records: usize) -> Self {
        self.set(|s| s.max_batch = records)
    }

    /// Sets how long a batch of [`run_batches`](Self::run_batches) waits to be full
    /// ([`max_batch`](Self::max_batch)), counted from when its first record was there. It begins
    /// earlier where no more records can come: the buffer is full
    /// ([`buffer_bytes`](Self::buffer_bytes)), or an error of the partition stands behind them. The
    /// wait is not the handler's time: it keeps no lane, and the group takes the partition back
    /// without waiting for it (the records are read again by the next owner). While a batch is
    /// handled, the next one fills only as far as [`buffer_records`](Self::buffer_records), which
    /// should be twice `max_batch`. Default: none, so that a batch is what is there.
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
    /// let consumer = cluster.consumer().group("archive").auto_offset_reset(OffsetReset::Earliest).build().await?;
    /// consumer.subscribe(["orders"])?;
    /// let (sizes, mut seen) = tokio::sync::mpsc::unbounded_channel();
    /// let worker = consumer.worker().max_batch(3).batch_linger(Duration::from_secs(1)).start_batches(
    ///     move |records: Arc<[ConsumerRecord]>| {
    ///         let sizes = sizes.clone();
    ///         async move { sizes.send(records.len()) } // one write to the archive for all of them
    ///     },
    /// )?;
    /// assert_eq!(seen.recv().await, Some(3)); // full, so it did not wait for the second to be over
    /// worker.close(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Starting gives `Configuration` where the handler takes single records, and where
    /// `buffer_records` is less than `max_batch`.
    pub fn batch_linger(self, linger: Duration) -> Self {
        self.set(|s| s.batch_linger = linger)
    }

    /// How often a handler that failed is called again with the same record; 0 for never,
    /// `u32::MAX` for without end. Not for errors that are [`NonRetriable`](super::NonRetriable) or of
    /// kind [`Deserialization`](crate::ErrorKind::Deserialization). Default: 5.
    pub fn retries(self, retries: u32) -> Self {
        self.set(|s| s.retries = retries)
    }

    /// How long to wait before the first of these calls, and at most: the wait doubles, by a fifth
    /// more or less. Deliveries to the dead letter topic that failed wait alike. Defaults: 100 ms
    /// and 10 s.
    pub fn retry_backoff(self, first: Duration, max: Duration) -> Self {
        self.set(|s| s.backoff = (first, max))
    }

    /// How long one call of the handler may take; one that takes longer is ended, and counts as
    /// failed. Default: as long as the group has patience (`max.poll.interval.ms`).
    pub fn handler_timeout(self, timeout: Duration) -> Self {
        self.set(|s| s.timeout = Some(timeout))
    }

    /// Sends a record whose handler has failed for the last time to this topic, as it was, with
    /// headers that say where it is from and what was wrong: `__ottla.errors.topic`, `.partition`,
    /// `.offset`, `.message`, `.attempts` and `.group`, as text. It is done when the dead letter is
    /// acknowledged; one that is not is sent again, so a dead letter may be there twice. Where that
    /// cannot help (no such topic, no right to write, too large) the worker ends with the error.
    pub fn dead_letter<'a>(mut self, producer: &Producer, topic: impl TopicName<'a>) -> Self {
        self.dead_letters = Some((producer.clone(), topic.into_arc()));
        self.set(|s| s.failed = Failed::Bury)
    }

    /// Passes over a record whose handler has failed for the last time: it counts as done, and is
    /// told to `tracing` at ERROR. Default: the worker ends.
    pub fn skip_failed(self) -> Self {
        self.set(|s| s.failed = Failed::Skip)
    }

    /// Passes over stored records that are damaged ([`Consumer::skip_corrupt`]). Default: the
    /// worker ends with the [`Corrupt`](crate::ErrorKind::Corrupt) error.
    pub fn skip_corrupt(self, skip: bool) -> Self {
        self.set(|s| s.skip_corrupt = skip)
    }

    /// How long handlers may go on when the group takes their partition back (for half of
    /// `max.poll.interval.ms` at most), and when the worker ends; then they are
    /// [ended](Worker#when-a-handler-is-ended). After a [shutdown](Self::shutdown) or a failure,
    /// committing and leaving the group may take as long again. Default: 30 s.
    pub fn drain_timeout(self, timeout: Duration) -> Self {
        self.set(|s| s.drain = timeout)
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

    /// Starts, and waits for the end. A record is done when the handler gives `()` or `Ok(())`.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`Worker::wait`].
    ///
    /// # Cancel safety
    /// Dropping the future ends handlers and consumer at once; what was done since the last commit
    /// is handled again.
    pub async fn run<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(ConsumerRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start(handler)?.wait().await
    }

    /// The same with batches of a partition's records, in order: those that are there, up to
    /// [`max_batch`](Self::max_batch), or what comes within [`batch_linger`](Self::batch_linger). A
    /// batch is done, or fails, as a whole.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`Worker::wait`]; `Configuration` with [`OrderBy::Key`].
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_batches<F, Fut>(self, handler: F) -> Result<()>
    where
        F: Fn(Arc<[ConsumerRecord]>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_batches(handler)?.wait().await
    }

    /// The same with a handler that is a type of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`Worker::wait`].
    ///
    /// # Cancel safety
    /// As [`run`](Self::run).
    pub async fn run_handler(self, handler: impl Handler) -> Result<()> {
        self.start_handler(handler)?.wait().await
    }

    /// Starts the worker on the current tokio runtime.
    ///
    /// # Errors
    /// `Configuration` for settings that allow nothing, and without a tokio runtime that has
    /// timers; `InvalidArgument` for a dead letter topic whose name Kafka forbids, and while
    /// somebody else reads the consumer; `Closed`.
    pub fn start<F, Fut>(self, handler: F) -> Result<Worker>
    where
        F: Fn(ConsumerRecord) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_work(Each(handler))
    }

    /// As [`start`](Self::start), for [batches](Self::run_batches).
    ///
    /// # Errors
    /// As [`start`](Self::start); `Configuration` with [`OrderBy::Key`].
    pub fn start_batches<F, Fut>(self, handler: F) -> Result<Worker>
    where
        F: Fn(Arc<[ConsumerRecord]>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: HandlerResult> + Send,
    {
        self.start_work(Batches(handler))
    }

    /// As [`start`](Self::start), for a handler that is a type of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_handler(self, handler: impl Handler) -> Result<Worker> {
        self.start_work(ByRef(handler))
    }

    fn start_work<W: Work>(self, work: W) -> Result<Worker> {
        let Self { consumer, settings, dead_letters, shutdown, seed } = self;
        let runtime = runtime("a worker")?;
        let patience = consumer.max_poll_interval();
        let rules = settings.rules(W::BATCHES, patience)?;
        let dead_letters = match dead_letters {
            Some((producer, topic)) => {
                check_topic_name(&topic)?;
                Some(DeadLetters { producer, topic, group: consumer.group_id() })
            }
            None => None,
        };
        let seed = seed.unwrap_or_else(|| rand::rng().random());
        let plan = SharedSchedule::new(Schedule::new(rules, StdRng::seed_from_u64(seed)), consumer.origin().clone());
        let watched = Arc::downgrade(&plan);
        let busy_since = move || watched.upgrade().and_then(|plan| plan.with(|schedule| schedule.busy_since()));
        let hands = ManualReader::new(consumer.clone(), busy_since)?;
        let (close, closed) = watch::channel(None);
        let (says, ended) = watch::channel(None);
        let driver = WorkerTask {
            context: Arc::new(HandlerContext {
                schedule: plan.clone(),
                handler: work,
                timeout: settings.timeout,
                dead_letters,
            }),
            plan: plan.clone(),
            consumer: consumer.clone(),
            hands,
            close: closed,
            shutdown,
            drain: patience.map_or(settings.drain, |patience| settings.drain.min(patience / 2)).min(FOREVER),
            skip_corrupt: settings.skip_corrupt,
            running: super::worker_task::ChildTask::default(),
        };
        let task = runtime.spawn(async move {
            let result = driver.run().await;
            says.send_replace(Some(result));
        });
        Ok(Worker::new(plan, consumer, close, ended, task.abort_handle()))
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}
