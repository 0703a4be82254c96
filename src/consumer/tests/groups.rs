//! Scenarios of members of a group.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    membership_changes::{each_record_is_read_once, one_by_one},
    *,
};
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{
        GroupState,
        assignor::{Assignor, CooperativeStickyAssignor, RangeAssignor},
    },
    testkit::{on, on_any_of},
    tests::{join_request, until},
};

for_each_group_protocol!(
    revocation_waits_for_record_being_processed,
    each_record_is_read_once_under_churn,
    withholds_polled_records_of_lost_partitions,
    blocked_reader_leaves_after_max_poll_interval,
    close_during_rebalance_without_coordinator_is_bounded,
    assign_after_unsubscribe_replaces_group_assignment,
    subscribe_after_assign_replaces_user_assignment,
    next_partition_reports_join_error_and_retries,
    next_partition_reports_fatal_error_then_ends,
    blocked_stream_stays_while_another_polls,
);

async fn by(cluster: &Cluster, protocol: GroupProtocol) -> Consumer {
    group_builder(cluster, protocol).auto_commit_interval(SECOND).build().await.unwrap()
}

async fn member(cluster: &Cluster, protocol: GroupProtocol, topic: &str) -> Arc<Consumer> {
    let consumer = by(cluster, protocol).await;
    consumer.subscribe([topic]).unwrap();
    Arc::new(consumer)
}

async fn revocation_waits_for_record_being_processed(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
    let first = member(&cluster, protocol, "t").await;
    let in_hand = next(&first).await;
    let second = member(&cluster, protocol, "t").await;
    tokio::time::sleep(20 * SECOND).await;
    match protocol {
        GroupProtocol::Classic => {
            assert!(second.assignment().is_empty(), "the first member still holds a record");
            let committed = cluster.committed("g", "t", in_hand.partition);
            assert_eq!(committed, Some(in_hand.offset), "which is not committed");
        }
        GroupProtocol::Consumer => {
            let moving = cluster.consumer_group("g").unwrap().members.into_iter().find(|m| m.target != m.assigned);
            assert!(second.assignment().is_empty() || moving.is_none(), "nothing is with two");
        }
    }
    // The call for the next record lets the rebalance continue.
    let mut seen: BTreeMap<i32, Vec<i64>> = BTreeMap::from([(in_hand.partition, vec![in_hand.offset])]);
    for n in 1..10 {
        // Both members read, in turns.
        let reader = if n % 2 == 0 || second.assignment().is_empty() { &first } else { &second };
        let wait = tokio::time::timeout(20 * SECOND, reader.recv());
        if let Ok(record) = wait.await {
            let record = record.unwrap().unwrap();
            seen.entry(record.partition).or_default().push(record.offset);
        }
    }
    for consumer in [&first, &second] {
        while let Ok(record) = tokio::time::timeout(20 * SECOND, consumer.recv()).await {
            let record = record.unwrap().unwrap();
            seen.entry(record.partition).or_default().push(record.offset);
        }
    }
    assert_eq!(seen, BTreeMap::from([(0, (0..5).collect()), (1, (0..5).collect())]), "each record once, in order");
    assert_eq!((first.assignment().len(), second.assignment().len()), (1, 1));
}

/// The first member subscribes by name, the others by an expression.
async fn each_record_is_read_once_under_churn(protocol: GroupProtocol) {
    let join = async |cluster: &Cluster, first| member(cluster, protocol, if first { "t" } else { "^t" }).await;
    each_record_is_read_once(join, one_by_one).await;
}

async fn withholds_polled_records_of_lost_partitions(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let mut builder = group_builder(&cluster, protocol).max_poll_interval(10 * SECOND);
    if protocol == GroupProtocol::Classic {
        builder = builder.session_timeout(6 * SECOND);
    }
    let consumer = subscribed(builder, &["t"]).await;
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
async fn blocked_reader_leaves_after_max_poll_interval(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let consumer = member(&cluster, protocol, "t").await;
    assert_eq!(number(&next(&consumer).await), 0);
    for _ in 0..29 {
        tokio::time::sleep(10 * SECOND).await;
        assert_eq!(members(&cluster), 1);
        assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
    }
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(members(&cluster), 0, "max.poll.interval.ms is 300 s");
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::WaitingForReader));
    tokio::time::sleep(290 * SECOND).await;
    assert_eq!((members(&cluster), consumer.assignment().len()), (0, 0));
    let error = next_error(&consumer, 1).await;
    assert_eq!(error.kind(), ErrorKind::NotAssigned);
    assert!(error.to_string().contains("max.poll.interval.ms"), "{error}");
    assert_eq!(number(&next(&consumer).await), 0, "what was in hand was not committed, and comes again");
    assert_eq!(members(&cluster), 1);
    assert_eq!(numbers(&consumer, 2).await, [1, 2]);
}

