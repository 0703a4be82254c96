//! `messages.golden`: messages of every API and version, with random contents, as Kafka's own
//! classes write them.
//!
//! A line is the API, the half, the version, the content as Kafka's JSON, and the body in
//! hexadecimal, with tabs between.

use bytes::Bytes;
use ottla::any_message::{AnyMessage, MESSAGES};

/// The file.
pub(crate) const TEXT: &str = include_str!("../messages.golden");

/// One line of the file.
pub(crate) struct Golden {
    pub(crate) message: &'static AnyMessage,
    pub(crate) version: i16,
    pub(crate) json: &'static str,
    pub(crate) body: Bytes,
}

/// Returns all lines.
pub(crate) fn goldens() -> Vec<Golden> {
    TEXT.lines().map(|line| read(line).unwrap_or_else(|| panic!("not a golden message: {line}"))).collect()
}

fn read(line: &'static str) -> Option<Golden> {
    let mut fields = line.split('\t');
    let (api, half, version) = (fields.next()?, fields.next()?, fields.next()?.parse().ok()?);
    let (json, hex) = (fields.next()?, fields.next()?);
    let message = MESSAGES.iter().find(|it| it.api.to_string() == api && self::half(it) == half)?;
    let (digits, rest) = hex.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok();
    let body = digits.iter().map(byte).collect::<Option<Vec<u8>>>().filter(|_| rest.is_empty())?;
    Some(Golden { message, version, json, body: body.into() })
}

/// Returns the half of its API that a message is.
pub(crate) fn half(message: &AnyMessage) -> &'static str {
    if message.is_request() { "request" } else { "response" }
}
