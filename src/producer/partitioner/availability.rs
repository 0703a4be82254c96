//! Which brokers take no data for longer than `partitioner.availability.timeout.ms`.
//!
//! Data waits for a broker when its partitions are ready and no request may be sent to it, or when
//! a request to it failed; it waits no longer when the broker has answered one. Java compares the
//! times at which a node was last ready to be sent to and last drained, which comes to the same: a
//! node that is not connected, or that has its fill of requests in flight, is not drained.
//!
//! Sans-IO.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The brokers that data waits for.
#[derive(Debug)]
pub(crate) struct Availability {
    /// `None` where the partitioner is not to heed it.
    timeout: Option<Duration>,
    brokers: HashMap<i32, BrokerAvailability>,
}

#[derive(Debug, Default)]
struct BrokerAvailability {
    /// Since when data waits for it.
    since: Option<Instant>,
    clogged: bool,
    /// Whether its time to be looked at is set: once, however often it answers until then.
    timer: bool,
}

/// What is found at the time at which a broker is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AvailabilityCheck {
    /// Data has waited too long for it, from now on.
    Clogged,
    /// It is to be looked at again then.
    Again(Instant),
    Nothing,
}

impl Availability {
    pub(crate) fn new(timeout: Option<Duration>) -> Self {
        Self { timeout, brokers: HashMap::new() }
    }

    /// Whether it is to be told anything.
    pub(crate) fn is_heeded(&self) -> bool {
        self.timeout.is_some()
    }

    /// Data waits for a broker. Gives the time at which it is to be looked at, if that is not known
    /// yet.
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

    /// A broker has answered. Gives whether it was clogged until now.
    pub(crate) fn answered(&mut self, node: i32) -> bool {
        let Some(broker) = self.brokers.get_mut(&node) else { return false };
        broker.since = None;
        std::mem::take(&mut broker.clogged)
    }

    /// The time has come to look at a broker.
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
        assert_eq!(availability.waits(1, start + TIMEOUT / 2), None, "it waits already");
        assert_eq!(availability.look(2, start + TIMEOUT), AvailabilityCheck::Nothing, "nothing waits for that one");
        assert_eq!(availability.look(1, start + TIMEOUT), AvailabilityCheck::Clogged);
        assert_eq!(availability.waits(1, start + TIMEOUT), None, "that is known");
        assert!(availability.answered(1));
        assert!(!availability.answered(1));
        assert_eq!(availability.waits(1, start + TIMEOUT), Some(start + TIMEOUT * 2), "it begins again");
    }

    #[test]
    fn response_in_time_restarts_availability_timeout() {
        let mut availability = Availability::new(Some(TIMEOUT));
        let start = Instant::now();
        availability.waits(1, start);
        assert!(!availability.answered(1), "it was not clogged");
        let again = start + TIMEOUT / 2;
        assert_eq!(availability.waits(1, again), None, "it will be looked at before");
        assert_eq!(availability.look(1, start + TIMEOUT), AvailabilityCheck::Again(again + TIMEOUT));
        assert_eq!(availability.look(1, again + TIMEOUT), AvailabilityCheck::Clogged);
        assert!(availability.answered(1));
        availability.waits(1, again + TIMEOUT);
        availability.answered(1);
        assert_eq!(availability.look(1, again + TIMEOUT * 2), AvailabilityCheck::Nothing, "nothing waits any more");
    }

    #[test]
    fn keeps_no_state_without_availability_timeout() {
        let mut availability = Availability::new(None);
        assert!(!availability.is_heeded());
        assert_eq!(availability.waits(1, Instant::now()), None);
        assert!(availability.brokers.is_empty());
    }
}
