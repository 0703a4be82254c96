//! The generated messages, both halves of every API, for the fuzzer.

use bytes::Bytes;

use super::any_message::{AnyMessage, MESSAGES};
use crate::error::ErrorKind;

/// A body in a version of a message: the first byte says which message, the second in which
/// version.
fn parts(input: &[u8]) -> Option<(&AnyMessage, i16, Bytes)> {
    let [which, version, body @ ..] = input else { return None };
    let message = MESSAGES.get(usize::from(*which) % MESSAGES.len())?;
    let (first, last) = message.versions;
    Some((message, first + i16::from(*version) % (last - first + 1), Bytes::copy_from_slice(body)))
}

/// A body is decoded and no more, so that the memory is the message's.
pub(crate) fn message(input: &[u8]) {
    let Some((message, version, body)) = parts(input) else { return };
    if let Err(error) = message.decode(body, version) {
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

/// A message that can be decoded is encoded again, and stays the same from then on.
pub(crate) fn recoded_message(input: &[u8]) {
    let Some((message, version, body)) = parts(input) else { return };
    match message.recode(body.clone(), version) {
        Ok(once) => {
            let again = message.recode(once.bytes.clone().into(), version);
            assert_eq!(again.ok(), Some(once));
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Protocol, "{error}"),
    }
}

/// Every version of every message, with the defaults.
pub(crate) fn message_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (which, message) in (0_u8..).zip(MESSAGES) {
        let (first, last) = message.versions;
        for (number, version) in (0_u8..).zip(first..=last) {
            if let Ok(body) = message.default_body(version) {
                seeds.push([&[which, number], &body[..]].concat());
            }
        }
    }
    seeds
}
