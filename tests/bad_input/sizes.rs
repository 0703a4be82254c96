//! Records that are too large are refused without affecting others.

use ottla::{
    DeliveryStatus, ErrorCode, ErrorKind, Record,
    testkit::{Cluster, Options},
};

use crate::common::*;

#[tokio::test(start_paused = true)]
async fn rejects_records_above_max_request_size() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    let producer = producer(&cluster).max_request_size(1000).build().await.unwrap();
    let before = producer.send(Record::to("t").with_value("0")).await.unwrap();
    let large = vec![b'x'; 1000];
    refused(
        producer.send(Record::to("t").with_value(&large[..])).await,
        ErrorKind::RecordTooLarge,
        &["max.request.size", "1000"],
    );
    refused(
        producer.send(Record::to("t").with_key(&large[..])).await,
        ErrorKind::RecordTooLarge,
        &["max.request.size"],
    );
    let header = Record::to("t").with_value("x").with_header("h", large.clone());
    let given_back = producer.try_send(header).unwrap_err();
    assert_eq!(given_back.error().kind(), ErrorKind::RecordTooLarge);
    let after = producer.send(Record::to("t").with_value("1")).await.unwrap();
    in_time(before).await.unwrap();
    in_time(after).await.unwrap();
    assert_eq!(log(&cluster, "t", 0), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn record_above_broker_limit_fails_alone() {
    let cluster = Cluster::start(Options::new().in_memory().max_message_bytes(1000)).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    let producer = producer(&cluster).build().await.unwrap();
    let mut deliveries = Vec::new();
    for n in 0..20 {
        let value = if n == 7 { "7".repeat(2000) } else { n.to_string() };
        deliveries.push(producer.send(Record::to("t").with_value(value)).await.unwrap());
    }
    for (n, delivery) in deliveries.into_iter().enumerate() {
        let result = in_time(delivery).await;
        if n == 7 {
            let error = refused(result, ErrorKind::RecordTooLarge, &["t[0]"]);
            assert_eq!(error.code(), Some(ErrorCode::MESSAGE_TOO_LARGE));
            assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
        } else {
            result.unwrap();
        }
    }
    assert_eq!(log(&cluster, "t", 0), (0..20).filter(|n| *n != 7).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn request_above_broker_limit_spares_next_records() {
    let cluster = Cluster::start(Options::new().in_memory().max_request_bytes(4000)).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    let producer = producer(&cluster).delivery_timeout(40 * SECOND).build().await.unwrap();
    let large = producer.send(Record::to("t").with_value("7".repeat(5000))).await.unwrap();
    let error = in_time(large).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Network), "{error}");
    assert!(error.to_string().contains("broker-1.testkit.invalid:9092"), "{error}");
    let next = producer.send(Record::to("t").with_value("1")).await.unwrap();
    in_time(next).await.unwrap();
    assert_eq!(log(&cluster, "t", 0), [1]);
}
