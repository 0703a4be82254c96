//! Tests of topics that do not exist, may not be read, or have all partitions assigned to other
//! members: the reader's errors, the status and the log lines.

use tracing::Level;

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{GroupState, TopicState},
    log::capture::Lines,
    testkit::{Options, on},
};

for_each_group_protocol!(
    member_without_partitions_is_standby,
    pattern_without_topics_is_one_info_line,
    missing_topic_is_reported_once_after_grace,
    forbidden_topic_is_reported_once_after_grace,
    topic_that_appears_late_is_consumed,
    full_group_ends_the_consumer,
);

/// Starts brokers that create no topic automatically.
async fn strict_cluster() -> Cluster {
    Cluster::start(Options::new().auto_create(false).in_memory()).await.unwrap()
}

async fn member(cluster: &Cluster, protocol: GroupProtocol, topics: &[&str]) -> Consumer {
    subscribed(group_builder(cluster, protocol), topics).await
}

fn topic(consumer: &Consumer, name: &str) -> TopicState {
    consumer.status().topics[name].state
}

fn state(consumer: &Consumer) -> GroupState {
    consumer.status().group.unwrap().state
}

async fn member_without_partitions_is_standby(protocol: GroupProtocol) {
    let lines = Lines::capture();
    let cluster = strict_cluster().await;
    cluster.create_topic("t", 1).unwrap();
    let first = member(&cluster, protocol, &["t"]).await;
    nothing_for(&first, 10).await;
    let second = member(&cluster, protocol, &["t"]).await;
    let waits = tokio::time::timeout(100 * SECOND, async { tokio::join!(first.recv(), second.recv()) });
    assert!(waits.await.is_err(), "neither a record nor an error");
    let states = [state(&first), state(&second)];
    assert!(states.iter().any(|state| matches!(state, GroupState::Stable { .. })), "{protocol:?}: {states:?}");
    assert!(states.iter().any(|state| matches!(state, GroupState::Standby { .. })), "{protocol:?}: {states:?}");
    assert!(lines.with(Level::WARN, "nothing is consumed").is_empty(), "standby is no fault");
}

async fn pattern_without_topics_is_one_info_line(protocol: GroupProtocol) {
    let lines = Lines::capture();
    let cluster = strict_cluster().await;
    cluster.create_topic("orders", 1).unwrap();
    let builder = group_builder(&cluster, protocol);
    let consumer = subscribed(builder.property("metadata.max.age.ms", "20000"), &["^audit"]).await;
    nothing_for(&consumer, 120).await;
    assert_eq!(consumer.status().unmatched_patterns, ["^audit"]);
    assert!(matches!(state(&consumer), GroupState::NoTopics { .. }), "{protocol:?}: {:?}", state(&consumer));
    assert_eq!(lines.with(Level::INFO, "no topic matches").len(), 1);
    cluster.create_topic("audit-1", 1).unwrap();
    append(&cluster, "audit-1", 0, 0..1);
    assert_eq!(number(&next(&consumer).await), 0);
    tokio::time::sleep(30 * SECOND).await;
    assert!(consumer.status().unmatched_patterns.is_empty());
}

/// Asserts that neither a record nor an error arrives for `seconds` seconds.
async fn nothing_for(consumer: &Consumer, seconds: u64) {
    let next = tokio::time::timeout(Duration::from_secs(seconds), consumer.recv()).await;
    assert!(next.is_err(), "{next:?}");
}

async fn missing_topic_is_reported_once_after_grace(protocol: GroupProtocol) {
    let lines = Lines::capture();
    let cluster = strict_cluster().await;
    let consumer = member(&cluster, protocol, &["nowhere"]).await;
    nothing_for(&consumer, 29).await;
    assert_eq!(topic(&consumer, "nowhere"), TopicState::Missing);
    assert!(matches!(state(&consumer), GroupState::NoTopics { .. }), "{:?}", state(&consumer));
    let error = next_error(&consumer, 5).await;
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{protocol:?}: {error}");
    let text = error.to_string();
    assert!(text.contains("nowhere") && text.contains("topic.metadata.propagation.max.ms"), "{text}");
    nothing_for(&consumer, 600).await;
    let told = lines.with(Level::WARN, "nowhere");
    assert!(told.len() == 1 && told[0].contains("UNKNOWN_TOPIC_OR_PARTITION"), "{told:#?}");
    lines.assert_origin("client_id=ottla role=consumer group=g");
}

async fn forbidden_topic_is_reported_once_after_grace(protocol: GroupProtocol) {
    let cluster = strict_cluster().await;
    cluster.create_topic("secret", 1).unwrap();
    cluster.fault(on(ApiKey::Metadata).topic("secret").error(ErrorCode::TOPIC_AUTHORIZATION_FAILED).forever());
    let consumer = member(&cluster, protocol, &["secret"]).await;
    let error = next_error(&consumer, 35).await;
    assert_eq!(error.kind(), ErrorKind::Authorization, "{protocol:?}: {error}");
    assert_eq!(topic(&consumer, "secret"), TopicState::Forbidden);
    nothing_for(&consumer, 300).await;
    cluster.clear_faults();
    append(&cluster, "secret", 0, 0..1);
    assert_eq!(number(&next(&consumer).await), 0, "the right was granted");
}

async fn topic_that_appears_late_is_consumed(protocol: GroupProtocol) {
    let lines = Lines::capture();
    let cluster = strict_cluster().await;
    let consumer = member(&cluster, protocol, &["late"]).await;
    assert_eq!(next_error(&consumer, 40).await.kind(), ErrorKind::UnknownTopicOrPartition);
    cluster.create_topic("late", 1).unwrap();
    append(&cluster, "late", 0, 0..1);
    assert_eq!(number(&next(&consumer).await), 0);
    assert_eq!(lines.with(Level::INFO, "late").iter().filter(|line| line.contains("exist")).count(), 1);
    cluster.delete_topic("late").unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "vanished again: {error}");
    nothing_for(&consumer, 300).await;
}

#[tokio::test(start_paused = true)]
async fn assigned_missing_topic_is_reported_once() {
    let cluster = strict_cluster().await;
    let consumer = consumer(&cluster).await;
    consumer.assign((0..50).map(|partition| (tp("nowhere", partition), Offset::Beginning))).unwrap();
    nothing_for(&consumer, 29).await;
    let error = next_error(&consumer, 5).await;
    assert!(error.kind() == ErrorKind::UnknownTopicOrPartition && error.to_string().contains("nowhere"), "{error}");
    nothing_for(&consumer, 300).await;
}

async fn full_group_ends_the_consumer(protocol: GroupProtocol) {
    let cluster = strict_cluster().await;
    cluster.create_topic("t", 1).unwrap();
    let keys = [ApiKey::JoinGroup, ApiKey::ConsumerGroupHeartbeat];
    let full = crate::testkit::on_any_of(keys).error(ErrorCode::GROUP_MAX_SIZE_REACHED).forever();
    cluster.fault(full);
    let consumer = member(&cluster, protocol, &["t"]).await;
    let error = next_error(&consumer, 10).await;
    assert_eq!(error.code(), Some(ErrorCode::GROUP_MAX_SIZE_REACHED));
    assert!(error.is_fatal(), "{error:?}");
    assert!(consumer.recv().await.is_none(), "nothing follows a fatal error");
}
