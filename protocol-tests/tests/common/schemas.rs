//! Kafka's jar with the message schemas.

use protocol_tests::{Error, or_skip};

/// Fetches the jar if it is missing; without Maven it says so and the test is skipped, or fails if
/// `CI=true`.
pub(crate) fn jar_is_here() -> bool {
    let jar = generator::fetch(generator::VERSION).map_err(|error| Error::Unavailable(error.to_string()));
    or_skip(jar).is_some()
}
