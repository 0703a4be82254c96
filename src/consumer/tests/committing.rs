//! Tests of commits with obstacles: deleted topics, coordinators that do not answer, other commits.

use std::sync::Arc;

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{GroupProtocol, GroupState, OffsetAndMetadata, assignor::CooperativeStickyAssignor},
    testkit::on,
};

for_each_group_protocol!(
    rebalance_after_topic_deletion_duplicates_no_records,
    close_after_topic_deletion_commits_other_topics,
    close_leaves_group_when_commit_fails,
    long_coordinator_loading_loses_no_record,
    long_coordinator_silence_loses_no_record,
    rejoins_when_commit_reports_unknown_group,
    instance_id_is_scoped_to_its_group,
);

fn in_group(cluster: &Cluster, interval: Duration) -> ConsumerBuilder {
    group_builder(cluster, GroupProtocol::Classic).auto_commit_interval(interval)
}

/// Creates topics `t` and `u` with twenty records each; a deleted topic is not created again by
/// requests for it.
async fn two_topics() -> Cluster {
    let cluster = Cluster::start(Options::new().auto_create(false).in_memory()).await.unwrap();
    for topic in ["t", "u"] {
        cluster.create_topic(topic, 1).unwrap();
        append(&cluster, topic, 0, 0..20);
    }
    cluster
}

/// Reads until it has `count` records of that topic, one after the other, with a pause for each.
async fn read_of(consumer: &Consumer, topic: &str, count: usize) -> Vec<i64> {
    let mut read = Vec::new();
    while read.len() < count {
        match tokio::time::timeout(120 * SECOND, consumer.recv()).await.expect("records in time").expect("not the end")
        {
            Ok(record) if &*record.topic == topic => read.push(number(&record)),
            Ok(_) => {}
            // The deleted topic has no leader.
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}"),
        }
        tokio::time::sleep(SECOND / 10).await;
    }
    read
}

#[tokio::test(start_paused = true)]
async fn auto_commit_continues_after_topic_deletion() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, 2 * SECOND).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("u", 0), Offset::Beginning)]).unwrap();
    read_of(&consumer, "t", 3).await;
    cluster.delete_topic("t").unwrap();
    let read = read_of(&consumer, "u", 20).await;
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(cluster.committed("g", "u", 0), read.last().copied(), "all but the one in hand");
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "u", 0), Some(20));
}

#[tokio::test(start_paused = true)]
async fn commit_to_deleted_topic_blocks_no_other() {
    let cluster = two_topics().await;
    let consumer = Arc::new(in_group(&cluster, 1000 * SECOND).build().await.unwrap());
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("u", 0), Offset::Beginning)]).unwrap();
    read_of(&consumer, "t", 3).await;
    cluster.delete_topic("t").unwrap();
    let (one, other) = (consumer.clone(), tp("t", 0));
    let patient = tokio::spawn(async move { one.commit_offsets([(other, 3)]).await });
    tokio::time::sleep(5 * SECOND).await;
    assert!(!patient.is_finished(), "as Kafka's Java client, it waits for the topic to come");
    let commit = tokio::time::timeout(5 * SECOND, consumer.commit_offsets([(tp("u", 0), 2)])).await;
    commit.expect("it waits for no other").unwrap();
    assert_eq!(cluster.committed("g", "u", 0), Some(2));
    let error = patient.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("UNKNOWN_TOPIC_OR_PARTITION"), "{error}");
    let asked = consumer.commit_async([(tp("t", 0), 3)]).unwrap();
    let asked = tokio::time::timeout(5 * SECOND, asked).await.expect("no call waits for it in the background");
    assert_eq!(asked.unwrap_err().code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
}

