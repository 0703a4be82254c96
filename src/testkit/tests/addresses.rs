//! Tests of the host names in a cluster's addresses, and of a client that cannot resolve them.

use std::time::Duration;

use tokio::time::Instant;

use super::client::cluster;
use crate::{Admin, Consumer, ErrorKind, Producer, testkit::Options};

#[tokio::test(start_paused = true)]
async fn in_memory_brokers_have_unresolvable_names() {
    let cluster = cluster(Options::new().brokers(2)).await;
    assert_eq!(cluster.bootstrap(), "broker-1.testkit.invalid:9092,broker-2.testkit.invalid:9093");
}

#[tokio::test(start_paused = true)]
async fn tcp_client_of_memory_cluster_fails_immediately() {
    let cluster = cluster(Options::new()).await;
    let began = Instant::now();
    let producer = Producer::builder(cluster.bootstrap()).build().await.unwrap();
    let consumer = Consumer::builder(cluster.bootstrap()).build().await.unwrap();
    let admin = Admin::builder(cluster.bootstrap()).build().await.unwrap();
    for error in [
        producer.partitions_for("orders").await.map(drop).unwrap_err(),
        producer.send(crate::Record::to("orders").with_value("x")).await.unwrap().await.map(drop).unwrap_err(),
        consumer.partitions_for("orders").await.map(drop).unwrap_err(),
        admin.list_topics().await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(!error.is_retriable(), "{error}");
        let text = error.to_string();
        assert!(text.contains("broker-1.testkit.invalid:9092: this is the in-memory cluster of testkit"), "{text}");
        assert!(text.contains(".network(cluster.network())") && text.contains("cluster.producer()"), "{text}");
    }
    assert!(began.elapsed() < Duration::from_secs(1), "the error is not retriable");
}
