//! The logins of all connections of one client: few at a time, and none while the credentials are
//! known to be refused.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::rngs::StdRng;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    address::Address,
    login_gate::{LoginGate, Refusal},
};
use crate::cluster::deadline::now;
use crate::{
    error::{Error, ErrorKind, Result},
    log::{Origin, event},
};

/// Most logins at the same time, so that credentials that have expired are refused a few times, and
/// not once by each broker of a large cluster.
const AT_ONCE: usize = 4;
/// Longest wait of a login for its turn, so that a broker that falls silent during a login delays
/// the others by no more.
const TURN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Logins {
    origin: Origin,
    turns: Semaphore,
    state: Mutex<LoginState>,
}

#[derive(Debug)]
struct LoginState {
    gate: LoginGate,
    rng: StdRng,
    /// The gate has opened, and no caller has learned of it yet.
    reopened: bool,
}

impl Logins {
    pub(super) fn new(origin: Origin, rng: StdRng) -> Self {
        let state = LoginState { gate: LoginGate::new(), rng, reopened: false };
        Self { origin, turns: Semaphore::new(AT_ONCE), state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, LoginState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the refusal that forbids logins now.
    pub(super) fn refusal(&self) -> Option<Error> {
        self.lock().gate.refusal(now())
    }

    /// Returns true if logins succeed again since the last call.
    pub(super) fn take_reopened(&self) -> bool {
        std::mem::take(&mut self.lock().reopened)
    }

    /// Carries out a login at a broker, if one is allowed.
    ///
    /// # Errors
    /// The login's own; the last refusal if no login is allowed.
    ///
    /// # Cancel safety
    /// Safe: a dropped login counts as one without a result.
    pub(super) async fn carry_out<T>(&self, at: &Address, login: impl Future<Output = Result<T>>) -> Result<T> {
        let _turn = timeout(TURN, self.turns.acquire()).await;
        self.lock().gate.begin(now())?;
        let mut attempt = LoginAttempt { logins: self, is_over: false };
        let result = login.await;
        attempt.is_over = true;
        match &result {
            Ok(_) => self.accepted(at),
            Err(error) if error.kind() == ErrorKind::Authentication => self.refused(at, error),
            Err(_) => self.lock().gate.undecided(),
        }
        result
    }

    fn accepted(&self, at: &Address) {
        let mut state = self.lock();
        if state.gate.accepted() {
            state.reopened = true;
            drop(state);
            event!(INFO, self.origin, broker = %at, "logins succeed again");
        }
    }

    fn refused(&self, at: &Address, error: &Error) {
        let (refusal, refusals) = {
            let mut state = self.lock();
            let state = &mut *state;
            (state.gate.refused(at, error.clone(), now(), &mut state.rng), state.gate.refusals())
        };
        match refusal {
            Refusal::Closed(wait) => event!(
                WARN,
                self.origin,
                broker = %at,
                %error,
                refusals,
                wait_s = wait.as_secs(),
                "the broker refused a login; calls fail with this error, and no login is tried during the wait, so that the \
                 account is not locked: correct the mechanism, the credentials, or the user at the broker"
            ),
            Refusal::AlreadyClosed => event!(DEBUG, self.origin, broker = %at, %error, "the broker refused a login"),
            Refusal::OneBroker => event!(
                WARN,
                self.origin,
                broker = %at,
                %error,
                refusals,
                "one broker refused a login that the others accept; the client tries it again after 10 to 60 s"
            ),
        }
    }
}

/// A login under way.
struct LoginAttempt<'a> {
    logins: &'a Logins,
    is_over: bool,
}

impl Drop for LoginAttempt<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.logins.lock().gate.undecided();
        }
    }
}
