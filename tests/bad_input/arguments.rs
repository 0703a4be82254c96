//! Invalid arguments and settings are refused with the reason, before anything is sent.

use std::time::Duration;

use ottla::{
    Admin, Consumer, ErrorKind, Offset, Producer, Record,
    admin::NewTopic,
    testkit::{Cluster, Options},
};

use crate::common::*;

const FORBIDDEN: [(&str, &str); 6] = [
    ("", "empty"),
    (".", "\".\" or \"..\""),
    ("..", "\".\" or \"..\""),
    ("a b", "characters"),
    ("über", "characters"),
    ("a/b\n", "characters"),
];

#[tokio::test(start_paused = true)]
async fn every_client_rejects_forbidden_topic_names() {
    let cluster = cluster().await;
    let producer = producer(&cluster).build().await.unwrap();
    let consumer = consumer(&cluster).group("g").build().await.unwrap();
    let admin = admin(&cluster).build().await.unwrap();
    let long = "x".repeat(250);
    for (name, why) in FORBIDDEN.into_iter().chain([(&*long, "249")]) {
        let bad = ErrorKind::InvalidArgument;
        let at = || tp(name, 0);
        refused(producer.send(Record::to(name).with_value("x")).await, bad, &[why]);
        refused(producer.partitions_for(name).await, bad, &[why]);
        refused(consumer.subscribe(["fine", name]), bad, &[why]);
        refused(consumer.assign([(at(), Offset::Beginning)]), bad, &[why]);
        refused(in_time(consumer.partitions_for(name)).await, bad, &[why]);
        refused(in_time(consumer.beginning_offsets([at()])).await, bad, &[why]);
        refused(in_time(consumer.committed([at()])).await, bad, &[why]);
        refused(in_time(consumer.commit_offsets([(at(), 1)])).await, bad, &[why]);
        refused(admin.create_topics([NewTopic::new(name, 1)]).await, bad, &[why]);
        refused(admin.describe_topics([name]).await, bad, &[why]);
        refused(admin.delete_topics([name]).await, bad, &[why]);
    }
    assert_eq!(producer.flush(SECOND).await, 0);
    assert!(admin.list_topics().await.unwrap().is_empty(), "no topic was created");
}

#[tokio::test(start_paused = true)]
async fn rejects_negative_and_unknown_partitions() {
    let cluster = Cluster::start(Options::new().in_memory().auto_create(false)).await.unwrap();
    cluster.create_topic("t", 2).unwrap();
    let producer = producer(&cluster).max_block(5 * SECOND).build().await.unwrap();
    let consumer = consumer(&cluster).group("g").default_api_timeout(5 * SECOND).build().await.unwrap();
    let bad = ErrorKind::InvalidArgument;
    refused(producer.send(Record::to("t").with_partition(-1).with_value("x")).await, bad, &["-1"]);
    refused(consumer.assign([(tp("t", -1), Offset::Beginning)]), bad, &["t[-1]"]);
    refused(in_time(consumer.committed([tp("t", -1)])).await, bad, &["t[-1]"]);
    refused(in_time(consumer.commit_offsets([(tp("t", -1), 0)])).await, bad, &["t[-1]"]);
    refused(in_time(consumer.end_offsets([tp("t", -1)])).await, bad, &["t[-1]"]);

    let missing = ErrorKind::UnknownTopicOrPartition;
    let delivery = producer.send(Record::to("t").with_partition(2).with_value("x")).await.unwrap();
    refused(in_time(delivery).await, missing, &["t", "2"]);
    let delivery = producer.send(Record::to("t").with_partition(i32::MAX).with_value("x")).await.unwrap();
    refused(in_time(delivery).await, missing, &["t"]);
    refused(in_time(consumer.end_offsets([tp("t", 7)])).await, missing, &["t[7]"]);
    consumer.assign([(tp("t", 2), Offset::Beginning), (tp("t", 0), Offset::Beginning)]).unwrap();
    refused(next(&consumer).await, missing, &["t[2]"]);
    append(&cluster, "t", 0, 0..2);
    assert_eq!(numbers(&consumer, 2).await, [0, 1], "the other partition is read");
}

