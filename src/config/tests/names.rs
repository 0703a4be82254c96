//! Tests every name that Kafka's Java clients 4.4.0 and librdkafka 2.15.0 know, with every client.
//!
//! `names.txt` has a line for each: the name, `J` and `R` for the clients that know it, the outcome
//! for a producer, a consumer and an admin client, a value, and the properties that it needs beside
//! it. An outcome is `A` (applied, without a warning), `W` (ignored, and named in the warning), `R`
//! (refused, with the reason) or `?` (any of the three: it depends on other settings of security).

use std::fs;

use super::world::{KINDS, Warnings, build};
use crate::ErrorKind;

const NAMES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/tests/names.txt");

struct Line<'a> {
    name: &'a str,
    outcomes: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn read(line: &'a str) -> Self {
        let mut columns = line.split('\t');
        let mut column = || columns.next().unwrap_or_default();
        let (name, _, outcomes, value) = (column(), column(), column(), column());
        let beside = column().split(';').filter_map(|pair| pair.split_once('='));
        let mut pairs: Vec<_> = beside.chain([(name, value)]).collect();
        if !pairs.iter().any(|(name, _)| ["bootstrap.servers", "metadata.broker.list"].contains(name)) {
            pairs.push(("bootstrap.servers", "h:9092"));
        }
        Self { name, outcomes, pairs }
    }
}

#[tokio::test]
async fn every_known_name_has_expected_outcome() {
    let warnings = Warnings::default();
    let _collecting = warnings.collect();
    let text = fs::read_to_string(NAMES).unwrap();
    let mut wrong = Vec::new();
    for line in text.lines().map(Line::read) {
        assert_eq!(line.outcomes.len(), KINDS.len(), "{}", line.name);
        for (kind, expected) in KINDS.into_iter().zip(line.outcomes.chars()) {
            let (outcome, said) = match build(kind, &line.pairs).await {
                Ok(()) => match warnings.take().as_slice() {
                    [] => ('A', String::new()),
                    [line] => ('W', line.clone()),
                    lines => panic!("more than one warning: {lines:#?}"),
                },
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
                    warnings.take();
                    ('R', error.to_string())
                }
            };
            let unknown = said.starts_with("unknown property");
            // Errors of security name the property as Java does.
            let silent = outcome != 'A' && expected != '?' && !said.contains(line.name);
            if unknown || silent || (expected != '?' && outcome != expected) {
                wrong.push(format!("{kind:?} {}: {outcome} for {expected}: {said}", line.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn accepts_values_that_match_fixed_behaviour() {
    let warnings = Warnings::default();
    let _collecting = warnings.collect();
    for (name, value) in [
        ("api.version.request", "true"),
        ("socket.nagle.disable", "true"),
        ("socket.keepalive.enable", "false"),
        ("broker.address.family", "any"),
        ("statistics.interval.ms", "0"),
        ("receive.buffer.bytes", "-1"),
        ("socket.send.buffer.bytes", "0"),
        ("ssl.trustmanager.algorithm", "PKIX"),
        ("metadata.cluster.check.enable", "false"),
        ("enable.metrics.push", "false"),
    ] {
        for kind in KINDS {
            build(kind, &[("bootstrap.servers", "h:9092"), (name, value)]).await.unwrap();
            assert_eq!(warnings.take(), [""; 0], "{kind:?}: {name}={value}");
        }
    }
}

#[tokio::test]
async fn warns_about_security_settings_protocol_ignores() {
    let warnings = Warnings::default();
    let _collecting = warnings.collect();
    let plain = [("sasl.mechanism", "PLAIN"), ("sasl.username", "u"), ("sasl.password", "p")];
    for (protocol, named) in
        [("plaintext", "sasl.password"), ("PLAINTEXT", "ssl.ca.location"), ("SASL_PLAINTEXT", "ssl.")]
    {
        let mut pairs =
            vec![("bootstrap.servers", "h:9092"), ("security.protocol", protocol), ("ssl.ca.location", "ca.pem")];
        pairs.extend(plain);
        for kind in KINDS {
            build(kind, &pairs).await.unwrap();
            let told = warnings.take();
            assert!(told.len() == 1 && told[0].contains(named), "{kind:?} {protocol}: {told:#?}");
        }
    }
}

#[tokio::test]
async fn warning_names_properties_without_values() {
    let warnings = Warnings::default();
    let _collecting = warnings.collect();
    let pairs = [
        ("bootstrap.servers", "h:9092"),
        ("key.serializer", "hunter2"),
        ("ssl.keymanager.algorithm", "hunter2"),
        ("log_level", "hunter2"),
        ("group.id", "hunter2"),
        ("group.instance.id", "hunter2"),
    ];
    build(KINDS[0], &pairs).await.unwrap();
    let told = warnings.take().concat();
    assert!(pairs[1..].iter().all(|(name, _)| told.contains(name)), "{told}");
    assert!(told.contains("group.id, group.instance.id (a consumer's)"), "{told}");
    assert!(told.contains("producer") && !told.contains("hunter2"), "{told}");
}
