//! The member's session and its rebalance timeout, by the coordinator's clock: from the earliest
//! times at which the coordinator can have heard from the member.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::group::{GroupSettings, actions::AttemptId};

/// The times from which the session and the rebalance timeout run, and the next heartbeat.
#[derive(Debug)]
pub(super) struct Session {
    timeout: Duration,
    heartbeat_interval: Duration,
    rebalance_timeout: Duration,
    pub(super) heartbeat_due: Instant,
    in_flight: Option<(AttemptId, Instant)>,
    /// Earliest time at which the coordinator can have last heard from the member: the time at
    /// which the last answered request was sent.
    pub(super) alive: Instant,
    /// Latest time at which the coordinator is known not to have begun another rebalance.
    settled: Instant,
    /// The coordinator may not have received the JoinGroup, and then begins the next generation
    /// without the member when the rebalance times out. Partitions that are kept while joining are
    /// kept until then at most.
    join_unconfirmed: bool,
}

impl Session {
    pub(super) fn new(settings: &GroupSettings, now: Instant) -> Self {
        Self {
            timeout: settings.session_timeout,
            heartbeat_interval: settings.heartbeat_interval,
            rebalance_timeout: settings.max_poll_interval,
            heartbeat_due: now,
            in_flight: None,
            alive: now,
            settled: now,
            join_unconfirmed: false,
        }
    }

    // ---- deadlines

    /// Returns the time of the next heartbeat, or the end of the session or of the kept partitions
    /// if that is earlier.
    pub(super) fn next_wake(&self, in_generation: bool) -> Instant {
        let end = self.timeout_at();
        let end = if self.in_flight.is_none() { end.min(self.heartbeat_due) } else { end };
        self.kept_until(in_generation).map_or(end, |kept| kept.min(end))
    }

    pub(super) fn is_timed_out(&self, now: Instant) -> bool {
        now >= self.timeout_at()
    }

    fn timeout_at(&self) -> Instant {
        self.alive + self.timeout
    }

    /// Returns the time at which a rebalance may end without the member: one that is not known here
    /// may have begun at any time since the last response that reported none.
    pub(super) fn rebalance_ends(&self) -> Instant {
        self.settled + self.rebalance_timeout
    }

    /// Returns true if partitions that are kept while joining are lost, because the rebalance may
    /// have ended without the member.
    pub(super) fn has_missed_rebalance(&self, now: Instant, in_generation: bool) -> bool {
        self.kept_until(in_generation).is_some_and(|kept| now >= kept)
    }

    fn kept_until(&self, in_generation: bool) -> Option<Instant> {
        (self.join_unconfirmed && !in_generation).then(|| self.rebalance_ends())
    }

    /// Returns the deadline of a revocation. It leaves the reader half of `max.poll.interval.ms` at
    /// least, whatever the settings.
    pub(super) fn revocation_deadline(&self, now: Instant) -> Instant {
        self.rebalance_ends().max(now + self.rebalance_timeout / 2)
    }

    // ---- heartbeats

    pub(super) fn is_heartbeat_due(&self, now: Instant) -> bool {
        self.in_flight.is_none() && now >= self.heartbeat_due
    }

    pub(super) fn heartbeat_sent(&mut self, now: Instant, attempt: AttemptId) {
        self.in_flight = Some((attempt, now));
        self.heartbeat_due = now + self.heartbeat_interval;
    }

    /// Ends the wait for that heartbeat and returns the time at which it was sent; `None` if
    /// another one, or none, is awaited.
    pub(super) fn heartbeat_ended(&mut self, attempt: AttemptId) -> Option<Instant> {
        self.in_flight.take_if(|(awaited, _)| *awaited == attempt).map(|(_, sent)| sent)
    }

    /// Ignores the response to the heartbeat in flight.
    pub(super) fn forget_heartbeat(&mut self) {
        self.in_flight = None;
    }

    /// Repeats a failed heartbeat after that wait, or after the usual interval if that is shorter.
    pub(super) fn repeat_heartbeat(&mut self, now: Instant, wait: Duration) {
        self.heartbeat_due = now + wait.min(self.heartbeat_interval);
    }

    // ---- signs of the coordinator

    /// Records that the coordinator knew the member in a request that was sent at that time.
    pub(super) fn confirm_alive(&mut self, sent: Instant) {
        self.alive = self.alive.max(sent);
    }

    /// Records that the coordinator counted the member in its generation in a request that was sent
    /// at that time.
    pub(super) fn confirm_generation(&mut self, sent: Instant) {
        self.confirm_alive(sent);
        self.settled = self.settled.max(sent);
    }

    /// Records that a JoinGroup is sent.
    pub(super) fn join_sent(&mut self, now: Instant) {
        self.forget_heartbeat();
        // Only a rebalance that may end before the session does needs a deadline of its own.
        self.join_unconfirmed |= now + self.timeout >= self.rebalance_ends();
    }

    /// Records the answer to a JoinGroup that was sent at that time: the generation, and any later
    /// rebalance, began after the coordinator had received the request.
    pub(super) fn join_confirmed(&mut self, sent: Instant) {
        self.settled = self.settled.max(sent);
        self.join_unconfirmed = false;
    }

    /// Records that the coordinator may not have received the last JoinGroup; returns true if that
    /// was recorded before.
    pub(super) fn doubt_join(&mut self) -> bool {
        std::mem::replace(&mut self.join_unconfirmed, true)
    }

    /// Begins the session of a member without partitions: the time that responses took does not
    /// matter, because all its partitions are assigned after this time.
    pub(super) fn begin(&mut self, now: Instant) {
        self.alive = now;
    }

    /// Waits a whole interval before the next heartbeat.
    pub(super) fn delay_heartbeat(&mut self, now: Instant) {
        self.heartbeat_due = now + self.heartbeat_interval;
    }
}