/// Clean stops do not duplicate records, even if another topic is deleted.
async fn rebalance_after_topic_deletion_duplicates_no_records(protocol: GroupProtocol) {
    let cluster = two_topics().await;
    let builder = in_group(&cluster, 2 * SECOND).group_protocol(protocol);
    let first = subscribed(builder.clone(), &["t", "u"]).await;
    read_of(&first, "t", 3).await;
    let before = read_of(&first, "u", 3).await.pop().unwrap();
    cluster.delete_topic("t").unwrap();
    // Long enough for commits for the deleted topic, and for a rebalance without it.
    let read = read_of(&first, "u", 8).await;
    let rest: Vec<_> = (before + 1..before + 9).collect();
    assert_eq!(read, rest, "{protocol:?}: none twice");
    first.close(10 * SECOND).await.ok();
    let second = subscribed(builder, &["u"]).await;
    assert_eq!(read_of(&second, "u", 1).await, [before + 9], "{protocol:?}: a close loses no commit");
}

async fn close_after_topic_deletion_commits_other_topics(protocol: GroupProtocol) {
    let cluster = two_topics().await;
    let consumer = subscribed(in_group(&cluster, 1000 * SECOND).group_protocol(protocol), &["t", "u"]).await;
    read_of(&consumer, "t", 1).await;
    let read = read_of(&consumer, "u", 3).await;
    cluster.delete_topic("t").unwrap();
    if let Err(error) = consumer.close(10 * SECOND).await {
        // If the consumer had not learned yet that the topic is deleted.
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_ID), "{protocol:?}: {error}");
    }
    assert_eq!(cluster.committed("g", "u", 0), read.last().map(|last| last + 1), "{protocol:?}");
    assert_eq!(members(&cluster), 0, "{protocol:?}: it left");
}

/// Bug 15 of other clients.
#[tokio::test(start_paused = true)]
async fn recreated_topic_gets_no_old_offsets() {
    let cluster = two_topics().await;
    let consumer = Arc::new(in_group(&cluster, 2 * SECOND).build().await.unwrap());
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 15).await.len(), 15);
    cluster.delete_topic("t").unwrap();
    let user = consumer.clone();
    let by_user = tokio::spawn(async move { user.commit_offsets([(tp("t", 0), 15)]).await });
    tokio::time::sleep(10 * SECOND).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 100..120);
    for _ in 0..600 {
        tokio::time::sleep(SECOND / 10).await;
        let committed = cluster.committed("g", "t", 0);
        assert!(committed.is_none_or(|offset| offset == 0), "an offset of another topic: {committed:?}");
    }
    let error = by_user.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned, "{error}");
    let mut read = Vec::new();
    while read.len() < 20 {
        match consumer.recv().await.unwrap() {
            Ok(record) => read.push(number(&record)),
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}"),
        }
    }
    assert_eq!(read, (100..120).collect::<Vec<_>>());
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(20));
}

/// By name the coordinator would accept it; the id (OffsetCommit 10) is that of the deleted topic.
#[tokio::test(start_paused = true)]
async fn commit_to_recreated_topic_is_refused() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, 1000 * SECOND).auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 15).await.len(), 15);
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 1).unwrap();
    let error = consumer.commit_offsets([(tp("t", 0), 15)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned, "{error}");
    assert!(error.to_string().contains("created again"), "{error}");
    assert_eq!(cluster.committed("g", "t", 0), None);
}

#[tokio::test(start_paused = true)]
async fn unknown_topic_id_blocks_no_other_partition() {
    let cluster = two_topics().await;
    cluster.fault(on(ApiKey::OffsetFetch).partition("t", 0).forever().error(ErrorCode::UNKNOWN_TOPIC_ID));
    let consumer = subscribed(in_group(&cluster, 1000 * SECOND), &["t", "u"]).await;
    let read = tokio::time::timeout(5 * SECOND, read_of(&consumer, "u", 3)).await.expect("u does not wait for t");
    assert_eq!(read, [0, 1, 2]);
    let looked_up = cluster.requests(ApiKey::OffsetFetch);
    tokio::time::sleep(60 * SECOND).await;
    let looked_up = cluster.requests(ApiKey::OffsetFetch) - looked_up;
    assert!((10..600).contains(&looked_up), "{looked_up} look-ups in a minute");
    let error = consumer.committed([tp("t", 0), tp("u", 0)]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_ID), "{error}");
}

