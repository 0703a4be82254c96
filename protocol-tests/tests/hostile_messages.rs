//! Decodes bodies as a hostile or broken peer would send them, for every message and version: the
//! result is either an error with the position, or a message that can be encoded again.

#![cfg(unix)]

#[path = "common/goldens.rs"]
mod goldens;

use std::collections::BTreeSet;

use bytes::Bytes;
use goldens::{Golden, goldens};
use ottla::{
    ErrorKind,
    any_message::{AnyMessage, MESSAGES},
};

/// Asserts that the error names the message, the version and the position.
fn refused(message: &AnyMessage, version: i16, body: &[u8], error: &ottla::Error) {
    let text = error.to_string();
    let start = format!("{}: version {version}, ", message.name);
    let place = format!(" of {}: ", body.len());
    assert_eq!(error.kind(), ErrorKind::Protocol, "{text}");
    assert!(text.starts_with(&start) && text.contains("byte ") && text.contains(&place), "{text}");
}

/// Decodes a body. If it is accepted, the message is encoded again and must stay the same from then
/// on. Returns true if it was refused.
fn tried(message: &AnyMessage, version: i16, body: Vec<u8>) -> bool {
    let body = Bytes::from(body);
    match message.recode(body.clone(), version) {
        Ok(once) => {
            let again = message.recode(once.bytes.clone().into(), version);
            assert_eq!(again.ok().as_ref(), Some(&once), "{message:?} version {version}: {body:?}");
            false
        }
        Err(error) => {
            refused(message, version, &body, &error);
            true
        }
    }
}

#[test]
fn truncated_body_error_names_position_and_field() {
    let mut tries = 0;
    for Golden { message, version, body, .. } in goldens() {
        for end in 0..body.len() {
            let cut = body.slice(..end);
            let error = message.decode(cut.clone(), version).expect_err("a part of a message");
            refused(message, version, &cut, &error);
            assert!(error.to_string().contains(", field `"), "{error}");
            tries += 1;
        }
        let longer = [&body[..], &[0]].concat();
        assert!(tried(message, version, longer), "{message:?} version {version}, with a byte left over");
    }
    println!("{tries} truncated bodies");
}

#[test]
fn decodes_or_rejects_bodies_with_replaced_bytes() {
    let (mut tries, mut errors) = (0, 0);
    for Golden { message, version, body, .. } in goldens() {
        for at in 0..body.len() {
            for byte in [0xff, 0x00, 0x7f] {
                let mut bent = body.to_vec();
                bent[at] = byte;
                errors += usize::from(tried(message, version, bent));
                tries += 1;
            }
        }
    }
    println!("{tries} bodies with a byte replaced, {errors} of them refused");
    assert!(errors > tries / 10, "{errors} of {tries}");
}

/// Lengths and counts that do not occur in messages: of two bytes, of four, and compact ones.
const LENGTHS: [&[u8]; 11] = [
    &[0xff, 0xff],
    &[0x80, 0x00],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x80, 0x00, 0x00, 0x00],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x00, 0x01, 0x00, 0x00],
    &[0xff, 0xff, 0x03],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x1f],
];

#[test]
fn decodes_or_rejects_bodies_with_impossible_lengths() {
    let (mut tries, mut errors) = (0, 0);
    // The large messages have the same fields.
    for Golden { message, version, body, .. } in goldens().into_iter().filter(|it| it.body.len() < 200) {
        for at in 0..body.len() {
            for length in LENGTHS {
                // Replaces that number of bytes, and also a single byte, because a compact length
                // took one byte there.
                for instead in [length.len(), 1] {
                    let rest = body.get(at + instead..).unwrap_or_default();
                    errors += usize::from(tried(message, version, [&body[..at], length, rest].concat()));
                    tries += 1;
                }
            }
        }
    }
    println!("{tries} bodies with another length, {errors} of them refused");
    assert!(errors > tries / 10, "{errors} of {tries}");
}

#[test]
fn skips_unknown_tags_and_rejects_malformed() {
    let mut pairs = BTreeSet::new();
    // Only messages that end without tagged fields of their own.
    for Golden { message, version, body, .. } in goldens().into_iter().filter(|it| it.body.last() == Some(&0)) {
        if version < message.first_flexible {
            continue;
        }
        let expected = message.recode(body.clone(), version).expect("a golden message");
        let with = |tags: &[u8]| [&body[..body.len() - 1], tags].concat();
        // The final zero of the golden message may also be the value of a field.
        if !matches!(message.recode(with(&[1, 100, 0]).into(), version), Ok(recoded) if recoded == expected) {
            continue;
        }
        pairs.insert((message.name, version));
        for unknown in [&[1, 100, 3, 1, 2, 3][..], &[2, 100, 0, 101, 1, 0xff], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]] {
            let recoded = message.recode(with(unknown).into(), version);
            assert_eq!(recoded.ok().as_ref(), Some(&expected), "{message:?} version {version}, tags {unknown:?}");
        }
        for wrong in [
            &[2, 100, 0, 100, 0][..],
            &[2, 101, 0, 100, 0],
            &[1, 100, 1],
            &[2, 100, 0],
            &[1, 100],
            &[1, 100, 0xff, 0xff, 0xff, 0xff, 0x0f],
            &[0xff, 0xff, 0xff, 0xff, 0x0f],
            &[1, 0xff, 0xff, 0xff, 0xff, 0x1f, 0],
            &[1, 100, 0, 0],
        ] {
            assert!(tried(message, version, with(wrong)), "{message:?} version {version}, tags {wrong:?}");
        }
    }
    for message in MESSAGES {
        for version in message.versions.0.max(message.first_flexible)..=message.versions.1 {
            assert!(pairs.contains(&(message.name, version)), "{message:?} version {version} was not tried");
        }
    }
}

#[test]
fn rejects_strings_that_are_not_utf8() {
    let mut tries = 0;
    for Golden { message, version, json, body } in goldens() {
        let json: serde_json::Value = serde_json::from_str(json).expect("JSON");
        let mut texts = Vec::new();
        strings(&json, &mut texts);
        for text in texts {
            // Bytes and UUIDs are not found, because JSON has them in base64.
            for at in body.windows(text.len()).enumerate().filter(|(_, it)| *it == text.as_bytes()).map(|(at, _)| at) {
                let mut bent = body.to_vec();
                bent[at] = 0xff;
                let error = message.decode(bent.clone().into(), version).expect_err("not UTF-8");
                refused(message, version, &bent, &error);
                assert!(error.to_string().contains("UTF-8"), "{error}");
                tries += 1;
            }
        }
    }
    println!("{tries} texts that are not UTF-8");
    assert!(tries > 1000, "{tries}");
}

/// Collects the strings of a JSON value that are long enough to be found again.
fn strings(json: &serde_json::Value, out: &mut Vec<String>) {
    match json {
        serde_json::Value::String(text) if text.len() > 4 => out.push(text.clone()),
        serde_json::Value::Array(elements) => elements.iter().for_each(|it| strings(it, out)),
        serde_json::Value::Object(fields) => fields.values().for_each(|it| strings(it, out)),
        _ => {}
    }
}
