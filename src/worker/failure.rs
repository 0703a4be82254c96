//! Converts errors of handlers into errors of the worker.

use std::{error::Error as StdError, fmt, time::Duration};

use super::schedule::Outcome;
use crate::error::BoxError;
use crate::{
    error::{Error, ErrorKind},
    record::ConsumerRecord,
};

/// Marks an error of a handler as permanent: the worker does not retry the record, and treats it at
/// once like a record after its last attempt (see [`WorkerBuilder`](super::WorkerBuilder)). Errors
/// of kind [`Deserialization`](ErrorKind::Deserialization) need not be wrapped.
///
/// ```
/// use ottla::{BoxError, ConsumerRecord, worker::NonRetriable};
///
/// fn amount(record: &ConsumerRecord) -> Result<u32, BoxError> {
///     let text = record
///         .value_as::<&str>(&ottla::record::KafkaFormats)?
///         .ok_or_else(|| NonRetriable::new("no amount"))?;
///     Ok(text.parse().map_err(NonRetriable::new)?)
/// }
/// ```
#[derive(Debug)]
pub struct NonRetriable(BoxError);

impl NonRetriable {
    /// Marks this error as permanent.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for NonRetriable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for NonRetriable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// The reason why an attempt failed.
pub(super) enum Cause {
    Error(BoxError),
    Panic(String),
    Timeout(Duration),
}

/// Returns the outcome of a failed attempt at these records.
pub(super) fn failed(records: &[ConsumerRecord], attempt: u32, cause: Cause) -> Outcome {
    let (again, what, source) = match cause {
        Cause::Error(error) => (may_pass(&*error), format!("failed: {error}"), Some(error)),
        Cause::Panic(said) => (true, format!("panicked: {said}"), None),
        Cause::Timeout(after) => (true, format!("took longer than {} ms", after.as_millis()), None),
    };
    let Some(first) = records.first() else {
        return Outcome::Failed { error: Error::new(ErrorKind::Handler, what), again };
    };
    let more = if records.len() > 1 { format!(" and {} after it", records.len() - 1) } else { String::new() };
    let message = format!(
        "{}[{}], offset {}{more}: attempt {attempt} of the handler {what}",
        first.topic, first.partition, first.offset
    );
    let error = Error::new(ErrorKind::Handler, message).at(first.topic.clone(), first.partition, first.offset);
    Outcome::Failed { error: source.map_or_else(|| error.clone(), |source| error.clone().with_source(source)), again }
}

/// Returns true if another attempt may succeed.
fn may_pass(error: &(dyn StdError + Send + Sync + 'static)) -> bool {
    let malformed = |error: &Error| error.kind() == ErrorKind::Deserialization;
    !error.is::<NonRetriable>() && !error.downcast_ref::<Error>().is_some_and(malformed)
}