#[tokio::test(start_paused = true)]
async fn committed_retries_after_stale_member_epoch() {
    let cluster = two_topics().await;
    let consumer = subscribed(in_group(&cluster, 1000 * SECOND).group_protocol(GroupProtocol::Consumer), &["u"]).await;
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    consumer.commit().await.unwrap();
    cluster.fault(on(ApiKey::OffsetFetch).whole_response().times(2).error(ErrorCode::STALE_MEMBER_EPOCH));
    let committed = consumer.committed([tp("u", 0)]).await.unwrap();
    assert_eq!(committed[&tp("u", 0)].as_ref().map(|committed| committed.offset), Some(2));
}

/// Only the heartbeats decide if the member is unknown: a look-up that made it rejoin would be
/// repeated by the next member, in a loop.
#[tokio::test(start_paused = true)]
async fn committed_retries_without_rejoin_after_unknown_member() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, 1000 * SECOND).group_protocol(GroupProtocol::Consumer).build().await.unwrap();
    consumer.subscribe(["u"]).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    consumer.commit().await.unwrap();
    let identity = || match consumer.status().group.unwrap().state {
        GroupState::Stable { member_id, generation } => (member_id, generation),
        other => panic!("{other:?}"),
    };
    let before = identity();
    let unknown = || on(ApiKey::OffsetFetch).whole_response().error(ErrorCode::UNKNOWN_MEMBER_ID);
    let fault = cluster.fault(unknown().times(2));
    let committed = consumer.committed([tp("u", 0)]).await.unwrap();
    assert_eq!(committed[&tp("u", 0)].as_ref().map(|committed| committed.offset), Some(2));
    assert_eq!(fault.hits(), 2);

    let fault = cluster.fault(unknown().forever());
    let error = consumer.committed([tp("u", 0)]).await.unwrap_err();
    assert!(error.code() == Some(ErrorCode::UNKNOWN_MEMBER_ID) && error.is_retriable(), "{error}");
    assert!((2..60).contains(&fault.hits()), "{} look-ups until default.api.timeout.ms", fault.hits());
    fault.clear();
    assert_eq!(identity(), before, "it did not join again");
    assert_eq!(numbers(&consumer, 2).await, [2, 3], "the partitions are kept");
}

#[tokio::test(start_paused = true)]
async fn classic_committed_returns_unknown_member_error() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, 1000 * SECOND).build().await.unwrap();
    consumer.subscribe(["u"]).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    let unknown = on(ApiKey::OffsetFetch).whole_response().error(ErrorCode::UNKNOWN_MEMBER_ID);
    let fault = cluster.fault(unknown.forever());
    let error = consumer.committed([tp("u", 0)]).await.unwrap_err();
    assert_eq!((error.code(), fault.hits()), (Some(ErrorCode::UNKNOWN_MEMBER_ID), 1), "the look-up names no member");
}

#[tokio::test(start_paused = true)]
async fn committed_fails_at_once_when_metadata_fails() {
    let cluster = two_topics().await;
    let consumer = Arc::new(in_group(&cluster, 1000 * SECOND).auto_commit(false).build().await.unwrap());
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [0]);
    let unknown = on(ApiKey::OffsetFetch).partition("t", 0).forever().error(ErrorCode::UNKNOWN_TOPIC_ID);
    let unknown = cluster.fault(unknown);
    let silent = cluster.fault(on(ApiKey::Metadata).forever().hang());
    let asking = consumer.clone();
    let committed = tokio::spawn(async move { asking.committed([tp("t", 0)]).await });
    tokio::time::sleep(5 * SECOND).await;
    let hits = (unknown.hits(), silent.hits());
    assert!(hits.0 == 1 && hits.1 > 0 && !committed.is_finished(), "it waits for metadata: {hits:?}");
    // The client is closed, so no metadata will come.
    consumer.close(SECOND).await.unwrap();
    let error = tokio::time::timeout(SECOND, committed).await.expect("at once").unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
}