async fn close_during_rebalance_without_coordinator_is_bounded(protocol: GroupProtocol) {
    let assignors: &[Arc<dyn Assignor>] = match protocol {
        GroupProtocol::Classic => &[Arc::new(RangeAssignor), Arc::new(CooperativeStickyAssignor)],
        // Not used: the brokers assign.
        GroupProtocol::Consumer => &[Arc::new(RangeAssignor)],
    };
    for assignor in assignors {
        for dies in [true, false] {
            let cluster = cluster(1).await;
            cluster.create_topic("t", 2).unwrap();
            (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
            let mut builder = group_builder(&cluster, protocol);
            if protocol == GroupProtocol::Classic {
                builder = builder.assignors(vec![assignor.clone()]);
            }
            let first = subscribed(builder.clone(), &["t"]).await;
            assert_eq!(number(&next(&first).await), 0);
            next(&first).await;
            // The first member has to rejoin, and its join is never answered.
            let joins = cluster.fault(on(ApiKey::JoinGroup).skip(2).forever().hang());
            let second = subscribed(builder, &["t"]).await;
            match protocol {
                GroupProtocol::Classic => {
                    while joins.hits() == 0 {
                        read_on(&first).await;
                    }
                }
                // One of its partitions has to move, and the first member does not release it.
                GroupProtocol::Consumer => {
                    until("a partition has to move", || cluster.group("g").unwrap().state == "Reconciling").await;
                }
            }
            if dies {
                cluster.kill(1).await.unwrap();
            } else {
                cluster.fault(on_any_of([]).forever().hang());
            }
            for consumer in [first, second] {
                let closed = tokio::time::timeout(6 * SECOND, consumer.close(5 * SECOND)).await;
                let closed = closed.expect("bounded");
                assert!(closed.is_err() || protocol == GroupProtocol::Classic, "it could not be said");
                assert!(consumer.recv().await.is_none());
            }
        }
    }
}

/// The group revokes its partitions only after the user has assigned others.
async fn assign_after_unsubscribe_replaces_group_assignment(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
    let consumer = by(&cluster, protocol).await;
    consumer.subscribe(["t"]).unwrap();
    next(&consumer).await;
    consumer.unsubscribe().unwrap();
    consumer.assign([(tp("t", 0), Offset::At(1))]).unwrap();
    assert_eq!(numbers(&consumer, 4).await, [1, 2, 3, 4]);
    assert!(is_quiet(&consumer).await);
    assert_eq!(consumer.assignment(), [tp("t", 0)]);
    append(&cluster, "t", 0, 5..6);
    assert_eq!(number(&next(&consumer).await), 5);
    assert_eq!(members(&cluster), 0, "it has left");
}

async fn subscribe_after_assign_replaces_user_assignment(protocol: GroupProtocol) {
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
        assert_eq!(consumer.assignment(), [tp("t", 0), tp("t", 1)]);
    }
    consumer.close(10 * SECOND).await.unwrap();
}

/// A reader that only calls `next_partition` receives errors as well.
async fn next_partition_reports_join_error_and_retries(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    let joins = on(join_request(protocol));
    let refused = cluster.fault(joins.error(ErrorCode::GROUP_AUTHORIZATION_FAILED).forever());
    let second = by(&cluster, protocol).await;
    second.subscribe(["t"]).unwrap();
    let told = tokio::time::timeout(60 * SECOND, second.next_partition()).await.expect("told within a minute");
    assert_eq!(told.unwrap().unwrap_err().code(), Some(ErrorCode::GROUP_AUTHORIZATION_FAILED));
    // The error is reported once, and the cause is fixed: the next call tries again.
    refused.clear();
    tokio::time::sleep(30 * SECOND).await;
    let next = tokio::time::timeout(60 * SECOND, second.next_partition()).await.expect("a partition");
    let mut stream = next.unwrap().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(stream.recv().await.unwrap().unwrap().offset, 0);
    second.close(10 * SECOND).await.unwrap();
    drop(stream);
    assert!(second.next_partition().await.is_none());
}

/// The fatal error is reported to the next caller, and then the end.
async fn next_partition_reports_fatal_error_then_ends(protocol: GroupProtocol) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let consumer = by(&cluster, protocol).await;
    let fatal = match protocol {
        GroupProtocol::Classic => ErrorCode::FENCED_INSTANCE_ID,
        GroupProtocol::Consumer => ErrorCode::GROUP_MAX_SIZE_REACHED,
    };
    cluster.fault(on(join_request(protocol)).error(fatal));
    consumer.subscribe(["t"]).unwrap();
    let told = tokio::time::timeout(60 * SECOND, consumer.next_partition()).await.expect("told within a minute");
    assert!(told.unwrap().unwrap_err().is_fatal());
    assert!(consumer.next_partition().await.is_none());
}

/// The poll interval applies to the consumer as a whole.
async fn blocked_stream_stays_while_another_polls(protocol: GroupProtocol) {
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
    assert!(waits.is_err(), "it is read still");
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
    assert_eq!(hangs.recv().await.unwrap().unwrap().offset, 1, "and so is the other one");
    // If no reader polls any more, the membership ends, and both streams with it.
    tokio::time::sleep(320 * SECOND).await;
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::WaitingForReader));
    assert!(hangs.recv().await.is_none() && goes_on.recv().await.is_none());
    let told = consumer.next_partition().await.unwrap().unwrap_err();
    assert!(told.to_string().contains("max.poll.interval.ms"), "{told}");
    let mut again = consumer.next_partition().await.unwrap().unwrap();
    again.recv().await.unwrap().unwrap();
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

#[tokio::test(start_paused = true)]
async fn rejects_settings_of_classic_protocol_only() {
    let cluster = cluster(1).await;
    let refused = builder(&cluster).group("g").group_protocol(GroupProtocol::Consumer).session_timeout(6 * SECOND);
    let error = refused.build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().starts_with("session.timeout.ms"), "{error}");
    let refused = builder(&cluster).group("g").group_remote_assignor("range");
    assert_eq!(refused.build().await.unwrap_err().kind(), ErrorKind::Configuration);
    let fine = builder(&cluster).property("group.protocol", "consumer").property("group.remote.assignor", "range");
    fine.group("g").build().await.unwrap();
}
