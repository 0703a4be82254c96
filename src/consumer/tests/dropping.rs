//! Tests of a consumer that is dropped without a close.

use super::*;
use crate::ApiKey;

for_each_group_protocol!(dropped_consumer_leaves_its_group,);

async fn member(cluster: &Cluster, protocol: GroupProtocol, instance: Option<&str>) -> Consumer {
    let builder = group_builder(cluster, protocol);
    let builder = builder.auto_commit_interval(3600 * SECOND);
    let builder = match instance {
        Some(id) => builder.group_instance_id(id),
        None => builder,
    };
    subscribed(builder, &["t"]).await
}

async fn filled() -> Cluster {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    cluster
}

async fn dropped_consumer_leaves_its_group(protocol: GroupProtocol) {
    let cluster = filled().await;
    let first = member(&cluster, protocol, None).await;
    assert_eq!(numbers(&first, 5).await, [0, 1, 2, 3, 4]);
    drop(first);
    tokio::time::sleep(SECOND).await;
    assert_eq!(members(&cluster), 0, "{protocol:?}");
    assert_eq!(cluster.committed("g", "t", 0), Some(4), "what was done is committed, what was in hand is not");
    let second = member(&cluster, protocol, None).await;
    let next = tokio::time::timeout(10 * SECOND, second.recv()).await.expect("no session is waited for");
    assert_eq!(number(&next.unwrap().unwrap()), 4);
}

#[tokio::test(start_paused = true)]
async fn dropped_static_member_keeps_its_membership() {
    let cluster = filled().await;
    let first = member(&cluster, GroupProtocol::Classic, Some("a")).await;
    assert_eq!(numbers(&first, 1).await, [0]);
    drop(first);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!((members(&cluster), cluster.requests(ApiKey::LeaveGroup)), (1, 0));

    let cluster = filled().await;
    let first = member(&cluster, GroupProtocol::Consumer, Some("a")).await;
    assert_eq!(numbers(&first, 1).await, [0]);
    drop(first);
    let again = member(&cluster, GroupProtocol::Consumer, Some("a")).await;
    let next = tokio::time::timeout(10 * SECOND, again.recv()).await.expect("an epoch of -2 freed the instance id");
    assert_eq!(number(&next.unwrap().unwrap()), 0);
    assert_eq!(members(&cluster), 1);
}

#[tokio::test(start_paused = true)]
async fn dropped_consumer_without_auto_commit_commits_nothing() {
    let cluster = filled().await;
    let builder = group_builder(&cluster, GroupProtocol::Classic).auto_commit(false);
    let consumer = subscribed(builder, &["t"]).await;
    assert_eq!(numbers(&consumer, 5).await.len(), 5);
    drop(consumer);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!((members(&cluster), cluster.committed("g", "t", 0)), (0, None));
}

#[tokio::test(start_paused = true)]
async fn dropped_consumer_soon_stops_sending_requests() {
    let cluster = filled().await;
    let consumer = member(&cluster, GroupProtocol::Classic, None).await;
    assert_eq!(numbers(&consumer, 2).await.len(), 2);
    cluster.fault(crate::testkit::on_any_of([ApiKey::LeaveGroup, ApiKey::OffsetCommit]).hang().forever());
    drop(consumer);
    tokio::time::sleep(10 * SECOND).await;
    let asked = cluster.journal().len();
    tokio::time::sleep(600 * SECOND).await;
    assert_eq!(cluster.journal().len(), asked, "the background task has ended");
}
