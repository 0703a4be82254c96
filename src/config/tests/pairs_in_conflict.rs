//! Tests settings that are checked against each other: a default is adjusted to the value that was
//! set, and two values that were set must agree.

use std::{sync::Arc, time::Duration};

use super::world::{Kind, build};
use crate::{Consumer, ErrorKind, Producer, net::MemoryNetwork, producer::ProducerBuilder};

const SERVERS: (&str, &str) = ("bootstrap.servers", "h:9092");

#[tokio::test]
async fn defaults_adapt_to_single_set_value() {
    for (kind, name, value) in [
        (Kind::Producer, "message.timeout.ms", "5000"),
        (Kind::Producer, "delivery.timeout.ms", "5000"),
        (Kind::Producer, "delivery.timeout.ms", "1"),
        (Kind::Producer, "linger.ms", "200000"),
        (Kind::Producer, "request.timeout.ms", "300000"),
        (Kind::Producer, "retry.backoff.ms", "2000"),
        (Kind::Producer, "retry.backoff.max.ms", "50"),
        (Kind::Admin, "reconnect.backoff.ms", "5000"),
        (Kind::Admin, "reconnect.backoff.max.ms", "10"),
        (Kind::Admin, "socket.connection.setup.timeout.ms", "60000"),
        (Kind::Admin, "socket.connection.setup.timeout.max.ms", "5000"),
        (Kind::Consumer, "session.timeout.ms", "3000"),
        (Kind::Consumer, "session.timeout.ms", "1000"),
        (Kind::Consumer, "heartbeat.interval.ms", "60000"),
        (Kind::Consumer, "fetch.min.bytes", "60000000"),
        (Kind::Consumer, "fetch.max.bytes", "500000000"),
        (Kind::Consumer, "receive.message.max.bytes", "1000000"),
    ] {
        let built = build(kind, &[SERVERS, (name, value)]).await;
        built.unwrap_or_else(|error| panic!("{name}={value}: {error}"));
    }
}

#[tokio::test]
async fn rejects_two_set_values_in_conflict() {
    for (kind, pairs) in [
        (Kind::Producer, [("message.timeout.ms", "5000"), ("request.timeout.ms", "6000")]),
        (Kind::Producer, [("delivery.timeout.ms", "5000"), ("linger.ms", "6000")]),
        (Kind::Producer, [("retry.backoff.ms", "2000"), ("retry.backoff.max.ms", "1000")]),
        (Kind::Admin, [("reconnect.backoff.ms", "2000"), ("reconnect.backoff.max.ms", "1000")]),
        (
            Kind::Admin,
            [("socket.connection.setup.timeout.ms", "2000"), ("socket.connection.setup.timeout.max.ms", "1000")],
        ),
        (Kind::Consumer, [("session.timeout.ms", "3000"), ("heartbeat.interval.ms", "3000")]),
        (Kind::Consumer, [("fetch.min.bytes", "3000"), ("fetch.max.bytes", "2000")]),
        (Kind::Consumer, [("fetch.max.bytes", "3000"), ("receive.message.max.bytes", "2000")]),
    ] {
        let error = build(kind, &[SERVERS, pairs[0], pairs[1]]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        let text = error.to_string();
        let named = |name: &str| text.contains(&name.replace("message.timeout", "delivery.timeout"));
        assert!(pairs.iter().all(|(name, _)| named(name)), "{pairs:?}: {text}");
    }
}

#[tokio::test]
async fn builder_methods_count_as_explicit_settings() {
    let seconds = Duration::from_secs;
    let builder = || Producer::builder("h:9092").network(Arc::new(MemoryNetwork::new()));
    let built = async |builder: ProducerBuilder| builder.build().await.map(drop);
    built(builder().delivery_timeout(seconds(5))).await.unwrap();
    built(builder().linger(seconds(500))).await.unwrap();
    built(builder().delivery_timeout(seconds(5)).property("linger.ms", "100")).await.unwrap();
    built(builder().delivery_timeout(seconds(5)).request_timeout(seconds(6))).await.unwrap_err();
    built(builder().delivery_timeout(seconds(5)).linger(seconds(5))).await.unwrap_err();
    built(builder().delivery_timeout(seconds(5)).property("request.timeout.ms", "6000")).await.unwrap_err();
    // The default's own number, set by name, counts as set.
    built(builder().delivery_timeout(seconds(5)).request_timeout(seconds(30))).await.unwrap_err();
    built(builder().retry_backoff(seconds(2), seconds(1))).await.unwrap_err();
    let consumer = || Consumer::builder("h:9092").group("g").network(Arc::new(MemoryNetwork::new()));
    consumer().session_timeout(seconds(3)).build().await.map(drop).unwrap();
    consumer().heartbeat_interval(seconds(50)).build().await.map(drop).unwrap();
    consumer().session_timeout(seconds(3)).heartbeat_interval(seconds(3)).build().await.map(drop).unwrap_err();
}
