//! Where a producer's figures are added up: a few sums under a lock of their own, taken once for
//! each thing that happens to a batch or a request, and never for a record.
//!
//! Where each is counted: batches begun and gone in `batch`, as are results; what leaves and what
//! is answered in `sender`; repetitions, splits and expiry in `queue`; sizes and latencies in
//! `requests`; waiting for room in `send`. What belongs to connections is counted in `cluster`.
//!
//! Sans-IO.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{metrics::ProducerMetrics, sender::RequestPart};
use crate::{
    error::{DeliveryStatus, Error},
    histogram::Histogram,
    log::{Limiter, Origin},
    wire::{batch::SealedBatch, produce::ProduceResponse},
};

/// More brokers than this are not told apart for ever: those that have left the cluster are
/// forgotten then.
const BROKERS: usize = 256;

/// The counters of one producer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Batches that exist. Not under the lock, since batches are begun on the callers' threads.
    batches: AtomicU64,
    /// Everything that is counted here; the rest is filled in for a snapshot.
    sums: Mutex<ProducerMetrics>,
    /// The producer ends: what fails from now on was given up.
    ending: AtomicBool,
    given_up: AtomicU64,
    /// The producer, as log lines name it, and how many lines of a kind it wrote of late.
    origin: Origin,
    lines: Mutex<Limiter<&'static str>>,
}

impl Counters {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, ..Self::default() }
    }

    /// The producer, as log lines name it.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns how many log lines of that kind were suppressed of late, if this one may be written.
    pub(crate) fn admit_line(&self, kind: &'static str, now: Instant) -> Option<u64> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).admit(kind, now)
    }

    fn lock(&self) -> MutexGuard<'_, ProducerMetrics> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch came into being, of records or out of another one.
    pub(crate) fn batch_begun(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// A batch is no more.
    pub(crate) fn batch_gone(&self) {
        self.batches.fetch_sub(1, Ordering::Relaxed);
    }

    /// Batches were taken for a request.
    pub(crate) fn drained(&self, parts: &[RequestPart], now: Instant) {
        let mut sums = self.lock();
        sums.requests_in_flight += 1;
        sums.batches_in_flight += parts.len() as u64;
        for begun in parts.iter().filter_map(|part| part.begun) {
            sums.queue_time_micros.record_micros(now.saturating_duration_since(begun));
        }
    }

    /// A batch got its final bytes.
    pub(crate) fn sealed(&self, batch: &SealedBatch) {
        let mut sums = self.lock();
        sums.batch_records.record(u64::from(batch.count()));
        sums.batch_bytes.record(batch.size() as u64);
        sums.uncompressed_bytes += batch.uncompressed_size() as u64;
    }

    /// A request was handed to its connection.
    pub(crate) fn written(&self, batches: usize, records: u64, bytes: usize) {
        let mut sums = self.lock();
        sums.request_batches.record(batches as u64);
        sums.request_records.record(records);
        sums.request_bytes.record(bytes as u64);
    }

    /// A broker answered a request after so long.
    pub(crate) fn latency(&self, node: i32, time: Duration) {
        self.lock().produce_latency_micros.entry(node).or_default().record_micros(time);
    }

    /// A request of these batches ended.
    pub(crate) fn answered(&self, parts: &[RequestPart], response: &Result<Option<ProduceResponse<'_>>, Error>) {
        let mut sums = self.lock();
        sums.requests += 1;
        sums.requests_in_flight = sums.requests_in_flight.saturating_sub(1);
        sums.batches_in_flight = sums.batches_in_flight.saturating_sub(parts.len() as u64);
        match response {
            Ok(Some(response)) => {
                for refused in response.partitions.iter().filter(|partition| !partition.error.is_ok()) {
                    *sums.errors.entry(refused.error).or_default() += 1;
                }
            }
            Ok(None) => {}
            // One that had lost all of its batches was not sent, and nothing went wrong with it.
            Err(_) if parts.iter().all(|part| part.withdrawn) => {}
            Err(_) => sums.requests_failed += 1,
        }
    }

    /// A batch of so many records goes back to be sent again.
    pub(crate) fn retried(&self, records: u32) {
        let mut sums = self.lock();
        sums.batches_retried += 1;
        sums.records_retried += u64::from(records);
    }

    pub(crate) fn split(&self) {
        self.lock().batches_split += 1;
    }

    /// The time of a batch of so many records is up.
    pub(crate) fn expired(&self, records: u32) {
        let mut sums = self.lock();
        sums.batches_expired += 1;
        sums.records_expired += u64::from(records);
    }

    pub(crate) fn epoch_raised(&self) {
        self.lock().epoch_bumps += 1;
    }

    /// So many records got their results: none for those that were acknowledged, or how far they
    /// got.
    pub(crate) fn settled(&self, failed: Option<DeliveryStatus>, records: u32) {
        let mut sums = self.lock();
        let records = u64::from(records);
        if failed.is_some() && self.ending.load(Ordering::Relaxed) {
            self.given_up.fetch_add(records, Ordering::Relaxed);
        }
        match failed {
            None => sums.records_acknowledged += records,
            Some(DeliveryStatus::NotPersisted) => sums.records_not_persisted += records,
            Some(_) => sums.records_possibly_persisted += records,
        }
    }

    /// Somebody waited for room; in vain, if `exhausted`.
    pub(crate) fn waited(&self, time: Duration, exhausted: bool) {
        let mut sums = self.lock();
        sums.buffer_waits += 1;
        sums.buffer_wait_time = sums.buffer_wait_time.saturating_add(time);
        sums.buffer_exhausted += u64::from(exhausted);
    }

    /// The brokers of the cluster are known: lets go of those that are no more, once there are
    /// many.
    pub(crate) fn keep_brokers(&self, is_there: impl Fn(i32) -> bool) {
        let latencies = &mut self.lock().produce_latency_micros;
        if latencies.len() > BROKERS {
            latencies.retain(|node, _: &mut Histogram| is_there(*node));
        }
    }

    /// The producer ends: records that have no result yet fail.
    pub(crate) fn ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// How many records failed because the producer ended. Complete once it has.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// The producer's task has ended: what was on its way is given up.
    pub(crate) fn ended(&self) {
        let mut sums = self.lock();
        let given_up = std::mem::take(&mut sums.requests_in_flight);
        sums.requests += given_up;
        sums.requests_failed += given_up;
        sums.batches_in_flight = 0;
    }

    /// What was counted here; `outstanding` is read afterwards, so that a record is rather counted
    /// twice than not at all.
    pub(crate) fn snapshot(&self, outstanding: impl FnOnce() -> u64) -> ProducerMetrics {
        let mut snapshot = self.lock().clone();
        let batches = self.batches.load(Ordering::Relaxed);
        snapshot.batches_queued = batches.saturating_sub(snapshot.batches_in_flight);
        snapshot.records_outstanding = outstanding();
        snapshot.records_sent =
            snapshot.records_outstanding + snapshot.records_acknowledged + snapshot.records_failed();
        snapshot
    }
}
