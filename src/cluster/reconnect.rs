use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::{Backoff, later::later};
use crate::error::Error;

/// When one broker may be connected to again, and for how long an attempt may take.
#[derive(Debug)]
pub(super) struct Reconnect {
    backoff: Backoff,
    setup: Backoff,
    /// `socket.connection.setup.timeout.ms` of the next attempt.
    setup_timeout: Duration,
    settled: Duration,
    not_before: Option<Instant>,
    last_failure: Option<Error>,
}

impl Reconnect {
    pub(super) fn new(backoff: (Duration, Duration), setup: (Duration, Duration), rng: &mut StdRng) -> Self {
        let mut timeouts = Backoff::new(setup.0, setup.1);
        let setup_timeout = timeouts.next(rng);
        Self {
            backoff: Backoff::new(backoff.0, backoff.1),
            setup: timeouts,
            setup_timeout,
            settled: backoff.1,
            not_before: None,
            last_failure: None,
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

    pub(super) fn connected(&mut self, rng: &mut StdRng) {
        self.setup.reset();
        self.setup_timeout = self.setup.next(rng);
        self.last_failure = None;
    }

    pub(super) fn failed(&mut self, error: Error, now: Instant, rng: &mut StdRng) {
        self.setup_timeout = self.setup.next(rng);
        self.last_failure = Some(error);
        self.wait(now, rng);
    }

    /// A connection ended. One that had lasted is replaced at once; one that broke right away counts as a failure, or a
    /// broker that accepts and then hangs up would be connected to in a loop.
    pub(super) fn ended(&mut self, reason: &Error, lived: Duration, now: Instant, rng: &mut StdRng) {
        if lived > self.settled {
            self.backoff.reset();
            self.not_before = None;
        } else {
            self.last_failure = Some(reason.clone());
            self.wait(now, rng);
        }
    }

    fn wait(&mut self, now: Instant, rng: &mut StdRng) {
        self.not_before = Some(later(now, self.backoff.next(rng)));
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::error::ErrorKind;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn failures_back_off_and_lengthen_the_timeout_until_a_connection_lasts() {
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

        node.connected(rng);
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
