//! The times at which failing partitions are tried again, and the reports of resets that keep
//! failing.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::{
    cluster::{Backoff, RetryGrid},
    consumer::subscription::reset_backoff::HUMAN,
};

#[derive(Debug)]
pub(crate) struct PartitionRetries {
    /// Source of the jitter.
    pub(crate) rng: StdRng,
    /// Common instants, so that partitions that fail together share a request.
    grid: RetryGrid,
    /// Time of the last error about position resets that keep failing; one error covers all
    /// partitions.
    failing_resets_reported_at: Option<Instant>,
}

impl PartitionRetries {
    pub(crate) fn new(rng: StdRng) -> Self {
        Self { rng, grid: RetryGrid::default(), failing_resets_reported_at: None }
    }

    /// Returns the next wait of a backoff.
    pub(crate) fn wait(&mut self, backoff: &mut Backoff) -> Duration {
        backoff.next(&mut self.rng)
    }

    /// Returns the instant, common to many partitions, at which a wait that begins now ends.
    pub(crate) fn common_instant(&mut self, now: Instant, wait: Duration) -> Instant {
        self.grid.started(now).after(now, wait)
    }

    /// Returns true if an error about failing resets may be reported to the common reader: none was
    /// within [`HUMAN`].
    pub(crate) fn may_report_reset(&self, now: Instant) -> bool {
        self.failing_resets_reported_at.is_none_or(|at| now >= at + HUMAN)
    }

    /// Records that an error about failing resets is reported.
    pub(crate) fn record_reset_report(&mut self, now: Instant) {
        self.failing_resets_reported_at = Some(now);
    }
}
