//! What a worker has counted.

use crate::histogram::Histogram;

/// What a worker has counted, from [`Worker::metrics`](super::Worker::metrics): a snapshot that is
/// the caller's own.
///
/// Counts run from the worker's start and only grow; what is called *now* is a level. What was
/// fetched and committed is among the [consumer's](crate::Consumer::metrics), lag too.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct WorkerMetrics {
    /// Records whose handler gave `Ok`.
    pub records_processed: u64,
    /// Records that were delivered to the dead letter topic.
    pub records_dead_lettered: u64,
    /// Records that were passed over because their handler failed for the last time.
    pub records_skipped: u64,
    /// Records whose handler was ended, or failed, when they were no longer this worker's: they are
    /// handled again by whoever has them next. Those that were not begun are not among them.
    pub records_abandoned: u64,
    /// Attempts that failed: by error, panic or timeout. An attempt is at a record, or at a batch.
    pub attempts_failed: u64,
    /// Of these, those that panicked.
    pub handler_panics: u64,
    /// Of these, those that took longer than
    /// [`handler_timeout`](super::WorkerBuilder::handler_timeout).
    pub handler_timeouts: u64,
    /// Attempts that were to be made again.
    pub retries: u64,
    /// Deliveries to the dead letter topic that failed and were to be made again.
    pub dead_letters_retried: u64,
    /// Damaged batches that were passed over
    /// ([`skip_corrupt`](super::WorkerBuilder::skip_corrupt)).
    pub corrupt_skipped: u64,
    /// Records that are with the handler or on their way to the dead letters, now.
    pub records_in_flight: u64,
    /// Records that wait for their turn, now.
    pub records_waiting: u64,
    /// Attempts that wait until they are made again, now.
    pub retries_waiting: u64,
    /// Bytes of records that are not done, now: what
    /// [`buffer_bytes`](super::WorkerBuilder::buffer_bytes) bounds.
    pub buffered_bytes: u64,
    /// Microseconds of each attempt that was not ended from outside.
    pub handler_micros: Histogram,
}
