//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::Backoff;
use crate::cluster::deadline::saturating_deadline;
use crate::{
    error::{Error, ErrorKind},
    log::{Lasting, Outage},
};

/// The waits after a peer and this client did not accept each other, which trying again does not
/// cure.
const REFUSED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// When one broker may be connected to again, and for how long an attempt may take.
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

/// A broker that restarts is back after less than this, as a rule: the log is not told of it.
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

    /// Why the broker could not be reached the last time, unless it could be reached since.
    pub(super) fn last_failure(&self) -> Option<&Error> {
        self.last_failure.as_ref()
    }

    /// The refusal for which nothing is tried now: callers get this error, and do not wait.
    pub(super) fn refusal(&self, now: Instant) -> Option<&Error> {
        self.last_failure().filter(|error| is_refusal(error) && self.not_before.is_some_and(|until| now < until))
    }

    /// Lets a broker be tried again at once that refused the client's credentials: others accept
    /// them now.
    pub(super) fn forgive(&mut self) {
        if self.last_failure.as_ref().is_some_and(is_refusal) {
            self.refused.reset();
            self.not_before = None;
        }
    }

    /// A connection stands. Returns how long there was none, if the log was told of that.
    pub(super) fn connected(&mut self, now: Instant, rng: &mut StdRng) -> Option<Lasting> {
        self.refused.reset();
        self.setup.reset();
        self.setup_timeout = self.setup.next(rng);
        self.last_failure = None;
        self.outage.ended(now)
    }

    /// There is no connection. Returns how long that goes on, if the log is to be told of it.
    pub(super) fn failed(&mut self, error: Error, now: Instant, rng: &mut StdRng) -> Option<Lasting> {
        self.setup_timeout = self.setup.next(rng);
        self.wait(error, now, rng);
        self.outage.failed(now)
    }

    /// A connection ended. One that had lasted is replaced at once; one that broke right away
    /// counts as a failure, or a broker that accepts and then hangs up would be connected to in a
    /// loop. As for [`failed`](Self::failed), returns whether the log is to be told.
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
        // A connection that could not authenticate again had lasted.
        node.connected(now, rng);
        node.ended(&refused(), ms(60_000), now, rng);
        assert!(node.refusal(now).is_some());
        node.failed(Error::new(ErrorKind::Network, "refused"), now, rng);
        assert!(node.refusal(now).is_none(), "a broken connection is waited for");
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

        assert_eq!(node.connected(now, rng), None, "an outage of a moment is not told");
        assert!(node.setup_timeout() <= ms(12_000));
        assert!(node.last_failure().is_none());
        let reason = Error::new(ErrorKind::Network, "closed");
        node.ended(&reason, ms(10), now, rng);
        assert_eq!(node.last_failure().unwrap().to_string(), "closed");
        assert!(node.not_before().unwrap() - now > ms(700), "a connection that broke at once goes on backing off");
        node.ended(&reason, ms(60_000), now, rng);
        assert_eq!(node.not_before(), None, "one that lasted is replaced at once");
        node.ended(&reason, ms(10), now, rng);
        assert!(node.not_before().unwrap() - now <= ms(60));
    }
}
