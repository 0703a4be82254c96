//! Tests of the consumer against brokers in the process, under paused time.

mod batches;
mod budget;
mod chain;
mod commits;
mod committing;
mod connection_scaling;
mod counting;
mod damage;
mod decompression;
mod dropping;
mod elections;
mod error_reporting;
mod faults;
mod fetching;
mod freezing;
mod group_metadata;
mod groups;
mod interleavings;
mod log_lines;
mod logs;
mod lookups;
mod membership_changes;
mod memory;
mod missing_topics;
mod partition_streams;
mod planning;
mod positions;
mod reading;
mod rebalance_listeners;
mod replicas;
mod rewinding;
mod round_trips;
mod sessions;
mod stale;
mod subscriptions;
mod traces;
mod transactions;
mod unstable_offsets;
mod world;

use std::time::Duration;

use crate::{
    Consumer, ConsumerRecord, Offset, Record, TopicPartition,
    consumer::{ConsumerBuilder, GroupProtocol, OffsetReset},
    testkit::{Cluster, Options},
    tests::{SECOND, cluster, for_each_group_protocol, heartbeat, tp},
};

fn builder(cluster: &Cluster) -> ConsumerBuilder {
    cluster.consumer().seed(1)
}

async fn consumer(cluster: &Cluster) -> Consumer {
    builder(cluster).build().await.unwrap()
}

/// Returns the builder of a member of the group `g` that reads from the beginning.
fn group_builder(cluster: &Cluster, protocol: GroupProtocol) -> ConsumerBuilder {
    builder(cluster).group("g").group_protocol(protocol).auto_offset_reset(OffsetReset::Earliest)
}

async fn subscribed(builder: ConsumerBuilder, topics: &[&str]) -> Consumer {
    let consumer = builder.build().await.unwrap();
    consumer.subscribe(topics).unwrap();
    consumer
}

/// Returns the number of members of the group `g`.
fn members(cluster: &Cluster) -> usize {
    cluster.group("g").map_or(0, |group| group.members.len())
}

/// Appends a batch with these numbers as values.
fn append(cluster: &Cluster, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
    let records: Vec<_> = numbers.map(|n| Record::to(topic).with_value(n.to_string())).collect();
    cluster.append(topic, partition, &records).unwrap();
}

fn number(record: &ConsumerRecord) -> i64 {
    String::from_utf8_lossy(record.value.as_deref().unwrap()).parse().unwrap()
}

/// Returns the next record, which has to arrive within a minute.
async fn next(consumer: &Consumer) -> ConsumerRecord {
    let next = tokio::time::timeout(60 * SECOND, consumer.recv()).await.expect("a record within a minute");
    next.expect("not the end").expect("a record")
}

/// Returns the next error, which has to arrive within `seconds` seconds.
async fn next_error(consumer: &Consumer, seconds: u64) -> crate::Error {
    let next = tokio::time::timeout(Duration::from_secs(seconds), consumer.recv()).await.expect("an error in time");
    next.expect("not the end").expect_err("an error")
}

/// Reads `count` records, as numbers.
async fn numbers(consumer: &Consumer, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&next(consumer).await));
    }
    numbers
}

/// Creates a topic of one partition with these numbers, and a consumer that reads it from the
/// beginning.
async fn reading(cluster: &Cluster, topic: &str, count: i64) -> Consumer {
    cluster.create_topic(topic, 1).unwrap();
    if count > 0 {
        append(cluster, topic, 0, 0..count);
    }
    let consumer = consumer(cluster).await;
    consumer.assign([(tp(topic, 0), Offset::Beginning)]).unwrap();
    consumer
}

/// Returns true if no further record arrives within ten seconds.
async fn is_quiet(consumer: &Consumer) -> bool {
    consumer.poll(10 * SECOND).await.unwrap().is_empty()
}

/// Reads the buffered records, or waits for a second.
async fn read_on(consumer: &Consumer) {
    let records = consumer.poll(SECOND).await.unwrap();
    // Records that are not iterated would be delivered again at once.
    assert!(records.iter().count() <= 500);
}
