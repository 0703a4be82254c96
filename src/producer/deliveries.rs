//! The results of many records as one future: those of a `send_batch`, or collected from single
//! sends.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::delivery::{Delivery, result};
use crate::producer::batch_results::{BatchResults, Outcome};
use crate::{
    error::{DeliveryStatus, Error, Result},
    record::RecordMetadata,
};

/// The results of many records as one future: those of one
/// [`send_batch`](super::Producer::send_batch), or of single sends that [`push`](Self::push) or
/// `collect` put together. It may be awaited or dropped.
///
/// It resolves to all results in the order of the records, once the last record has its result. It
/// takes a few words for each batch that the records went into, and no memory for each record (if
/// records of several partitions alternate, a few words for each change). A program that sends
/// continuously awaits one of these from time to time, or reads
/// [`delivery_reports`](super::Producer::delivery_reports).
///
/// ```
/// use ottla::{
///     Record,
///     producer::Deliveries,
///     testkit::{Cluster, Options},
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> ottla::Result<()> {
/// # let cluster = Cluster::start(Options::new().in_memory()).await?;
/// # let producer = cluster.producer().build().await?;
/// let mut deliveries = Deliveries::default();
/// for n in 0..1000 {
///     deliveries.push(
///         producer
///             .send(Record::to("orders").with_key(n.to_string()).with_value("shipped"))
///             .await?,
///     );
/// }
/// let results = deliveries.await;
/// for (n, error) in results.failures() {
///     eprintln!("order {n}: {error} ({})", error.advice());
/// }
/// results.ok()?; // or the first failure
///
/// # Ok(()) }
/// ```
///
/// Dropping it does not cancel the records.
///
/// # Cancel safety
/// It may be polled, left and polled again, and awaited by reference. It is empty after it was
/// ready.
#[derive(Debug, Default)]
#[must_use = "without awaiting the deliveries (or reading the producer's delivery reports) a failure goes unseen"]
pub struct Deliveries {
    parts: Vec<Part>,
    /// Number of parts, from the start, with known results.
    done: usize,
    results: DeliveryResults,
}

#[derive(Debug)]
enum Part {
    /// Consecutive records of one batch.
    Sent {
        results: Arc<BatchResults>,
        next: u32,
        end: u32,
        timestamp: i64,
        slot: Option<usize>,
    },
    Refused(Error),
}

/// Holds the results of many records, in the order in which they were sent.
#[derive(Clone, Debug, Default)]
pub struct DeliveryResults {
    runs: Vec<OutcomeRun>,
}

/// Consecutive records that share an outcome. `outcome` is that of the first.
#[derive(Clone, Debug)]
struct OutcomeRun {
    count: u32,
    timestamp: i64,
    outcome: Outcome,
}

impl Deliveries {
    /// Returns the number of records.
    pub fn len(&self) -> usize {
        let waiting = self.parts.iter().skip(self.done).map(|part| match part {
            Part::Sent { next, end, .. } => (end - next) as usize,
            Part::Refused(_) => 1,
        });
        self.results.len() + waiting.sum::<usize>()
    }

    /// Returns true if there are no records.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends the result of a record that was sent by itself.
    pub fn push(&mut self, delivery: Delivery) {
        self.push_delivery(&delivery);
    }

    #[inline]
    pub(super) fn push_sent(&mut self, in_cell: &Arc<BatchResults>, index: u32, at: i64) {
        match self.parts.last_mut() {
            Some(Part::Sent { results, end, timestamp, .. })
                if Arc::ptr_eq(results, in_cell) && *end == index && *timestamp == at =>
            {
                *end += 1;
            }
            _ => self.add(Part::Sent {
                results: in_cell.clone(),
                next: index,
                end: index + 1,
                timestamp: at,
                slot: None,
            }),
        }
    }

    pub(super) fn push_delivery(&mut self, delivery: &Delivery) {
        self.push_sent(delivery.results(), delivery.index(), delivery.timestamp());
    }

    /// Appends a record that is not sent.
    pub(super) fn push_refused(&mut self, error: Error) {
        self.add(Part::Refused(error.with_status(DeliveryStatus::NotPersisted)));
    }

    /// Returns the results of records that are not sent, all for the same reason.
    pub(super) fn refused(records: usize, error: &Error) -> Self {
        let mut all = Self::default();
        (0..records).for_each(|_| all.push_refused(error.clone()));
        all
    }

    /// Returns the error of the first record that is not sent.
    pub(super) fn first_refused(&self) -> Option<&Error> {
        self.parts.iter().find_map(|part| match part {
            Part::Refused(error) => Some(error),
            Part::Sent { .. } => None,
        })
    }

    fn add(&mut self, part: Part) {
        if self.parts.is_empty() {
            // A thousand small records go into about as many batches.
            self.parts.reserve(8);
        }
        self.parts.push(part);
    }
}

impl Extend<Delivery> for Deliveries {
    fn extend<I: IntoIterator<Item = Delivery>>(&mut self, deliveries: I) {
        deliveries.into_iter().for_each(|delivery| self.push(delivery));
    }
}

impl FromIterator<Delivery> for Deliveries {
    fn from_iter<I: IntoIterator<Item = Delivery>>(deliveries: I) -> Self {
        let mut all = Self::default();
        all.extend(deliveries);
        all
    }
}

impl Future for Deliveries {
    type Output = DeliveryResults;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.results.runs.is_empty() {
            this.results.runs.reserve_exact(this.parts.len());
        }
        while let Some(part) = this.parts.get_mut(this.done) {
            match part {
                Part::Refused(error) => {
                    this.results.runs.push(OutcomeRun {
                        count: 1,
                        timestamp: 0,
                        outcome: Outcome::Failed(error.clone()),
                    });
                }
                Part::Sent { results, next, end, timestamp, slot } => {
                    while next < end {
                        let Poll::Ready((outcome, count)) = results.poll_run(*next, slot, cx) else {
                            return Poll::Pending;
                        };
                        let count = count.min(*end - *next);
                        this.results.runs.push(OutcomeRun { count, timestamp: *timestamp, outcome });
                        *next += count;
                    }
                    if let Some(slot) = slot.take() {
                        results.forget(slot);
                    }
                }
            }
            this.done += 1;
        }
        this.parts.clear();
        this.done = 0;
        Poll::Ready(std::mem::take(&mut this.results))
    }
}

