use std::time::{Duration, Instant};

/// Longest wait that is added: long enough to mean never, short enough not to overflow an instant.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// Returns `now + wait`, for any wait that a user can configure.
pub(super) fn saturating_deadline(now: Instant, wait: Duration) -> Instant {
    now + wait.min(NEVER)
}

/// Like [`saturating_deadline`], but on tokio's clock.
pub(super) fn saturating_tokio_deadline(now: tokio::time::Instant, wait: Duration) -> tokio::time::Instant {
    now + wait.min(NEVER)
}

/// Returns the time of tokio's clock, so that tests can pause it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
