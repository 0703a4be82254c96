use std::sync::Arc;

use super::{
    membership_changes::{each_record_is_read_once, one_by_one},
    *,
};
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{GroupProtocol, GroupState, OffsetReset, assignor::CooperativeStickyAssignor},
    testkit::on,
};

const PROTOCOLS: [GroupProtocol; 2] = [GroupProtocol::Classic, GroupProtocol::Consumer];

async fn by(cluster: &Cluster, protocol: GroupProtocol) -> Consumer {
    let builder = builder(cluster).group("g").group_protocol(protocol).auto_offset_reset(OffsetReset::Earliest);
    builder.auto_commit_interval(SECOND).build().await.unwrap()
}

async fn member(cluster: &Cluster, topics: &[&str]) -> Arc<Consumer> {
    let builder = builder(cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.auto_commit_interval(SECOND).build().await.unwrap();
    consumer.subscribe(topics).unwrap();
    Arc::new(consumer)
}

#[tokio::test(start_paused = true)]
async fn new_topic_matching_regex_is_read() {
    let cluster = cluster(1).await;
    cluster.create_topic("audit.a", 1).unwrap();
    cluster.create_topic("other", 1).unwrap();
    append(&cluster, "audit.a", 0, 0..1);
    append(&cluster, "other", 0, 99..100);
    let builder = builder(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.property("metadata.max.age.ms", "5000").build().await.unwrap();
    consumer.subscribe(["^audit\\..*"]).unwrap();
    assert_eq!(number(&next(&consumer).await), 0);
    cluster.create_topic("audit.b", 2).unwrap();
    append(&cluster, "audit.b", 1, 7..8);
    assert_eq!(number(&next(&consumer).await), 7);
    assert_eq!(consumer.assignment(), [tp("audit.a", 0), tp("audit.b", 0), tp("audit.b", 1)]);
    assert_eq!(consumer.assign([(tp("other", 0), 0)]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    consumer.unsubscribe().unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert!(consumer.assignment().is_empty());
    consumer.assign([(tp("other", 0), Offset::Beginning)]).unwrap();
    assert_eq!(number(&next(&consumer).await), 99);
}

#[tokio::test(start_paused = true)]
async fn revocation_waits_for_record_being_processed() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..5);
    append(&cluster, "t", 1, 0..5);
    let first = member(&cluster, &["t"]).await;
    let in_hand = next(&first).await;
    let second = member(&cluster, &["t"]).await;
    let reader = second.clone();
    let other = tokio::spawn(async move { reader.recv().await.unwrap().unwrap() });
    tokio::time::sleep(20 * SECOND).await;
    assert!(!other.is_finished(), "the first member still holds a record");
    let committed = cluster.committed("g", "t", in_hand.partition);
    assert_eq!(committed, Some(in_hand.offset), "which is not committed");
    // The call for the next record lets the rebalance continue.
    let mut seen = vec![(in_hand.partition, in_hand.offset)];
    let mine = next(&first).await;
    seen.push((mine.partition, mine.offset));
    let others = tokio::time::timeout(60 * SECOND, other).await.unwrap().unwrap();
    seen.push((others.partition, others.offset));
    seen.sort_unstable();
    let before = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), before, "no record twice: {seen:?}");
    assert_eq!((first.assignment().len(), second.assignment().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn each_record_is_read_once_under_churn() {
    each_record_is_read_once(async |cluster, _| member(cluster, &["t"]).await, one_by_one).await;
}

#[tokio::test(start_paused = true)]
async fn withholds_polled_records_of_lost_partitions() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let builder = builder(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.max_poll_interval(10 * SECOND).session_timeout(6 * SECOND).build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    let records = consumer.poll(60 * SECOND).await.unwrap();
    let mut iter = records.iter();
    assert_eq!(iter.next().unwrap().offset(), 0);
    // Longer than max.poll.interval.ms: the group assigns its partitions to other members.
    tokio::time::sleep(30 * SECOND).await;
    assert!(iter.next().is_none(), "what is left is withheld");
    drop(iter);
    drop(records);
    assert_eq!(cluster.committed("g", "t", 0), Some(0), "and nothing of it was committed");
    let mut next = consumer.recv().await.unwrap();
    if next.is_err() {
        next = consumer.recv().await.unwrap();
    }
    assert_eq!(next.unwrap().offset, 0, "it is delivered again after rejoining");
}

/// A handler that blocks for ten minutes.
#[tokio::test(start_paused = true)]
async fn blocked_reader_leaves_after_max_poll_interval() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let consumer = member(&cluster, &["t"]).await;
    assert_eq!(number(&next(&consumer).await), 0);
    let members = || cluster.group("g").unwrap().members.len();
    for _ in 0..29 {
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(members(), 1);
        assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
    }
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(members(), 0, "max.poll.interval.ms is 300 s");
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::WaitingForReader));
    tokio::time::sleep(290 * SECOND).await;
    assert_eq!((members(), consumer.assignment().len()), (0, 0));
    let error = next_error(&consumer, 10).await;
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert!(error.to_string().contains("max.poll.interval.ms"), "{error}");
    assert_eq!(number(&next(&consumer).await), 0, "what was in hand was not committed, and comes again");
    assert_eq!(members(), 1);
}

