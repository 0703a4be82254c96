//! Tests of what only the classic protocol has.

use tokio::time::sleep;

use super::*;
use crate::{
    error::{ErrorCode, ErrorKind},
    record::TopicPartition,
    testkit::on,
    wire::ApiKey,
};

/// In the consumer protocol, the younger member waits.
#[tokio::test(start_paused = true)]
async fn duplicate_instance_id_fences_older_member() {
    let cluster = cluster(Options::new()).await;
    let mut first = Member::fixed(&cluster, GroupProtocol::Classic, "a");
    first.owns(partitions("t", 0..4)).await;
    let mut second = Member::fixed(&cluster, GroupProtocol::Classic, "a");
    second.owns(partitions("t", 0..4)).await;
    let heard = first.until("its end", |heard| heard.fatal.is_some()).await;
    assert_eq!(heard.lost, 1);
    let error = first.handle.commit(vec![(TopicPartition::new("t", 0), 1.into())], soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    sleep(session(GroupProtocol::Classic) * 3).await;
    assert_eq!(second.now().owned.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn joins_old_brokers_with_oldest_versions() {
    let oldest = [
        (ApiKey::JoinGroup, 0),
        (ApiKey::SyncGroup, 0),
        (ApiKey::Heartbeat, 0),
        (ApiKey::LeaveGroup, 0),
        (ApiKey::OffsetCommit, 2),
        (ApiKey::OffsetFetch, 1),
        (ApiKey::FindCoordinator, 0),
    ];
    let options = oldest.into_iter().fold(Options::new(), |options, (key, version)| options.max_version(key, version));
    let cluster = cluster(options).await;
    let mut first = Member::fixed(&cluster, GroupProtocol::Classic, "unknown there");
    let mut second = Member::joined(&cluster, GroupProtocol::Classic, &["t"]);
    first.owns_so_many(2).await;
    let owned = second.owns_so_many(2).await;
    let partition = owned.first().unwrap().clone();
    second.handle.commit(vec![(partition.clone(), 5.into())], soon()).await.unwrap();
    let read = second.handle.committed(vec![partition.clone()], soon()).await.unwrap();
    assert_eq!(read[&partition], Some(5.into()));
    second.handle.close(soon()).await.unwrap();
    first.owns(partitions("t", 0..4)).await;
}

/// In the consumer protocol, the partition that is committed does not move, and the commit is
/// repeated in the new epoch.
#[tokio::test(start_paused = true)]
async fn commit_fails_when_its_generation_ends() {
    let cluster = cluster(Options::new()).await;
    let first = settled(&cluster, GroupProtocol::Classic).await;
    let busy = cluster.fault(on(ApiKey::OffsetCommit).forever().error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    let handle = first.handle.clone();
    let partition = TopicPartition::new("t", 0);
    let commit = tokio::spawn(async move { handle.commit(vec![(partition, 1.into())], soon()).await });
    busy.reached(1).await;
    let mut second = Member::joined(&cluster, GroupProtocol::Classic, &["t"]);
    second.owns_so_many(2).await;
    let error = commit.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned, "{error}");
    busy.clear();
    sleep(session(GroupProtocol::Classic)).await;
    assert_eq!(cluster.committed("g", "t", 0), None);
}

/// The error exists in the classic protocol alone.
#[tokio::test(start_paused = true)]
async fn rebalance_error_is_returned_and_rejoins() {
    let cluster = cluster(Options::new()).await;
    let mut member = settled(&cluster, GroupProtocol::Classic).await;
    cluster.fault(on(ApiKey::OffsetCommit).times(1).error(ErrorCode::REBALANCE_IN_PROGRESS));
    let partition = TopicPartition::new("t", 0);
    let error = member.handle.commit(vec![(partition.clone(), 1.into())], soon()).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
    // The error made the member rejoin.
    member.until("another assignment", |heard| heard.assigned == 2).await;
    member.handle.commit(vec![(partition, 1.into())], soon()).await.unwrap();
}
