//! The heartbeats of a member: the fields that each of them sends, and its deadlines by the
//! coordinator's clock.
//!
//! One heartbeat is outstanding at a time. One that failed may have been processed, so the next one
//! sends all fields; the coordinator answers that with all fields.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::consumer::group::{
    actions::AttemptId,
    consumer_protocol::actions::{HeartbeatFields, HeartbeatResponse, PartitionsByTopicId, TopicsToSubscribe},
    member_snapshot::Identity,
};

/// Heartbeat interval until the coordinator sends one (`group.consumer.heartbeat.interval.ms`).
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// Brokers do not report the session timeout: assume its default of 45 s
/// (`group.consumer.session.timeout.ms`), or nine heartbeat intervals if longer.
pub(super) const USUAL_SESSION: Duration = Duration::from_secs(45);
const HEARTBEATS_IN_A_SESSION: u32 = 9;

/// The heartbeats of a member, and the fields that the coordinator knows from them.
#[derive(Debug)]
pub(super) struct Heartbeats {
    due: Instant,
    in_flight: Option<InFlight>,
    interval: Duration,
    /// Earliest time at which the coordinator can have last heard from the member: the time at
    /// which the last answered heartbeat was sent.
    alive: Instant,
    /// Time at which the first heartbeat was sent that may have been processed without a response.
    unheard_since: Option<Instant>,
    /// `unheard_since` before the last response: the coordinator cannot have decided that
    /// response's assignment earlier.
    decided: Instant,
    /// The fields that the coordinator is known to have; `None` after an error.
    known: Option<ReportedFields>,
    /// True if the coordinator may have a regular expression that is no longer subscribed to.
    may_know_regex: bool,
    /// The broker that answered last.
    node: Option<i32>,
}

/// A heartbeat without a response.
#[derive(Debug)]
pub(super) struct InFlight {
    attempt: AttemptId,
    sent: Instant,
    reports: ReportedFields,
}

/// The fields that change from heartbeat to heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReportedFields {
    pub(super) wanted: TopicsToSubscribe,
    pub(super) owned: PartitionsByTopicId,
}

impl Heartbeats {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            due: now,
            in_flight: None,
            interval: USUAL_INTERVAL,
            alive: now,
            unheard_since: None,
            decided: now,
            known: None,
            may_know_regex: false,
            node: None,
        }
    }

    // ---- deadlines

    /// Returns the time of the next heartbeat; `None` while one is outstanding.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.in_flight.is_none().then_some(self.due)
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at().is_some_and(|due| now >= due)
    }

    /// Sends the next heartbeat at that time.
    pub(super) fn schedule(&mut self, due: Instant) {
        self.due = due;
    }

    /// Returns the time at which the coordinator may end the session.
    pub(super) fn session_ends(&self) -> Instant {
        self.alive + self.session()
    }

    pub(super) fn session(&self) -> Duration {
        USUAL_SESSION.max(self.interval.saturating_mul(HEARTBEATS_IN_A_SESSION))
    }

    /// Returns the earliest time at which the coordinator can have decided the last assignment.
    pub(super) fn decided(&self) -> Instant {
        self.decided
    }

    // ---- fields

    /// Returns the fields of the next heartbeat: those that the coordinator may not have. A join
    /// sends all of them.
    pub(super) fn compose(&mut self, identity: &Identity, joins: bool, reports: &ReportedFields) -> HeartbeatFields {
        let known = self.known.take().filter(|_| !joins);
        let is_new = |differs: fn(&ReportedFields, &ReportedFields) -> bool| {
            known.as_ref().is_none_or(|known| differs(known, reports))
        };
        let names = is_new(|known, now| known.wanted.names != now.wanted.names);
        let regex = is_new(|known, now| known.wanted.regex != now.wanted.regex)
            && (reports.wanted.regex.is_some() || self.may_know_regex);
        let owned = is_new(|known, now| known.owned != now.owned);
        self.may_know_regex |= reports.wanted.regex.is_some();
        HeartbeatFields {
            member_id: identity.member_id.clone(),
            epoch: if joins { 0 } else { identity.generation },
            full: known.is_none(),
            names: names.then(|| reports.wanted.names.clone()),
            regex: regex.then(|| reports.wanted.regex.clone().unwrap_or_default()),
            owned: owned.then(|| reports.owned.clone()),
        }
    }

    pub(super) fn sent(&mut self, now: Instant, attempt: AttemptId, reports: ReportedFields) {
        self.in_flight = Some(InFlight { attempt, sent: now, reports });
        self.unheard_since.get_or_insert(now);
        self.due = now + self.interval;
    }

    /// Ends the wait for that heartbeat and returns it; `None` if another one, or none, is awaited.
    pub(super) fn ended(&mut self, attempt: AttemptId) -> Option<InFlight> {
        self.in_flight.take_if(|in_flight| in_flight.attempt == attempt)
    }

    /// Ignores the response to the heartbeat in flight.
    pub(super) fn forget_in_flight(&mut self) {
        self.in_flight = None;
    }

    /// Records that the coordinator has processed a heartbeat.
    pub(super) fn answered(&mut self, now: Instant, heartbeat: InFlight, answer: &HeartbeatResponse) {
        self.alive = heartbeat.sent;
        self.decided = self.unheard_since.take().unwrap_or(heartbeat.sent);
        self.interval = answer.interval.unwrap_or(self.interval);
        if self.due > now {
            self.due = heartbeat.sent + self.interval;
        }
        self.may_know_regex = heartbeat.reports.wanted.regex.is_some();
        // A new coordinator receives all fields once.
        let has_moved = self.node.replace(answer.node).is_some_and(|node| node != answer.node);
        self.known = (!has_moved).then_some(heartbeat.reports);
    }

    /// Makes the next heartbeat send all fields, because the coordinator may not have received the
    /// last ones.
    pub(super) fn resend_all_fields(&mut self) {
        self.known = None;
    }

    /// Returns true if the coordinator has an older subscription than this one.
    pub(super) fn knows_other_topics(&self, wanted: &TopicsToSubscribe) -> bool {
        self.known.as_ref().is_some_and(|known| known.wanted != *wanted)
    }

    /// Returns true if the coordinator knows that the member owns these partitions.
    pub(super) fn knows_owned(&self, owned: &PartitionsByTopicId) -> bool {
        self.known.as_ref().is_some_and(|known| known.owned == *owned)
    }

    /// Returns to the state before the first heartbeat of a membership.
    pub(super) fn reset(&mut self) {
        self.in_flight = None;
        self.unheard_since = None;
        self.known = None;
    }
}
