//! Values of properties.

use std::time::Duration;

/// Milliseconds, 0 or more.
pub(crate) fn millis(value: &str) -> Option<Duration> {
    value.trim().parse().ok().map(Duration::from_millis)
}

/// `true` or `false`, in any case.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value.trim() {
        v if v.eq_ignore_ascii_case("true") => Some(true),
        v if v.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}
