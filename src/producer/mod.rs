//! The producer: takes records, sends them in batches and returns their results.
//!
//! ```text
//! send ▶ buffer_pool ▶ topics ▶ accumulator ▶ sender_mailbox ▶ sender_task ▶ requests ▶ broker
//!                                                           (sender, partition_queue,      │
//!                                                            idempotence)                  │
//! Delivery ◀─ batch_results ◀─ partition_queue::completion ◀─ sender ◀─ response ◀─────────┘
//! ```
//! The decisions are in `sender`, `partition_queue`, `idempotence`, `response`, `accumulator` and
//! `topics`. The IO is in `sender_task` and `requests`.

mod accumulator;
mod batch;
mod batch_body;
mod batch_results;
mod batch_shared;
mod batch_split;
mod buffer_pool;
mod builder;
mod callback;
mod compression_ratio;
mod counters;
mod deliveries;
mod delivery;
mod delivery_report;
mod failures;
mod flush;
mod idempotence;
mod interceptor;
mod metrics;
mod partition_queue;
mod partitioner;
mod properties;
mod purge;
mod record_entry;
mod report_notes;
mod reports;
mod requests;
mod response;
mod revocable_batch;
mod sealing;
mod sender;
mod sender_mailbox;
mod sender_task;
mod settings;
mod sizes;
#[cfg(test)]
mod tests;
mod timestamp;
mod topic_table;
mod topics;
mod transaction;
mod transaction_task;

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

pub(crate) use self::transaction::handle::TransactionHandle;
use self::{
    accumulator::{Partition, SenderEvent},
    counters::Counters,
    interceptor::Interceptors,
    topics::{AdmittedRecord, AppendContext, PlacedRecord, Refused, Topics, parts_of},
    transaction::shared::TransactionShared,
};
pub use self::{
    builder::ProducerBuilder,
    deliveries::{Deliveries, DeliveryResults},
    delivery::{Delivery, DeliveryId},
    interceptor::ProducerInterceptor,
    metrics::ProducerMetrics,
    partitioner::{CustomPartitioner, PartitionChoice, Partitioner, TopicSnapshot},
    purge::PurgeScope,
    reports::DeliveryReports,
    settings::Acks,
    transaction::{
        CommitError, Outcome, PendingCommit, RepeatedRequest, Transaction, TransactionMetrics, TransactionSender,
        TransactionState, TransactionStatus, TransactionalProducer, TransactionalProducerBuilder,
    },
};
use crate::producer::batch_shared::BatchShared;
pub use crate::producer::delivery_report::DeliveryReport;
use crate::producer::sender_mailbox::{Phase, SenderMailbox};
use crate::{
    cluster::{Client, PartitionInfo},
    config::parse::FOREVER,
    error::{DeliveryStatus, Error, ErrorKind, Result},
    record::{Record, check_topic_name},
    wire::batch::{BATCH_HEADER_SIZE, record_size_bound},
};

/// Records of a [`Producer::send_batch`] that are checked before their partitions' locks are taken.
const CHUNK: usize = 64;

/// Time that `close` gives the producer's task to notice that the timeout has passed. The task has
/// nothing to wait for then, but a busy runtime may delay it.
const TURN: Duration = Duration::from_secs(1);

/// Sends records to Kafka.
///
/// Clones share one producer. A program normally needs only one. With the default settings each
/// acknowledged record is in the log exactly once, and the records of a partition are in the order
/// in which they were sent (idempotence, KIP-98).
///
/// [`send`](Self::send) puts a record into the buffer. It leaves the buffer in a batch with other
/// records of its partition, after `linger.ms` at the latest or as soon as the batch is full. The
/// [`Delivery`] that `send` returns resolves when the record is acknowledged.
///
/// Dropping the last clone does not cancel records: the producer delivers in the background what
/// was sent, as long as the runtime lives and at most for `delivery.timeout.ms`.
/// [`close`](Self::close) waits for these records. If the runtime is dropped first, every remaining
/// delivery resolves with [`ErrorKind::Closed`].
///
/// ```no_run
/// use std::time::Duration;
/// use ottla::{Producer, Record};
///
/// # async fn example() -> ottla::Result<()> {
/// let producer = Producer::builder("localhost:9092").build().await?;
/// let record = Record::to("orders").with_key("42").with_value("shipped");
/// let delivery = producer.send(record).await?; // in the buffer
/// let at = delivery.await?; // in the log
/// println!("{}[{}]@{:?}", at.topic, at.partition, at.offset);
/// producer.close(Duration::from_secs(10)).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Producer(Arc<ProducerHandle>);

