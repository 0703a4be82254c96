//! Tests of the metadata with which a transaction commits a consumer's offsets.

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::GroupState,
    testkit::{
        on,
        tests::transactional_producer::{TransactionalProducer, V1, V2},
    },
    tests::until,
};

for_each_group_protocol!(
    metadata_names_member_and_generation,
    metadata_is_refused_until_member_has_joined,
    metadata_follows_rebalance_and_revocation,
    metadata_is_refused_outside_of_group,
    coordinator_refuses_metadata_of_earlier_generation,
);

fn transactional(cluster: &Cluster, protocol: GroupProtocol) -> ConsumerBuilder {
    group_builder(cluster, protocol).auto_commit(false)
}

async fn cluster_with_records() -> Cluster {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
    cluster
}

/// Lets both members read until each has one partition, and their group has settled.
async fn share(first: &Consumer, second: &Consumer) {
    until("the partitions are shared", || {
        // Polls let the rebalance continue.
        futures_util::FutureExt::now_or_never(first.poll(Duration::ZERO));
        futures_util::FutureExt::now_or_never(second.poll(Duration::ZERO));
        first.assignment().len() == 1 && second.assignment().len() == 1
    })
    .await;
    tokio::time::sleep(10 * SECOND).await;
}

/// Returns member id and generation as the consumer's status shows them.
fn member_in_status(consumer: &Consumer) -> (String, i32) {
    match consumer.status().group.unwrap().state {
        GroupState::Stable { member_id, generation } => (member_id.to_string(), generation),
        other => panic!("{other:?}"),
    }
}

async fn metadata_names_member_and_generation(protocol: GroupProtocol) {
    let cluster = cluster_with_records().await;
    let consumer = subscribed(transactional(&cluster, protocol).group_instance_id("one"), &["t"]).await;
    next(&consumer).await;
    let group = consumer.group_metadata().unwrap();
    assert_eq!((group.member_id().to_owned(), group.generation()), member_in_status(&consumer));
    assert!(!group.member_id().is_empty() && group.generation() > 0);
    assert_eq!((group.group_id(), group.instance_id()), ("g", Some("one")));
    assert_eq!(group.has_member_epoch(), protocol == GroupProtocol::Consumer);
    assert!(group.cluster_id().is_some());
    assert!(group.owns(&tp("t", 0)) && group.owns(&tp("t", 1)) && !group.owns(&tp("t", 2)));
    assert_eq!(consumer.group_metadata().unwrap(), group, "nothing has changed");
}

