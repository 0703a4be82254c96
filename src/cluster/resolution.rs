//! The time limit of resolving `bootstrap.servers` for the first time
//! (`bootstrap.resolve.timeout.ms`, KIP-909).
//!
//! Sans-IO.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use crate::cluster::deadline::saturating_deadline;

/// Tracks whether a server was ever resolved, and the time by which one has to be.
#[derive(Debug)]
pub(super) struct Resolution {
    bound: Option<(Duration, Instant)>,
    resolved: AtomicBool,
}

impl Resolution {
    /// Starts the time limit; without a timeout there is none.
    pub(super) fn new(timeout: Option<Duration>, now: Instant) -> Self {
        let bound = timeout.map(|timeout| (timeout, saturating_deadline(now, timeout)));
        Self { bound, resolved: AtomicBool::new(false) }
    }

    /// Records that a server was resolved: the client is bootstrapped, and no limit applies from
    /// now on.
    pub(super) fn succeed(&self) {
        self.resolved.store(true, Ordering::Release);
    }

    /// Returns the time by which a server has to be resolved, while none is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.pending().map(|(_, due)| due)
    }

    /// Returns the timeout, if it has passed and no server is resolved.
    pub(super) fn overdue(&self, now: Instant) -> Option<Duration> {
        self.pending().filter(|(_, due)| *due <= now).map(|(timeout, _)| timeout)
    }

    fn pending(&self) -> Option<(Duration, Instant)> {
        self.bound.filter(|_| !self.resolved.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolve_timeout_expires_without_resolved_server() {
        let (timeout, now) = (Duration::from_secs(5), Instant::now());
        let resolution = Resolution::new(Some(timeout), now);
        assert_eq!((resolution.due(), resolution.overdue(now)), (Some(now + timeout), None));
        assert_eq!(resolution.overdue(now + timeout), Some(timeout));
        resolution.succeed();
        assert_eq!((resolution.due(), resolution.overdue(now + timeout)), (None, None));
    }

    #[test]
    fn never_expires_without_resolve_timeout() {
        let resolution = Resolution::new(None, Instant::now());
        assert_eq!((resolution.due(), resolution.overdue(Instant::now())), (None, None));
    }
}
