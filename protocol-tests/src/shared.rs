//! One cluster for all tests of a binary, and skipping of tests if Kafka cannot run.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::OnceCell;

use crate::error::Error;
use crate::jars::Version;
use crate::kafka::Kafka;

/// Returns the shared cluster: one node of the default version, started by the first test that
/// asks. Returns `None` if Kafka cannot run on this machine, after saying so.
///
/// It ends with the process. Tests share it, so each uses topics and groups of its own (see
/// [`unique`]) and none kills it.
///
/// # Panics
/// If Kafka can run but did not come up, or cannot run and `CI=true`: both fail the test.
///
/// # Cancel safety
/// When the future is dropped early, the next caller starts again.
pub async fn shared() -> Option<&'static Kafka> {
    static SHARED: OnceCell<Result<Kafka, Error>> = OnceCell::const_new();
    match SHARED.get_or_init(|| Kafka::builder().start_seated(None)).await {
        Ok(kafka) => Some(kafka),
        Err(error) => {
            skip(error);
            None
        }
    }
}

/// Returns the value, or `None` for `Unavailable` after one line that names the skipped tests and
/// the reason.
///
/// # Panics
/// On any other error, and on `Unavailable` if `CI=true`: both fail the test.
#[track_caller]
pub fn or_skip<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            skip(&error);
            None
        }
    }
}

#[track_caller]
fn skip(error: &Error) {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    if ci || !error.is_unavailable() {
        panic!("{error}");
    }
    // Printed once for each reason, not for each test: usually a whole binary is skipped for the
    // same reason.
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let reason = error.to_string();
    if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(reason.clone()) {
        let tests = std::env::current_exe().ok();
        let tests = tests.as_deref().and_then(Path::file_stem).map(|name| name.to_string_lossy().into_owned());
        let tests = tests.as_deref().and_then(|name| name.rsplit_once('-')).map_or("these tests", |(name, _)| name);
        crate::say(&format!("LEFT OUT of `{tests}`, whatever needs it: {reason}"));
    }
}

/// Returns true if the version that tests run against is `minimum` (as `4.0`) or newer. Otherwise
/// prints one line that says that the calling test is not for that version, and why.
///
/// # Panics
/// If `minimum` or the version in the environment is invalid.
#[track_caller]
pub fn needs(minimum: &str, reason: &str) -> bool {
    let applies = at_least(minimum);
    if !applies {
        // The harness names the thread of a test after the test.
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("a test");
        let version = crate::default_version();
        crate::say(&format!("NOT FOR KAFKA {version}: {test}: needs {minimum}: {reason}"));
    }
    applies
}

/// Returns true if the version that tests run against is `minimum` (as `4.0`) or newer.
///
/// # Panics
/// If `minimum` or the version in the environment is invalid.
#[track_caller]
pub fn at_least(minimum: &str) -> bool {
    let parse = |text: &str| Version::parse(text).unwrap_or_else(|error| panic!("{error}"));
    parse(&crate::default_version()).number >= parse(&format!("{minimum}.0")).number
}

/// Returns true if producers can be idempotent: brokers of 2.8, the first with KRaft, assign no
/// producer ids.
///
/// # Panics
/// If the version in the environment is invalid.
pub fn has_producer_ids() -> bool {
    at_least("3.0")
}

/// Returns a name for a topic, group or transaction that no other test of this or another process
/// uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
