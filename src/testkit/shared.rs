//! The state that the tasks of a cluster share.

use std::{
    sync::{Mutex, MutexGuard, PoisonError, atomic::AtomicU64},
    time::Instant,
};

use tokio::sync::watch;

use super::state::State;

/// The state under its lock, and the channel that wakes waiting tasks when the state changed.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    bell: watch::Sender<()>,
    pub(crate) connections: AtomicU64,
    #[cfg(feature = "tls")]
    pub(crate) tls: Mutex<Option<std::sync::Arc<rustls::ServerConfig>>>,
}

impl Shared {
    pub(crate) fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            bell: watch::Sender::new(()),
            connections: AtomicU64::new(0),
            #[cfg(feature = "tls")]
            tls: Mutex::new(None),
        }
    }

    /// Locks the state; the lock is never held across an await. A panic of another task does not
    /// make the state unusable.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes all tasks that wait for a change.
    pub(crate) fn ring(&self) {
        self.bell.send_replace(());
    }

    pub(crate) fn listen(&self) -> watch::Receiver<()> {
        self.bell.subscribe()
    }
}

/// Returns the time by tokio's clock, which tests can pause.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