#[tokio::test(start_paused = true)]
async fn rejected_offsets_leave_position_unchanged() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    let consumer = consumer(&cluster).group("g").build().await.unwrap();
    refused(consumer.assign([(tp("t", 0), -1)]), ErrorKind::InvalidArgument, &["t[0]", "-1"]);
    refused(consumer.seek(&tp("t", 0), 0), ErrorKind::NotAssigned, &["t[0]"]);
    consumer.assign([(tp("t", 0), 1)]).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [1]);
    refused(consumer.seek(&tp("t", 0), -5), ErrorKind::InvalidArgument, &["t[0]", "-5"]);
    refused(consumer.seek(&tp("t", 1), 0), ErrorKind::NotAssigned, &["t[1]"]);
    refused(consumer.pause([&tp("t", 0), &tp("u", 0)]), ErrorKind::NotAssigned, &["u[0]"]);
    let negative = in_time(consumer.commit_offsets([(tp("t", 0), -1)])).await;
    refused(negative, ErrorKind::InvalidArgument, &["t[0]", "-1"]);
    assert_eq!(numbers(&consumer, 3).await, [2, 3, 4]);
    consumer.seek(&tp("t", 0), i64::MAX).unwrap();
    let far = tokio::time::timeout(30 * SECOND, consumer.recv()).await;
    assert!(far.is_err(), "the reset policy is to wait for new records: {far:?}");
    append(&cluster, "t", 0, 5..6);
    assert_eq!(numbers(&consumer, 1).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn subscribe_error_shows_invalid_pattern() {
    let cluster = cluster().await;
    let consumer = consumer(&cluster).group("g").build().await.unwrap();
    for bad in ["^(", "^orders[", r"^\p{Nonsense}", "^a{9999999}"] {
        refused(consumer.subscribe([bad]), ErrorKind::InvalidArgument, &[&bad[1..2]]);
    }
    consumer.subscribe(["^fine"]).unwrap();
}

#[tokio::test(start_paused = true)]
async fn group_calls_without_group_id_are_rejected() {
    let cluster = cluster().await;
    let consumer = consumer(&cluster).build().await.unwrap();
    refused(consumer.subscribe(["t"]), ErrorKind::InvalidArgument, &["group.id"]);
    refused(consumer.commit().await, ErrorKind::InvalidArgument, &["group.id"]);
    refused(consumer.committed([tp("t", 0)]).await, ErrorKind::InvalidArgument, &["group.id"]);
}

#[tokio::test]
async fn property_errors_name_property_and_suggestion() {
    let servers = ("bootstrap.servers", "127.0.0.1:1");
    let bad = ErrorKind::Configuration;
    refused(Producer::from_properties([servers, ("linger.sm", "5")]).await, bad, &["linger.sm", "linger.ms"]);
    refused(Producer::from_properties([servers, ("acks", "some")]).await, bad, &["acks", "(hidden)", "all"]);
    refused(Consumer::from_properties([servers, ("group.ids", "g")]).await, bad, &["group.ids", "group.id"]);
    refused(Consumer::from_properties([servers, ("max.poll.records", "-1")]).await, bad, &["max.poll.records"]);
    refused(Admin::from_properties([servers, ("request.timeout", "5")]).await, bad, &["request.timeout.ms"]);
    refused(Admin::from_properties([("client.id", "me")]).await, bad, &["bootstrap.servers"]);
    refused(Producer::from_properties([("bootstrap.servers", "a:b:c")]).await, bad, &["a:b:c"]);
    for servers in ["", ",", "host", "host:", ":9092", "host:0", "host:70000", "host:-1", "ho st:1"] {
        refused(Producer::builder(servers).build().await, bad, &["bootstrap.servers"]);
        refused(Consumer::builder(servers).build().await, bad, &["bootstrap.servers"]);
        refused(Admin::builder(servers).build().await, bad, &["bootstrap.servers"]);
    }
}

#[tokio::test]
async fn conflicting_settings_error_names_both_properties() {
    let bad = ErrorKind::Configuration;
    let producer = || Producer::builder("127.0.0.1:1");
    let consumer = || Consumer::builder("127.0.0.1:1");
    let weak = producer().idempotence(true).acks(ottla::producer::Acks::Leader);
    refused(weak.build().await, bad, &["enable.idempotence", "acks"]);
    let short = producer().delivery_timeout(SECOND).request_timeout(2 * SECOND);
    refused(short.build().await, bad, &["delivery.timeout.ms", "linger.ms", "request.timeout.ms"]);
    let slow = consumer().group("g").heartbeat_interval(60 * SECOND).session_timeout(45 * SECOND);
    refused(slow.build().await, bad, &["heartbeat.interval.ms", "session.timeout.ms"]);
    refused(consumer().group_instance_id("i").build().await, bad, &["group.instance.id", "group.id"]);
    refused(consumer().max_poll_records(0).build().await, bad, &["max.poll.records"]);
    let backwards = producer().retry_backoff(2 * SECOND, SECOND);
    refused(backwards.build().await, bad, &["retry.backoff.ms", "retry.backoff.max.ms"]);
}

#[tokio::test(start_paused = true)]
async fn accepts_maximum_duration_for_every_timeout() {
    let (cluster, ever) = (cluster().await, Duration::MAX);
    cluster.create_topic("t", 1).unwrap();
    let builder = producer(&cluster).max_block(ever).delivery_timeout(ever).request_timeout(ever);
    let producer = builder.build().await.unwrap();
    in_time(producer.send(Record::to("t").with_value("0")).await.unwrap()).await.unwrap();
    assert_eq!(producer.partitions_for("t").await.unwrap().len(), 1);
    assert_eq!(in_time(producer.flush(ever)).await, 0);
    in_time(producer.close(ever)).await.unwrap();

    let builder = consumer(&cluster).group("g").request_timeout(ever).default_api_timeout(ever).fetch_max_wait(SECOND);
    let builder = builder.max_poll_interval(ever).session_timeout(60 * SECOND).auto_commit_interval(ever);
    let consumer = builder.auto_offset_reset(ottla::consumer::OffsetReset::Earliest).build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [0]);
    in_time(consumer.commit()).await.unwrap();
    assert_eq!(in_time(consumer.end_offsets([tp("t", 0)])).await.unwrap()[&tp("t", 0)], 1);
    append(&cluster, "t", 0, 1..2);
    assert_eq!(in_time(consumer.poll(ever)).await.unwrap().len(), 1);
    in_time(consumer.close(ever)).await.unwrap();

    let admin = admin(&cluster).request_timeout(ever).default_api_timeout(ever).build().await.unwrap();
    assert_eq!(admin.list_topics().await.unwrap().len(), 1);
    admin.create_topics([NewTopic::new("u", 1)]).await.unwrap().into_result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn broker_rejects_invalid_partition_counts() {
    let cluster = cluster().await;
    let admin = admin(&cluster).build().await.unwrap();
    for partitions in [0, -2] {
        let created = admin.create_topics([NewTopic::new("t", partitions)]).await.unwrap().into_result();
        refused(created, ErrorKind::Broker, &["t", "INVALID_PARTITIONS"]);
    }
    let twice = admin.create_topics([NewTopic::new("t", 1), NewTopic::new("t", 1)]).await;
    refused(twice, ErrorKind::InvalidArgument, &["t", "twice"]);
    admin.create_topics([NewTopic::new("t", 1)]).await.unwrap().into_result().unwrap();
    let described = admin.describe_topics(["t", "t"]).await.unwrap().into_result().unwrap();
    assert_eq!(described.len(), 2);
}
