//! The worker as its user sees it.

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
};

/// Runs a handler for each record of a consumer: partitions side by side, each in order.
///
/// [`Consumer::run`] starts one and waits for its end; [`Consumer::worker`] sets it up first.
///
/// # What it takes care of
/// - **Order**: records of a partition are handled one after the other, or those of a key
///   ([`OrderBy`](super::OrderBy)).
/// - **Bounds**: so many handlers at once, and so many records and bytes taken ahead; behind that
///   the consumer's own bounds hold.
/// - **Commits**: a record is done when its handler gave `Ok`, when it is in the dead letter topic,
///   or when it was passed over. What is committed, every `auto.commit.interval.ms`, when the group
///   takes a partition back and at the end, is the offset behind the last record that is done with
///   all before it. So each record is handled at least once, and with clean ends exactly once. With
///   `enable.auto.commit` off nothing is committed: for handlers that keep offsets with their
///   results.
/// - **Failures**: a handler that gives an error, panics or exceeds
///   [`handler_timeout`](super::WorkerBuilder::handler_timeout) is called again after a wait that
///   doubles; after the last attempt the record goes to the [dead
///   letters](super::WorkerBuilder::dead_letter), or is [passed
///   over](super::WorkerBuilder::skip_failed), or the worker ends with the error (the default).
///   Others go on meanwhile; those behind it in order wait.
/// - **Rebalances**: when the group takes a partition back, nothing more of it is begun (but what
///   lies before records of other keys that were begun already, so that these need not be done
///   twice), and what runs may end within [`drain_timeout`](super::WorkerBuilder::drain_timeout).
///   When a partition is lost, another member may read it already, so its handlers are ended at
///   once.
/// - **Hanging handlers**: `max.poll.interval.ms` counts from when the handler that has run for
///   longest was called. After that the member is out of the group, its handlers are ended, and it
///   joins again. [`status`](Self::status) names what runs and for how long. An attempt that waits
///   to be made again does not count.
///
/// # How fast it can be
/// With [`OrderBy::Partition`](super::OrderBy::Partition), the default, one handler runs for each
/// partition, whatever [`concurrency`](super::WorkerBuilder::concurrency) allows. So a handler that
/// waits (for a database, for the [`Delivery`](crate::Delivery) of a record that it sends on)
/// bounds the worker to partitions ÷ that wait. For a delivery the wait is the producer's
/// `linger.ms` (5 ms by default) and a round trip: with 6 partitions and 1 ms to the broker, about
/// 1,000 records a second. [`Worker::status`] shows such a worker: one record runs in each
/// partition, and the others wait. Remedies:
/// - [`run_batches`](super::WorkerBuilder::run_batches) waits once for each batch. With
///   [`send_batch`](crate::Producer::send_batch) the records of a batch wait for the broker
///   together, as in the example.
/// - [`OrderBy::Key`](super::OrderBy::Key) runs different keys of a partition side by side, up to
///   `concurrency`.
/// - [`linger(Duration::ZERO)`](crate::producer::ProducerBuilder::linger) leaves the round trip.
///
/// Not to wait for the delivery at all is no help: the record would be done, and be committed,
/// before its copy is in the log.
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
/// let consumer = cluster.consumer().group("copy").auto_offset_reset(OffsetReset::Earliest).build().await?;
/// consumer.subscribe(["orders"])?;
/// # let mut reports = producer.delivery_reports();
/// let worker = consumer.worker().start_batches(move |records: Arc<[ConsumerRecord]>| {
///     let producer = producer.clone();
///     async move {
///         let copies: Vec<_> = records.iter().map(|record| Record::forward("orders.copy", record)).collect();
///         producer.send_batch(copies).await.await.ok() // one wait for all of them; a failure is an attempt that failed
///     }
/// })?;
/// # reports.next().await.expect("a copy").result?;
/// worker.close(Duration::from_secs(10)).await?;
/// assert_eq!(cluster.records("orders.copy", 0)?.len(), 1);
/// # Ok(()) }
/// ```
///
/// # When a handler is ended
/// Its future is dropped at one of its `.await`s. One that blocks its thread instead cannot be
/// ended: blocking work belongs into [`spawn_blocking`](tokio::task::spawn_blocking).
///
/// # When it ends
/// [`close`](Self::close) drains, commits and leaves the group. Dropping the worker ends its
/// handlers, and the consumer as [dropping it](Consumer#when-it-ends) does: what is done is
/// committed and the group is left in the background, for five seconds at most. Records whose
/// handlers were ended are not done, and come again.
///
/// All methods take `&self`: put it in an [`Arc`] to watch it from elsewhere.
pub struct Worker {
    plan: Arc<SharedSchedule>,
    consumer: Consumer,
    close: watch::Sender<Option<Instant>>,
    ended: watch::Receiver<Option<Result<()>>>,
    task: AbortHandle,
}

impl Worker {
    pub(super) fn new(
        plan: Arc<SharedSchedule>,
        consumer: Consumer,
        close: watch::Sender<Option<Instant>>,
        ended: watch::Receiver<Option<Result<()>>>,
        task: AbortHandle,
    ) -> Self {
        Self { plan, consumer, close, ended, task }
    }

    /// Waits until the worker has ended.
    ///
    /// # Errors
    /// What ended it: `Handler` where a record could not be handled and there is no other place for
    /// it; what only the user can mend (`Corrupt`, `NoOffset`, a fatal error of the consumer); a
    /// dead letter that cannot be sent; what could not be done in time at the end.
    ///
    /// # Cancel safety
    /// Safe: the worker goes on.
    pub async fn wait(&self) -> Result<()> {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|ended| ended.clone());
        ended.unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "the worker's runtime was dropped")))
    }

    /// Begins nothing more, lets handlers end (for half of the timeout, and for
    /// [`drain_timeout`](super::WorkerBuilder::drain_timeout) at most), commits what is done and
    /// leaves the group. Never takes longer than the timeout.
    ///
    /// # Errors
    /// As [`wait`](Self::wait); `Timeout` where it was not done in time.
    ///
    /// # Cancel safety
    /// A close that was dropped goes on.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let timeout = timeout.min(FOREVER);
        let deadline = Instant::now() + timeout;
        // A little earlier for the task than for us, so that what it says is heard.
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

    /// What the worker is at: which handlers run and for how long, what waits in each partition,
    /// and what the consumer waits for. Costs no request; call it when nothing moves, or for a
    /// health check.
    pub fn status(&self) -> WorkerStatus {
        let now = now();
        let (running, partitions) = self.plan.with(|schedule| (schedule.running(now), schedule.partitions()));
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
        }
    }

    /// A snapshot of what was counted.
    pub fn metrics(&self) -> WorkerMetrics {
        self.plan.with(|schedule| schedule.metrics())
    }

    /// The consumer that it reads, to look at its [metrics](Consumer::metrics), and to pause or
    /// seek partitions.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
        // What was taken and is not done would be passed over by whoever read on.
        self.consumer.abandon();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}
