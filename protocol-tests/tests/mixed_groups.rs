//! Tests of groups that Ottla's consumer and Java's console consumer share, on a real Kafka:
//! members of either kind come and go, each partition belongs to one of them at a time, and each
//! record is read once and in order.

#![cfg(unix)]

#[path = "common/members.rs"]
mod members;

use std::time::Duration;

use members::{ByJava, Journal, Member, PARTITIONS, Source, read_once, until};
use ottla::{Consumer, consumer::ConsumerBuilder};
use protocol_tests::{Kafka, needs, or_skip, unique};

/// Properties that both clients get.
type Properties = &'static [(&'static str, &'static str)];

const RANGE: Properties = &[
    ("partition.assignment.strategy", "org.apache.kafka.clients.consumer.RangeAssignor"),
    ("heartbeat.interval.ms", "500"),
];
const COOPERATIVE_STICKY: Properties = &[
    ("partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"),
    ("heartbeat.interval.ms", "500"),
];
const CONSUMER: Properties = &[("group.protocol", "consumer")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_range_group_with_java_consumers() {
    ours_and_javas_come_and_go(RANGE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_cooperative_group_with_java_consumers() {
    ours_and_javas_come_and_go(COOPERATIVE_STICKY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_consumer_protocol_group_with_java_consumers() {
    if needs("4.0", "the consumer protocol (KIP-848)") {
        ours_and_javas_come_and_go(CONSUMER).await;
    }
}

async fn ours_and_javas_come_and_go(properties: Properties) {
    let builder = Kafka::builder()
        .config("group.consumer.min.heartbeat.interval.ms", "1000")
        .config("group.consumer.heartbeat.interval.ms", "1000")
        .config("group.initial.rebalance.delay.ms", "0");
    let Some(kafka) = or_skip(builder.start().await) else { return };
    let (topic, group) = (unique("mixed"), unique("mixed"));
    kafka.create_topic(&topic, PARTITIONS, 1, &[]).await.unwrap();
    let source = Source::start(&kafka, &topic).await;
    let journal = Journal::default();
    let ours = || -> ConsumerBuilder {
        Consumer::builder(kafka.bootstrap()).group(&group).properties(properties.iter().copied())
    };
    // A Java member reads `records` records and leaves.
    let javas = |records: usize| {
        let (tools, topic, group) = (kafka.tools(), topic.clone(), group.clone());
        tokio::spawn(async move {
            let mut told = vec![("group.id", group.as_str())];
            told.extend(properties);
            let read = tools.consume(&topic, records, &told).await.unwrap();
            read.iter().map(|read| (read.partition, read.offset)).collect::<Vec<_>>()
        })
    };

    let first = Member::start("first", ours(), &topic, &journal).await;
    until("all partitions", &[&first], || first.owned().len() == 6).await;
    let second = Member::start("second", ours(), &topic, &journal).await;
    until("three each", &[&first, &second], || first.owned().len() == 3 && second.owned().len() == 3).await;

    // A Java member comes and goes.
    let java = javas(150);
    until("two each", &[&first, &second], || first.owned().len() == 2 && second.owned().len() == 2).await;
    until("Java to leave", &[&first, &second], || first.owned().len() + second.owned().len() == 6).await;
    let mut by_java = java.await.unwrap();

    // Ottla members come and go, while a Java member is there.
    let java = javas(300);
    until("two each", &[&first, &second], || first.owned().len() == 2 && second.owned().len() == 2).await;
    second.close().await;
    until("three of six", &[&first], || first.owned().len() == 3).await;
    let third = Member::start("third", ours(), &topic, &journal).await;
    until("two each", &[&first, &third], || first.owned().len() == 2 && third.owned().len() == 2).await;
    first.close().await;
    until("Java to leave", &[&third], || third.owned().len() == 6).await;
    by_java.extend(java.await.unwrap());

    tokio::time::sleep(Duration::from_secs(1)).await;
    let ends = source.end().await;
    // Under the cooperative protocol Java's client reads on while the group rebalances, and does
    // not commit these records before it revokes a partition (KIP-429): the next member reads them
    // again.
    let by_java = ByJava { read: by_java, may_repeat: properties == COOPERATIVE_STICKY };
    read_once(&journal, &by_java, &ends, &[&third]).await;
    third.close().await;
}