/// State shared by the clones of a producer. When it is dropped, the task delivers what is left and
/// ends.
struct ProducerHandle {
    shared: Arc<ProducerShared>,
}

/// State shared by a producer and its task.
#[derive(Debug)]
struct ProducerShared {
    topics: Topics,
    batch_shared: Arc<BatchShared>,
    interceptors: Interceptors,
    mailbox: SenderMailbox,
    client: Client,
    max_record: usize,
    max_block: Duration,
    /// The error of every later `send`, set when the producer is closed or has failed.
    gate: OnceLock<Error>,
    look_for_topics: AtomicBool,
    /// True once the task has ended.
    ended: watch::Sender<bool>,
    /// State of the transactions, if there is a `transactional.id`.
    transactions: Option<Arc<TransactionShared>>,
}

/// A record that [`Producer::try_send`] did not take, and the reason.
///
/// The record can be sent later or elsewhere.
pub struct TrySendError<'a>(Box<(Record<'a>, Error)>);

impl<'a> TrySendError<'a> {
    fn new(record: Record<'a>, error: Error) -> Self {
        Self(Box::new((record, not_sent(error))))
    }

    /// Returns the reason why the record was not taken. Its kind is
    /// [`BufferFull`](ErrorKind::BufferFull) if sending the record later may work.
    pub fn error(&self) -> &Error {
        &self.0.1
    }

    /// Returns the record.
    pub fn into_record(self) -> Record<'a> {
        self.0.0
    }

    /// Returns the record and the error.
    pub fn into_parts(self) -> (Record<'a>, Error) {
        *self.0
    }
}

impl fmt::Debug for TrySendError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrySendError").field(self.error()).finish()
    }
}

impl fmt::Display for TrySendError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error().fmt(f)
    }
}

impl std::error::Error for TrySendError<'_> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.error().source()
    }
}

impl From<TrySendError<'_>> for Error {
    fn from(refused: TrySendError<'_>) -> Self {
        refused.0.1
    }
}

impl Producer {
    /// Returns a builder for a producer of the cluster with these bootstrap brokers: `"host:port"`,
    /// separated by commas (`bootstrap.servers`).
    ///
    /// ```
    /// use ottla::{Producer, producer::Acks};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let producer = Producer::builder("broker-1:9092,broker-2:9092")
    ///     .client_id("shop")
    ///     .acks(Acks::All)
    ///     .linger(Duration::from_millis(20))
    ///     .build()
    ///     .await?; // waits for no broker
    ///
    /// # Ok(()) }
    /// ```
    pub fn builder(bootstrap: impl Into<String>) -> ProducerBuilder {
        ProducerBuilder::new(bootstrap.into())
    }

