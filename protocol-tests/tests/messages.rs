//! Compares the generated messages with those that Kafka's own classes encode, which are in
//! `messages.golden`.

#![cfg(unix)]

#[path = "common/debug_text.rs"]
mod debug_text;
#[path = "common/goldens.rs"]
mod goldens;
#[path = "common/schemas.rs"]
mod schemas;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use generator::random::{Fill, body};
use goldens::{TEXT, goldens, half};
use ottla::any_message::MESSAGES;
use protocol_tests::{Error, golden, or_skip};
use schemas::jar_is_here;

/// Messages that also have a large example in the file, in their last version.
const LARGE: [&str; 5] =
    ["FetchResponse", "MetadataResponse", "JoinGroupRequest", "OffsetCommitRequest", "CreateTopicsRequest"];

#[test]
fn golden_messages_survive_decoding_and_encoding() {
    let mut pairs = BTreeMap::new();
    for golden in goldens() {
        let place = format!("{:?} version {}, {}", golden.message, golden.version, golden.json);
        let recoded = golden.message.recode(golden.body.clone(), golden.version);
        let recoded = recoded.unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(golden.body, recoded.bytes, "{place}");
        let json = serde_json::from_str(golden.json).expect("JSON");
        let value = debug_text::parse(&recoded.text).unwrap_or_else(|problem| panic!("{place}: {problem}"));
        debug_text::compare(&json, &value).unwrap_or_else(|problem| panic!("{place}: {problem}\nin {}", recoded.text));
        *pairs.entry((golden.message.name, golden.version)).or_insert(0) += 1;
    }
    let mut expected = 0;
    for message in MESSAGES {
        for version in message.versions.0..=message.versions.1 {
            assert!(pairs.contains_key(&(message.name, version)), "no golden {message:?} version {version}");
            expected += 1;
        }
    }
    assert_eq!(pairs.len(), expected);
    println!("{} golden messages of {} pairs of a message and a version", pairs.values().sum::<i32>(), pairs.len());
}

#[test]
fn committed_code_matches_generator_output() {
    if jar_is_here() {
        let differing = generator::check().expect("generated");
        assert!(differing.is_empty(), "`cargo run -p generator -- write` changes {differing:?}");
    }
}

/// Writes the file instead of comparing with it if `OTTLA_WRITE_GOLDENS=1`.
#[test]
fn golden_messages_match_bytes_of_kafka() -> Result<(), Error> {
    if !jar_is_here() || or_skip(golden::response("Heartbeat", 0, r#"{"errorCode": 0}"#)).is_none() {
        return Ok(());
    }
    assert_eq!(golden::VERSION, generator::VERSION);
    let schemas = generator::schemas(generator::VERSION).expect("schemas");
    let mut text = String::new();
    for message in MESSAGES {
        let (first, last) = message.versions;
        for version in first..=last {
            let seed = message.api.code().unsigned_abs() as u64 * 1000 + version.unsigned_abs() as u64 * 10;
            let mut fills = vec![Fill::Least, Fill::Brief(seed), Fill::Brief(seed + 1)];
            if version == last && LARGE.contains(&message.name) {
                fills.push(Fill::Most);
            }
            let mut bodies: Vec<_> =
                fills.into_iter().map(|fill| body(&schemas[message.name], version, fill)).collect();
            // A message without fields has only one content.
            bodies.dedup();
            for body in bodies {
                let (json, written) = golden::through_json(message.name, version, &body)?;
                assert!(!json.contains('\t'), "{json}");
                write!(text, "{}\t{}\t{version}\t{json}\t", message.api, half(message)).expect("text");
                written.iter().for_each(|byte| write!(text, "{byte:02x}").expect("text"));
                text.push('\n');
                assert_eq!(body, written, "{message:?} version {version}: {json}");
            }
        }
    }
    if std::env::var_os("OTTLA_WRITE_GOLDENS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/messages.golden");
        fs::write(&file, &text).map_err(|source| Error::Io { what: format!("writing {}", file.display()), source })?;
        return Ok(());
    }
    for (line, expected) in TEXT.lines().zip(text.lines()) {
        assert_eq!(line, expected, "Kafka writes it differently");
    }
    assert_eq!(TEXT.len(), text.len());
    Ok(())
}
