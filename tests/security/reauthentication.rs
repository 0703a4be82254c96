//! KIP-368: authentication with a limited lifetime, under continuous traffic.

use std::collections::BTreeMap;

use ottla::{
    ApiKey, ErrorKind, Record,
    consumer::OffsetReset,
    security::{Sasl, Security, UnsecuredToken},
    testkit::{Cluster, Options, on},
};

use crate::common::*;

async fn limited() -> Cluster {
    cluster(Options::new().sasl(users().max_reauth(5 * SECOND))).await
}

fn plain() -> Security {
    Security::sasl_plaintext(Sasl::plain("alice", "wonder"))
}

#[tokio::test(start_paused = true)]
async fn causes_no_failed_or_retried_batches() {
    let cluster = limited().await;
    let producer = cluster.producer().security(plain());
    let producer = producer.linger(SECOND / 1000).build().await.unwrap();
    let consumer = cluster.consumer().security(plain()).group("g");
    let consumer = consumer.auto_offset_reset(OffsetReset::Earliest).build().await.unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let reading = tokio::spawn(async move {
        let mut seen = 0;
        while seen < 1500 {
            consumer.recv().await.unwrap().unwrap();
            seen += 1;
        }
    });
    let mut deliveries = Vec::new();
    for n in 0..1500 {
        deliveries.push(producer.send(Record::to("orders").with_value(format!("{n}"))).await.unwrap());
        tokio::time::sleep(SECOND / 25).await;
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    tokio::time::timeout(60 * SECOND, reading).await.unwrap().unwrap();
    let metrics = producer.metrics();
    assert_eq!((metrics.records_failed(), metrics.batches_retried), (0, 0));

    // Within a minute, each connection in use authenticated about a dozen times, and was not
    // replaced.
    let mut times = BTreeMap::<u64, u32>::new();
    for request in cluster.journal() {
        if request.key == ApiKey::SaslHandshake {
            *times.entry(request.connection).or_default() += 1;
        }
    }
    assert!(times.values().filter(|times| **times >= 10).count() >= 2, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn sends_no_other_request_during_exchange() {
    let cluster = limited().await;
    let producer = cluster.producer().security(plain());
    let producer = producer.linger(SECOND / 1000).build().await.unwrap();
    cluster.fault(on(ApiKey::Produce).forever().delay_response(SECOND / 10));
    let mut deliveries = Vec::new();
    for n in 0..2000 {
        deliveries.push(producer.send(Record::to("orders").with_partition(n % 2).with_value("x")).await.unwrap());
        tokio::time::sleep(SECOND / 100).await;
    }
    for delivery in deliveries {
        delivery.await.unwrap();
    }
    let mut busy: BTreeMap<u64, bool> = BTreeMap::new();
    for request in cluster.journal() {
        let in_exchange = busy.entry(request.connection).or_default();
        match request.key {
            ApiKey::SaslHandshake => *in_exchange = true,
            ApiKey::SaslAuthenticate => {
                assert!(*in_exchange, "authentication without a handshake");
                *in_exchange = false;
            }
            key => assert!(!*in_exchange, "{key} in the middle of an authentication"),
        }
    }
    assert_eq!(producer.metrics().batches_retried, 0);
}

#[tokio::test(start_paused = true)]
async fn idle_connection_authenticates_before_next_request() {
    let cluster = limited().await;
    let admin = admin(&cluster, plain()).await;
    for _ in 0..5 {
        assert_eq!(admin.list_topics().await.unwrap().len(), 1);
        tokio::time::sleep(60 * SECOND).await;
    }
}

/// Runs in real time, because the expiry of a token is a time of the system clock.
#[tokio::test]
async fn expiring_token_is_replaced_on_open_connection() {
    let cluster = cluster(Options::new().sasl(users())).await;
    let token = UnsecuredToken::new("alice").lifetime(2 * SECOND);
    let security = Security::sasl_plaintext(Sasl::oauth_bearer(token));
    let producer = cluster.producer().security(security);
    let producer = producer.build().await.unwrap();
    for _ in 0..12 {
        producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap();
        tokio::time::sleep(SECOND / 3).await;
    }
    assert_eq!(producer.metrics().records_failed(), 0);
    assert!(cluster.requests(ApiKey::SaslAuthenticate) > 2);
}

#[tokio::test(start_paused = true)]
async fn refused_reauthentication_fails_delivery_promptly() {
    let cluster = limited().await;
    let producer = cluster.producer().security(plain());
    let producer = producer.build().await.unwrap();
    producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap();
    cluster.fault(on(ApiKey::SaslAuthenticate).forever().error(ottla::ErrorCode::SASL_AUTHENTICATION_FAILED));
    tokio::time::sleep(6 * SECOND).await;
    let began = tokio::time::Instant::now();
    let error = producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error:?}");
    assert!(began.elapsed() < 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn unanswered_reauthentication_loses_no_record() {
    let cluster = limited().await;
    let producer = cluster.producer().security(plain());
    let producer = producer.build().await.unwrap();
    producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap();
    cluster.fault(on(ApiKey::SaslAuthenticate).hang());
    tokio::time::sleep(6 * SECOND).await;
    producer.send(Record::to("orders").with_value("x")).await.unwrap().await.unwrap();
    assert_eq!(producer.metrics().records_failed(), 0);
}
