use std::{collections::BTreeMap, time::Duration};

use super::TransactionMetrics;
use crate::{cluster::BrokerMetrics, error::ErrorCode, histogram::Histogram};

/// Counts what a producer does: a snapshot from [`Producer::metrics`](super::Producer::metrics)
/// that the caller owns.
///
/// Counts run from the producer's start and only grow. A rate is the difference of two snapshots
/// divided by the time between them (Java: `record-send-rate`, `byte-rate` and all other `-rate`
/// metrics); [`Histogram::since`] returns what a histogram recorded in between. A metric described
/// with *now* is a level that goes up and down. Records are counted with their batches, so counting
/// costs nothing for each record.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ProducerMetrics {
    // ---- the buffer
    /// Bytes of `buffer.memory` (Java: `buffer-total-bytes`).
    pub buffer_total_bytes: u64,
    /// Bytes of `buffer.memory` that are taken now, by records from `send` to their result (to
    /// their report, if reports are read). Open batches take some bytes in advance. Java:
    /// `buffer-total-bytes` − `buffer-available-bytes`.
    pub buffer_used_bytes: u64,
    /// Calls that wait for room now (Java: `waiting-threads`).
    pub senders_waiting: u64,
    /// Calls that had to wait for room, whether they got it, did not, or were dropped while they
    /// waited.
    pub buffer_waits: u64,
    /// Total time that these calls waited (Java: `bufferpool-wait-time-ns-total`).
    pub buffer_wait_time: Duration,
    /// Calls that got no room within `max.block.ms` (Java: `buffer-exhausted-total`).
    pub buffer_exhausted: u64,

    // ---- records and their results
    /// Records that were taken, with and without a result (Java: `record-send-total`, which counts
    /// records when they leave).
    pub records_sent: u64,
    /// Records of `records_sent` that have no result now.
    pub records_outstanding: u64,
    /// Records that were acknowledged as `acks` requires; with `acks=0`, records that were written.
    pub records_acknowledged: u64,
    /// Records that failed and are not in the log. Java: part of `record-error-total`.
    pub records_not_persisted: u64,
    /// Records that failed and may be in the log. Java: part of `record-error-total`.
    pub records_possibly_persisted: u64,

    // ---- batches and requests on their way
    /// Batches that are being filled or wait to be sent, for the first time or again, now.
    pub batches_queued: u64,
    /// Batches in requests without an answer now.
    pub batches_in_flight: u64,
    /// Produce requests without an answer now (Java: `requests-in-flight`).
    pub requests_in_flight: u64,
    /// Produce requests that ended, answered or not.
    pub requests: u64,
    /// Produce requests of these that got no readable answer: the connection was lost, or the time
    /// was up.
    pub requests_failed: u64,
    /// Errors that brokers returned for single batches, with their counts. There is at most one
    /// entry for each of the 65536 codes.
    pub errors: BTreeMap<ErrorCode, u64>,
    /// Batches that were put back to be sent again after an attempt that failed.
    pub batches_retried: u64,
    /// Records in these batches (Java: `record-retry-total`).
    pub records_retried: u64,
    /// Batches that the broker rejected as too large and that were split in two (Java:
    /// `batch-split-total`).
    pub batches_split: u64,
    /// Batches that failed because `delivery.timeout.ms` had passed.
    pub batches_expired: u64,
    /// Records in these batches.
    pub records_expired: u64,
    /// Number of times that a partition's producer epoch was raised, because the fate of a batch
    /// could not be determined (KIP-360).
    pub epoch_bumps: u64,

    // ---- sizes
    /// Records in each batch, counted once when the batch gets its final bytes, however often it is
    /// sent (Java: `records-per-request-avg`, which counts requests only).
    pub batch_records: Histogram,
    /// Bytes of each batch as it is sent: compressed, header included (Java: `batch-size-avg`,
    /// `batch-size-max`).
    pub batch_bytes: Histogram,
    /// Bytes of all these batches before compression.
    pub uncompressed_bytes: u64,
    /// Records in each request (Java: `records-per-request-avg`). Each attempt counts as a request.
    pub request_records: Histogram,
    /// Batches in each request, each of another partition.
    pub request_batches: Histogram,
    /// Bytes of each request (Java: `request-size-avg`, `request-size-max`), without its frame's
    /// header.
    pub request_bytes: Histogram,

    // ---- times
    /// Microseconds from the start of a batch to the first time it is sent (Java:
    /// `record-queue-time-avg`, `record-queue-time-max`).
    pub queue_time_micros: Histogram,
    /// Microseconds from handing a Produce request to its connection to its answer, by broker
    /// (Java: `request-latency-avg`, `request-latency-max` of the node); with `acks=0`, to the time
    /// it was written. Requests without an answer are not included.
    pub produce_latency_micros: BTreeMap<i32, Histogram>,

    // ---- transactions
    /// Transactions; `None` without a `transactional.id`.
    pub transactions: Option<TransactionMetrics>,

    // ---- the cluster
    /// Metrics of each broker. Bootstrap addresses have the ids −1, −2, …
    pub brokers: BTreeMap<i32, BrokerMetrics>,
    /// Age of the metadata; `None` before the first metadata response (Java: `metadata-age`).
    pub metadata_age: Option<Duration>,
}

impl ProducerMetrics {
    /// Returns the number of records that failed (Java: `record-error-total`).
    pub fn records_failed(&self) -> u64 {
        self.records_not_persisted + self.records_possibly_persisted
    }

    /// Returns the bytes of all batches as they are sent, divided by their bytes before
    /// compression; 1 without compression, `None` before the first batch (Java:
    /// `compression-rate-avg`).
    pub fn compression_ratio(&self) -> Option<f64> {
        (self.uncompressed_bytes > 0).then(|| self.batch_bytes.sum() as f64 / self.uncompressed_bytes as f64)
    }

    /// Returns the latencies of all brokers together, in microseconds.
    pub fn all_produce_latency_micros(&self) -> Histogram {
        let mut all = Histogram::default();
        self.produce_latency_micros.values().for_each(|of_one| all.merge(of_one));
        all
    }
}
