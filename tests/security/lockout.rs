//! Refused logins: the rate of attempts, and the errors that calls return meanwhile.

use ottla::{
    ApiKey, Consumer, ErrorCode, ErrorKind, Producer, Record,
    consumer::OffsetReset,
    security::{Sasl, Security},
    testkit::{Cluster, Options, on},
};

use crate::common::*;

fn refused_password() -> Security {
    Security::sasl_plaintext(Sasl::plain("alice", "hunter2"))
}

/// Returns the number of login attempts that the brokers received.
fn logins(cluster: &Cluster) -> usize {
    cluster.requests(ApiKey::SaslAuthenticate) as usize
}

/// Starts a cluster of twenty brokers with users.
async fn twenty() -> Cluster {
    let cluster = Cluster::start(Options::new().in_memory().brokers(20).sasl(users())).await.unwrap();
    cluster.create_topic("orders", 20).unwrap();
    cluster
}

#[tokio::test(start_paused = true)]
async fn producer_limits_logins_with_refused_credentials() {
    let cluster = cluster(Options::new().sasl(users())).await;
    let producer = Producer::builder(cluster.bootstrap()).network(cluster.network()).security(refused_password());
    let producer = producer.build().await.unwrap();
    let mut longest = std::time::Duration::ZERO;
    let began = tokio::time::Instant::now();
    while began.elapsed() < 900 * SECOND {
        let sent = tokio::time::Instant::now();
        let error = match producer.send(Record::to("orders").with_value("x")).await {
            Ok(delivery) => delivery.await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        longest = longest.max(sent.elapsed());
        tokio::time::sleep(SECOND).await;
    }
    assert!(longest < 5 * SECOND, "a call waited {longest:?} for its error");
    let logins = logins(&cluster);
    assert!((3..=9).contains(&logins), "{logins} logins in a quarter of an hour");
}

#[tokio::test(start_paused = true)]
async fn consumer_limits_logins_with_refused_credentials() {
    let cluster = cluster(Options::new().sasl(users())).await;
    let consumer = Consumer::builder(cluster.bootstrap()).network(cluster.network()).security(refused_password());
    let consumer = consumer.group("g").build().await.unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let began = tokio::time::Instant::now();
    let mut errors = 0;
    while began.elapsed() < 900 * SECOND {
        if let Ok(told) = tokio::time::timeout(60 * SECOND, consumer.recv()).await {
            let error = told.unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
            errors += 1;
        }
    }
    // The error is repeated to a reader that reads again, at intervals of `retry.backoff.max.ms`.
    assert!((1..=1000).contains(&errors), "{errors} errors in a quarter of an hour");
    let logins = logins(&cluster);
    assert!((3..=9).contains(&logins), "{logins} logins in a quarter of an hour");
}

#[tokio::test(start_paused = true)]
async fn limits_failed_logins_across_all_brokers() {
    let cluster = twenty().await;
    let security = || Security::sasl_plaintext(Sasl::plain("alice", "wonder"));
    let producer = Producer::builder(cluster.bootstrap()).network(cluster.network()).security(security());
    let producer = producer.build().await.unwrap();
    for partition in 0..20 {
        producer.send(Record::to("orders").with_partition(partition).with_value("x")).await.unwrap().await.unwrap();
    }
    let before = logins(&cluster);
    assert!(before >= 20, "{before}");
    // The password changes, and all brokers restart.
    cluster.fault(on(ApiKey::SaslAuthenticate).forever().error(ErrorCode::SASL_AUTHENTICATION_FAILED));
    for broker in 1..=20 {
        cluster.disconnect(broker);
    }
    let began = tokio::time::Instant::now();
    while began.elapsed() < 300 * SECOND {
        let mut deliveries = Vec::new();
        for partition in 0..20 {
            deliveries.push(producer.send(Record::to("orders").with_partition(partition).with_value("x")).await);
        }
        for delivery in deliveries {
            let failed = match delivery {
                Ok(delivery) => delivery.await.is_err(),
                Err(_) => true,
            };
            assert!(failed);
        }
        tokio::time::sleep(SECOND).await;
    }
    let logins = logins(&cluster) - before;
    assert!(logins <= 12, "{logins} logins in five minutes");
}

#[tokio::test(start_paused = true)]
async fn refusing_broker_leaves_other_brokers_usable() {
    let cluster = twenty().await;
    let security = Security::sasl_plaintext(Sasl::plain("alice", "wonder"));
    let producer = Producer::builder(cluster.bootstrap()).network(cluster.network()).security(security);
    let producer = producer.build().await.unwrap();
    for partition in 0..20 {
        producer.send(Record::to("orders").with_partition(partition).with_value("x")).await.unwrap().await.unwrap();
    }
    let refusing = cluster.leader("orders", 7).unwrap().unwrap();
    let before = logins(&cluster);
    let fault = on(ApiKey::SaslAuthenticate).broker(refusing).forever();
    cluster.fault(fault.error(ErrorCode::SASL_AUTHENTICATION_FAILED));
    cluster.disconnect(refusing);
    let began = tokio::time::Instant::now();
    let mut turn = 0;
    while began.elapsed() < 300 * SECOND {
        let bad = producer.send(Record::to("orders").with_partition(7).with_value("x")).await;
        for partition in [0, 3, 19] {
            if cluster.leader("orders", partition).unwrap() != Some(refusing) {
                producer
                    .send(Record::to("orders").with_partition(partition).with_value("x"))
                    .await
                    .unwrap()
                    .await
                    .unwrap();
            }
        }
        if let Ok(delivery) = bad {
            assert_eq!(delivery.await.unwrap_err().kind(), ErrorKind::Authentication);
        }
        turn += 1;
        if turn % 20 == 0 {
            // A broker that accepts the client restarts meanwhile.
            let other = (1..=20).find(|broker| *broker != refusing).unwrap();
            cluster.disconnect(other);
        }
        tokio::time::sleep(SECOND).await;
    }
    let logins = logins(&cluster) - before;
    assert!(logins <= 12 + turn / 20 * 2, "{logins} logins in five minutes");
}

#[tokio::test(start_paused = true)]
async fn recovers_when_credentials_become_valid() {
    let cluster = cluster(Options::new().sasl(users())).await;
    cluster.fault(on(ApiKey::SaslAuthenticate).times(2).error(ErrorCode::SASL_AUTHENTICATION_FAILED));
    let security = Security::sasl_plaintext(Sasl::plain("alice", "wonder"));
    let consumer = Consumer::builder(cluster.bootstrap()).network(cluster.network()).security(security.clone());
    let consumer = consumer.group("g").auto_offset_reset(OffsetReset::Earliest).build().await.unwrap();
    consumer.subscribe(["orders"]).unwrap();
    let producer = Producer::builder(cluster.bootstrap()).network(cluster.network()).security(security);
    let producer = producer.build().await.unwrap();
    let mut refusals = 0;
    let began = tokio::time::Instant::now();
    loop {
        match producer.send(Record::to("orders").with_value("x")).await {
            Ok(delivery) => match delivery.await {
                Ok(_) => break,
                Err(_) => refusals += 1,
            },
            Err(_) => refusals += 1,
        }
        tokio::time::sleep(SECOND).await;
        assert!(began.elapsed() < 120 * SECOND);
    }
    assert!(refusals > 0);
    let mut errors = 0;
    loop {
        match tokio::time::timeout(300 * SECOND, consumer.recv()).await.expect("the consumer recovers").unwrap() {
            Ok(record) => break assert_eq!(record.topic.as_ref(), "orders"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::Authentication, "{error}"),
        }
        errors += 1;
        assert!(errors < 30, "the reader got {errors} errors");
    }
}
