//! The reconnect backoff of one broker.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::Backoff;
use crate::cluster::deadline::saturating_deadline;
use crate::{
    error::{Error, ErrorKind},
    log::{Lasting, Outage},
};

/// First and longest wait after a refusal (kind `Authentication`), which another attempt does not
/// cure.
const REFUSED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// Decides when one broker may be connected to again, and how long an attempt may take.
#[derive(Debug)]
pub(super) struct Reconnect {
    backoff: Backoff,
    refused: Backoff,
    setup: Backoff,
    /// `socket.connection.setup.timeout.ms` of the next attempt.
    setup_timeout: Duration,
    settled: Duration,
    not_before: Option<Instant>,
    last_failure: Option<Error>,
    outage: Outage,
}

/// Shortest outage that is logged. A broker that restarts is usually back sooner.
const RESTART: Duration = Duration::from_secs(10);

impl Reconnect {
    pub(super) fn new(backoff: (Duration, Duration), setup: (Duration, Duration), rng: &mut StdRng) -> Self {
        let mut timeouts = Backoff::new(setup.0, setup.1);
        let setup_timeout = timeouts.next(rng);
        Self {
            backoff: Backoff::new(backoff.0, backoff.1),
            refused: Backoff::new(REFUSED.0.max(backoff.0), REFUSED.1.max(backoff.1)),
            setup: timeouts,
            setup_timeout,
            settled: backoff.1,
            not_before: None,
            last_failure: None,
            outage: Outage::after(RESTART),
        }
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    pub(super) fn setup_timeout(&self) -> Duration {
        self.setup_timeout
    }

    /// Returns the error of the last failure, unless the broker was connected to since.
    pub(super) fn last_failure(&self) -> Option<&Error> {
        self.last_failure.as_ref()
    }

    /// Returns the refusal that is in backoff: no attempt is made meanwhile, and callers get this
    /// error at once.
    pub(super) fn refusal(&self, now: Instant) -> Option<&Error> {
        self.last_failure().filter(|error| is_refusal(error) && self.not_before.is_some_and(|until| now < until))
    }

    /// Lets a broker that refused the client's credentials be tried again at once, because other
    /// brokers accept them now.
    pub(super) fn forgive(&mut self) {
        if self.last_failure.as_ref().is_some_and(is_refusal) {
            self.refused.reset();
            self.not_before = None;
        }
    }

    /// Records that a connection was made. Returns the length of the outage, if the outage was
    /// logged.
    pub(super) fn connected(&mut self, now: Instant, rng: &mut StdRng) -> Option<Lasting> {
        self.refused.reset();
        self.setup.reset();
        self.setup_timeout = self.setup.next(rng);
        self.last_failure = None;
        self.outage.ended(now)
    }

    /// Records a failed attempt. Returns the length of the outage so far, if it is to be logged.
    pub(super) fn failed(&mut self, error: Error, now: Instant, rng: &mut StdRng) -> Option<Lasting> {
        self.setup_timeout = self.setup.next(rng);
        self.wait(error, now, rng);
        self.outage.failed(now)
    }

    /// Records that a connection ended. A connection that had lasted longer than
    /// `reconnect.backoff.max.ms` and did not end with a refusal is replaced at once; any other
    /// counts as a failure, otherwise a broker that accepts and then hangs up would be connected to
    /// in a loop. Returns the length of the outage so far, if it is to be logged.
    pub(super) fn ended(&mut self, reason: &Error, lived: Duration, now: Instant, rng: &mut StdRng) -> Option<Lasting> {
        if lived > self.settled && !is_refusal(reason) {
            self.backoff.reset();
            self.not_before = None;
            return None;
        }
        self.wait(reason.clone(), now, rng);
        self.outage.failed(now)
    }

    fn wait(&mut self, error: Error, now: Instant, rng: &mut StdRng) {
        let backoff = if is_refusal(&error) { &mut self.refused } else { &mut self.backoff };
        self.not_before = Some(saturating_deadline(now, backoff.next(rng)));
        self.last_failure = Some(error);
    }
}

fn is_refusal(error: &Error) -> bool {
    error.kind() == ErrorKind::Authentication
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn authentication_failure_backs_off_and_fails_immediately() {
        let rng = &mut StdRng::seed_from_u64(1);
        let mut now = Instant::now();
        let mut node = Reconnect::new((ms(50), ms(1000)), (ms(10_000), ms(30_000)), rng);
        let refused = || Error::new(ErrorKind::Authentication, "no");
        let mut waits = Vec::new();
        for _ in 0..6 {
            node.failed(refused(), now, rng);
            assert_eq!(node.refusal(now).unwrap().to_string(), "no");
            waits.push(node.not_before().unwrap() - now);
            now = node.not_before().unwrap();
            assert!(node.refusal(now).is_none(), "it is tried again");
        }
        assert!(waits[0] >= ms(8000) && waits[5] >= ms(48_000) && waits[5] <= ms(60_000), "{waits:?}");
        node.failed(refused(), now, rng);
        node.forgive();
        assert_eq!((node.not_before(), node.refusal(now).is_some()), (None, false));
        // A connection that lasted until its re-authentication failed.
        node.connected(now, rng);
        node.ended(&refused(), ms(60_000), now, rng);
        assert!(node.refusal(now).is_some());
        node.failed(Error::new(ErrorKind::Network, "refused"), now, rng);
        assert!(node.refusal(now).is_none(), "a broken connection is no refusal");
    }

    #[test]
    fn failures_extend_backoff_until_connection_lasts() {
        let rng = &mut StdRng::seed_from_u64(1);
        let now = Instant::now();
        let mut node = Reconnect::new((ms(50), ms(1000)), (ms(10_000), ms(30_000)), rng);
        assert_eq!(node.not_before(), None);
        assert!(node.setup_timeout() <= ms(12_000));
        let mut last = Duration::ZERO;
        for _ in 0..5 {
            node.failed(Error::new(ErrorKind::Network, "refused"), now, rng);
            let wait = node.not_before().unwrap() - now;
            assert!(wait > last);
            last = wait;
        }
        assert!(node.setup_timeout() >= ms(24_000));
        assert_eq!(node.last_failure().unwrap().to_string(), "refused");

        assert_eq!(node.connected(now, rng), None, "a short outage is not logged");
        assert!(node.setup_timeout() <= ms(12_000));
        assert!(node.last_failure().is_none());
        let reason = Error::new(ErrorKind::Network, "closed");
        node.ended(&reason, ms(10), now, rng);
        assert_eq!(node.last_failure().unwrap().to_string(), "closed");
        assert!(node.not_before().unwrap() - now > ms(700), "a connection that broke at once backs off further");
        node.ended(&reason, ms(60_000), now, rng);
        assert_eq!(node.not_before(), None, "one that lasted is replaced at once");
        node.ended(&reason, ms(10), now, rng);
        assert!(node.not_before().unwrap() - now <= ms(60));
    }
}
