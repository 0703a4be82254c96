//! Unreachable brokers: an error in time that names the addresses and the last cause. A broker that
//! becomes available later is used.

use std::sync::Arc;

use ottla::{
    Admin, Consumer, Error, ErrorKind, Offset, Producer, Record, admin::NewTopic, consumer::OffsetReset,
    net::MemoryNetwork,
};
use tokio::time::Instant;

use crate::common::*;

const NOWHERE: &str = "127.0.0.1:1,127.0.0.1:2";

/// Checks that the error names both addresses and the reason why they could not be reached, and
/// that it came within `seconds` seconds.
#[track_caller]
fn names_all(error: &Error, began: Instant, seconds: u64) {
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Network), "{error:?}");
    let text = error.to_string();
    for part in ["127.0.0.1:1", "127.0.0.1:2", "nobody listens"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    let took = began.elapsed();
    assert!(took.as_secs() <= seconds, "{took:?}: {text}");
}

fn network() -> Arc<MemoryNetwork> {
    Arc::new(MemoryNetwork::new())
}

#[tokio::test(start_paused = true)]
async fn delivery_fails_within_max_block() {
    let producer = Producer::builder(NOWHERE).network(network()).max_block(20 * SECOND).build().await.unwrap();
    let began = Instant::now();
    let delivery = producer.send(Record::to("t").with_value("0")).await.unwrap();
    names_all(&in_time(delivery).await.unwrap_err(), began, 20);
    assert!(began.elapsed() >= 19 * SECOND, "the client gave up early");
    let began = Instant::now();
    names_all(&producer.partitions_for("t").await.unwrap_err(), began, 20);
    assert_eq!(producer.flush(SECOND).await, 0);
    producer.close(SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn delivery_to_stopped_broker_fails_within_timeout() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    let producer = producer(&cluster).delivery_timeout(40 * SECOND).build().await.unwrap();
    in_time(producer.send(Record::to("t").with_value("0")).await.unwrap()).await.unwrap();
    cluster.kill(1).await.unwrap();
    let began = Instant::now();
    let delivery = producer.send(Record::to("t").with_value("1")).await.unwrap();
    let error = in_time(delivery).await.unwrap_err();
    assert!(began.elapsed() <= 41 * SECOND, "{:?}", began.elapsed());
    refused::<()>(Err(error), ErrorKind::Timeout, &["t[0]", "127.0.0.1:9092", "nobody listens"]);
    cluster.restart(1).await.unwrap();
    in_time(producer.send(Record::to("t").with_value("2")).await.unwrap()).await.unwrap();
    assert_eq!(log(&cluster, "t", 0), [0, 2]);
}

#[tokio::test(start_paused = true)]
async fn consumer_reports_unreachable_brokers_once() {
    for subscribed in [false, true] {
        for by_poll in [false, true] {
            let builder = Consumer::builder(NOWHERE).network(network()).group("g");
            let consumer = builder.default_api_timeout(20 * SECOND).build().await.unwrap();
            if subscribed {
                consumer.subscribe(["t"]).unwrap();
            } else {
                consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
            }
            let began = Instant::now();
            let error = if by_poll {
                consumer.poll(100 * SECOND).await.unwrap_err()
            } else {
                next(&consumer).await.unwrap_err()
            };
            names_all(&error, began, 20);
            assert!(consumer.poll(SECOND).await.unwrap().is_empty(), "the error is reported once");
            in_time(consumer.close(SECOND)).await.ok();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn consumer_requests_fail_within_api_timeout() {
    let builder = Consumer::builder(NOWHERE).network(network()).group("g");
    let consumer = builder.default_api_timeout(20 * SECOND).build().await.unwrap();
    let began = Instant::now();
    names_all(&consumer.partitions_for("t").await.unwrap_err(), began, 20);
    let began = Instant::now();
    names_all(&consumer.list_topics().await.unwrap_err(), began, 20);
    let began = Instant::now();
    names_all(&consumer.beginning_offsets([tp("t", 0)]).await.unwrap_err(), began, 20);
    let began = Instant::now();
    names_all(&consumer.committed([tp("t", 0)]).await.unwrap_err(), began, 20);
    let began = Instant::now();
    names_all(&consumer.commit_offsets([(tp("t", 0), 3)]).await.unwrap_err(), began, 20);
}

#[tokio::test(start_paused = true)]
async fn admin_requests_fail_within_api_timeout() {
    let admin = Admin::builder(NOWHERE).network(network()).default_api_timeout(20 * SECOND).build().await.unwrap();
    let began = Instant::now();
    names_all(&admin.list_topics().await.unwrap_err(), began, 20);
    let began = Instant::now();
    names_all(&admin.describe_topics(["t"]).await.unwrap_err(), began, 20);
    let began = Instant::now();
    names_all(&admin.describe_cluster().await.unwrap_err(), began, 20);
    let began = Instant::now();
    let created = admin.create_topics([NewTopic::new("t", 1)]).await.and_then(|results| results.into_result());
    names_all(&created.unwrap_err(), began, 20);
    let began = Instant::now();
    let deleted = admin.delete_topics(["t"]).await.and_then(|results| results.into_result());
    names_all(&deleted.unwrap_err(), began, 20);
}

#[tokio::test(start_paused = true)]
async fn uses_broker_that_starts_before_deadline() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..1);
    cluster.kill(1).await.unwrap();
    let producer = producer(&cluster).build().await.unwrap();
    let consumer = consumer(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest).build().await.unwrap();
    let admin = admin(&cluster).build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    let delivery = producer.send(Record::to("t").with_value("1")).await.unwrap();
    let restart = async {
        tokio::time::sleep(45 * SECOND).await;
        cluster.restart(1).await.unwrap();
    };
    let read = async {
        let mut numbers = Vec::new();
        while numbers.len() < 2 {
            // The reader may get an error because the broker is not available yet.
            if let Ok(record) = next(&consumer).await {
                numbers.push(number(&record));
            }
        }
        numbers
    };
    let (delivered, topics, read, ()) =
        in_time(async { tokio::join!(delivery, admin.list_topics(), read, restart) }).await;
    assert_eq!(delivered.unwrap().offset, Some(1));
    assert_eq!(topics.unwrap()[0].name, "t");
    assert_eq!(read, [0, 1]);
}
