//! The time within which the reader has to poll again (`max.poll.interval.ms`).
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};

/// Measures how long the reader has not polled.
#[derive(Debug)]
pub(super) struct PollTimer {
    last_poll: Instant,
    interval: Duration,
}

impl PollTimer {
    pub(super) fn new(now: Instant, interval: Duration) -> Self {
        Self { last_poll: now, interval }
    }

    /// Records that the reader polled, or that it begins to count.
    pub(super) fn restart(&mut self, now: Instant) {
        self.last_poll = now;
    }

    pub(super) fn expires_at(&self) -> Instant {
        self.last_poll + self.interval
    }

    pub(super) fn is_expired(&self, now: Instant) -> bool {
        now >= self.expires_at()
    }

    /// Returns the cause of the loss of partitions after the reader did not poll, for the log.
    pub(super) fn expiry_cause(&self) -> String {
        format!(
            "the reader did not complete its records and poll within max.poll.interval.ms ({} ms): handle records \
             faster, ask for fewer at a time (max.poll.records), or raise max.poll.interval.ms",
            self.interval.as_millis()
        )
    }

    /// Returns the error for a reader that did not poll.
    pub(super) fn expiry_error(&self, group: &str) -> Error {
        let message = format!(
            "group {group}: the reader did not poll for {:?} (max.poll.interval.ms), so the consumer left \
             the group; it joins again on the reader's next poll. Handle records faster, ask for fewer at a time \
             (max.poll.records), or raise max.poll.interval.ms",
            self.interval
        );
        Error::new(ErrorKind::NotAssigned, message)
    }
}
