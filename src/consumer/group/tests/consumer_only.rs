//! Tests of what only the consumer protocol has (KIP-848).

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::*;
use crate::{
    consumer::GroupState,
    error::{Error, ErrorCode, ErrorKind},
    record::TopicPartition,
    testkit::on,
    wire::ApiKey,
};

const CONSUMER: GroupProtocol = GroupProtocol::Consumer;

#[tokio::test(start_paused = true)]
async fn uses_server_assignor_and_reports_unsupported() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("u", 4).unwrap();
    let member = || Member::assigned_by(&cluster, "range");
    let (mut first, mut second) = (member(), member());
    first.subscribe(&["t", "u"]);
    second.subscribe(&["t", "u"]);
    let (one, other) = (first.owns_so_many(4).await, second.owns_so_many(4).await);
    let low: BTreeSet<_> = partitions("t", 0..2).into_iter().chain(partitions("u", 0..2)).collect();
    assert!(one == low || other == low, "{one:?} {other:?}");
    assert_eq!(cluster.consumer_group("g").unwrap().assignor, "range");

    let mut third = Member::assigned_by(&cluster, "sticky");
    third.subscribe(&["t"]);
    let heard = third.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.errors[0].code(), Some(ErrorCode::UNSUPPORTED_ASSIGNOR));
}

#[tokio::test(start_paused = true)]
async fn static_member_waits_for_unreleased_instance() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::fixed(&cluster, CONSUMER, "a");
    first.owns(partitions("t", 0..4)).await;
    drop(first);
    let mut again = Member::fixed(&cluster, CONSUMER, "a");
    let heard = again.owns(partitions("t", 0..4)).await;
    assert!(heard.fatal.is_none());
    let told: Vec<_> = heard.errors.iter().map(Error::code).collect();
    assert_eq!(told, [Some(ErrorCode::UNRELEASED_INSTANCE_ID)], "told once while it waits");
}

#[tokio::test(start_paused = true)]
async fn duplicate_instance_id_waits_for_first_member() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::fixed(&cluster, CONSUMER, "a");
    first.owns(partitions("t", 0..4)).await;
    let mut second = Member::fixed(&cluster, CONSUMER, "a");
    second.until("being told", |heard| !heard.errors.is_empty()).await;
    sleep(session(CONSUMER) * 3).await;
    assert_eq!((first.now().owned.len(), second.now().owned.len(), first.now().lost), (4, 0, 0));
    first.handle.close(soon()).await.unwrap();
    second.owns(partitions("t", 0..4)).await;
}

#[tokio::test(start_paused = true)]
async fn regex_picks_up_new_topics_and_partitions() {
    let cluster = cluster(Options::new().auto_create(false)).await;
    let mut member = Member::joined(&cluster, CONSUMER, &["^t$", "^audit\\.", "plain"]);
    member.owns(partitions("t", 0..4)).await;
    let regex = &cluster.consumer_group("g").unwrap().members[0].regex;
    assert_eq!(regex, ".*(?:(?:^t$)|(?:^audit\\.)).*");
    cluster.create_topic("audit.a", 1).unwrap();
    cluster.create_topic("my-audit.a", 1).unwrap();
    cluster.create_topic("plain", 1).unwrap();
    let mut expected: BTreeSet<_> = partitions("t", 0..4).into_iter().chain(partitions("plain", 0..1)).collect();
    expected.extend(partitions("audit.a", 0..1));
    member.owns(expected.clone()).await;
    cluster.add_partitions("audit.a", 3).unwrap();
    expected.extend(partitions("audit.a", 0..3));
    member.owns(expected).await;
    member.subscribe(&["t"]);
    member.owns(partitions("t", 0..4)).await;
    assert_eq!(cluster.consumer_group("g").unwrap().members[0].regex, "");
    assert_eq!(member.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn reports_invalid_regex_and_retries() {
    let cluster = cluster(Options::new()).await;
    cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).error(ErrorCode::INVALID_REGULAR_EXPRESSION));
    let mut member = Member::joined(&cluster, CONSUMER, &["^t"]);
    let heard = member.owns(partitions("t", 0..4)).await;
    assert_eq!(heard.errors[0].code(), Some(ErrorCode::INVALID_REGULAR_EXPRESSION));
}

