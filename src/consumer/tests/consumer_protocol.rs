//! Tests that a group member sees the same with the consumer protocol (KIP-848), except that fewer
//! partitions move.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    membership_changes::{each_record_is_read_once, one_by_one},
    *,
};
use crate::{
    ErrorKind,
    consumer::{GroupProtocol, GroupState, OffsetReset},
};

async fn member(cluster: &Cluster, topics: &[&str]) -> Arc<Consumer> {
    let builder = builder(cluster).group("g").group_protocol(GroupProtocol::Consumer);
    let builder = builder.auto_offset_reset(OffsetReset::Earliest).auto_commit_interval(SECOND);
    let consumer = builder.build().await.unwrap();
    consumer.subscribe(topics).unwrap();
    Arc::new(consumer)
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
    tokio::time::sleep(20 * SECOND).await;
    let moving = cluster.consumer_group("g").unwrap().members.into_iter().find(|m| m.target != m.assigned);
    assert!(second.assignment().is_empty() || moving.is_none(), "nothing is with two");
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
#[tokio::test(start_paused = true)]
async fn each_record_is_read_once_under_churn() {
    let join = async |cluster: &Cluster, first| member(cluster, &[if first { "t" } else { "^t" }]).await;
    each_record_is_read_once(join, one_by_one).await;
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_is_read_from_start() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..20);
    let consumer = member(&cluster, &["^t$"]).await;
    assert_eq!(numbers(&consumer, 20).await, (0..20).collect::<Vec<_>>());
    cluster.delete_topic("t").unwrap();
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 100..103);
    append(&cluster, "t", 1, 200..202);
    let mut state = Vec::new();
    while state.len() < 5 {
        match tokio::time::timeout(120 * SECOND, consumer.recv()).await.expect("records in time").unwrap() {
            Ok(record) => state.push(number(&record)),
            // While the topic does not exist.
            Err(error) => assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}"),
        }
    }
    state.sort_unstable();
    assert_eq!(state, [100, 101, 102, 200, 201]);
}

#[tokio::test(start_paused = true)]
async fn blocked_reader_leaves_after_max_poll_interval() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let consumer = member(&cluster, &["t"]).await;
    next(&consumer).await;
    tokio::time::sleep(295 * SECOND).await;
    assert_eq!(cluster.consumer_group("g").unwrap().members.len(), 1);
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
    tokio::time::sleep(15 * SECOND).await;
    assert!(cluster.consumer_group("g").unwrap().members.is_empty());
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::WaitingForReader));
    assert!(consumer.assignment().is_empty());
    let told = next_error(&consumer, 1).await;
    assert!(told.to_string().contains("max.poll.interval.ms"), "{told}");
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2], "what it had in hand was not done");
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

#[tokio::test(start_paused = true)]
async fn regex_respects_exclude_internal_topics_setting() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        for exclude in ["true", "false"] {
            let cluster = cluster(1).await;
            for topic in ["t", "__consumer_offsets", "__mine"] {
                cluster.create_topic(topic, 1).unwrap();
            }
            let builder = builder(&cluster).group("g").group_protocol(protocol);
            let builder = builder.property("exclude.internal.topics", exclude).property("metadata.max.age.ms", "5000");
            let consumer = builder.auto_offset_reset(OffsetReset::Earliest).build().await.unwrap();
            consumer.subscribe(["^.*", "^t$"]).unwrap();
            assert!(is_quiet(&consumer).await);
            let mut expected = vec![tp("__mine", 0), tp("t", 0)];
            if exclude == "false" {
                expected.insert(0, tp("__consumer_offsets", 0));
            }
            assert_eq!(consumer.assignment(), expected, "{protocol:?} {exclude}");
            cluster.create_topic("u", 1).unwrap();
            append(&cluster, "u", 0, 3..4);
            assert_eq!(number(&next(&consumer).await), 3, "what comes is found");
        }
    }
}

/// Each subscription is valid alone, but together they would be refused.
#[tokio::test(start_paused = true)]
async fn regexes_that_cannot_combine_still_match() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    cluster.create_topic("u", 1).unwrap();
    for elements in [["^(?P<name>t)$", "^(?P<name>u)$"], ["^(?x)t$ # the first", "^u"], ["^[a-z&&[^a-s]]$", "^u"]] {
        let consumer = member(&cluster, &elements).await;
        assert!(is_quiet(&consumer).await);
        assert!(
            consumer.assignment().starts_with(&[tp("t", 0), tp("u", 0)]),
            "{elements:?}: {:?}",
            consumer.assignment()
        );
        consumer.close(10 * SECOND).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn regex_matches_ten_thousand_topics() {
    const TOPICS: usize = 10_000;
    let cluster = cluster(1).await;
    for n in 0..TOPICS {
        cluster.create_topic(&format!("many-{n:05}"), 1).unwrap();
    }
    let consumer = member(&cluster, &["^many-"]).await;
    let mut polls = 0;
    while consumer.assignment().len() < TOPICS {
        assert!(consumer.poll(SECOND).await.unwrap().is_empty());
        polls += 1;
        assert!(polls < 60, "{} are found", consumer.assignment().len());
    }
    append(&cluster, "many-09999", 0, 7..8);
    assert_eq!(number(&next(&consumer).await), 7);
    assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
}

#[tokio::test(start_paused = true)]
async fn close_during_rebalance_without_coordinator_is_bounded() {
    for dies in [true, false] {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 2).unwrap();
        (0..2).for_each(|partition| append(&cluster, "t", partition, 0..5));
        let first = member(&cluster, &["t"]).await;
        // One of its partitions has to move, and it does not release it.
        next(&first).await;
        next(&first).await;
        let second = member(&cluster, &["t"]).await;
        let moves = || cluster.consumer_group("g").unwrap().state == "Reconciling";
        for _ in 0..600 {
            if moves() {
                break;
            }
            tokio::time::sleep(SECOND / 10).await;
        }
        assert!(moves());
        if dies {
            cluster.kill(1).await.unwrap();
        } else {
            cluster.fault(crate::testkit::on_any_of([]).forever().hang());
        }
        for consumer in [first, second] {
            let closed = tokio::time::timeout(6 * SECOND, consumer.close(5 * SECOND)).await;
            assert!(closed.expect("bounded").is_err(), "it could not be said");
            assert!(consumer.recv().await.is_none());
        }
    }
}
