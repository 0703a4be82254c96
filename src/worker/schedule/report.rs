//! The metrics and the status of the schedule.
//!
//! Sans-IO.

use std::time::Instant;

use super::{CompletionTarget, Outcome, RunningHandler, Schedule};
use crate::{
    record::TopicPartition,
    worker::{ExactlyOnceStatus, RunningJob, WorkerMetrics, WorkerPartition},
};

impl<M: CompletionTarget> Schedule<M> {
    pub(super) fn count(&mut self, running: &RunningHandler, outcome: &Outcome, now: Instant) {
        let took = now.saturating_duration_since(running.since);
        match outcome {
            Outcome::Handled | Outcome::Failed { .. } => {
                self.metrics.handler_micros.record_micros(took);
            }
            _ => {}
        }
        self.metrics.attempts_failed += u64::from(matches!(outcome, Outcome::Failed { .. }));
    }

    /// Counts a panic of a handler.
    pub(crate) fn count_panic(&mut self) {
        self.metrics.handler_panics += 1;
    }

    /// Counts a timeout of a handler.
    pub(crate) fn count_timeout(&mut self) {
        self.metrics.handler_timeouts += 1;
    }

    /// Counts a damaged batch that was skipped.
    pub(crate) fn count_corrupt(&mut self) {
        self.metrics.corrupt_skipped += 1;
    }

    pub(crate) fn metrics(&self) -> WorkerMetrics {
        let mut metrics = self.metrics.clone();
        let jobs = self.handlers.iter().filter_map(|lane| lane.running.as_ref());
        metrics.records_in_flight = jobs.map(|running| running.records as u64).sum();
        let waiting = self.partitions.iter().flatten().map(|partition| partition.waiting as u64);
        metrics.records_waiting = waiting.sum();
        metrics.retries_waiting = self.parked.len() as u64;
        metrics.buffered_bytes = self.bytes as u64;
        if let Some(cycle) = &self.cycle {
            let counts = cycle.counts();
            metrics.transactions_committed = counts.committed;
            metrics.transactions_aborted = counts.aborted;
            metrics.transactions_unknown = counts.unknown;
            metrics.producers_replaced = counts.producers_replaced;
            metrics.transaction_records = counts.records.clone();
            metrics.commit_micros = counts.commit_micros.clone();
        }
        metrics
    }

    /// Returns the state of the transactions, if there are any.
    pub(crate) fn exactly_once(&self, now: Instant) -> Option<ExactlyOnceStatus> {
        Some(self.cycle.as_ref()?.status(now))
    }

    /// Returns the running jobs, the longest-running first.
    pub(crate) fn running(&self, now: Instant) -> Vec<RunningJob> {
        let mut jobs: Vec<_> = self.handlers.iter().filter_map(|lane| lane.running.as_ref()).collect();
        jobs.sort_by_key(|running| running.since);
        let job = |running: &RunningHandler| {
            let name = self.partitions.get(running.partition).and_then(Option::as_ref)?.name.clone();
            Some(RunningJob {
                partition: name,
                offset: running.offset,
                records: running.records,
                attempt: running.attempt,
                dead_lettering: running.dead_lettering,
                cancelled: running.cancelled,
                for_how_long: now.saturating_duration_since(running.since),
            })
        };
        jobs.into_iter().filter_map(job).collect()
    }

    pub(crate) fn partitions(&self) -> Vec<(TopicPartition, WorkerPartition)> {
        let retries = |id: usize| {
            let waiting = self.parked.values().chain(&self.due).filter(|job| job.partition == id);
            waiting.map(|job| job.load.records().len()).sum()
        };
        let of = |(id, partition): (usize, &Option<super::ScheduledPartition<M>>)| {
            let partition = partition.as_ref()?;
            let status = WorkerPartition {
                waiting: partition.waiting,
                running: partition.running,
                retrying: retries(id),
                done: partition.done,
                draining: partition.ending,
            };
            Some((partition.name.clone(), status))
        };
        self.partitions.iter().enumerate().filter_map(of).collect()
    }
}
