//! Repeats of failed joins: the waits between them, and when the reader and the log learn of them.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use crate::{
    cluster::Backoff,
    consumer::group::failed_memberships::FailedMemberships,
    error::Error,
    log::{Lasting, Outage},
};

/// Time for which joins (or heartbeats) fail before it is reported: longer than a coordinator takes
/// to move.
pub(super) const REPORTED_AFTER: Duration = Duration::from_secs(10);
/// Number of joins without a wait: some errors ask for a new join at once, but it must not go on
/// forever.
const QUICK_RETRIES: u32 = 3;

/// The failed joins, and the memberships that failed, since the last success.
#[derive(Debug)]
pub(super) struct JoinRetries {
    backoff: Backoff,
    quick: u32,
    failed_memberships: FailedMemberships,
    /// Time since which joins have failed with temporary errors.
    pub(super) failing_since: Option<Instant>,
    /// True if the reader was told of that.
    reported: bool,
    /// Failed joins, for the log.
    outage: Outage,
}

/// The consequences of a temporary error of a join.
#[derive(Debug)]
pub(super) struct JoinFailure {
    /// Set if a line is to be written.
    pub(super) log: Option<Lasting>,
    /// The error for the reader, once if joins fail for long, because a temporary error is retried
    /// without end and the reader receives nothing.
    pub(super) report: Option<Error>,
}

impl JoinRetries {
    /// Starts without a failure. `session` limits the waits after failed memberships.
    pub(super) fn new((initial, max): (Duration, Duration), session: Duration) -> Self {
        Self {
            backoff: Backoff::new(initial, max),
            quick: 0,
            failed_memberships: FailedMemberships::new(initial, session),
            failing_since: None,
            reported: false,
            outage: Outage::after(REPORTED_AFTER),
        }
    }

    /// Returns the time before which the group is not joined again.
    pub(super) fn not_before(&self, now: Instant) -> Option<Instant> {
        self.failed_memberships.join_not_before(now)
    }

    /// Counts a retry without a wait; returns false if there have been too many.
    pub(super) fn admit_quick(&mut self) -> bool {
        let admitted = self.quick < QUICK_RETRIES;
        self.quick += u32::from(admitted);
        admitted
    }

    /// Returns the time of the next join after a wait.
    pub(super) fn next_join(&mut self, now: Instant, rng: &mut StdRng) -> Instant {
        now + self.backoff.next(rng)
    }

    /// Records a join that failed with a temporary error.
    pub(super) fn failed(&mut self, now: Instant, group: &str, error: &Error) -> JoinFailure {
        let log = self.outage.failed(now);
        let since = *self.failing_since.get_or_insert(now);
        let lasted = now.saturating_duration_since(since);
        let report = lasted >= REPORTED_AFTER && !std::mem::replace(&mut self.reported, true);
        let report = report.then(|| {
            let secs = lasted.as_secs();
            error
                .clone()
                .context(format_args!("group {group} could not be joined for {secs} s; the consumer keeps trying"))
        });
        JoinFailure { log, report }
    }

    /// Records that a join succeeded. Returns the outage that it ends, if that is to be logged.
    pub(super) fn joined(&mut self, now: Instant) -> Option<Lasting> {
        self.coordinator_answered();
        self.outage.ended(now)
    }

    /// Ends the backoff: the coordinator knows the member.
    pub(super) fn coordinator_answered(&mut self) {
        self.backoff.reset();
        self.failing_since = None;
        self.reported = false;
    }

    /// Allows quick retries again.
    pub(super) fn allow_quick(&mut self) {
        self.quick = 0;
    }

    /// Counts a membership that the coordinator ended. If it ends all of them before it has
    /// answered a heartbeat, joins are delayed longer each time. Returns the error for the reader,
    /// once in a row of such memberships.
    pub(super) fn membership_failed(
        &mut self,
        now: Instant,
        rng: &mut StdRng,
        group: &str,
        error: &Error,
    ) -> Option<Error> {
        let report = self.failed_memberships.record(now, rng);
        report.then(|| error.clone().context(self.failed_memberships.describe(group)))
    }

    /// Ends a row of failed memberships: a heartbeat was answered.
    pub(super) fn heartbeat_answered(&mut self) {
        self.failed_memberships.clear();
    }
}