/// A string in a request has at most 32,767 bytes; Kafka accepts 4,096 of metadata by default.
#[tokio::test(start_paused = true)]
async fn too_long_commit_metadata_is_typed_error() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, 1000 * SECOND).auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let offset = |length: usize| OffsetAndMetadata::new(1).with_metadata("m".repeat(length));
    consumer.commit_offsets([(tp("t", 0), offset(4096))]).await.unwrap();
    for length in [4097, 32_767] {
        let error = consumer.commit_offsets([(tp("t", 0), offset(length))]).await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::OFFSET_METADATA_TOO_LARGE), "{length}: {error}");
    }
    let before = cluster.requests(ApiKey::OffsetCommit);
    let (t, u) = ((tp("t", 0), offset(1)), (tp("u", 0), offset(32_768)));
    for error in [
        consumer.commit_offsets([t.clone(), u.clone()]).await.unwrap_err(),
        consumer.commit_async([t, u]).unwrap().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains("u[0]") && error.to_string().contains("32767"), "{error}");
    }
    assert_eq!(cluster.requests(ApiKey::OffsetCommit), before, "nothing was sent");
    assert_eq!(consumer.committed([tp("t", 0)]).await.unwrap()[&tp("t", 0)].as_ref().unwrap().metadata.len(), 4096);
}

async fn close_leaves_group_when_commit_fails(protocol: GroupProtocol) {
    for hangs in [false, true] {
        let cluster = two_topics().await;
        let consumer = subscribed(in_group(&cluster, 1000 * SECOND).group_protocol(protocol), &["u"]).await;
        assert_eq!(numbers(&consumer, 2).await, [0, 1]);
        let asked = consumer.commit_async([(tp("u", 0), 1)]).unwrap();
        let commits = on(ApiKey::OffsetCommit).forever();
        cluster.fault(if hangs { commits.hang() } else { commits.error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS) });
        let closed = tokio::time::timeout(6 * SECOND, consumer.close(5 * SECOND)).await.expect("bounded");
        assert_eq!(closed.unwrap_err().kind(), ErrorKind::Timeout, "what was done could not be committed");
        assert!(asked.await.is_err());
        assert_eq!(members(&cluster), 0, "{protocol:?}, hangs: {hangs}: no ghost holds its partitions");
    }
}

#[tokio::test(start_paused = true)]
async fn commits_complete_in_call_order() {
    let cluster = two_topics().await;
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("u", 0), Offset::Beginning)]).unwrap();
    assert!(read_of(&consumer, "t", 7).await.len() == 7);
    let earlier = consumer.commit_async([(tp("t", 0), 5)]).unwrap();
    consumer.commit_offsets([(tp("t", 0), 10)]).await.unwrap();
    earlier.await.unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(10));
    let earlier =
        [consumer.commit_async([(tp("u", 0), 9)]).unwrap(), consumer.commit_async([(tp("t", 0), 2)]).unwrap()];
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "u", 0), consumer.position(&tp("u", 0)), "all before it are through by then");
    for earlier in earlier {
        tokio::time::timeout(Duration::ZERO, earlier).await.expect("told before").unwrap();
    }
    assert_eq!(cluster.committed("g", "t", 0), Some(7));
}

#[tokio::test(start_paused = true)]
async fn delayed_commit_does_not_undo_later_one() {
    let cluster = two_topics().await;
    let consumer = Arc::new(builder(&cluster).group("g").auto_commit(false).build().await.unwrap());
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    // The first commit waits for its topic for a while.
    let unknown = on(ApiKey::OffsetCommit).error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let refused = cluster.fault(unknown.partition("t", 0).times(1));
    let (one, at) = (consumer.clone(), OffsetAndMetadata::new(1));
    let earlier = tokio::spawn(async move { one.commit_offsets([(tp("t", 0), at)]).await });
    refused.reached(1).await;
    consumer.commit_offsets([(tp("t", 0), 2), (tp("u", 0), 2)]).await.unwrap();
    earlier.await.unwrap().unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(2));
}

