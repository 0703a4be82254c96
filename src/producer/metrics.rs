use std::{collections::BTreeMap, time::Duration};

use crate::{cluster::BrokerMetrics, error::ErrorCode, histogram::Histogram};

/// What a producer has counted, from [`Producer::metrics`](super::Producer::metrics): a snapshot
/// that is the caller's own.
///
/// Counts run from the producer's start and only grow; a rate is the difference of two snapshots
/// over the time between them (Java: `record-send-rate`, `byte-rate` and all other `-rate`
/// metrics), and what a histogram saw in between is [`Histogram::since`]. What is called *now* is a
/// level that goes up and down. Nothing is counted for each record: records are counted with their
/// batches.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ProducerMetrics {
    // ---- the buffer
    /// Bytes of `buffer.memory` (Java: `buffer-total-bytes`).
    pub buffer_total_bytes: u64,
    /// Bytes of it that are taken now, by records from `send` to their result (to their report,
    /// where reports are read). Open batches take some ahead. Java: `buffer-total-bytes` −
    /// `buffer-available-bytes`.
    pub buffer_used_bytes: u64,
    /// Calls that wait for room now (Java: `waiting-threads`).
    pub senders_waiting: u64,
    /// Calls that had to wait for room, whether they got it, did not, or were dropped while they
    /// waited.
    pub buffer_waits: u64,
    /// How long these waited altogether (Java: `bufferpool-wait-time-ns-total`).
    pub buffer_wait_time: Duration,
    /// Calls that got no room within `max.block.ms` (Java: `buffer-exhausted-total`).
    pub buffer_exhausted: u64,

    // ---- records and their results
    /// Records that were taken: those with a result and those without (Java: `record-send-total`,
    /// which counts when they leave).
    pub records_sent: u64,
    /// Of these, records that have no result now.
    pub records_outstanding: u64,
    /// Records that were acknowledged as `acks` asks; with `acks=0`, that were written.
    pub records_acknowledged: u64,
    /// Records that failed and are not in the log. Java: part of `record-error-total`.
    pub records_not_persisted: u64,
    /// Records that failed and may be in the log. Java: part of `record-error-total`.
    pub records_possibly_persisted: u64,

    // ---- batches and requests on their way
    /// Batches that are being filled or wait to be sent, for the first time or again, now.
    pub batches_queued: u64,
    /// Batches in requests that are not answered now.
    pub batches_in_flight: u64,
    /// Produce requests that are not answered now (Java: `requests-in-flight`).
    pub requests_in_flight: u64,
    /// Produce requests that ended, answered or not.
    pub requests: u64,
    /// Of these, those that got no answer that could be read: the connection was lost, or the time
    /// was up.
    pub requests_failed: u64,
    /// What brokers said of single batches, other than that they were written, and how often. At
    /// most one entry for each of the 65536 codes.
    pub errors: BTreeMap<ErrorCode, u64>,
    /// Batches that were put back to be sent again after an attempt that failed.
    pub batches_retried: u64,
    /// The records in them (Java: `record-retry-total`).
    pub records_retried: u64,
    /// Batches that the broker found too large and that were cut in two (Java:
    /// `batch-split-total`).
    pub batches_split: u64,
    /// Batches that failed because `delivery.timeout.ms` was over.
    pub batches_expired: u64,
    /// The records in them.
    pub records_expired: u64,
    /// How often a partition's producer epoch was raised, because what became of a batch could not
    /// be found out (KIP-360).
    pub epoch_bumps: u64,

    // ---- sizes
    /// Records in each batch, counted once when it gets its final bytes, however often it is sent
    /// (Java: `records-per-request-avg`, which it gives for requests only).
    pub batch_records: Histogram,
    /// Bytes of each batch as it is sent: header included, compressed (Java: `batch-size-avg`,
    /// `batch-size-max`).
    pub batch_bytes: Histogram,
    /// Bytes of all these batches before compression.
    pub uncompressed_bytes: u64,
    /// Records in each request (Java: `records-per-request-avg`). Requests are counted for each
    /// attempt.
    pub request_records: Histogram,
    /// Batches, each of another partition, in each request.
    pub request_batches: Histogram,
    /// Bytes of each request (Java: `request-size-avg`, `request-size-max`), without its frame's
    /// header.
    pub request_bytes: Histogram,

    // ---- times
    /// Microseconds from when a batch was begun to when it left for the first time (Java:
    /// `record-queue-time-avg`, `record-queue-time-max`).
    pub queue_time_micros: Histogram,
    /// By broker, microseconds from when a Produce request was handed to its connection to its
    /// answer (Java: `request-latency-avg`, `request-latency-max` of the node); with `acks=0`, to
    /// when it was written. Requests without an answer are not in it.
    pub produce_latency_micros: BTreeMap<i32, Histogram>,

    // ---- the cluster
    /// What was counted of each broker. Bootstrap addresses are −1, −2, …
    pub brokers: BTreeMap<i32, BrokerMetrics>,
    /// How old the picture of the cluster is; `None` before the first (Java: `metadata-age`).
    pub metadata_age: Option<Duration>,
}

impl ProducerMetrics {
    /// Records that failed (Java: `record-error-total`).
    pub fn records_failed(&self) -> u64 {
        self.records_not_persisted + self.records_possibly_persisted
    }

    /// Bytes of all batches as they are sent over what they were before compression; 1 without
    /// compression, `None` before the first batch (Java: `compression-rate-avg`).
    pub fn compression_ratio(&self) -> Option<f64> {
        (self.uncompressed_bytes > 0).then(|| self.batch_bytes.sum() as f64 / self.uncompressed_bytes as f64)
    }

    /// The latencies of all brokers together, in microseconds.
    pub fn all_produce_latency_micros(&self) -> Histogram {
        let mut all = Histogram::default();
        self.produce_latency_micros.values().for_each(|of_one| all.merge(of_one));
        all
    }
}