    /// Builds a producer from properties by their Java or librdkafka names. The same properties may
    /// also be used for a consumer and an admin client: one warning names those that have no
    /// meaning for a producer.
    ///
    /// ```
    /// use ottla::Producer;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let producer = Producer::from_properties([
    ///     ("bootstrap.servers", "localhost:9092"),
    ///     ("linger.ms", "20"),
    ///     ("message.timeout.ms", "60000"), // librdkafka's name of `delivery.timeout.ms`
    /// ])
    /// .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Configuration`](ErrorKind::Configuration) for a property that is unknown, malformed or
    /// contradicts another, for one that cannot be ignored without weakening security or delivery
    /// (with `transactional.id`, build a [`TransactionalProducer`]), and for the reasons of
    /// [`ProducerBuilder::build`].
    ///
    /// # Cancel safety
    /// Safe. Nothing here waits for the network.
    pub async fn from_properties<K, V>(pairs: impl IntoIterator<Item = (K, V)>) -> Result<Self>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        ProducerBuilder::empty().properties(pairs).build().await
    }

    /// Puts a record into the buffer. Waits only while the buffer is full, at most `max.block.ms`.
    ///
    /// A record of a topic that is not known yet waits inside the buffer for the topic's metadata.
    /// Its [`Delivery`] fails if the topic does not appear within `max.block.ms` (or
    /// `delivery.timeout.ms`, if that is shorter).
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::Record;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// let record = Record::to("orders").with_key("42").with_value("shipped");
    /// let delivery = producer.send(record).await?; // in the buffer
    /// let at = delivery.await?; // in the log
    /// println!("{}[{}] at offset {:?}", at.topic, at.partition, at.offset);
    /// # assert_eq!(at.offset, Some(0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`BufferFull`](ErrorKind::BufferFull) if no room became free in time,
    /// [`RecordTooLarge`](ErrorKind::RecordTooLarge) above `max.request.size`,
    /// [`InvalidArgument`](ErrorKind::InvalidArgument) for a topic name that Kafka forbids or a
    /// negative partition, and [`Closed`](ErrorKind::Closed). After an error the record is not
    /// sent: the error's [`delivery_status`](Error::delivery_status) is
    /// [`NotPersisted`](DeliveryStatus::NotPersisted).
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, the record was not sent. Waiting senders are
    /// served in the order in which they called.
    pub async fn send(&self, mut record: Record<'_>) -> Result<Delivery> {
        let shared = &self.0.shared;
        shared.interceptors.on_send(&mut record);
        let admitted = shared.admit(&record, timestamp::now_millis).map_err(|error| shared.refused(&record, error))?;
        match shared.place(&record, admitted, false) {
            Ok(delivery) => Ok(delivery),
            Err(Refused::For(error)) => Err(shared.refused(&record, error)),
            Err(Refused::Full) => {
                let placed = shared.wait_and_place(&record, admitted, Instant::now() + shared.max_block).await;
                placed.map_err(|error| shared.refused(&record, error))
            }
        }
    }

    /// Puts a record into the buffer if there is room for it at once; otherwise returns it to the
    /// caller.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::{ErrorKind, Record};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// match producer.try_send(Record::to("orders").with_value("shipped")) {
    ///     Ok(delivery) => println!("at offset {:?}", delivery.await?.offset),
    ///     Err(refused) if refused.error().kind() == ErrorKind::BufferFull => {
    ///         let record = refused.into_record();
    ///         println!("no room yet for {record:?}");
    ///     }
    ///     Err(refused) => return Err(refused.into()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Like [`send`](Self::send), and the error holds the record.
    #[inline]
    pub fn try_send<'a>(&self, mut record: Record<'a>) -> Result<Delivery, TrySendError<'a>> {
        let shared = &self.0.shared;
        shared.interceptors.on_send(&mut record);
        let admitted = match shared.admit(&record, timestamp::now_millis) {
            Ok(admitted) => admitted,
            Err(error) => {
                let error = shared.refused(&record, error);
                return Err(TrySendError::new(record, error));
            }
        };
        match shared.place(&record, admitted, false) {
            Ok(delivery) => Ok(delivery),
            Err(refused) => {
                let is_full = matches!(refused, Refused::Full);
                let error = shared.why(refused, admitted.bound);
                // A full buffer is an expected answer and is not logged, because the record may be
                // sent later.
                let error = if is_full { error } else { shared.refused(&record, error) };
                Err(TrySendError::new(record, error))
            }
        }
    }

    /// Puts several records into the buffer, in order. This is cheaper than calling
    /// [`send`](Self::send) for each: the clock is read once for all records without a timestamp of
    /// their own, and consecutive records of one partition take its lock once.
    ///
    /// Waits while the buffer is full, altogether at most `max.block.ms`. The returned future
    /// resolves to the results of all records in their order. It includes the records that were
    /// refused, so that each record has its result in one place.
    ///
    /// ```no_run
    /// # use ottla::{Producer, Record};
    /// # async fn example(producer: Producer, lines: Vec<String>) -> ottla::Result<()> {
    /// let records = lines.iter().map(|line| Record::to("lines").with_value(line));
    /// let deliveries = producer.send_batch(records).await;
    /// for result in deliveries.await.iter() {
    ///     println!("at offset {:?}", result?.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// If the future has to be `Send` and the compiler reports that an iterator of borrowing
    /// closures is "not general enough", collect the records into a `Vec` first.
    ///
    /// # Cancel safety
    /// If the future is dropped before it is ready, some records from the start of the iterator
    /// were sent and the rest were not. How many were sent is not reported.
    pub async fn send_batch<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Deliveries {
        let shared = &self.0.shared;
        let mut records = records.into_iter();
        let mut deliveries = Deliveries::default();
        let timestamp = timestamp::now_millis();
        let deadline = Instant::now() + shared.max_block;
        // The caller's iterator runs before any lock is taken.
        let mut chunk = Vec::with_capacity(records.size_hint().0.clamp(1, CHUNK));
        loop {
            chunk.clear();
            let mut refusal = None;
            for mut record in records.by_ref().take(CHUNK) {
                shared.interceptors.on_send(&mut record);
                match shared.admit(&record, || timestamp) {
                    Ok(admitted) => chunk.push((record, admitted)),
                    Err(error) => {
                        refusal = Some(shared.refused(&record, error));
                        break;
                    }
                }
            }
            if chunk.is_empty() && refusal.is_none() {
                return deliveries;
            }
            let mut left = &chunk[..];
            while !left.is_empty() {
                let placed = shared.place_run(left, &mut deliveries);
                left = left.get(placed..).unwrap_or_default();
                // The next record cannot be placed at once, so it takes the path of a single
                // record.
                if let [(record, admitted), rest @ ..] = left {
                    let placed = match shared.place(record, *admitted, false) {
                        Err(Refused::Full) => shared.wait_and_place(record, *admitted, deadline).await,
                        placed => placed.map_err(|refused| shared.why(refused, admitted.bound)),
                    };
                    match placed {
                        Ok(delivery) => deliveries.push_delivery(&delivery),
                        Err(error) => deliveries.push_refused(shared.refused(record, error)),
                    }
                    left = rest;
                }
            }
            if let Some(error) = refusal {
                deliveries.push_refused(error);
            }
        }
    }

    /// Returns a stream with the reports of all records that are sent from now on, for programs
    /// that do not keep each [`Delivery`]. Several streams share the reports; each report is given
    /// to one of them.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::Record;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// let mut reports = producer.delivery_reports();
    /// drop(producer.send(Record::to("orders").with_value("shipped").with_tag(42)).await?);
    /// producer.close(Duration::from_secs(10)).await?; // the reports end when all were read
    /// while let Some(report) = reports.next().await {
    ///     match report.result {
    ///         Ok(at) => println!("order {:?} is at offset {:?}", report.tag, at.offset),
    ///         Err(error) => {
    ///             eprintln!("order {:?}: {error}; {}", report.tag, error.advice())
    ///         }
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub fn delivery_reports(&self) -> DeliveryReports {
        DeliveryReports::new(self.0.shared.batch_shared.clone())
    }

    /// Sends the buffered records without waiting for `linger.ms`, and waits until every record
    /// that was sent before has its result, at most for `timeout`. Returns the number of records
    /// that are outstanding then: 0 if all have their results, successful or not.
    ///
    /// Records that other callers send meanwhile are not waited for.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::{Record, producer::Deliveries};
    /// use std::time::Duration;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// let mut deliveries = Deliveries::default();
    /// for order in 0..100 {
    ///     let record = Record::to("orders").with_value(order.to_string());
    ///     deliveries.push(producer.send(record).await?);
    /// }
    /// let outstanding = producer.flush(Duration::from_secs(10)).await;
    /// assert_eq!(outstanding, 0);
    /// deliveries.await.ok()?; // all have their results: this does not wait
    ///
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Safe: the records are still sent.
    pub async fn flush(&self, timeout: Duration) -> usize {
        let shared = &self.0.shared;
        let deadline = Instant::now() + timeout.min(FOREVER);
        let groups = shared.batch_shared.flushes.cut();
        shared.mailbox.flush();
        match timeout_at(deadline, flush::wait_for(groups)).await {
            Ok(()) => 0,
            Err(_) => shared.outstanding().max(1),
        }
    }

    /// Gives up records that have no result yet, and returns their number. Each fails at once with
    /// [`Purged`](ErrorKind::Purged), and its status says whether it may be in the log: records in
    /// the buffer are not persisted, unless an earlier attempt may have written them; those, and
    /// records in a request that was written, are possibly persisted. Records that are sent
    /// meanwhile may stay.
    ///
    /// The producer remains usable: records that are sent afterwards are delivered as usual, with
    /// idempotence once and in order. A request that was written cannot be recalled; it counts as
    /// one of the requests in flight until it is answered. Calls that wait for room in the buffer
    /// go on waiting.
    ///
    /// After `close`, it gives up the records that `close` waits for.
    ///
    /// The producer's task carries this out. If the task does not run within `max.block.ms`,
    /// because its runtime does not run, this returns 0, and the records are given up as soon as
    /// the task runs again.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use ottla::{ApiKey, Record, producer::PurgeScope, testkit::on};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// cluster.fault(on(ApiKey::Produce).forever().hang()); // a broker that does not answer
    /// let delivery = producer.send(Record::to("orders").with_value("shipped")).await?;
    /// let purged = producer.purge(PurgeScope::All).await;
    /// assert_eq!(purged, 1);
    /// if let Err(error) = delivery.await {
    ///     println!("{error} ({:?})", error.delivery_status());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// If the future is dropped after it was polled, the records are given up all the same.
    pub async fn purge(&self, what: PurgeScope) -> usize {
        let shared = &self.0.shared;
        let purged = shared.mailbox.purge(what);
        let mut ended = shared.ended.subscribe();
        let given_up = async {
            tokio::select! {
                biased;
                records = purged => records.unwrap_or(0),
                // The task has ended, so all records have their results.
                _ = ended.wait_for(|ended| *ended) => 0,
            }
        };
        timeout_at(Instant::now() + shared.max_block.min(FOREVER), given_up).await.unwrap_or(0)
    }

    /// Stops taking records, waits until all records have their results, at most for `timeout`, and
    /// ends the producer. Records that are not acknowledged by then fail with
    /// [`Closed`](ErrorKind::Closed), each with its own status.
    ///
    /// If several calls run at once, the one with the shortest time left decides. `Ok` means, for
    /// each of these calls and for later ones, that the end of the producer left no record without
    /// its proper result.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// use std::time::Duration;
    /// use ottla::Record;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// let delivery = producer.send(Record::to("orders").with_value("shipped")).await?;
    /// producer.close(Duration::from_secs(10)).await?; // an error says how many were given up
    /// delivery.await?; // every record has its result: this does not wait
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The message says how many records were given up.
    /// - [`Timeout`](ErrorKind::Timeout) if `timeout` was too short for them, or if the producer's
    ///   task does not run because its runtime does not run.
    /// - [`Closed`](ErrorKind::Closed) if something else ended the producer before they had their
    ///   results: another `close` with less time, or the end of its runtime.
    ///
    /// # Cancel safety
    /// If the future is dropped, the producer takes no more records and goes on delivering those
    /// that it has. Call `close` again to wait for them.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let shared = &self.0.shared;
        let deadline = Instant::now() + timeout.min(FOREVER);
        let _ = shared.gate.set(closed());
        shared.batch_shared.buffer.close();
        shared.mailbox.enter(Phase::Draining);
        let mut ended = shared.ended.subscribe();
        let in_time = timeout_at(deadline, ended.wait_for(|ended| *ended)).await.is_ok();
        if !in_time {
            shared.mailbox.enter(Phase::Aborting);
            // The task has nothing left to wait for and only needs to be polled, which does not
            // happen if its runtime does not run.
            let turn = tokio::time::timeout(TURN, ended.wait_for(|ended| *ended));
            if turn.await.is_err() {
                let left = shared.outstanding();
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "the producer's task does not run, so {left} records have no result: is its tokio runtime \
                         running?"
                    ),
                ));
            }
        }
        match (shared.batch_shared.counters.given_up(), in_time) {
            (0, _) => Ok(()),
            (left, false) => Err(Error::new(
                ErrorKind::Timeout,
                format!("closed with {left} records that were not acknowledged within {} ms", timeout.as_millis()),
            )),
            (left, true) => Err(Error::new(
                ErrorKind::Closed,
                format!(
                    "the producer had ended with {left} records that were not acknowledged: another close had a \
                     shorter timeout, or its runtime was shut down"
                ),
            )),
        }
    }

    /// Returns what the producer has counted so far: records and their results, batches, requests,
    /// errors, latencies, brokers.
    ///
    /// Copies some kilobytes and looks at each partition: call it every few seconds, not for each
    /// record. See [`ProducerMetrics`] for the metrics.
    ///
    /// ```
    /// # use ottla::{Record, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// producer.send(Record::to("orders").with_value("shipped")).await?.await?;
    /// let metrics = producer.metrics();
    /// println!("{} records in the log", metrics.records_acknowledged);
    /// println!("{} records failed", metrics.records_failed());
    /// println!(
    ///     "{} of {} bytes in use",
    ///     metrics.buffer_used_bytes, metrics.buffer_total_bytes
    /// );
    /// # assert_eq!(metrics.records_acknowledged, 1);
    /// # Ok(()) }
    /// ```
    pub fn metrics(&self) -> ProducerMetrics {
        let shared = &self.0.shared;
        let buffer_pool = &shared.batch_shared.buffer;
        let mut metrics = shared.batch_shared.counters.snapshot(|| shared.outstanding() as u64);
        metrics.buffer_total_bytes = buffer_pool.total() as u64;
        metrics.buffer_used_bytes = buffer_pool.total().saturating_sub(buffer_pool.free()) as u64;
        metrics.senders_waiting = buffer_pool.waiting() as u64;
        metrics.brokers = shared.client.metrics();
        metrics.metadata_age = shared.client.metadata_age();
        metrics.transactions = shared.transactions.as_ref().map(|transactions| transactions.metrics());
        metrics
    }

    /// Returns the partitions of a topic in the order of their numbers. For a topic that does not
    /// exist (yet) it waits at most `max.block.ms`.
    /// [`Consumer::partitions_for`](crate::Consumer::partitions_for) and
    /// [`Admin::partitions_for`](crate::Admin::partitions_for) are the same call. Records of the
    /// topic that are sent next need not wait for its metadata.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// # cluster.create_topic("orders", 3)?;
    /// let partitions = producer.partitions_for("orders").await?;
    /// for info in &partitions {
    ///     println!("{}[{}] is led by {:?}", info.topic, info.partition, info.leader);
    /// }
    /// # assert_eq!(partitions.len(), 3);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` for a name that Kafka forbids; `UnknownTopicOrPartition`; `Authorization`;
    /// `Network` or `Timeout`, naming the last cause; `Closed`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>> {
        check_topic_name(topic)?;
        let shared = &self.0.shared;
        if let Some(error) = shared.gate.get() {
            return Err(error.clone());
        }
        let deadline = Instant::now() + shared.max_block;
        let partitions = shared.client.partitions_for(topic, deadline).await?;
        if shared.topics.get(topic).is_none() {
            // Adds the topic to the producer's table, so that records that are sent next need not
            // wait for it.
            let taken_over = shared.mailbox.request_topic(topic);
            let mut ended = shared.ended.subscribe();
            let answer = async {
                tokio::select! {
                    biased;
                    _ = taken_over => {}
                    _ = ended.wait_for(|ended| *ended) => {}
                }
            };
            // The task only needs to be polled. If it is not, the records still find their
            // partitions later.
            let _ = timeout_at(deadline, answer).await;
        }
        Ok(partitions)
    }
}

