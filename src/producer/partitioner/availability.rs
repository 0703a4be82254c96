//! Finds the brokers that take no data for longer than `partitioner.availability.timeout.ms`.
//!
//! Data waits for a broker when its partitions are ready and no request may be sent to it, or when
//! a request to it failed. The wait ends when the broker has answered a request. Java compares the
//! times at which a node was last ready and last drained, which has the same effect: a node that is
//! not connected, or that has the maximum number of requests in flight, is not drained.
//!
//! Sans-IO.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The brokers for which data waits.
#[derive(Debug)]
pub(crate) struct Availability {
    /// `None` if the partitioner ignores availability.
    timeout: Option<Duration>,
    brokers: HashMap<i32, BrokerAvailability>,
}

#[derive(Debug, Default)]
struct BrokerAvailability {
    /// Time since which data waits for the broker.
    since: Option<Instant>,
    clogged: bool,
    /// True if a check of this broker is scheduled: once, however often it answers until then.
    timer: bool,
}

/// The result of a scheduled check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AvailabilityCheck {
    /// Data has waited too long; the broker counts as unavailable from now on.
    Clogged,
    /// Time of the next check.
    Again(Instant),
    Nothing,
}

impl Availability {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, brokers: HashMap::new() }
    }

    /// Returns true if the partitioner uses availability.
    pub(crate) fn is_heeded(&self) -> bool {
        self.timeout.is_some()
    }

    /// Records that data waits for a broker. Returns the time at which to check it, unless a check
    /// is already scheduled.
    pub(crate) fn waits(&mut self, node: i32, now: Instant) -> Option<Instant> {
        let timeout = self.timeout?;
        let broker = self.brokers.entry(node).or_default();
        let since = *broker.since.get_or_insert(now);
        if broker.timer || broker.clogged {
            return None;
        }
        broker.timer = true;
        Some(since + timeout)
    }

    /// Records an answer of a broker. Returns true if it was unavailable until now.
    pub(crate) fn answered(&mut self, node: i32) -> bool {
        let Some(broker) = self.brokers.get_mut(&node) else { return false };
        broker.since = None;
        std::mem::take(&mut broker.clogged)
    }

    /// Carries out the scheduled check of a broker.
    pub(crate) fn look(&mut self, node: i32, now: Instant) -> AvailabilityCheck {
        let Some((timeout, broker)) = self.timeout.zip(self.brokers.get_mut(&node)) else {
            return AvailabilityCheck::Nothing;
        };
        broker.timer = false;
        match broker.since.map(|since| since + timeout) {
            Some(at) if at <= now => {
                broker.clogged = true;
                AvailabilityCheck::Clogged
            }
            Some(at) => {
                broker.timer = true;
                AvailabilityCheck::Again(at)
            }
            None => AvailabilityCheck::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_millis(100);

    #[test]
    fn unanswered_broker_becomes_unavailable_after_timeout() {
        let mut availability = Availability::new(Some(TIMEOUT));
        let start = Instant::now();
        assert_eq!(availability.waits(1, start), Some(start + TIMEOUT));
        assert_eq!(availability.waits(1, start + TIMEOUT / 2), None, "a check is already scheduled");
        assert_eq!(availability.look(2, start + TIMEOUT), AvailabilityCheck::Nothing, "no data waits for this broker");
        assert_eq!(availability.look(1, start + TIMEOUT), AvailabilityCheck::Clogged);
        assert_eq!(availability.waits(1, start + TIMEOUT), None, "the broker is already unavailable");
        assert!(availability.answered(1));
        assert!(!availability.answered(1));
        assert_eq!(availability.waits(1, start + TIMEOUT), Some(start + TIMEOUT * 2), "the timeout starts again");
    }

    #[test]
    fn response_in_time_restarts_availability_timeout() {
        let mut availability = Availability::new(Some(TIMEOUT));
        let start = Instant::now();
        availability.waits(1, start);
        assert!(!availability.answered(1), "the broker was available");
        let again = start + TIMEOUT / 2;
        assert_eq!(availability.waits(1, again), None, "a check is already scheduled");
        assert_eq!(availability.look(1, start + TIMEOUT), AvailabilityCheck::Again(again + TIMEOUT));
        assert_eq!(availability.look(1, again + TIMEOUT), AvailabilityCheck::Clogged);
        assert!(availability.answered(1));
        availability.waits(1, again + TIMEOUT);
        availability.answered(1);
        assert_eq!(availability.look(1, again + TIMEOUT * 2), AvailabilityCheck::Nothing, "no data waits any more");
    }

    #[test]
    fn keeps_no_state_without_availability_timeout() {
        let mut availability = Availability::new(None);
        assert!(!availability.is_heeded());
        assert_eq!(availability.waits(1, Instant::now()), None);
        assert!(availability.brokers.is_empty());
    }
}
