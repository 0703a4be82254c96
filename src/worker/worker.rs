//! The handle of a running worker.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, timeout_at},
};

use super::{WorkerMetrics, WorkerState, WorkerStatus};
use crate::worker::shared_schedule::{SharedSchedule, now};
use crate::{
    config::parse::FOREVER,
    consumer::Consumer,
    error::{Error, ErrorKind, Result},
    producer::{ProducerMetrics, TransactionHandle},
    worker::exactly_once::outputs::OutputsSlot,
};

/// Runs a handler for each record of a consumer: partitions in parallel, each in order.
///
/// [`Consumer::run`] starts one and waits for its end; [`Consumer::worker`] configures it first.
///
/// # What it takes care of
/// - **Order**: records of a partition, or those of a key ([`OrderBy`](super::OrderBy)), are
///   handled one after the other.
/// - **Bounds**: the number of handlers that run at once is bounded, and so are the records and
///   bytes that are read ahead; beyond these the consumer's own bounds apply.
/// - **Commits**: a record is done when its handler returned `Ok`, when it is in the dead letter
///   topic, or when it was skipped. The committed offset is that after the last record that is done
///   together with all records before it. It is committed every `auto.commit.interval.ms`, when the
///   group revokes a partition, and at the end. So each record is handled at least once, and
///   exactly once if no handler is ended and the worker does not crash. With `enable.auto.commit`
///   off nothing is committed: for handlers that store offsets with their results.
/// - **Failures**: a handler that returns an error, panics or exceeds
///   [`handler_timeout`](super::WorkerBuilder::handler_timeout) is called again after a backoff
///   that doubles. After the last attempt the record goes to the [dead letter
///   topic](super::WorkerBuilder::dead_letter), or is [skipped](super::WorkerBuilder::skip_failed),
///   or the worker ends with the error (the default). Other records are handled meanwhile; those
///   that follow it in order wait.
/// - **Rebalances**: when the group revokes a partition, no more of its records are begun (except
///   those before records of other keys that were begun already, so that these need not be handled
///   twice), and running handlers may finish within
///   [`drain_timeout`](super::WorkerBuilder::drain_timeout). When a partition is lost, another
///   member may read it already, so its handlers are ended at once.
/// - **Hanging handlers**: `max.poll.interval.ms` counts from the call of the handler that has run
///   for longest. After that time the member is out of the group and its handlers are ended; when
///   they have ended, it joins again. [`status`](Self::status) lists the running handlers with
///   their durations. An attempt that waits for its retry does not count.
///
/// # How fast it can be
/// With [`OrderBy::Partition`](super::OrderBy::Partition), the default, one handler runs for each
/// partition, whatever [`concurrency`](super::WorkerBuilder::concurrency) allows. So a handler that
/// waits (for a database, for the [`Delivery`](crate::Delivery) of a record that it sends on)
/// limits the worker to partitions ÷ that wait. For a delivery the wait is the producer's
/// `linger.ms` (5 ms by default) and a round trip: with 6 partitions and 1 ms to the broker, about
/// 1,000 records a second. [`Worker::status`] shows such a worker: one record runs in each
/// partition, and the others wait. Remedies:
/// - [`run_batches`](super::WorkerBuilder::run_batches) waits once for each batch. With
///   [`send_batch`](crate::Producer::send_batch) the records of a batch wait for the broker
///   together, as in the example.
/// - [`OrderBy::Key`](super::OrderBy::Key) handles different keys of a partition in parallel, up to
///   `concurrency`.
/// - [`linger(Duration::ZERO)`](crate::producer::ProducerBuilder::linger) reduces the wait to the
///   round trip.
///
/// Do not skip the wait for the delivery: the record would be done, and be committed, before its
/// copy is in the log.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use ottla::{ConsumerRecord, Record, consumer::OffsetReset, testkit::{Cluster, Options}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// let cluster = Cluster::start(Options::new().in_memory()).await?;
/// cluster.create_topic("orders", 2)?;
/// cluster.append("orders", 0, &[Record::to("orders").with_key("42").with_value("shipped")])?;
/// let producer = cluster.producer().build().await?;
/// let builder = cluster.consumer().group("copy");
/// let consumer = builder.auto_offset_reset(OffsetReset::Earliest).build().await?;
/// consumer.subscribe(["orders"])?;
/// # let mut reports = producer.delivery_reports();
/// let worker = consumer.worker().start_batches(move |records: Arc<[ConsumerRecord]>| {
///     let producer = producer.clone();
///     async move {
///         let copy = |record| Record::forward("orders.copy", record);
///         let copies: Vec<_> = records.iter().map(copy).collect();
///         producer.send_batch(copies).await.await.ok() // waits once; an error fails the attempt
///     }
/// })?;
/// # reports.next().await.expect("a copy").result?;
/// worker.close(Duration::from_secs(10)).await?;
/// assert_eq!(cluster.records("orders.copy", 0)?.len(), 1);
/// # Ok(()) }
/// ```
///
/// # When a handler is ended
/// Its future is dropped at one of its `.await`s. A handler that blocks its thread cannot be ended:
/// use [`spawn_blocking`](tokio::task::spawn_blocking) for blocking work.
///
/// # When it ends
/// [`close`](Self::close) drains, commits and leaves the group. Dropping the worker ends its
/// handlers, and the consumer like [dropping it](Consumer#when-it-ends): completed records are
/// committed and the group is left in the background, for five seconds at most. A record is not
/// done if its handler was ended, and is handled again.
///
/// All methods take `&self`: put the worker in an [`Arc`] to observe it from elsewhere.
pub struct Worker {
    plan: Arc<SharedSchedule>,
    consumer: Consumer,
    /// Set if records are handled exactly once.
    outputs: Option<Arc<OutputsSlot>>,
    close: watch::Sender<Option<Instant>>,
    ended: watch::Receiver<Option<Result<()>>>,
    task: AbortHandle,
}