#[tokio::test(start_paused = true)]
async fn close_during_rebalance_without_coordinator_is_bounded() {
    for cooperative in [false, true] {
        for dies in [true, false] {
            let cluster = cluster(1).await;
            cluster.create_topic("t", 2).unwrap();
            append(&cluster, "t", 0, 0..5);
            let mut builder = builder(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
            if cooperative {
                builder = builder.assignors(vec![Arc::new(CooperativeStickyAssignor)]);
            }
            let (first, second) = (builder.clone().build().await.unwrap(), builder.build().await.unwrap());
            first.subscribe(["t"]).unwrap();
            assert_eq!(number(&next(&first).await), 0);
            assert_eq!(number(&next(&first).await), 1);
            // The first member has to rejoin, and its join is never answered.
            let joins = cluster.fault(on(ApiKey::JoinGroup).skip(2).forever().hang());
            second.subscribe(["t"]).unwrap();
            while joins.hits() == 0 {
                read_on(&first).await;
            }
            if dies {
                cluster.kill(1).await.unwrap();
            } else {
                cluster.fault(on(ApiKey::OffsetCommit).forever().hang());
                cluster.fault(on(ApiKey::LeaveGroup).forever().hang());
            }
            for consumer in [first, second] {
                let closed = tokio::time::timeout(6 * SECOND, consumer.close(5 * SECOND)).await;
                drop(closed.expect("bounded"));
                assert!(consumer.recv().await.is_none());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn unmatched_regex_waits_for_matching_topic() {
    let cluster = cluster(1).await;
    let builder = builder(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.property("metadata.max.age.ms", "5000").build().await.unwrap();
    consumer.subscribe(["^none-.*"]).unwrap();
    assert!(is_quiet(&consumer).await);
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::NoTopics { .. }));
    cluster.create_topic("none-yet", 1).unwrap();
    append(&cluster, "none-yet", 0, 5..6);
    assert_eq!(number(&next(&consumer).await), 5);
    for bad in ["^(", "^[a-", "^a{999999}{999999}"] {
        assert_eq!(consumer.subscribe([bad]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
    }
    assert_eq!(consumer.assignment(), [tp("none-yet", 0)], "what cannot be subscribed to changes nothing");
}

#[tokio::test(start_paused = true)]
async fn rejects_invalid_group_and_instance_ids() {
    let cluster = cluster(1).await;
    let long = "x".repeat(40_000);
    for (group, instance) in
        [("", "i"), (&*long, "i"), ("g", ""), ("g", "a b"), ("g", ".."), ("g", "a/b"), ("g", &long)]
    {
        let error = builder(&cluster).group(group).group_instance_id(instance).build().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().starts_with("group."), "{error}");
    }
    assert!(builder(&cluster).group("any name: Ünïcödé").group_instance_id("host-1.a_B").build().await.is_ok());
}

/// The group revokes its partitions only after the user has assigned others.
#[tokio::test(start_paused = true)]
async fn assign_after_unsubscribe_replaces_group_assignment() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 2).unwrap();
        (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
        let consumer = by(&cluster, protocol).await;
        consumer.subscribe(["t"]).unwrap();
        next(&consumer).await;
        consumer.unsubscribe().unwrap();
        consumer.assign([(tp("t", 0), Offset::At(1))]).unwrap();
        assert_eq!(numbers(&consumer, 4).await, [1, 2, 3, 4], "{protocol:?}");
        assert!(is_quiet(&consumer).await);
        assert_eq!(consumer.assignment(), [tp("t", 0)], "{protocol:?}");
        append(&cluster, "t", 0, 5..6);
        assert_eq!(number(&next(&consumer).await), 5);
        assert!(cluster.group("g").unwrap().members.is_empty(), "{protocol:?}: it has left");
    }
}

#[tokio::test(start_paused = true)]
async fn subscribe_after_assign_replaces_user_assignment() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 2).unwrap();
        (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
        let consumer = by(&cluster, protocol).await;
        consumer.assign([(tp("t", 0), Offset::At(4))]).unwrap();
        assert_eq!(number(&next(&consumer).await), 4);
        assert_eq!(consumer.subscribe(["t"]).unwrap_err().kind(), ErrorKind::InvalidArgument);
        // First directly after the assignment, and then with another change to and fro before the
        // group has noticed anything.
        for round in 0..2 {
            if round == 1 {
                consumer.unsubscribe().unwrap();
                consumer.assign([(tp("t", 1), Offset::At(4))]).unwrap();
            }
            consumer.unsubscribe().unwrap();
            assert!(consumer.assignment().is_empty() || round == 1);
            consumer.subscribe(["t"]).unwrap();
            for partition in 0..2 {
                let end = cluster.log_end("t", partition).unwrap();
                append(&cluster, "t", partition, end..end + 1);
            }
            let mut last = [false; 2];
            while !(last[0] && last[1]) {
                let record = next(&consumer).await;
                let end = cluster.log_end("t", record.partition).unwrap();
                last[record.partition as usize] |= record.offset + 1 == end;
            }
            assert_eq!(consumer.assignment(), [tp("t", 0), tp("t", 1)], "{protocol:?}");
        }
        consumer.close(10 * SECOND).await.unwrap();
    }
}

/// A reader that only calls `next_partition` receives errors as well.
#[tokio::test(start_paused = true)]
async fn next_partition_reports_join_error_and_retries() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 1).unwrap();
        append(&cluster, "t", 0, 0..5);
        let joins = crate::testkit::on_any_of([ApiKey::JoinGroup, ApiKey::ConsumerGroupHeartbeat]);
        let refused = cluster.fault(joins.error(ErrorCode::GROUP_AUTHORIZATION_FAILED).forever());
        let second = by(&cluster, protocol).await;
        second.subscribe(["t"]).unwrap();
        let told = tokio::time::timeout(60 * SECOND, second.next_partition()).await.expect("told within a minute");
        assert_eq!(told.unwrap().unwrap_err().code(), Some(ErrorCode::GROUP_AUTHORIZATION_FAILED), "{protocol:?}");
        // The error is reported once, and the cause is fixed: the next call tries again.
        refused.clear();
        tokio::time::sleep(30 * SECOND).await;
        let next = tokio::time::timeout(60 * SECOND, second.next_partition()).await.expect("a partition");
        let mut stream = next.unwrap().unwrap_or_else(|error| panic!("{protocol:?}: {error}"));
        assert_eq!(stream.recv().await.unwrap().unwrap().offset, 0);
        second.close(10 * SECOND).await.unwrap();
        drop(stream);
        assert!(second.next_partition().await.is_none());
    }
}

