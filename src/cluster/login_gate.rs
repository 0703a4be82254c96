//! Decides when a client may log in again after its credentials were refused, so that the account
//! is not locked.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;

use super::{Backoff, address::Address};
use crate::cluster::deadline::saturating_deadline;
use crate::error::Error;

/// The first wait of the whole client, and the longest. Each refused login doubles the wait: seven
/// logins in a quarter of an hour.
const WAITS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// Number of brokers that have to refuse, without a successful login in between, before the
/// credentials count as refused as such; fewer may only be out of step with the others.
const BROKERS: usize = 2;

/// Counts the refused logins of all connections of one client.
///
/// As long as the credentials have not been accepted by any broker, one refusal closes the gate.
/// Once they have been accepted, refusals by several brokers close it. A closed gate lets one login
/// through after its wait, and opens with the first login that succeeds.
#[derive(Debug)]
pub(super) struct LoginGate {
    backoff: Backoff,
    proven: bool,
    /// The brokers that refused since the last login that succeeded.
    refused_by: Vec<Address>,
    refusals: u32,
    closed: Option<Closed>,
}

#[derive(Debug)]
struct Closed {
    until: Instant,
    /// A login is under way that tests the credentials.
    probing: bool,
    error: Error,
}

/// The consequence of a refused login for the whole client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The gate is closed: logins are not tried during this wait.
    Closed(Duration),
    /// The login was begun before the gate was closed, and changes nothing.
    AlreadyClosed,
    /// The other brokers may be logged in to.
    OneBroker,
}

impl LoginGate {
    pub(super) fn new() -> Self {
        Self {
            backoff: Backoff::new(WAITS.0, WAITS.1),
            proven: false,
            refused_by: Vec::new(),
            refusals: 0,
            closed: None,
        }
    }

    /// Returns the refusal that forbids a login now.
    pub(super) fn refusal(&self, now: Instant) -> Option<Error> {
        let closed = self.closed.as_ref().filter(|closed| closed.probing || now < closed.until)?;
        let left = closed.until.saturating_duration_since(now).as_secs().saturating_add(1);
        let context = match closed.probing {
            true => "the next login is under way".to_owned(),
            false => format!("the next login is tried in {left} s, so that the account is not locked"),
        };
        Some(closed.error.clone().context(format_args!("{} refused logins, {context}", self.refusals)))
    }

    /// Begins a login: [`accepted`](Self::accepted), [`refused`](Self::refused) or
    /// [`undecided`](Self::undecided) follows.
    ///
    /// # Errors
    /// The last refusal, while the gate is closed.
    pub(super) fn begin(&mut self, now: Instant) -> Result<(), Error> {
        match self.refusal(now) {
            Some(error) => Err(error),
            None => {
                if let Some(closed) = &mut self.closed {
                    closed.probing = true;
                }
                Ok(())
            }
        }
    }

    /// Records that a broker accepted the credentials. Returns true if the gate was closed.
    pub(super) fn accepted(&mut self) -> bool {
        self.proven = true;
        self.refused_by.clear();
        self.refusals = 0;
        self.backoff.reset();
        self.closed.take().is_some()
    }

    /// Records that the broker at this address refused the credentials.
    pub(super) fn refused(&mut self, by: &Address, error: Error, now: Instant, rng: &mut StdRng) -> Refusal {
        self.refusals = self.refusals.saturating_add(1);
        if !self.refused_by.contains(by) && self.refused_by.len() < BROKERS {
            self.refused_by.push(by.clone());
        }
        if self.closed.as_ref().is_some_and(|closed| !closed.probing && now < closed.until) {
            return Refusal::AlreadyClosed;
        }
        if self.proven && self.refused_by.len() < BROKERS {
            return Refusal::OneBroker;
        }
        self.proven = false;
        let wait = self.backoff.next(rng);
        self.closed = Some(Closed { until: saturating_deadline(now, wait), probing: false, error });
        Refusal::Closed(wait)
    }

    /// Returns the number of logins refused since the last one that succeeded.
    pub(super) fn refusals(&self) -> u32 {
        self.refusals
    }

    /// Records a login that ended without a result for the credentials: the next one may be tried.
    pub(super) fn undecided(&mut self) {
        if let Some(closed) = &mut self.closed {
            closed.probing = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::error::ErrorKind;

    const SECOND: Duration = Duration::from_secs(1);

    fn broker(port: u16) -> Address {
        Address { host: "broker".to_owned(), port }
    }

    fn wrong() -> Error {
        Error::new(ErrorKind::Authentication, "wrong password")
    }

    /// The times, in seconds, at which logins are let through when each is refused.
    fn attempts(gate: &mut LoginGate, from: Instant, seconds: u64) -> Vec<u64> {
        let mut rng = StdRng::seed_from_u64(7);
        let mut attempts = Vec::new();
        for second in 0..seconds {
            let now = from + second as u32 * SECOND;
            if gate.begin(now).is_ok() {
                attempts.push(second);
                gate.refused(&broker(1 + (second % 20) as u16), wrong(), now, &mut rng);
            }
        }
        attempts
    }

    #[test]
    fn unproven_credentials_double_login_backoff() {
        let attempts = attempts(&mut LoginGate::new(), Instant::now(), 3600);
        assert!(attempts.iter().filter(|second| **second < 900).count() <= 7, "{attempts:?}");
        let waits: Vec<_> = attempts.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(waits[0] >= 8 && waits.iter().all(|wait| *wait <= 601), "{waits:?}");
        assert!(waits.last().unwrap() > &470, "the longest wait is reached: {waits:?}");
    }

    #[test]
    fn refusals_by_one_broker_keep_gate_open() {
        let (mut gate, now, mut rng) = (LoginGate::new(), Instant::now(), StdRng::seed_from_u64(7));
        gate.begin(now).unwrap();
        assert!(!gate.accepted());
        for refusals in 1..5 {
            gate.begin(now).unwrap();
            assert_eq!(gate.refused(&broker(1), wrong(), now, &mut rng), Refusal::OneBroker);
            assert_eq!(gate.refusals(), refusals);
        }
        gate.begin(now).unwrap();
        let refusal = gate.refused(&broker(2), wrong(), now, &mut rng);
        assert!(matches!(refusal, Refusal::Closed(_)), "two brokers refuse: {refusal:?}");
        assert!(gate.begin(now).is_err());
    }

    #[test]
    fn closed_gate_lets_one_login_through() {
        let (mut gate, now, mut rng) = (LoginGate::new(), Instant::now(), StdRng::seed_from_u64(7));
        gate.begin(now).unwrap();
        let Refusal::Closed(wait) = gate.refused(&broker(1), wrong(), now, &mut rng) else { panic!("open") };
        // Logins that were under way do not lengthen the wait.
        assert_eq!(gate.refused(&broker(2), wrong(), now, &mut rng), Refusal::AlreadyClosed);
        let error = gate.begin(now + wait / 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication);
        assert!(error.to_string().contains("2 refused logins, the next login is tried in"), "{error}");
        gate.begin(now + wait).unwrap();
        assert!(gate.begin(now + wait).unwrap_err().to_string().contains("under way"));
        gate.undecided();
        gate.begin(now + wait).unwrap();
        assert!(gate.accepted(), "it was closed");
        gate.begin(now + wait).unwrap();
        gate.begin(now + wait).unwrap();
    }
}