impl ProducerShared {
    /// Checks a record and returns its size bound and timestamp.
    #[inline]
    fn admit(&self, record: &Record<'_>, now_millis: impl FnOnce() -> i64) -> Result<AdmittedRecord> {
        if let Some(error) = self.gate.get() {
            return Err(error.clone());
        }
        if record.partition().is_some_and(|partition| partition < 0) {
            return Err(negative(record));
        }
        let bound = record_size_bound(&parts_of(record));
        match u32::try_from(bound) {
            Ok(bound) if bound as usize + BATCH_HEADER_SIZE <= self.max_record => {
                Ok(AdmittedRecord { bound, timestamp: record.timestamp_millis().unwrap_or_else(now_millis) })
            }
            _ => Err(self.too_large(bound)),
        }
    }

    /// Logs a record that was not taken. The caller has the error; the log gets the first of each
    /// cause.
    #[cold]
    fn refused(&self, record: &Record<'_>, error: Error) -> Error {
        let error = not_sent(error);
        // The user closed the producer, which is no reason for a log line.
        if error.kind() != ErrorKind::Closed {
            let (topic, partition) = (record.topic(), record.partition());
            if self.batch_shared.log_failed(topic, partition, 1, &error) {
                // The task writes the summary of the suppressed lines.
                self.mailbox.wake();
            }
        }
        error
    }

