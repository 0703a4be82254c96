//! The fuzz targets for the generated messages, requests and responses of every API.

use bytes::Bytes;

use super::any_message::{AnyMessage, MESSAGES};
use crate::error::ErrorKind;

/// Splits the input into a message, a version and a body: the first byte selects the message, the
/// second the version.
fn parts(input: &[u8]) -> Option<(&AnyMessage, i16, Bytes)> {
    let [which, version, body @ ..] = input else { return None };
    let message = MESSAGES.get(usize::from(*which) % MESSAGES.len())?;
    let (first, last) = message.versions;
    Some((message, first + i16::from(*version) % (last - first + 1), Bytes::copy_from_slice(body)))
}

/// Only decodes a body, so that the measured memory is the message's.
pub(crate) fn message(input: &[u8]) {
    let Some((message, version, body)) = parts(input) else { return };
    if let Err(error) = message.decode(body, version) {
        assert_eq!(error.kind(), ErrorKind::Protocol, "{error}");
    }
}

/// Encodes a message that can be decoded; from then on it must stay the same.
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

/// Encodes every version of every message, with the defaults.
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
