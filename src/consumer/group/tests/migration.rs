//! Tests of a live group that moves from the classic protocol to the consumer protocol and back
//! (KIP-848).

use tokio::time::sleep;

use super::*;
use crate::{
    error::{ErrorCode, ErrorKind},
    record::TopicPartition,
};

const CLASSIC: GroupProtocol = GroupProtocol::Classic;
const CONSUMER: GroupProtocol = GroupProtocol::Consumer;

#[tokio::test(start_paused = true)]
async fn live_group_migrates_to_consumer_protocol() {
    let cluster = cluster(Options::new()).await;
    let [old, older] = two_settled(&cluster, CLASSIC).await;
    old.handle.commit(vec![(old.now().owned.first().unwrap().clone(), 9.into())], soon()).await.unwrap();
    let committed = old.now().owned.first().unwrap().partition;
    assert!(cluster.consumer_group("g").is_none());

    // The first member of the new protocol moves the group; three members share four partitions.
    let mut new = Member::joined(&cluster, CONSUMER, &["t"]);
    new.until("a share", |heard| !heard.owned.is_empty()).await;
    sleep(Duration::from_secs(30)).await;
    one_owner_each(&[&old, &older, &new]);
    assert_eq!(old.now().owned.len() + older.now().owned.len() + new.now().owned.len(), 4);
    let group = cluster.consumer_group("g").unwrap();
    assert_eq!(group.members.iter().filter(|member| member.classic).count(), 2);
    let kept = old.now().owned.first().unwrap().clone();
    old.handle.commit(vec![(kept.clone(), 11.into())], soon()).await.unwrap();

    old.handle.close(soon()).await.unwrap();
    older.handle.close(soon()).await.unwrap();
    new.owns(partitions("t", 0..4)).await;
    let group = cluster.consumer_group("g").unwrap();
    assert_eq!((group.members.len(), group.members[0].classic), (1, false));
    assert!(cluster.committed("g", "t", committed).is_some(), "what was committed stays");
    assert_eq!(cluster.committed("g", "t", kept.partition), Some(11));
    assert_eq!(new.now().lost, 0);
}

#[tokio::test(start_paused = true)]
async fn live_group_migrates_back_to_classic() {
    let cluster = cluster(Options::new()).await;
    let mut new = settled(&cluster, CONSUMER).await;
    new.handle.commit(vec![(TopicPartition::new("t", 3), 4.into())], soon()).await.unwrap();
    let mut old = Member::joined(&cluster, CLASSIC, &["t"]);
    old.owns_so_many(2).await;
    new.owns_so_many(2).await;
    one_owner_each(&[&old, &new]);

    new.handle.close(soon()).await.unwrap();
    old.owns(partitions("t", 0..4)).await;
    assert!(cluster.consumer_group("g").is_none(), "it is a classic group again");
    assert_eq!(cluster.group("g").unwrap().protocol.as_deref(), Some("range"));
    assert_eq!(cluster.committed("g", "t", 3), Some(4));
    let mut other = Member::joined(&cluster, CLASSIC, &["t"]);
    other.owns_so_many(2).await;
    old.owns_so_many(2).await;
}

#[tokio::test(start_paused = true)]
async fn reports_when_migration_is_disabled() {
    let cluster = cluster(Options::new().consumer_group_migration(false)).await;
    let old = settled(&cluster, CLASSIC).await;
    let mut new = Member::joined(&cluster, CONSUMER, &["t"]);
    let heard = new.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.errors[0].code(), Some(ErrorCode::GROUP_ID_NOT_FOUND));
    assert_eq!(old.now().owned.len(), 4);
    // Once the other members are gone, nothing blocks the move.
    old.handle.close(soon()).await.unwrap();
    new.owns(partitions("t", 0..4)).await;

    let mut old = Member::joined(&cluster, CLASSIC, &["t"]);
    let heard = old.until("being told", |heard| !heard.errors.is_empty()).await;
    assert_eq!(heard.errors[0].kind(), ErrorKind::Broker);
    assert_eq!(heard.errors[0].code(), Some(ErrorCode::INCONSISTENT_GROUP_PROTOCOL));
}
