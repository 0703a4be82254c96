//! Scenarios of commits and of reading what was committed.

use tokio::time::timeout;

use super::*;
use crate::{
    consumer::OffsetAndMetadata,
    error::{ErrorCode, ErrorKind},
    record::TopicPartition,
    testkit::on,
    tests::for_each_group_protocol,
    wire::ApiKey,
};

for_each_group_protocol!(
    committed_returns_committed_offsets_and_metadata,
    rejects_commit_of_unowned_partition,
    unsubscribed_commit_fails_if_group_has_members,
    expelled_member_fails_commit_and_rejoins,
    commits_keep_order_when_first_is_retried,
    dropped_commit_future_does_not_affect_others,
    commit_timeout_error_names_last_error,
);

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("t", partition)
}

async fn committed_returns_committed_offsets_and_metadata(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, protocol).await;
    let offset = OffsetAndMetadata { offset: 42, leader_epoch: Some(0), metadata: "from here".to_owned() };
    let commit = vec![(tp(0), offset.clone()), (tp(1), 7.into())];
    member.handle.commit(commit, soon()).await.unwrap();
    let read = member.handle.committed((0..4).map(tp).collect(), soon()).await.unwrap();
    assert_eq!(read[&tp(0)], Some(offset));
    assert_eq!(read[&tp(1)].as_ref().map(|committed| committed.offset), Some(7));
    assert_eq!((&read[&tp(2)], &read[&tp(3)]), (&None, &None));
    assert!(member.handle.committed(Vec::new(), soon()).await.unwrap().is_empty());
    member.handle.commit(Vec::new(), soon()).await.unwrap();
}

async fn rejects_commit_of_unowned_partition(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, protocol).await;
    let before = cluster.requests(ApiKey::OffsetCommit);
    let foreign = TopicPartition::new("u", 0);
    let error = member.handle.commit(vec![(tp(0), 1.into()), (foreign, 1.into())], soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert_eq!(cluster.requests(ApiKey::OffsetCommit), before);
}

async fn unsubscribed_commit_fails_if_group_has_members(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let alone = Member::new(&cluster, protocol);
    alone.handle.commit(vec![(tp(0), 3.into())], soon()).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(3));
    let _member = settled(&cluster, protocol).await;
    let error = alone.handle.commit(vec![(tp(0), 9.into())], soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert_eq!(cluster.committed("g", "t", 0), Some(3));
}

async fn expelled_member_fails_commit_and_rejoins(protocol: GroupProtocol) {
    let mut codes = vec![ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::GROUP_ID_NOT_FOUND];
    // In the consumer protocol, a commit in an epoch of the past is repeated in the present one.
    codes.extend((protocol == GroupProtocol::Classic).then_some(ErrorCode::ILLEGAL_GENERATION));
    for code in codes {
        let cluster = cluster(Options::new()).await;
        let mut member = settled(&cluster, protocol).await;
        cluster.fault(on(ApiKey::OffsetCommit).times(1).error(code));
        let error = member.handle.commit(vec![(tp(0), 1.into())], soon()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAssigned);
        member.until("another assignment", |heard| heard.lost == 1 && heard.assigned == 2).await;
        member.handle.commit(vec![(tp(0), 1.into())], soon()).await.unwrap();
    }
}

async fn commits_keep_order_when_first_is_retried(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, protocol).await;
    cluster.fault(on(ApiKey::OffsetCommit).times(3).error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    let commits = (1..=5).map(|offset| {
        let handle = member.handle.clone();
        tokio::spawn(async move { handle.commit(vec![(tp(0), offset.into())], soon()).await })
    });
    for commit in commits.collect::<Vec<_>>() {
        commit.await.unwrap().unwrap();
    }
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
}

async fn dropped_commit_future_does_not_affect_others(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, protocol).await;
    let hang = cluster.fault(on(ApiKey::OffsetCommit).times(1).delay(Duration::from_secs(3)));
    let given_up = member.handle.commit(vec![(tp(0), 1.into())], soon());
    assert!(timeout(Duration::from_secs(1), given_up).await.is_err());
    assert_eq!(hang.hits(), 1);
    member.handle.commit(vec![(tp(0), 2.into())], soon()).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(2));
    assert_eq!(member.now().lost, 0);
}

async fn commit_timeout_error_names_last_error(protocol: GroupProtocol) {
    let cluster = cluster(Options::new()).await;
    let member = settled(&cluster, protocol).await;
    cluster.fault(on(ApiKey::OffsetCommit).forever().error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    let error = member.handle.commit(vec![(tp(0), 1.into())], soon()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("COORDINATOR_LOAD_IN_PROGRESS"), "{error}");
}