/// If one commit fails, those that were merged with it are sent one by one; the ones that succeeded
/// are not sent again.
#[tokio::test(start_paused = true)]
async fn failed_commit_does_not_rewind_merged_ones() {
    let cluster = two_topics().await;
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let of_t = cluster.fault(on(ApiKey::OffsetCommit).partition("t", 0).forever().delay(SECOND));
    let first = consumer.commit_async([(tp("t", 0), 1)]).unwrap();
    let second = consumer.commit_async([(tp("t", 0), 2)]).unwrap();
    let fails = consumer.commit_async([(tp("none", 0), 2)]).unwrap();
    first.await.unwrap();
    second.await.unwrap();
    assert_eq!(fails.await.unwrap_err().code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!((cluster.committed("g", "t", 0), of_t.hits()), (Some(2), 1));
}

async fn long_coordinator_loading_loses_no_record(protocol: GroupProtocol) {
    coordinator_is_away(protocol, |fault| fault.error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS)).await;
}

async fn long_coordinator_silence_loses_no_record(protocol: GroupProtocol) {
    coordinator_is_away(protocol, |fault| fault.hang()).await;
}

/// Makes all requests of the group fail for a while.
async fn coordinator_is_away(protocol: GroupProtocol, how: impl Fn(crate::testkit::Fault) -> crate::testkit::Fault) {
    let cluster = two_topics().await;
    let consumer = subscribed(in_group(&cluster, SECOND).group_protocol(protocol), &["u"]).await;
    assert_eq!(numbers(&consumer, 5).await.len(), 5);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "u", 0), Some(4));
    assert_eq!(numbers(&consumer, 3).await, [5, 6, 7]);
    let away = [
        ApiKey::JoinGroup,
        ApiKey::SyncGroup,
        ApiKey::Heartbeat,
        ApiKey::ConsumerGroupHeartbeat,
        ApiKey::OffsetCommit,
        ApiKey::OffsetFetch,
    ];
    let faults: Vec<_> = away.into_iter().map(|key| cluster.fault(how(on(key).forever()))).collect();
    let error = consumer.commit().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::NotAssigned), "{protocol:?}: {error}");
    let before = cluster.committed("g", "u", 0).unwrap();
    // Longer than the session timeout, with a reader that keeps polling.
    for _ in 0..90 {
        let _ = tokio::time::timeout(SECOND, consumer.recv()).await;
    }
    assert_eq!(cluster.committed("g", "u", 0), Some(before), "{protocol:?}: nothing got through");
    faults.iter().for_each(|fault| fault.clear());
    append(&cluster, "u", 0, 20..30);
    let mut read = Vec::new();
    while read.last() != Some(&29) {
        match tokio::time::timeout(300 * SECOND, consumer.recv()).await.expect("it goes on").unwrap() {
            Ok(record) => read.push(number(&record)),
            Err(error) => assert!(!error.is_fatal(), "{protocol:?}: {error}"),
        }
    }
    let first = *read.first().unwrap();
    assert_eq!(read, (first..30).collect::<Vec<_>>(), "{protocol:?}: in order, none left out");
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "u", 0), Some(30), "{protocol:?}");
}

async fn rejoins_when_commit_reports_unknown_group(protocol: GroupProtocol) {
    let cluster = two_topics().await;
    let consumer = subscribed(in_group(&cluster, 1000 * SECOND).group_protocol(protocol), &["u"]).await;
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    // No heartbeat detects the problem before the commit does.
    let slow = on(ApiKey::Heartbeat).forever().delay(20 * SECOND);
    let slow = cluster.fault(slow);
    cluster.fault(on(ApiKey::OffsetCommit).error(ErrorCode::GROUP_ID_NOT_FOUND));
    let error = consumer.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAssigned, "{protocol:?}: {error}");
    slow.clear();
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2], "{protocol:?}: as nothing was committed, it comes again");
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "u", 0), Some(3));
}