    #[cold]
    fn too_large(&self, bound: usize) -> Error {
        Error::new(
            ErrorKind::RecordTooLarge,
            format!(
                "a record of {bound} bytes does not fit into max.request.size or buffer.memory ({} bytes)",
                self.max_record
            ),
        )
    }

    /// Puts an admitted record into its partition, or among the records that wait for its topic.
    /// `paid` is true if its bytes are already taken from the buffer.
    #[inline]
    fn place(&self, record: &Record<'_>, admitted: AdmittedRecord, paid: bool) -> Result<Delivery, Refused> {
        let PlacedRecord { results, index, look_for_topic } =
            self.topics.place(record, admitted, paid, &mut self.hand())?;
        if look_for_topic {
            self.look_for_topics.store(true, Ordering::Release);
            self.mailbox.wake();
        }
        Ok(Delivery::new(results, index, admitted.timestamp))
    }

    /// Puts admitted records into their partitions, up to the first that cannot be placed at once.
    /// Returns the number that was placed.
    fn place_run(&self, records: &[(Record<'_>, AdmittedRecord)], deliveries: &mut Deliveries) -> usize {
        self.topics.place_run(records, &mut self.hand(), |results, index, timestamp| {
            deliveries.push_sent(results, index, timestamp)
        })
    }

    fn hand(&self) -> AppendContext<'_, impl Fn() -> std::time::Instant, impl FnMut(&Arc<Partition>, SenderEvent)> {
        let tell = |partition: &Arc<_>, event| {
            self.mailbox.notify(partition, event, || self.batch_shared.buffer.has_waiters())
        };
        AppendContext { shared: &self.batch_shared, clock: || Instant::now().into_std(), notify: tell }
    }

    /// Waits for room for a record, and puts it into its partition.
    async fn wait_and_place(
        &self,
        record: &Record<'_>,
        admitted: AdmittedRecord,
        deadline: Instant,
    ) -> Result<Delivery> {
        let bound = admitted.bound;
        let mut wait = BufferWait { counters: &self.batch_shared.counters, since: Instant::now(), in_vain: false };
        let room = self.batch_shared.buffer.take(bound);
        // A sender waits for room, so batches must leave without lingering.
        self.mailbox.wake();
        let came = timeout_at(deadline, room).await;
        wait.in_vain = came.is_err();
        drop(wait);
        match came {
            Ok(true) => self.place(record, admitted, true).map_err(|refused| {
                self.batch_shared.buffer.release(bound as usize);
                self.why(refused, bound)
            }),
            Ok(false) => Err(self.gate.get().cloned().unwrap_or_else(closed)),
            Err(_) => Err(Error::new(
                ErrorKind::BufferFull,
                format!(
                    "no room for {bound} bytes in the send buffer within max.block.ms ({})",
                    self.max_block.as_millis()
                ),
            )),
        }
    }

    #[cold]
    fn why(&self, refused: Refused, bound: u32) -> Error {
        match refused {
            Refused::For(error) => error,
            // A closed buffer has no room either.
            Refused::Full => self.gate.get().cloned().unwrap_or_else(|| {
                Error::new(
                    ErrorKind::BufferFull,
                    format!("no room for {bound} bytes in the send buffer (buffer.memory)"),
                )
            }),
        }
    }

    fn outstanding(&self) -> usize {
        usize::try_from(self.topics.outstanding(|| self.batch_shared.completed_records())).unwrap_or(usize::MAX)
    }
}

/// A call that waits for room. It is counted when the wait ends, with or without success.
struct BufferWait<'a> {
    counters: &'a Counters,
    since: Instant,
    in_vain: bool,
}

impl Drop for BufferWait<'_> {
    fn drop(&mut self) {
        self.counters.waited(self.since.elapsed(), self.in_vain);
    }
}

impl Drop for ProducerHandle {
    fn drop(&mut self) {
        self.shared.mailbox.enter(Phase::Draining);
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("client", &self.0.shared.client).finish_non_exhaustive()
    }
}

/// Marks the error of a record that was not taken, and so never sent.
#[cold]
fn not_sent(error: Error) -> Error {
    error.with_status(DeliveryStatus::NotPersisted)
}

#[cold]
fn negative(record: &Record<'_>) -> Error {
    let partition = record.partition().unwrap_or_default();
    Error::new(ErrorKind::InvalidArgument, format!("partition {partition} is negative"))
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the producer is closed")
}
