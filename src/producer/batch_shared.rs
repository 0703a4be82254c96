//! State that all batches of a producer share: buffer memory, reports, flushes and counters.

use crate::{
    error::Error,
    log::Origin,
    producer::{
        batch_results::BatchResults, buffer_pool::BufferPool, callback::DeliveryCallback, counters::Counters,
        failures::Failures, flush::FlushGroups, reports::Reports,
    },
    wire::batch::BodyPool,
};
use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// Divisor of `buffer.memory` for the pool of free bodies; the pool keeps only memory that was in
/// use before.
const POOLED_PART: usize = 2;

/// The records of a transaction that have failed.
#[derive(Debug, Default)]
struct FailedRecords {
    first: Option<Error>,
    numbered: bool,
}

/// State that all batches of a producer share: buffer memory, reports, flushes and counters.
#[derive(Debug)]
pub(crate) struct BatchShared {
    pub(crate) buffer: Arc<BufferPool>,
    pub(crate) reports: Reports,
    pub(crate) flushes: FlushGroups,
    pub(crate) counters: Arc<Counters>,
    pub(crate) bodies: BodyPool,
    failures: Mutex<Failures>,
    failed_records: Option<Mutex<FailedRecords>>,
    result_cells: AtomicU64,
    /// Number of records with published results.
    completed_records: AtomicU64,
}

impl BatchShared {
    pub(crate) fn new(buffer_memory: usize) -> Self {
        Self {
            buffer: Arc::new(BufferPool::new(buffer_memory)),
            reports: Reports::default(),
            flushes: FlushGroups::new(),
            counters: Arc::default(),
            bodies: BodyPool::new(buffer_memory / POOLED_PART),
            failures: Mutex::default(),
            failed_records: None,
            result_cells: AtomicU64::new(0),
            completed_records: AtomicU64::new(0),
        }
    }

    /// Sets the callbacks that receive every result.
    pub(crate) fn with_callbacks(self, callbacks: Vec<DeliveryCallback>) -> Self {
        Self { reports: Reports::with_callbacks(callbacks), ..self }
    }

    /// Sets the producer's name in log lines; call it before use.
    pub(crate) fn with_origin(self, origin: Origin) -> Self {
        Self { counters: Arc::new(Counters::new(origin)), ..self }
    }

    /// Keeps the first error of the records that fail, because the producer is transactional; call
    /// it before use.
    pub(crate) fn keeping_failures(self) -> Self {
        Self { failed_records: Some(Mutex::default()), ..self }
    }

    /// Notes that records have failed. They are `numbered` if a batch with them had sequence
    /// numbers.
    pub(crate) fn note_failed(&self, error: &Error, numbered: bool) {
        if let Some(failed) = &self.failed_records {
            let mut failed = failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.numbered |= numbered;
            failed.first.get_or_insert_with(|| error.clone());
        }
    }

    /// Returns the first error of the records that have failed since the last call, and whether one
    /// of them was numbered.
    pub(crate) fn take_failed(&self) -> Option<(Error, bool)> {
        let mut failed = self.failed_records.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        let FailedRecords { first, numbered } = std::mem::take(&mut *failed);
        Some((first?, numbered))
    }

    /// Logs records that failed permanently, or adds them to a later line of
    /// [`write_failures`](Self::write_failures); returns true in the latter case.
    pub(crate) fn log_failed(&self, topic: &str, partition: Option<i32>, records: u32, error: &Error) -> bool {
        let now = tokio::time::Instant::now().into_std();
        let line = self.failures().failed((topic, partition), records, error, now);
        line.iter().for_each(|line| line.write(self.counters.origin()));
        line.is_none()
    }

    /// Writes the failure lines that are due, or all of them.
    pub(crate) fn write_failures(&self, all: bool) {
        let due = self.failures().take_due(all, tokio::time::Instant::now().into_std());
        due.iter().for_each(|line| line.write(self.counters.origin()));
    }

    /// Returns the time at which the next failure line is due.
    pub(crate) fn failures_due(&self) -> Option<Instant> {
        self.failures().next_due()
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn new_cell(&self) -> Arc<BatchResults> {
        Arc::new(BatchResults::new(self.result_cells.fetch_add(1, Ordering::Relaxed)))
    }

    pub(crate) fn completed_records(&self) -> u64 {
        self.completed_records.load(Ordering::Acquire)
    }

    /// Counts records with published results.
    pub(crate) fn add_completed(&self, records: u32) {
        self.completed_records.fetch_add(u64::from(records), Ordering::Release);
    }
}
