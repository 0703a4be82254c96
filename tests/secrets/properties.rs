//! Tests the secrets as values of properties, known and mistyped, alone and beside others.

use std::{collections::BTreeSet, fmt::Write, sync::Arc};

use ottla::{Admin, Consumer, Producer, testkit::MemoryNetwork};

use crate::{
    capture,
    list::{SECRETS, leaked},
};

/// Names of a client for brokers and operators. They are sent to brokers unchanged and are in every
/// line of the log, so they are no place for a secret.
const PUBLIC: [&str; 7] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "client.id",
    "client.rack",
    "group.id",
    "group.instance.id",
    "group.remote.assignor",
];

/// Returns every name in a table of properties, read from the code.
fn names() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for file in ["cluster/properties.rs", "producer/properties.rs", "consumer/config/properties.rs", "config/known.rs"]
    {
        let path = format!("{}/src/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        let literals = text.split('"').skip(1).step_by(2);
        let is_name =
            |text: &&str| !text.is_empty() && text.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_'));
        names.extend(literals.filter(is_name).map(str::to_owned));
    }
    assert!(names.len() > 200 && names.contains("sasl.jaas.config"), "{names:?}");
    names
}

fn mistyped(name: &str) -> [String; 4] {
    [format!("{name}s"), name.replace('.', "_"), name.to_uppercase(), format!("spring.kafka.{name}")]
}

/// Returns all that the clients show of these properties.
async fn shown(pairs: &[(&str, &str)]) -> String {
    let network = || Arc::new(MemoryNetwork::new());
    let mut out = String::new();
    let mut producer = Producer::builder("127.0.0.1:9092").network(network());
    let mut consumer = Consumer::builder("127.0.0.1:9092").network(network());
    for (name, value) in pairs {
        producer = producer.property(*name, *value);
        consumer = consumer.property(*name, *value);
    }
    write!(out, "{producer:?} {consumer:#?}").unwrap();
    match producer.build().await {
        Ok(producer) => write!(out, "{producer:?}").unwrap(),
        Err(error) => out += &capture::shown(&error),
    }
    match consumer.build().await {
        Ok(consumer) => write!(out, "{consumer:?}").unwrap(),
        Err(error) => out += &capture::shown(&error),
    }
    let admin = Admin::builder("127.0.0.1:9092").network(network()).properties(pairs.iter().copied());
    write!(out, "{admin:?}").unwrap();
    match admin.build().await {
        Ok(admin) => write!(out, "{admin:?}").unwrap(),
        Err(error) => out += &capture::shown(&error),
    }
    out
}

/// Properties with which a security property has an effect: one way or another to log in.
const BESIDE: [&[(&str, &str)]; 8] = [
    &[("security.protocol", "SSL")],
    &[("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN")],
    &[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "PLAIN"),
        ("sasl.username", "a"),
        ("sasl.password", "b"),
    ],
    &[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "SCRAM-SHA-512")],
    &[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "https://idp.example/token"),
        ("sasl.oauthbearer.client.credentials.client.id", "a"),
        ("sasl.oauthbearer.client.credentials.client.secret", "b"),
    ],
    &[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("sasl.oauthbearer.token.endpoint.url", "https://idp.example/token"),
        ("sasl.oauthbearer.assertion.private.key.file", "/nowhere/key.pem"),
    ],
    &[
        ("security.protocol", "SASL_PLAINTEXT"),
        ("sasl.mechanism", "OAUTHBEARER"),
        ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
    ],
    &[("security.protocol", "SASL_PLAINTEXT"), ("sasl.mechanism", "AWS_MSK_IAM")],
];

fn check(leaks: &mut BTreeSet<String>, name: &str, secret: &str, text: &str) {
    if let Some(part) = leaked(secret, text) {
        let at = text.find(part).unwrap();
        let around: String = text[..at].chars().rev().take(60).collect::<Vec<_>>().into_iter().rev().collect();
        leaks.insert(format!("{name}: {part:?} after {around:?}"));
    }
}

#[tokio::test(start_paused = true)]
async fn errors_and_logs_hide_property_values() {
    capture::start();
    let mut leaks = BTreeSet::new();
    for name in names().iter().filter(|name| !PUBLIC.contains(&name.as_str())) {
        for secret in SECRETS {
            check(&mut leaks, name, secret, &shown(&[(name, secret)]).await);
        }
    }
    let log = capture::log();
    SECRETS.iter().for_each(|secret| check(&mut leaks, "log", secret, &log));
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
}

#[tokio::test(start_paused = true)]
async fn errors_hide_values_of_mistyped_properties() {
    capture::start();
    let mut leaks = BTreeSet::new();
    for (at, name) in names().iter().enumerate() {
        for (turn, name) in mistyped(name).iter().enumerate() {
            let secret = SECRETS[(at * 4 + turn) % SECRETS.len()];
            check(&mut leaks, name, secret, &shown(&[(name, secret)]).await);
        }
    }
    for secret in SECRETS {
        // The secret as the rest of a line that lost its beginning, and as a name.
        check(&mut leaks, "a name", secret, &shown(&[(secret, "x")]).await);
    }
    let log = capture::log();
    SECRETS.iter().for_each(|secret| check(&mut leaks, "log", secret, &log));
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
}

#[tokio::test(start_paused = true)]
async fn hides_values_beside_other_security_settings() {
    capture::start();
    let mut leaks = BTreeSet::new();
    let secured = |name: &&String| ["sasl.", "ssl.", "https.", "security."].iter().any(|part| name.contains(part));
    for name in names().iter().filter(secured) {
        for beside in BESIDE {
            for secret in SECRETS {
                let mut pairs: Vec<_> = beside.iter().copied().filter(|(other, _)| other != name).collect();
                pairs.push((name, secret));
                let network = Arc::new(MemoryNetwork::new());
                let admin = Admin::builder("127.0.0.1:9092").network(network).properties(pairs.iter().copied());
                let builder = format!("{admin:?}");
                let text = match admin.build().await {
                    Ok(admin) => format!("{builder} {admin:?}"),
                    Err(error) => builder + &capture::shown(&error),
                };
                check(&mut leaks, name, secret, &text);
            }
        }
    }
    let log = capture::log();
    SECRETS.iter().for_each(|secret| check(&mut leaks, "log", secret, &log));
    assert!(leaks.is_empty(), "{} leaks: {leaks:#?}", leaks.len());
}