/// Instance ids are scoped to their group.
async fn instance_id_is_scoped_to_its_group(protocol: GroupProtocol) {
    let cluster = two_topics().await;
    let mut consumers = Vec::new();
    for group in ["g", "h"] {
        let builder = in_group(&cluster, SECOND).group(group).group_instance_id("host-1").group_protocol(protocol);
        let consumer = subscribed(builder, &["u"]).await;
        assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
        consumers.push(consumer);
    }
    for _ in 0..12 {
        for consumer in &consumers {
            assert!(tokio::time::timeout(5 * SECOND, next(consumer)).await.is_ok());
        }
        tokio::time::sleep(10 * SECOND).await;
    }
    for (group, consumer) in ["g", "h"].into_iter().zip(consumers) {
        consumer.close(10 * SECOND).await.unwrap();
        assert_eq!(cluster.committed(group, "u", 0), Some(17), "{protocol:?}");
    }
}

/// Bug 20 of other clients: a partition that stays assigned stays paused, and one that was revoked
/// comes back without a pause.
#[tokio::test(start_paused = true)]
async fn pause_lasts_while_partition_stays_assigned() {
    for (protocol, cooperative) in
        [(GroupProtocol::Classic, false), (GroupProtocol::Classic, true), (GroupProtocol::Consumer, false)]
    {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 2).unwrap();
        let mut builder = in_group(&cluster, SECOND).group_protocol(protocol);
        if cooperative {
            builder = builder.assignors(vec![Arc::new(CooperativeStickyAssignor)]);
        }
        let (first, second) = (builder.clone().build().await.unwrap(), builder.build().await.unwrap());
        first.subscribe(["t"]).unwrap();
        while first.assignment().len() < 2 {
            read_on(&first).await;
        }
        first.pause([&tp("t", 0), &tp("t", 1)]).unwrap();
        second.subscribe(["t"]).unwrap();
        while second.assignment().is_empty() || first.assignment().len() != 1 {
            read_on(&first).await;
            read_on(&second).await;
        }
        let kept = first.assignment();
        let is_eager = protocol == GroupProtocol::Classic && !cooperative;
        let expected = if is_eager { Vec::new() } else { kept.clone() };
        assert_eq!(first.paused(), expected, "{protocol:?}, cooperative: {cooperative}");
        assert!(second.paused().is_empty());
        append(&cluster, "t", kept[0].partition, 0..3);
        assert_eq!(is_quiet(&first).await, !is_eager);
        first.resume(&kept).unwrap();
        second.close(10 * SECOND).await.unwrap();
        while first.assignment().len() < 2 {
            read_on(&first).await;
        }
        assert!(first.paused().is_empty(), "what comes back is not paused");
    }
}

#[tokio::test(start_paused = true)]
async fn auto_commit_never_undoes_user_commit() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, SECOND).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let read = consumer.poll(5 * SECOND).await.unwrap();
    assert_eq!(read.iter().count(), 20);
    // The records are delivered, but count as processed only at the next poll.
    consumer.commit().await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(20));
    drop(read);
    // Records that are read again after a seek count on their own.
    consumer.seek(&tp("t", 0), Offset::At(3)).unwrap();
    let read = read_of(&consumer, "t", 5).await;
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), read.last().copied());
    consumer.commit_offsets([(tp("t", 0), 8)]).await.unwrap();
    consumer.assign([(tp("u", 0), Offset::Beginning)]).unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(8), "the one in hand as well");
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(8));
}

