//! Helpers of the tests that use the client; the fixture itself does not depend on it.

use ottla::Record;
use protocol_tests::Message;

/// Converts the message to Ottla's record.
pub(crate) fn record<'a>(topic: &'a str, message: &'a Message) -> Record<'a> {
    let mut record = Record::to(topic);
    if let Some(key) = &message.key {
        record = record.with_key(key);
    }
    if let Some(value) = &message.value {
        record = record.with_value(value);
    }
    for (name, value) in &message.headers {
        record = match value {
            Some(value) => record.with_header(name.as_str(), value),
            None => record.with_null_header(name.as_str()),
        };
    }
    record
}