impl Worker {
    pub(super) fn new(
        plan: Arc<SharedSchedule>,
        consumer: Consumer,
        outputs: Option<Arc<OutputsSlot>>,
        close: watch::Sender<Option<Instant>>,
        ended: watch::Receiver<Option<Result<()>>>,
        task: AbortHandle,
    ) -> Self {
        Self { plan, consumer, outputs, close, ended, task }
    }

    /// Waits until the worker has ended.
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
    /// # consumer.subscribe(["orders"])?;
    /// # let stop = tokio::time::sleep(Duration::from_millis(20));
    /// // `stop` is a future, such as that of a signal.
    /// let worker = consumer.worker().shutdown(stop).start(|order| async move {
    ///     println!("{:?}", order.value);
    /// })?;
    /// worker.wait().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The reason for the end: `Handler` if a record could not be handled and neither dead letters
    /// nor skipping is configured; an error that only the user can resolve (`Corrupt`, `NoOffset`,
    /// a fatal error of the consumer); a dead letter that cannot be sent; an error of the final
    /// commit, or of leaving the group, or their timeout.
    ///
    /// # Cancel safety
    /// Safe: the worker goes on.
    pub async fn wait(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|ended| ended.clone());
        ended.unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "the worker's runtime was dropped")))
    }

    /// Begins no more records, lets handlers finish (for half of the timeout, and at most for
    /// [`drain_timeout`](super::WorkerBuilder::drain_timeout)), commits completed records and
    /// leaves the group. Never takes longer than the timeout.
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
    /// let worker = consumer.worker().start(|order| async move { println!("{:?}", order.value) })?;
    /// // … until the program ends …
    /// worker.close(Duration::from_secs(10)).await?; // handlers finish, offsets are committed
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The errors of [`wait`](Self::wait); `Timeout` if it did not complete in time.
    ///
    /// # Cancel safety
    /// Dropping the future does not cancel the close.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let timeout = timeout.min(FOREVER);
        let deadline = Instant::now() + timeout;
        // The task gets a slightly earlier deadline, so that its result arrives before this call
        // times out.
        self.close.send_if_modified(|at| {
            let earlier = deadline - timeout / 16;
            let sooner = at.is_none_or(|at| earlier < at);
            *at = at.map_or(Some(earlier), |at| Some(at.min(earlier)));
            sooner
        });
        match timeout_at(deadline, self.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                let message = format!("the worker did not end within {} ms", timeout.as_millis());
                Err(Error::new(ErrorKind::Timeout, message))
            }
        }
    }

    /// Returns what the worker is doing: the running handlers with their durations, the records
    /// that wait in each partition, and the state of the consumer. Sends no request; call it when
    /// the worker makes no progress, or for a health check.
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
    /// # consumer.subscribe(["orders"])?;
    /// let worker = consumer.worker().start(|order| async move { println!("{:?}", order.value) })?;
    /// let status = worker.status();
    /// for job in &status.running {
    ///     println!("{} at offset {}: for {:?}", job.partition, job.offset, job.for_how_long);
    /// }
    /// for (partition, state) in &status.partitions {
    ///     println!("{partition}: {} records wait, {} are retried", state.waiting, state.retrying);
    /// }
    /// # worker.close(Duration::from_secs(10)).await?;
    /// # Ok(()) }
    /// ```
    pub fn status(&self) -> WorkerStatus {
        let now = now();
        let (running, partitions, mut exactly_once) =
            self.plan.with(|schedule| (schedule.running(now), schedule.partitions(), schedule.exactly_once(now)));
        if let Some(status) = &mut exactly_once {
            status.producer = self.producer().map(|producer| producer.transactions().status());
        }
        let state = match &*self.ended.borrow() {
            Some(ended) => WorkerState::Ended(ended.as_ref().err().cloned()),
            None if self.plan.is_closing() => WorkerState::Closing,
            None => WorkerState::Running,
        };
        WorkerStatus {
            state,
            running,
            partitions: partitions.into_iter().collect(),
            last_error: self.plan.last_error(),
            consumer: self.consumer.status(),
            exactly_once,
        }
    }

    /// Returns a snapshot of the worker's counters.
    pub fn metrics(&self) -> WorkerMetrics {
        self.plan.with(|schedule| schedule.metrics())
    }

    /// Returns a snapshot of the counters of the producer of an exactly-once worker; `None` for
    /// other workers, and before there is a producer. They begin anew when the producer is
    /// replaced.
    pub fn producer_metrics(&self) -> Option<ProducerMetrics> {
        Some(self.producer()?.producer().metrics())
    }

    fn producer(&self) -> Option<Arc<TransactionHandle>> {
        self.outputs.as_ref()?.producer()
    }

    /// Returns the consumer that the worker reads, to look at its [metrics](Consumer::metrics), and
    /// to pause or seek partitions.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
        // Another reader would skip the records that were read and are not done.
        self.consumer.abandon();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