#[tokio::test(start_paused = true)]
async fn waiting_commit_does_not_delay_auto_commit() {
    let cluster = two_topics().await;
    let consumer = Arc::new(in_group(&cluster, SECOND).build().await.unwrap());
    consumer.assign([(tp("u", 0), Offset::Beginning)]).unwrap();
    let one = consumer.clone();
    // The commit is for a missing topic, and waits for it.
    let patient = tokio::spawn(async move { one.commit_offsets([(tp("missing", 0), 1)]).await });
    read_of(&consumer, "u", 5).await;
    consumer.commit_offsets([(tp("u", 0), 5)]).await.unwrap();
    read_of(&consumer, "u", 10).await;
    tokio::time::sleep(3 * SECOND).await;
    assert!(!patient.is_finished());
    assert_eq!(cluster.committed("g", "u", 0), Some(14), "all but the one in hand");
    patient.await.unwrap().unwrap_err();
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "u", 0), Some(15));
}

#[tokio::test(start_paused = true)]
async fn commit_after_dropped_commit_is_sent() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, SECOND).auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    read_of(&consumer, "t", 5).await;
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
    read_of(&consumer, "t", 5).await;
    let late = cluster.fault(on(ApiKey::OffsetCommit).times(1).delay_response(20 * SECOND));
    assert!(tokio::time::timeout(SECOND, consumer.commit()).await.is_err(), "dropped");
    assert_eq!((late.hits(), cluster.committed("g", "t", 0)), (1, Some(10)));
    consumer.seek(&tp("t", 0), Offset::At(5)).unwrap();
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn commit_after_dropped_queued_commit_is_sent() {
    let cluster = two_topics().await;
    let consumer = Arc::new(in_group(&cluster, SECOND).auto_commit(false).build().await.unwrap());
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    read_of(&consumer, "t", 10).await;
    // The first commit is slow and the second waits for it; the second's response arrives after its
    // caller has given up.
    let slow = cluster.fault(on(ApiKey::OffsetCommit).times(2).delay_response(5 * SECOND));
    let (one, other) = (consumer.clone(), consumer.clone());
    let first = tokio::spawn(async move { one.commit_offsets([(tp("t", 0), 6)]).await });
    tokio::time::sleep(SECOND).await;
    let second = tokio::time::timeout(6 * SECOND, other.commit_offsets([(tp("t", 0), 8)])).await;
    assert!(second.is_err() && first.await.unwrap().is_ok());
    assert_eq!((slow.hits(), cluster.committed("g", "t", 0)), (2, Some(8)));
    consumer.seek(&tp("t", 0), Offset::At(6)).unwrap();
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(6));
}

#[tokio::test(start_paused = true)]
async fn auto_commit_after_seek_ignores_earlier_commits() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, SECOND).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    read_of(&consumer, "t", 11).await;
    // The records completed by then are committed in the background.
    consumer.assign([(tp("t", 0), Offset::At(3))]).unwrap();
    assert_eq!(read_of(&consumer, "t", 4).await, [3, 4, 5, 6]);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(6), "all but the one in hand");
    // A commit by the user from before a seek does not count either.
    let slow = cluster.fault(on(ApiKey::OffsetCommit).times(1).delay_response(2 * SECOND));
    drop(consumer.commit_async([(tp("t", 0), 15)]));
    while slow.hits() == 0 {
        tokio::time::sleep(SECOND / 100).await;
    }
    consumer.seek(&tp("t", 0), Offset::At(1)).unwrap();
    read_of(&consumer, "t", 4).await;
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn rejected_commit_causes_no_auto_commit() {
    let cluster = two_topics().await;
    let consumer = in_group(&cluster, SECOND).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    read_of(&consumer, "t", 5).await;
    tokio::time::sleep(5 * SECOND).await;
    let denied = cluster.fault(on(ApiKey::OffsetCommit).forever().error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    consumer.commit_offsets([(tp("t", 0), 9)]).await.unwrap_err();
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(denied.hits(), 1, "what is committed by itself is known to be there");
}
