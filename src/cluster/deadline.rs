use std::time::{Duration, Instant};

/// Far enough for never, near enough that adding it to an instant cannot overflow.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// `now + wait`, where the wait may be any duration that a user can configure.
pub(super) fn saturating_deadline(now: Instant, wait: Duration) -> Instant {
    now + wait.min(NEVER)
}

/// [`later`] on tokio's clock.
pub(super) fn saturating_tokio_deadline(now: tokio::time::Instant, wait: Duration) -> tokio::time::Instant {
    now + wait.min(NEVER)
}

/// Now, on tokio's clock, so that paused time is seen.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
