//! Parses the values of properties.

use std::{ops::RangeInclusive, str::FromStr, time::Duration};

/// The values that [`millis`] allows.
pub(crate) const MILLIS: &str = "milliseconds, 0 or more";
/// The values that [`boolean`] allows.
pub(crate) const BOOLEAN: &str = "true or false";

/// Stands for `Long.MAX_VALUE` and "never": longer than any wait and short enough for every clock.
pub(crate) const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// Parses milliseconds, 0 or more; values above ten years become ten years.
pub(crate) fn millis(value: &str) -> Option<Duration> {
    number::<u64>(value).map(|millis| Duration::from_millis(millis).min(FOREVER))
}

/// Parses milliseconds, 0 or more, with an optional fraction, as librdkafka allows for `linger.ms`;
/// kept to the microsecond.
pub(crate) fn millis_with_fraction(value: &str) -> Option<Duration> {
    let decimal = |value: &str| value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    millis(value).or_else(|| {
        let millis: f64 = Some(value.trim()).filter(|value| decimal(value))?.parse().ok()?;
        let micros = (millis * 1_000.0).round();
        // Above 2^53 the number is no longer exact, and far beyond the bound.
        Some(if micros < 9_007_199_254_740_992.0 { Duration::from_micros(micros as u64).min(FOREVER) } else { FOREVER })
    })
}

/// Parses milliseconds, 1 or more; 0 stands for no bound.
pub(crate) fn millis_or_unbounded(value: &str) -> Option<Duration> {
    millis(value).map(|time| if time.is_zero() { FOREVER } else { time })
}

/// Parses milliseconds, 1 or more.
pub(crate) fn millis_above_zero(value: &str) -> Option<Duration> {
    millis(value).filter(|duration| !duration.is_zero())
}

/// Parses milliseconds, 1 or more; 0 and −1 stand for never.
pub(crate) fn millis_or_never(value: &str) -> Option<Duration> {
    match value.trim() {
        "0" | "-1" => Some(FOREVER),
        value => millis(value),
    }
}

/// Parses `true` or `false`, in any case.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value.trim() {
        v if v.eq_ignore_ascii_case("true") => Some(true),
        v if v.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

/// Parses a whole number.
pub(crate) fn number<T: FromStr>(value: &str) -> Option<T> {
    value.trim().parse().ok()
}

/// Parses a whole number in a range.
pub(crate) fn within<T: FromStr + PartialOrd>(value: &str, range: RangeInclusive<T>) -> Option<T> {
    number(value).filter(|number| range.contains(number))
}

/// Returns the parts of a list between commas, trimmed, without empty ones.
pub(crate) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Parses one of a few names, in any case.
pub(crate) fn one_of<T: Copy>(value: &str, names: &[(&str, T)]) -> Option<T> {
    let value = value.trim();
    names.iter().find(|(name, _)| value.eq_ignore_ascii_case(name)).map(|(_, meant)| *meant)
}

/// Parses a string that is not empty.
pub(crate) fn text(value: &str) -> Option<&str> {
    let value = value.trim();
    (!value.is_empty()).then_some(value)
}
