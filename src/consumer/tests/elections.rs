//! Tests that the records that a log loses between two leaders are noticed before any record behind
//! them is delivered (KIP-320), whatever happens in between.

use super::{
    world::{World, rules},
    *,
};
use crate::{
    ApiKey,
    consumer::{
        IsolationLevel, OffsetReset,
        subscription::fetch_position::{FetchState, ResetTarget},
    },
    testkit::on,
};

/// Returns the partition's leader and epoch, as the consumer knows them.
fn leader(consumer: &Consumer) -> Option<(i32, i32)> {
    consumer.shared.buffer.with_state(|state| state.partitions.get(&tp("t", 0)).unwrap().leader)
}

/// Waits until the consumer knows that leader.
async fn led_by(consumer: &Consumer, broker: Option<i32>) {
    for _ in 0..600 {
        if leader(consumer).map(|(node, _)| node) == broker {
            return;
        }
        tokio::time::sleep(SECOND / 10).await;
    }
    panic!("{broker:?} is not known to lead: {:?}", leader(consumer));
}

/// Appends each number as a separate batch.
fn singly(cluster: &Cluster, numbers: std::ops::Range<i64>) {
    for n in numbers {
        append(cluster, "t", 0, n..n + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn truncated_log_resumes_at_divergence_after_restart() {
    let cluster = Cluster::start(Options::new().brokers(2).replication_factor(1).in_memory()).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    singly(&cluster, 0..10);
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::Latest).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
    let only = cluster.leader("t", 0).unwrap().unwrap();
    cluster.kill(only).await.unwrap();
    led_by(&consumer, None).await;
    cluster.truncate("t", 0, 6).unwrap();
    cluster.restart(only).await.unwrap();
    append(&cluster, "t", 0, 106..112);
    assert_eq!(numbers(&consumer, 6).await, (106..112).collect::<Vec<_>>(), "although the old offset is in range");
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn same_leader_and_epoch_skip_validation() {
    let cluster = cluster(2).await;
    let consumer = reading(&cluster, "t", 3).await;
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    let (topic, was) = (tp("t", 0), leader(&consumer));
    // Metadata without a leader, and then the same metadata as before.
    let metadata = consumer.shared.client.metadata();
    let mut without = (*metadata).clone();
    let mut leaderless = (**metadata.topic("t").unwrap()).clone();
    leaderless.partitions[0].leader = None;
    without.topics.insert("t".into(), leaderless.into());
    let now = std::time::Instant::now();
    consumer.shared.buffer.with_state_and_readers(|state| {
        state.metadata_changed(&without, now);
        state.update_from_metadata(&topic, &metadata, now);
    });
    assert_eq!(leader(&consumer), was);
    append(&cluster, "t", 0, 3..4);
    assert_eq!(numbers(&consumer, 1).await, [3]);
    assert_eq!(cluster.requests(ApiKey::OffsetForLeaderEpoch), 0);
}

/// Creates two partitions of large batches, and a consumer with little memory.
async fn large(isolation: IsolationLevel) -> (Cluster, Consumer) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    for partition in 0..2 {
        for n in 0..(8 + 42 * i64::from(partition)) {
            large_append(&cluster, partition, n);
        }
    }
    let builder = builder(&cluster).queued_max_bytes(50_000).max_partition_fetch_bytes(50_000);
    let consumer = builder.isolation_level(isolation).build().await.unwrap();
    (cluster, consumer)
}

/// Appends a record of nine thousand bytes that is the number with leading zeros.
fn large_append(cluster: &Cluster, partition: i32, n: i64) {
    cluster.append("t", partition, &[Record::to("t").with_value(format!("{n:09000}"))]).unwrap();
}

fn fetched(consumer: &Consumer) -> u64 {
    consumer.metrics().partitions[&tp("t", 0)].records_fetched
}

#[tokio::test(start_paused = true)]
async fn detects_election_between_eviction_and_refetch() {
    let (cluster, consumer) = large(IsolationLevel::ReadUncommitted).await;
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    for n in 0..3 {
        assert_eq!(number(&stream.recv().await.unwrap().unwrap()), n);
    }
    tokio::time::sleep(60 * SECOND).await;
    assert!(fetched(&consumer) > 3, "more of it waits unread");
    // The common reader needs the memory.
    consumer.assign([(tp("t", 0), 3), (tp("t", 1), 0)]).unwrap();
    let mut stream = {
        drop(stream);
        consumer.split_partition(&tp("t", 0)).unwrap()
    };
    assert_eq!(number(&stream.recv().await.unwrap().unwrap()), 3);
    tokio::time::sleep(60 * SECOND).await;
    for n in 0..50 {
        assert_eq!(number(&next(&consumer).await), n);
    }
    let evicted = consumer.shared.buffer.with_state(|state| state.partitions.get(&tp("t", 0)).unwrap().evicted);
    assert!(evicted, "what waited was dropped");
    cluster.truncate("t", 0, 2).unwrap();
    for n in 102..112 {
        large_append(&cluster, 0, n);
    }
    tokio::time::sleep(SECOND).await;
    for n in 102..112 {
        let record = tokio::time::timeout(60 * SECOND, stream.recv()).await.expect("a record").unwrap().unwrap();
        assert_eq!(number(&record), n, "of the log that is now, and all of it");
    }
}

#[tokio::test(start_paused = true)]
async fn detects_election_after_paused_partition_is_evicted() {
    let (cluster, consumer) = large(IsolationLevel::ReadUncommitted).await;
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    for n in 0..3 {
        assert_eq!(number(&next(&consumer).await), n);
    }
    tokio::time::sleep(60 * SECOND).await;
    assert!(fetched(&consumer) > 3, "more of it waits");
    consumer.pause([&tp("t", 0)]).unwrap();
    let before = consumer.shared.buffer.with_state(|state| state.partitions.get(&tp("t", 0)).unwrap().queue.bytes());
    let now = std::time::Instant::now();
    let metadata = consumer.shared.client.metadata();
    consumer.shared.buffer.with_state_and_readers(|state| {
        state.assign(tp("t", 1), FetchState::at(Offset::Beginning), &metadata, now);
    });
    for n in 0..50 {
        let record = next(&consumer).await;
        assert_eq!((record.partition, number(&record)), (1, n));
    }
    let after = consumer.shared.buffer.with_state(|state| state.partitions.get(&tp("t", 0)).unwrap().queue.bytes());
    // Except for batches that were decompressed already.
    assert!(before > 0 && after < before / 4, "given back: {before}, {after}");
    cluster.truncate("t", 0, 2).unwrap();
    for n in 102..112 {
        large_append(&cluster, 0, n);
    }
    consumer.resume([&tp("t", 0)]).unwrap();
    assert_eq!(numbers(&consumer, 10).await, (102..112).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn ignores_epoch_end_offset_from_old_leader() {
    let cluster = cluster(3).await;
    cluster.create_topic("t", 1).unwrap();
    singly(&cluster, 0..10);
    let builder = builder(&cluster).auto_offset_reset(OffsetReset::Latest).property("metadata.max.age.ms", "1000");
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
    let fault = cluster.fault(on(ApiKey::OffsetForLeaderEpoch).delay_response(20 * SECOND));
    let first = cluster.leader("t", 0).unwrap().unwrap();
    let (second, third) = (first % 3 + 1, (first + 1) % 3 + 1);
    cluster.move_leader("t", 0, second).unwrap();
    // The response, which arrives late, says that all records are there.
    fault.reached(1).await;
    cluster.truncate("t", 0, 6).unwrap();
    cluster.move_leader("t", 0, third).unwrap();
    append(&cluster, "t", 0, 106..112);
    led_by(&consumer, Some(third)).await;
    assert_eq!(numbers(&consumer, 6).await, (106..112).collect::<Vec<_>>());
    tokio::time::sleep(30 * SECOND).await;
    append(&cluster, "t", 0, 112..113);
    assert_eq!(numbers(&consumer, 1).await, [112]);
}

#[tokio::test(start_paused = true)]
async fn validates_at_new_leader_when_old_hangs() {
    let cluster = cluster(3).await;
    let builder = builder(&cluster).property("metadata.max.age.ms", "1000");
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    let first = cluster.leader("t", 0).unwrap().unwrap();
    let (second, third) = (first % 3 + 1, (first + 1) % 3 + 1);
    let fault = cluster.fault(on(ApiKey::OffsetForLeaderEpoch).broker(second).forever().hang());
    cluster.move_leader("t", 0, second).unwrap();
    fault.reached(1).await;
    cluster.move_leader("t", 0, third).unwrap();
    append(&cluster, "t", 0, 3..4);
    let record = tokio::time::timeout(10 * SECOND, consumer.recv()).await.expect("long before the request times out");
    assert_eq!(number(&record.unwrap().unwrap()), 3);
}

#[tokio::test(start_paused = true)]
async fn commit_behind_marker_has_marker_epoch() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 1).unwrap();
    let records: Vec<_> = (0..3).map(|n: i64| Record::to("t").with_value(n.to_string())).collect();
    cluster.append_in_transaction("t", 0, 7, &records).unwrap();
    let first = cluster.leader("t", 0).unwrap().unwrap();
    cluster.move_leader("t", 0, 3 - first).unwrap();
    cluster.end_transaction("t", 0, 7, true).unwrap();
    for isolation in [IsolationLevel::ReadCommitted, IsolationLevel::ReadUncommitted] {
        let group = format!("{isolation:?}");
        let begin = |reset| {
            let builder = builder(&cluster).group(group.clone()).auto_offset_reset(reset);
            builder.isolation_level(isolation).build()
        };
        let consumer = begin(OffsetReset::Earliest).await.unwrap();
        consumer.subscribe(["t"]).unwrap();
        assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
        assert!(is_quiet(&consumer).await);
        consumer.close(10 * SECOND).await.unwrap();
        assert_eq!(cluster.committed(&group, "t", 0), Some(4));
        // A consumer that continues from there learns that nothing was lost.
        let consumer = begin(OffsetReset::None).await.unwrap();
        consumer.subscribe(["t"]).unwrap();
        assert!(is_quiet(&consumer).await, "and is told of no truncation");
        assert_eq!(consumer.position(&tp("t", 0)), Some(4));
    }
}

#[test]
fn ignores_fetch_response_of_older_leader() {
    let mut world = World::new(rules());
    world.buffer.with_state_and_readers(|state| {
        state.reposition(&tp("t", 1), FetchState::AwaitReset(ResetTarget::Earliest)).unwrap()
    });
    world.answer_questions();
    world.send(1).unwrap();
    // The next leader has lost everything. No record was delivered yet, so none is missing there.
    world.cut(1, 0, 0);
    world.tell();
    world.answer_questions();
    world.answer(1, 3);
    world.send(0).unwrap();
    world.answer(0, 1);
    let records = std::iter::from_fn(|| world.take_record(None)).filter(|record| record.partition == 1);
    let records: Vec<_> = records.map(|record| (record.offset, record.leader_epoch)).collect();
    assert_eq!(records, [(0, Some(2)), (1, Some(2)), (2, Some(2)), (3, Some(2))]);
}

#[tokio::test(start_paused = true)]
async fn accepts_restarted_epochs_without_topic_ids() {
    // Like brokers from before topic ids.
    let options = Options::new().brokers(2).in_memory().auto_create(false);
    let options = options.max_version(ApiKey::Metadata, 9).max_version(ApiKey::Fetch, 11);
    let cluster = Cluster::start(options).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    for _ in 0..5 {
        let leader = cluster.leader("t", 0).unwrap().unwrap();
        cluster.move_leader("t", 0, 3 - leader).unwrap();
    }
    append(&cluster, "t", 0, 0..5);
    let builder = builder(&cluster).auto_offset_reset(OffsetReset::Earliest).property("metadata.max.age.ms", "1000");
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 5).await, (0..5).collect::<Vec<_>>());
    cluster.delete_topic("t").unwrap();
    led_by(&consumer, None).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 100..103);
    let read = async {
        let mut read = Vec::new();
        while read.len() < 3 {
            match consumer.recv().await.unwrap() {
                Ok(record) => read.push(number(&record)),
                // While the topic did not exist.
                Err(error) => assert_eq!(error.kind(), crate::ErrorKind::UnknownTopicOrPartition, "{error}"),
            }
        }
        read
    };
    let read = tokio::time::timeout(60 * SECOND, read).await.expect("it is read on");
    assert_eq!(read, [100, 101, 102]);
}
