//! The counters of a worker.

use crate::histogram::Histogram;

/// Counts what a worker does: a snapshot from [`Worker::metrics`](super::Worker::metrics) that the
/// caller owns.
///
/// Counts run from the worker's start and only grow; a metric described with *now* is a level.
/// Fetched and committed records, and the lag, are among the [consumer's
/// metrics](crate::Consumer::metrics).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// Records for which the handler returned `Ok`.
    pub records_processed: u64,
    /// Records that were delivered to the dead letter topic.
    pub records_dead_lettered: u64,
    /// Records that were skipped because their last attempt failed.
    pub records_skipped: u64,
    /// Records that were not completed because their handler was ended, or failed, when their
    /// partition was given up or the worker ended: the partition's next owner handles them again.
    /// Records that were not begun are not included.
    pub records_abandoned: u64,
    /// Attempts that failed: by error, panic or timeout. An attempt covers a record, or a batch.
    pub attempts_failed: u64,
    /// Failed attempts that panicked.
    pub handler_panics: u64,
    /// Failed attempts that took longer than
    /// [`handler_timeout`](super::WorkerBuilder::handler_timeout).
    pub handler_timeouts: u64,
    /// Attempts that were scheduled again after a failure.
    pub retries: u64,
    /// Deliveries to the dead letter topic that failed and were scheduled again.
    pub dead_letters_retried: u64,
    /// Damaged batches that were skipped ([`skip_corrupt`](super::WorkerBuilder::skip_corrupt)).
    pub corrupt_skipped: u64,
    /// Records that a handler is processing or that are on their way to the dead letter topic, now.
    pub records_in_flight: u64,
    /// Records that wait for their turn, now.
    pub records_waiting: u64,
    /// Attempts that wait for their retry, now.
    pub retries_waiting: u64,
    /// Bytes of records that are not done, now; bounded by
    /// [`buffer_bytes`](super::WorkerBuilder::buffer_bytes).
    pub buffered_bytes: u64,
    /// Microseconds of each attempt that was not ended from outside.
    pub handler_micros: Histogram,
    /// Transactions that were committed, of an exactly-once worker. Records are counted as
    /// processed, dead-lettered and skipped when their transaction commits.
    pub transactions_committed: u64,
    /// Transactions that were aborted: their records were handled again.
    pub transactions_aborted: u64,
    /// Transactions whose outcome the producer could not tell; the group's committed offsets told
    /// it.
    pub transactions_unknown: u64,
    /// Producers that were fenced and replaced.
    pub producers_replaced: u64,
    /// Records of each committed transaction.
    pub transaction_records: Histogram,
    /// Microseconds from the end of the last handler of a transaction until it was committed.
    pub commit_micros: Histogram,
}
