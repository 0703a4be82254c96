use std::sync::Arc;

use super::{
    coming_and_going::{each_record_is_read_once, one_by_one},
    *,
};
use crate::{ApiKey, CooperativeStickyAssignor, ErrorKind, GroupState, OffsetReset, testkit::on};

async fn member(cluster: &Cluster, topics: &[&str]) -> Arc<Consumer> {
    let builder = builder(cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.auto_commit_interval(SECOND).build().await.unwrap();
    consumer.subscribe(topics).unwrap();
    Arc::new(consumer)
}

#[tokio::test(start_paused = true)]
async fn a_new_topic_that_an_expression_matches_is_read() {
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
async fn a_revocation_waits_for_the_record_in_hand() {
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
    // Asking for the next record lets the rebalance go on.
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
async fn members_come_and_go_and_each_record_is_read_once() {
    each_record_is_read_once(async |cluster, _| member(cluster, &["t"]).await, one_by_one).await;
}

#[tokio::test(start_paused = true)]
async fn partitions_that_are_lost_are_withheld() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let builder = builder(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.max_poll_interval(10 * SECOND).session_timeout(6 * SECOND).build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    let records = consumer.poll(60 * SECOND).await.unwrap();
    let mut iter = records.iter();
    assert_eq!(iter.next().unwrap().offset(), 0);
    // Longer than max.poll.interval.ms: the group gives its partitions to others.
    tokio::time::sleep(30 * SECOND).await;
    assert!(iter.next().is_none(), "what is left is withheld");
    drop(iter);
    drop(records);
    assert_eq!(cluster.committed("g", "t", 0), Some(0), "and nothing of it was committed");
    let mut next = consumer.recv().await.unwrap();
    if next.is_err() {
        next = consumer.recv().await.unwrap();
    }
    assert_eq!(next.unwrap().offset, 0, "it comes again after joining anew");
}

/// A handler that is blocked for ten minutes.
#[tokio::test(start_paused = true)]
async fn a_reader_that_is_away_keeps_its_membership_for_max_poll_interval_and_no_longer() {
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
async fn a_close_in_the_midst_of_a_rebalance_with_a_dead_coordinator_is_bounded() {
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
            // The first one is to join anew, and its join is never answered.
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
async fn an_expression_that_matches_nothing_waits_for_what_comes() {
    let cluster = cluster(1).await;
    let builder = builder(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.property("metadata.max.age.ms", "5000").build().await.unwrap();
    consumer.subscribe(["^none-.*"]).unwrap();
    assert!(is_quiet(&consumer).await);
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
    cluster.create_topic("none-yet", 1).unwrap();
    append(&cluster, "none-yet", 0, 5..6);
    assert_eq!(number(&next(&consumer).await), 5);
    for bad in ["^(", "^[a-", "^a{999999}{999999}"] {
        assert_eq!(consumer.subscribe([bad]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad}");
    }
    assert_eq!(consumer.assignment(), [tp("none-yet", 0)], "what cannot be subscribed to changes nothing");
}

#[tokio::test(start_paused = true)]
async fn names_that_kafka_forbids_are_refused_before_anything_is_sent() {
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
