//! The counters of a producer: a few sums under a lock of their own, which is taken once for each
//! event of a batch or a request, and never for a record.
//!
//! Batches and results are counted in `batch`; sent and answered requests in `sender`; retries,
//! splits and expiry in `partition_queue`; sizes and latencies in `requests`; waiting for room in
//! `send`. Metrics of connections are counted in `cluster`.
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

/// Limit for the latencies by broker: above it, brokers that have left the cluster are removed.
const BROKERS: usize = 256;

/// The counters of one producer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Batches that exist. They are not under the lock, because batches are begun on the callers'
    /// threads.
    batches: AtomicU64,
    /// The sums that are counted here; the other fields are filled in for a snapshot.
    sums: Mutex<ProducerMetrics>,
    /// True when the producer ends: records that fail from then on are given up.
    ending: AtomicBool,
    given_up: AtomicU64,
    /// The producer as named in log lines, and the limiter of these lines.
    origin: Origin,
    lines: Mutex<Limiter<&'static str>>,
}

impl Counters {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin, ..Self::default() }
    }

    /// Returns the producer as named in log lines.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Returns the number of log lines of that kind that were suppressed recently, if this one may
    /// be written.
    pub(crate) fn admit_line(&self, kind: &'static str, now: Instant) -> Option<u64> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).admit(kind, now)
    }

    fn lock(&self) -> MutexGuard<'_, ProducerMetrics> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a new batch, of records or from a split.
    pub(crate) fn batch_begun(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts the end of a batch.
    pub(crate) fn batch_gone(&self) {
        self.batches.fetch_sub(1, Ordering::Relaxed);
    }

    /// Counts batches that were taken for a request.
    pub(crate) fn drained(&self, parts: &[RequestPart], now: Instant) {
        let mut sums = self.lock();
        sums.requests_in_flight += 1;
        sums.batches_in_flight += parts.len() as u64;
        for begun in parts.iter().filter_map(|part| part.begun) {
            sums.queue_time_micros.record_micros(now.saturating_duration_since(begun));
        }
    }

    /// Counts a batch that got its final bytes.
    pub(crate) fn sealed(&self, batch: &SealedBatch) {
        let mut sums = self.lock();
        sums.batch_records.record(u64::from(batch.count()));
        sums.batch_bytes.record(batch.size() as u64);
        sums.uncompressed_bytes += batch.uncompressed_size() as u64;
    }

    /// Counts a request that was handed to its connection.
    pub(crate) fn written(&self, batches: usize, records: u64, bytes: usize) {
        let mut sums = self.lock();
        sums.request_batches.record(batches as u64);
        sums.request_records.record(records);
        sums.request_bytes.record(bytes as u64);
    }

    /// Records the time that a broker took to answer a request.
    pub(crate) fn latency(&self, node: i32, time: Duration) {
        self.lock().produce_latency_micros.entry(node).or_default().record_micros(time);
    }

    /// Counts the end of a request with these batches.
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
            // A request that had lost all of its batches was not sent, which is no failure.
            Err(_) if parts.iter().all(|part| part.withdrawn) => {}
            Err(_) => sums.requests_failed += 1,
        }
    }

    /// Counts a batch, with its records, that is sent again.
    pub(crate) fn retried(&self, records: u32) {
        let mut sums = self.lock();
        sums.batches_retried += 1;
        sums.records_retried += u64::from(records);
    }

    pub(crate) fn split(&self) {
        self.lock().batches_split += 1;
    }

    /// Counts a batch, with its records, that expired.
    pub(crate) fn expired(&self, records: u32) {
        let mut sums = self.lock();
        sums.batches_expired += 1;
        sums.records_expired += u64::from(records);
    }

    pub(crate) fn epoch_raised(&self) {
        self.lock().epoch_bumps += 1;
    }

    /// Counts results of records: `None` if they were acknowledged, otherwise their delivery
    /// status.
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

    /// Counts a call that waited for room; `exhausted` if it got none.
    pub(crate) fn waited(&self, time: Duration, exhausted: bool) {
        let mut sums = self.lock();
        sums.buffer_waits += 1;
        sums.buffer_wait_time = sums.buffer_wait_time.saturating_add(time);
        sums.buffer_exhausted += u64::from(exhausted);
    }

    /// Removes brokers that are no longer in the cluster, once there are many.
    pub(crate) fn keep_brokers(&self, is_there: impl Fn(i32) -> bool) {
        let latencies = &mut self.lock().produce_latency_micros;
        if latencies.len() > BROKERS {
            latencies.retain(|node, _: &mut Histogram| is_there(*node));
        }
    }

    /// Marks the end of the producer: records without a result fail from now on.
    pub(crate) fn ending(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Returns the number of records that failed because the producer ended. It is complete once
    /// the producer has ended.
    pub(crate) fn given_up(&self) -> u64 {
        self.given_up.load(Ordering::Relaxed)
    }

    /// Counts requests in flight as failed, because the producer's task has ended.
    pub(crate) fn ended(&self) {
        let mut sums = self.lock();
        let given_up = std::mem::take(&mut sums.requests_in_flight);
        sums.requests += given_up;
        sums.requests_failed += given_up;
        sums.batches_in_flight = 0;
    }

    /// Returns a snapshot. `outstanding` is read afterwards, so that a record may be counted twice
    /// but is never missing.
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
