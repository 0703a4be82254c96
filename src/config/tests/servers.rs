//! Tests `bootstrap.servers` in the forms that providers' consoles and brokers' own files use.

use std::sync::Arc;

use super::world::{KINDS, build};
use crate::{
    Admin, Consumer, ErrorKind, Producer,
    net::MemoryNetwork,
    security::{Sasl, Security},
};

const SASL: [(&str, &str); 3] = [("sasl.mechanism", "PLAIN"), ("sasl.username", "u"), ("sasl.password", "p")];

#[tokio::test]
async fn listener_names_before_addresses_are_ignored() {
    for servers in [
        "EXTERNAL://h:9092",
        "PLAINTEXT://h:9092",
        "plaintext://h:9092",
        "PLAINTEXT_HOST://a:1,INTERNAL-2.x://[::1]:2 , h:3,",
        " CLIENT://h:1 ,",
        "[::1]:9092",
    ] {
        for kind in KINDS {
            build(kind, &[("bootstrap.servers", servers)]).await.unwrap_or_else(|error| panic!("{servers}: {error}"));
        }
    }
    let mut secured = vec![("bootstrap.servers", "SASL_PLAINTEXT://h:9092"), ("security.protocol", "SASL_PLAINTEXT")];
    secured.extend(SASL);
    for kind in KINDS {
        build(kind, &secured).await.unwrap();
    }
}

#[tokio::test]
async fn rejects_listener_name_contradicting_security_protocol() {
    for (servers, protocol, named) in [
        ("SASL_SSL://h:9092", None, ["SASL_SSL://", "PLAINTEXT"]),
        ("a:1,ssl://h:9092", None, ["ssl://", "PLAINTEXT"]),
        ("PLAINTEXT://h:9092", Some("SASL_PLAINTEXT"), ["PLAINTEXT://", "SASL_PLAINTEXT"]),
        ("SASL_SSL://h:9092", Some("SASL_PLAINTEXT"), ["SASL_SSL://", "SASL_PLAINTEXT"]),
    ] {
        let mut pairs = vec![("bootstrap.servers", servers)];
        if let Some(protocol) = protocol {
            pairs.push(("security.protocol", protocol));
            pairs.extend(SASL);
        }
        for kind in KINDS {
            let error = build(kind, &pairs).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
            let text = error.to_string();
            assert!(named.iter().all(|part| text.contains(part)) && text.contains("security.protocol"), "{text}");
        }
    }
}

#[tokio::test]
async fn builders_accept_and_check_listener_names() {
    let network = Arc::new(MemoryNetwork::new());
    let servers = "SASL_PLAINTEXT://h:9092, EXTERNAL://[::1]:9093,";
    let security = || Security::sasl_plaintext(Sasl::plain("u", "p"));
    Producer::builder(servers).security(security()).network(network.clone()).build().await.unwrap();
    Consumer::builder(servers).security(security()).network(network.clone()).build().await.unwrap();
    Admin::builder(servers).security(security()).network(network.clone()).build().await.unwrap();
    let error = Producer::builder(servers).network(network).build().await.unwrap_err();
    assert!(error.to_string().contains("SASL_PLAINTEXT"), "{error}");
}
