//! What `send` gives back: the promise of a result.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use crate::producer::batch_results::{BatchResults, Outcome};
use crate::{error::Result, record::RecordMetadata};

/// The result of one record that is in the producer's buffer, to be awaited or dropped.
///
/// It resolves when the record was acknowledged as `acks` asks, or when it has failed for good:
/// then the error's [`delivery_status`](crate::Error::delivery_status) says whether the record may
/// be in the log. Every delivery resolves at the latest `delivery.timeout.ms` after its batch was
/// begun (and `max.block.ms` before that, if the topic was not known yet).
///
/// The results of a partition come in the order in which its records were sent, in all forms: a
/// record that has its result earlier (the one before it is sent again, or it was refused itself)
/// waits with it for those before. Exceptions are what is given up from outside:
/// [`purge`](super::Producer::purge) and the end of the producer tell at once what is known.
/// Between partitions there is no order.
///
/// Dropping it does not take the record back.
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

/// Tells the records of one producer apart: a [`Delivery`] and the
/// [`DeliveryReport`](super::DeliveryReport) of the same record have the same one.
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

    /// The name under which the record's report comes.
    pub fn id(&self) -> DeliveryId {
        DeliveryId { results: self.results.id(), index: self.index }
    }
}

impl Delivery {
    /// The result, if it is there already; awaiting the delivery gives the same. For loops that
    /// look in from time to time.
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

/// The result of the record `place` records behind the start of its run.
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