async fn metadata_is_refused_until_member_has_joined(protocol: GroupProtocol) {
    let cluster = cluster_with_records().await;
    for api in [ApiKey::JoinGroup, ApiKey::ConsumerGroupHeartbeat] {
        cluster.fault(on(api).times(12).error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    }
    let consumer = transactional(&cluster, protocol).build().await.unwrap();
    let refused = consumer.group_metadata().unwrap_err();
    assert_eq!((refused.kind(), refused.is_retriable()), (ErrorKind::NotAssigned, false), "not subscribed: {refused}");
    consumer.subscribe(["t"]).unwrap();
    for _ in 0..5 {
        let refused = consumer.group_metadata().unwrap_err();
        assert_eq!((refused.kind(), refused.is_retriable()), (ErrorKind::NotAssigned, true), "{refused}");
        tokio::time::sleep(SECOND).await;
    }
    next(&consumer).await;
    assert!(consumer.group_metadata().unwrap().generation() > 0);
}

async fn metadata_follows_rebalance_and_revocation(protocol: GroupProtocol) {
    let cluster = cluster_with_records().await;
    let first = subscribed(transactional(&cluster, protocol), &["t"]).await;
    let alone = {
        next(&first).await;
        first.group_metadata().unwrap()
    };
    let second = subscribed(transactional(&cluster, protocol), &["t"]).await;
    share(&first, &second).await;
    let (of_first, of_second) = (first.group_metadata().unwrap(), second.group_metadata().unwrap());
    assert!(of_first.generation() > alone.generation());
    for (consumer, metadata) in [(&first, &of_first), (&second, &of_second)] {
        for partition in [tp("t", 0), tp("t", 1)] {
            assert_eq!(metadata.owns(&partition), consumer.assignment().contains(&partition), "{protocol:?}");
        }
    }
    let (kept, gone) = match first.assignment()[0] == tp("t", 0) {
        true => (tp("t", 0), tp("t", 1)),
        false => (tp("t", 1), tp("t", 0)),
    };
    assert!(!of_first.continues(&alone, [&gone]), "{protocol:?}");
    // An eager rebalance of the classic protocol gives up all partitions.
    assert_eq!(of_first.continues(&alone, [&kept]), protocol == GroupProtocol::Consumer);
}

async fn coordinator_refuses_metadata_of_earlier_generation(protocol: GroupProtocol) {
    for transactions in [V1, V2] {
        let cluster = cluster_with_records().await;
        let mut producer = TransactionalProducer::init(&cluster, "tx", transactions).await;
        let first = subscribed(transactional(&cluster, protocol), &["t"]).await;
        next(&first).await;
        let before = first.group_metadata().unwrap();
        let second = subscribed(transactional(&cluster, protocol), &["t"]).await;
        share(&first, &second).await;
        let refused = ErrorCode::new(producer.send_offset_of(&before, 1).await);
        let stale = [ErrorCode::ILLEGAL_GENERATION, ErrorCode::STALE_MEMBER_EPOCH];
        assert!(stale.contains(&refused), "{refused}");
        assert_eq!(producer.end(false).await, 0);
        assert_eq!(producer.send_offset_of(&first.group_metadata().unwrap(), 1).await, 0);
        assert_eq!(producer.end(true).await, 0);
        assert_eq!(cluster.committed("g", "t", 0), Some(1), "{protocol:?}");
    }
}

async fn metadata_is_refused_outside_of_group(protocol: GroupProtocol) {
    let cluster = cluster_with_records().await;
    let mut builder = transactional(&cluster, protocol).max_poll_interval(10 * SECOND);
    if protocol == GroupProtocol::Classic {
        builder = builder.session_timeout(6 * SECOND);
    }
    let consumer = subscribed(builder, &["t"]).await;
    next(&consumer).await;
    let before = consumer.group_metadata().unwrap();
    tokio::time::sleep(30 * SECOND).await;
    let refused = consumer.group_metadata().unwrap_err();
    assert_eq!((refused.kind(), refused.is_retriable()), (ErrorKind::NotAssigned, true), "{refused}");
    while !matches!(consumer.recv().await, Some(Ok(_))) {}
    let again = consumer.group_metadata().unwrap();
    assert!(!again.continues(&before, [&tp("t", 0)]), "{protocol:?}: it has lost its partitions in between");
    consumer.unsubscribe().unwrap();
    assert_eq!(consumer.group_metadata().unwrap_err().kind(), ErrorKind::NotAssigned);
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(consumer.group_metadata().unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn metadata_by_hand_has_no_member() {
    let cluster = cluster_with_records().await;
    let builder = transactional(&cluster, GroupProtocol::Classic).group_instance_id("one");
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    next(&consumer).await;
    let group = consumer.group_metadata().unwrap();
    assert_eq!((group.group_id(), group.generation(), group.member_id()), ("g", -1, ""));
    assert_eq!((group.instance_id(), group.has_member_epoch()), (None, false));
    assert!(group.cluster_id().is_some() && group.owns(&tp("t", 1)));
}

#[tokio::test(start_paused = true)]
async fn metadata_needs_group_and_manual_commits() {
    let cluster = cluster_with_records().await;
    let without = consumer(&cluster).await;
    without.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let refused = without.group_metadata().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert!(refused.to_string().contains("group.id"), "{refused}");
    let automatic = subscribed(group_builder(&cluster, GroupProtocol::Classic), &["t"]).await;
    next(&automatic).await;
    let refused = automatic.group_metadata().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Configuration, "{refused}");
    assert!(refused.to_string().contains("enable.auto.commit"), "{refused}");
}