#[tokio::test(start_paused = true)]
async fn sends_topic_names_when_broker_lacks_regex() {
    let cluster = cluster(Options::new().max_version(ApiKey::ConsumerGroupHeartbeat, 0)).await;
    let mut member = Member::joined(&cluster, CONSUMER, &["^t", "^audit"]);
    member.owns(partitions("t", 0..4)).await;
    cluster.create_topic("audit", 1).unwrap();
    member.owns(partitions("t", 0..4).into_iter().chain(partitions("audit", 0..1)).collect()).await;
    assert_eq!(member.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn waits_for_metadata_of_assigned_topic() {
    let cluster = cluster(Options::new()).await;
    // One expression, so that topics are not searched again once it has found one.
    let mut member = Member::joined(&cluster, CONSUMER, &["^t$|^late$"]);
    member.owns(partitions("t", 0..4)).await;
    // The brokers' metadata lags behind the coordinator's.
    let lag = cluster.fault(on(ApiKey::Metadata).topic("late").forever().error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    cluster.create_topic("late", 2).unwrap();
    sleep(session(CONSUMER)).await;
    assert_eq!(member.now().owned, partitions("t", 0..4));
    assert!(matches!(member.handle.status().state, GroupState::Rebalancing), "it is missing something");
    assert!(lag.hits() > 3, "it is asked for again and again: {}", lag.hits());
    lag.clear();
    member.owns(partitions("t", 0..4).into_iter().chain(partitions("late", 0..2)).collect()).await;
    assert_eq!((member.now().lost, member.now().revoked), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn commit_retries_stale_epoch_and_rejects_unowned() {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, CONSUMER).await;
    // The epoch rises without the member's knowledge.
    cluster.create_topic("u", 1).unwrap();
    let mut other = Member::joined(&cluster, CONSUMER, &["u"]);
    other.owns(partitions("u", 0..1)).await;
    sleep(SECOND * 20).await;
    let stale = cluster.fault(on(ApiKey::OffsetCommit).times(2).error(ErrorCode::STALE_MEMBER_EPOCH));
    let before = cluster.requests(ApiKey::ConsumerGroupHeartbeat);
    member.handle.commit(vec![(TopicPartition::new("t", 1), 5.into())], soon()).await.unwrap();
    assert_eq!((stale.hits(), cluster.committed("g", "t", 1)), (2, Some(5)));
    assert!(cluster.requests(ApiKey::ConsumerGroupHeartbeat) > before, "the new epoch is asked for at once");
    let refused = member.handle.commit(vec![(TopicPartition::new("u", 0), 5.into())], soon()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotAssigned);
    assert_eq!(cluster.committed("g", "u", 0), None);
    let read = member.handle.committed(vec![TopicPartition::new("t", 1)], soon()).await.unwrap();
    assert_eq!(read[&TopicPartition::new("t", 1)], Some(5.into()));
}

#[tokio::test(start_paused = true)]
async fn reports_cluster_without_consumer_protocol() {
    let cluster = cluster(Options::new().max_version(ApiKey::ConsumerGroupHeartbeat, -1)).await;
    let mut member = Member::joined(&cluster, CONSUMER, &["t"]);
    let heard = member.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.errors[0].kind(), ErrorKind::UnsupportedVersion);
    assert!(heard.errors[0].to_string().contains("group.protocol=classic"), "{}", heard.errors[0]);
}

#[tokio::test(start_paused = true)]
async fn topic_authorization_error_costs_no_partitions() {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, CONSUMER).await;
    let code = ErrorCode::TOPIC_AUTHORIZATION_FAILED;
    let fault = cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).times(5).error(code));
    fault.reached(5).await;
    sleep(session(CONSUMER)).await;
    let heard = member.now();
    assert_eq!(heard.errors.iter().map(Error::code).collect::<Vec<_>>(), [Some(code)]);
    assert_eq!((heard.owned.len(), heard.lost), (4, 0));
}