impl Drop for Deliveries {
    fn drop(&mut self) {
        for part in &self.parts {
            if let Part::Sent { results, slot: Some(slot), .. } = part {
                results.forget(*slot);
            }
        }
    }
}

impl DeliveryResults {
    /// Returns the number of results.
    pub fn len(&self) -> usize {
        self.runs.iter().map(|run| run.count as usize).sum()
    }

    /// Returns true if there are no results.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns the results, in the order in which the records were sent.
    pub fn iter(&self) -> impl Iterator<Item = Result<RecordMetadata>> {
        let of_run = |run: &OutcomeRun, at| result(run.outcome.clone(), at, run.timestamp);
        self.runs.iter().flat_map(move |run| (0..run.count).map(move |at| of_run(run, at)))
    }

    /// Returns the records that were not acknowledged: their index in the order of sending, and
    /// their error.
    pub fn failures(&self) -> impl Iterator<Item = (usize, &Error)> {
        let mut next = 0;
        self.runs.iter().flat_map(move |run| {
            let first = next;
            next += run.count as usize;
            let error = match &run.outcome {
                Outcome::Failed(error) => Some(error),
                Outcome::Persisted { .. } => None,
            };
            error.into_iter().flat_map(move |error| (first..first + run.count as usize).map(move |at| (at, error)))
        })
    }

    /// Returns `Ok` if all records were acknowledged.
    ///
    /// # Errors
    /// The error of the first record that was not acknowledged, as its [`Delivery`] would return
    /// it.
    pub fn ok(&self) -> Result<()> {
        self.failures().next().map_or(Ok(()), |(_, error)| Err(error.clone()))
    }
}
