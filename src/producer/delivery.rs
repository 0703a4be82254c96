//! The future that `send` returns for a record's result.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::producer::batch_results::{BatchResults, Outcome};
use crate::{error::Result, record::RecordMetadata};

/// The result of one record in the producer's buffer, as a future. It may be awaited or dropped.
///
/// It resolves when the record was acknowledged as `acks` requires, or when it has failed
/// permanently: then the error's [`delivery_status`](crate::Error::delivery_status) says whether
/// the record may be in the log. Every delivery resolves at most `delivery.timeout.ms` after the
/// start of its batch; a batch that begins with a record that waited for its topic is as old as
/// that record.
///
/// The results of a partition come in the order in which its records were sent, in all forms of
/// reports. If a record's result is known earlier (because the record before it is sent again, or
/// because the record itself was refused), it waits for the results of the records before it.
/// [`purge`](super::Producer::purge) and the end of the producer are exceptions: they resolve the
/// records at once with the status known so far. There is no order between partitions.
///
/// Dropping it does not cancel the record.
///
/// ```
/// # use ottla::testkit::{Cluster, Options};
/// use ottla::{DeliveryStatus, Record};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// # let cluster = Cluster::start(Options::new().in_memory()).await?;
/// # let producer = cluster.producer().build().await?;
/// let delivery = producer.send(Record::to("orders").with_value("shipped")).await?;
/// match delivery.await {
///     Ok(at) => println!("in the log at offset {:?}", at.offset),
///     Err(error) => match error.delivery_status() {
///         Some(DeliveryStatus::NotPersisted) => println!("not in the log: {error}"),
///         _ => println!("may be in the log: {error}"),
///     },
/// }
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// It may be polled, left and polled again, and awaited by reference.
#[derive(Debug)]
#[must_use = "without awaiting the delivery (or reading the producer's delivery reports) a failure goes unseen"]
pub struct Delivery {
    results: Arc<BatchResults>,
    index: u32,
    timestamp: i64,
    slot: Option<usize>,
}

/// Identifies a record of one producer: the [`Delivery`] and the
/// [`DeliveryReport`](super::DeliveryReport) of a record have the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    pub(super) results: u64,
    pub(super) index: u32,
}

impl Delivery {
    pub(super) fn new(results: Arc<BatchResults>, index: u32, timestamp: i64) -> Self {
        Self { results, index, timestamp, slot: None }
    }

    pub(super) fn results(&self) -> &Arc<BatchResults> {
        &self.results
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    pub(super) fn timestamp(&self) -> i64 {
        self.timestamp
    }

    /// Returns the id under which the record is reported.
    pub fn id(&self) -> DeliveryId {
        DeliveryId { results: self.results.id(), index: self.index }
    }
}

impl Delivery {
    /// Returns the result if it is already known; awaiting the delivery returns the same result.
    /// For loops that poll from time to time.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use ottla::{Record, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let producer = cluster.producer().build().await?;
    /// let delivery = producer.send(Record::to("orders").with_value("shipped")).await?;
    /// producer.flush(Duration::from_secs(10)).await;
    /// match delivery.try_result() {
    ///     Some(result) => println!("at offset {:?}", result?.offset),
    ///     None => println!("not known yet"),
    /// }
    /// # assert!(delivery.try_result().is_some());
    /// # Ok(()) }
    /// ```
    pub fn try_result(&self) -> Option<Result<RecordMetadata>> {
        self.results.try_outcome(self.index).map(|outcome| result(outcome, 0, self.timestamp))
    }
}

impl Future for Delivery {
    type Output = Result<RecordMetadata>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.results.poll(this.index, &mut this.slot, cx).map(|outcome| result(outcome, 0, this.timestamp))
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.results.forget(slot);
        }
    }
}

/// Returns the result of the record that is `place` records after the first of its run.
pub(super) fn result(outcome: Outcome, place: u32, timestamp: i64) -> Result<RecordMetadata> {
    match outcome.advanced(place) {
        Outcome::Persisted { topic, partition, first_offset, log_append_millis } => Ok(RecordMetadata {
            topic,
            partition,
            offset: first_offset,
            timestamp_millis: log_append_millis.unwrap_or(timestamp),
        }),
        Outcome::Failed(error) => Err(error),
    }
}
