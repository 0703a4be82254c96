//! Heartbeats that fail: the waits between them, and when the reader and the log learn of them.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::{
    cluster::Backoff,
    consumer::group::join_retries::REPORTED_AFTER,
    error::Error,
    log::{Lasting, Outage},
};

/// The failed heartbeats since the last success.
#[derive(Debug)]
pub(super) struct HeartbeatFailures {
    backoff: Backoff,
    outage: Outage,
    /// True if the reader was told of an error since the last success.
    reported: bool,
}

impl HeartbeatFailures {
    pub(super) fn new((initial, max): (Duration, Duration)) -> Self {
        Self { backoff: Backoff::new(initial, max), outage: Outage::after(REPORTED_AFTER), reported: false }
    }

    /// Returns the wait before a failed heartbeat is repeated.
    pub(super) fn next_wait(&mut self, rng: &mut StdRng) -> Duration {
        self.backoff.next(rng)
    }

    /// Records a failed heartbeat; returns the outage so far, if a line is due.
    pub(super) fn failed(&mut self, now: Instant) -> Option<Lasting> {
        self.outage.failed(now)
    }

    /// Returns true if the reader is to be told of the error: a retry may not help, and it was not
    /// told since the last success.
    pub(super) fn admit_report(&mut self, error: &Error) -> bool {
        !error.is_retriable() && !std::mem::replace(&mut self.reported, true)
    }

    /// Records an answered heartbeat. Returns the outage that it ends, if that is to be logged.
    pub(super) fn answered(&mut self, now: Instant) -> Option<Lasting> {
        self.backoff.reset();
        self.reported = false;
        self.outage.ended(now)
    }

    /// Lets the reader be told of errors again, in the next membership.
    pub(super) fn allow_report(&mut self) {
        self.reported = false;
    }
}