/// The fatal error is reported to the next caller, and then the end.
#[tokio::test(start_paused = true)]
async fn next_partition_reports_fatal_error_then_ends() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let consumer = by(&cluster, GroupProtocol::Classic).await;
    cluster.fault(on(ApiKey::JoinGroup).error(ErrorCode::FENCED_INSTANCE_ID));
    consumer.subscribe(["t"]).unwrap();
    let told = tokio::time::timeout(60 * SECOND, consumer.next_partition()).await.expect("told within a minute");
    assert!(told.unwrap().unwrap_err().is_fatal());
    assert!(consumer.next_partition().await.is_none());
}

/// The poll interval applies to the consumer as a whole.
#[tokio::test(start_paused = true)]
async fn blocked_stream_stays_while_another_polls() {
    for protocol in PROTOCOLS {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 2).unwrap();
        (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
        let consumer = by(&cluster, protocol).await;
        consumer.subscribe(["t"]).unwrap();
        let mut hangs = consumer.next_partition().await.unwrap().unwrap();
        let mut goes_on = consumer.next_partition().await.unwrap().unwrap();
        hangs.recv().await.unwrap().unwrap();
        for _ in 0..5 {
            goes_on.recv().await.unwrap().unwrap();
        }
        let waits = tokio::time::timeout(1000 * SECOND, goes_on.recv()).await;
        assert!(waits.is_err(), "{protocol:?}: it is read still");
        assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
        assert_eq!(hangs.recv().await.unwrap().unwrap().offset, 1, "and so is the other one");
        // If no reader polls any more, the membership ends, and both streams with it.
        tokio::time::sleep(320 * SECOND).await;
        assert!(matches!(consumer.status().group.unwrap().state, GroupState::WaitingForReader), "{protocol:?}");
        assert!(hangs.recv().await.is_none() && goes_on.recv().await.is_none());
        let told = consumer.next_partition().await.unwrap().unwrap_err();
        assert!(told.to_string().contains("max.poll.interval.ms"), "{told}");
        let mut again = consumer.next_partition().await.unwrap().unwrap();
        again.recv().await.unwrap().unwrap();
    }
}
