//! The times at which a token is replaced, by Java's rules (`sasl.login.refresh.*`).
//!
//! Sans-IO.

use std::time::Duration;

/// Settings of the refresh. The defaults are Java's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RefreshSettings {
    /// `sasl.login.refresh.window.factor`: the part of its lifetime after which a token is
    /// replaced.
    pub(crate) window_factor: f64,
    /// `sasl.login.refresh.window.jitter`: the largest part of the lifetime that is added at
    /// random.
    pub(crate) window_jitter: f64,
    /// `sasl.login.refresh.min.period.seconds`: the shortest time between receiving a token and
    /// replacing it.
    pub(crate) min_period: Duration,
    /// `sasl.login.refresh.buffer.seconds`: the shortest time between replacing a token and its
    /// expiry.
    pub(crate) buffer: Duration,
    /// `sasl.login.retry.backoff.ms` and `….max.ms`: the time for which a failure is returned
    /// before the source is asked again.
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self {
            window_factor: 0.8,
            window_jitter: 0.05,
            min_period: Duration::from_secs(60),
            buffer: Duration::from_secs(300),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(10),
        }
    }
}

impl RefreshSettings {
    /// Returns the delay from receiving a token with this `lifetime` to replacing it; `chance` is a
    /// random number between 0 and 1.
    pub(crate) fn refresh_after(&self, lifetime: Duration, chance: f64) -> Duration {
        let window = lifetime.mul_f64((self.window_factor + self.window_jitter * chance).clamp(0.0, 1.0));
        // If the lifetime is too short for both bounds, neither applies.
        if self.min_period.saturating_add(self.buffer) > lifetime {
            return window;
        }
        window.min(lifetime.saturating_sub(self.buffer)).max(self.min_period)
    }

    /// Returns the backoff after this number of failures in a row (from 1).
    pub(crate) fn retry_after(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.retry_backoff.saturating_mul(doubled).min(self.retry_backoff_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn refresh_delay_respects_window_and_bounds() {
        let settings = RefreshSettings::default();
        assert_eq!(settings.refresh_after(secs(1000), 0.0), secs(700), "300 s before its expiry");
        assert_eq!(settings.refresh_after(secs(10_000), 0.0), secs(8000));
        assert_eq!(settings.refresh_after(secs(10_000), 1.0), secs(8500));
        assert_eq!(settings.refresh_after(secs(100), 0.0), secs(80), "the lifetime is too short for the bounds");
        assert_eq!(settings.refresh_after(secs(360), 0.0), secs(60));
        assert_eq!(settings.refresh_after(secs(0), 0.5), secs(0));
    }

    #[test]
    fn retry_delay_doubles_up_to_ten_seconds() {
        let settings = RefreshSettings::default();
        let waits = [1, 2, 3, 8, 40, u32::MAX].map(|failures| settings.retry_after(failures).as_millis());
        assert_eq!(waits, [100, 200, 400, 10_000, 10_000, 10_000]);
    }
}
