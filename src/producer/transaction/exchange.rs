//! One request to a coordinator, repeated until it has a final answer.
//!
//! Sans-IO.

use std::time::Instant;

use super::request::{AttemptId, Request};
use crate::error::Error;

/// A code that is not expected is answered with this many repeats.
const UNEXPECTED_ANSWERS: u32 = 5;

/// One request with its attempts. The same bytes are sent each time, except that partitions of
/// TxnOffsetCommit that are done are left out.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) request: Request,
    pub(crate) began: Instant,
    in_flight: Option<AttemptId>,
    retry_at: Instant,
    /// Attempts that failed, for the backoff.
    failures: u32,
    /// Attempts that a coordinator has seen, or may have.
    seen: u32,
    unexpected: u32,
    /// The reason why the last attempt failed.
    last_error: Option<Error>,
    /// True if an attempt got no answer, so that a copy of it may still be on its way.
    lost: bool,
}

impl Exchange {
    pub(crate) fn new(request: Request, now: Instant) -> Self {
        Self {
            request,
            began: now,
            in_flight: None,
            retry_at: now,
            failures: 0,
            seen: 0,
            unexpected: 0,
            last_error: None,
            lost: false,
        }
    }

    pub(crate) fn sent(&mut self, attempt: AttemptId) {
        self.in_flight = Some(attempt);
    }

    /// Ends an attempt that a coordinator has seen, or may have. Returns false for an attempt that
    /// is not the one in flight: its result came too late.
    pub(crate) fn end_seen(&mut self, attempt: AttemptId) -> bool {
        let ended = self.end(attempt);
        self.seen += u32::from(ended);
        ended
    }

    /// Like [`end_seen`](Self::end_seen), for an attempt that was not written.
    pub(crate) fn end_unsent(&mut self, attempt: AttemptId) -> bool {
        self.end(attempt)
    }

    fn end(&mut self, attempt: AttemptId) -> bool {
        if self.in_flight != Some(attempt) {
            return false;
        }
        self.in_flight = None;
        true
    }

    /// Takes back that the attempt that has just ended was seen, because its answer proves that it
    /// had no effect.
    pub(crate) fn had_no_effect(&mut self) {
        self.seen = self.seen.saturating_sub(1);
    }

    pub(crate) fn mark_lost(&mut self) {
        self.lost = true;
    }

    pub(crate) fn note_error(&mut self, error: &Error) {
        self.last_error = Some(error.clone());
    }

    /// Returns the reason why the last attempt failed; `None` before the first failure.
    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Returns the number of attempts that failed.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Returns the number of failed attempts before this one, and counts it.
    pub(crate) fn count_failure(&mut self) -> u32 {
        let before = self.failures;
        self.failures = self.failures.saturating_add(1);
        before
    }

    /// Counts an answer that is not expected; returns false once there were too many.
    pub(crate) fn may_repeat_unexpected(&mut self) -> bool {
        self.unexpected += 1;
        self.unexpected <= UNEXPECTED_ANSWERS
    }

    pub(crate) fn retry_at(&mut self, at: Instant) {
        self.retry_at = at;
    }

    /// Returns the time of the next attempt; `None` while one is in flight.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.in_flight.is_none().then_some(self.retry_at)
    }

    /// Returns the number of attempts that a coordinator has seen, or may have.
    pub(crate) fn seen(&self) -> u32 {
        self.seen
    }

    /// Like [`seen`](Self::seen), with the attempt in flight.
    pub(crate) fn seen_by_now(&self) -> u32 {
        self.seen + u32::from(self.in_flight.is_some())
    }
}
