//! Tests of metadata that is stale, or of another cluster.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use super::*;
use crate::{
    ApiKey,
    consumer::OffsetReset,
    error::ErrorCode,
    net::{MemoryNetwork, Network},
    testkit::tampered::tampered,
    tests::named_network::NamedNetwork,
    wire::messages::MetadataResponse,
};

/// Configures a group member that learns of new partitions soon.
fn member(cluster: &Cluster, network: Arc<dyn Network>) -> ConsumerBuilder {
    let builder = builder(cluster).network(network).group("g").auto_offset_reset(OffsetReset::Earliest);
    builder.property("metadata.max.age.ms", "1000")
}

/// Reads `count` numbers, and sorts them.
async fn sorted(consumer: &Consumer, count: usize) -> Vec<i64> {
    let mut numbers = numbers(consumer, count).await;
    numbers.sort_unstable();
    numbers
}

#[tokio::test(start_paused = true)]
async fn partition_is_read_once_leader_is_available() {
    for subscribes in [true, false] {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 2).unwrap();
        for partition in 0..2 {
            append(&cluster, "t", partition, 0..2);
        }
        // The first metadata of the topic shows one partition without a leader, and so does the
        // first metadata with the third one later.
        let rounds = Arc::new(AtomicU64::new(0));
        let seen = rounds.clone();
        let network = tampered(&cluster, ApiKey::Metadata, move |_, _, response: &mut MetadataResponse| {
            for topic in &mut response.topics {
                let begins = [1, 2].get(topic.partitions.len() / 3).copied().unwrap_or(0);
                for partition in topic.partitions.iter_mut().filter(|partition| partition.partition_index == begins) {
                    if seen.fetch_add(1, Ordering::Relaxed) % 8 < 4 {
                        partition.error_code = ErrorCode::LEADER_NOT_AVAILABLE.code();
                        partition.leader_id = -1;
                        partition.leader_epoch = -1;
                    }
                }
            }
        });
        let consumer = member(&cluster, network).build().await.unwrap();
        let all = |count| (0..count).map(|partition| (tp("t", partition), Offset::Beginning));
        if subscribes {
            consumer.subscribe(["t"]).unwrap();
        } else {
            consumer.assign(all(2)).unwrap();
        }
        assert_eq!(sorted(&consumer, 4).await, [0, 0, 1, 1]);
        assert!(rounds.load(Ordering::Relaxed) >= 4, "it began with the error");
        rounds.store(0, Ordering::Relaxed);
        cluster.add_partitions("t", 3).unwrap();
        append(&cluster, "t", 2, 7..9);
        if !subscribes {
            consumer
                .assign(all(3).map(|(partition, from)| {
                    (partition, if consumer.position(&tp("t", 0)).is_some() { Offset::End } else { from })
                }))
                .unwrap();
            consumer.seek(&tp("t", 2), Offset::Beginning).unwrap();
        }
        assert_eq!(numbers(&consumer, 2).await, [7, 8]);
        assert!(is_quiet(&consumer).await);
        assert!(rounds.load(Ordering::Relaxed) >= 4, "and so did the new one");
    }
}

#[tokio::test(start_paused = true)]
async fn stale_metadata_does_not_remove_new_partition() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..1);
    let behind = Arc::new(AtomicBool::new(false));
    let now_and_then = behind.clone();
    let network = tampered(&cluster, ApiKey::Metadata, move |round, _, response: &mut MetadataResponse| {
        if now_and_then.load(Ordering::Relaxed) && round % 2 == 1 {
            for topic in &mut response.topics {
                topic.partitions.retain(|partition| partition.partition_index == 0);
            }
        }
    });
    let consumer = subscribed(member(&cluster, network), &["t"]).await;
    assert_eq!(numbers(&consumer, 1).await, [0]);
    cluster.add_partitions("t", 2).unwrap();
    append(&cluster, "t", 1, 0..1);
    assert_eq!(numbers(&consumer, 1).await, [0]);
    behind.store(true, Ordering::Relaxed);
    let (joins, looks) = (cluster.requests(ApiKey::JoinGroup), cluster.requests(ApiKey::Metadata));
    for n in 1..60 {
        append(&cluster, "t", 0, n..n + 1);
        append(&cluster, "t", 1, n..n + 1);
        assert_eq!(numbers(&consumer, 2).await, [n, n]);
        tokio::time::sleep(SECOND / 2).await;
    }
    assert!(cluster.requests(ApiKey::Metadata) > looks + 20);
    assert_eq!(cluster.requests(ApiKey::JoinGroup), joins, "nothing has changed, so there is no rebalance");
}

#[tokio::test(start_paused = true)]
async fn replacement_cluster_is_read_from_beginning() {
    for subscribes in [true, false] {
        let network = MemoryNetwork::new();
        let first = Cluster::start(Options::new().network(network.clone()).brokers(2)).await.unwrap();
        let second = Cluster::start(Options::new().network(network.clone()).seed(99)).await.unwrap();
        for (cluster, numbers) in [(&first, 0..10), (&second, 100..130)] {
            cluster.create_topic("t", 2).unwrap();
            append(cluster, "t", 0, numbers);
        }
        let named = NamedNetwork::new(network, &first);
        let builder = Consumer::builder("kafka:9092").network(Arc::new(named.clone())).seed(1).group("g");
        let builder = builder.auto_offset_reset(OffsetReset::Earliest).auto_commit_interval(SECOND);
        let builder = builder.property("metadata.recovery.rebootstrap.trigger.ms", "3000");
        let consumer = builder.build().await.unwrap();
        if subscribes {
            consumer.subscribe(["t"]).unwrap();
        } else {
            consumer.assign((0..2).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
        }
        assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
        assert!(is_quiet(&consumer).await);
        for broker in first.brokers() {
            first.kill(broker).await.unwrap();
        }
        tokio::time::sleep(SECOND).await;
        named.point_to(&second);
        // A member that rejoins begins at the committed offset, and there is none yet, so it reads
        // some records twice.
        let mut seen = std::collections::BTreeSet::new();
        let mut quiet = 0;
        while quiet < 20 {
            match tokio::time::timeout(10 * SECOND, consumer.recv()).await {
                Ok(Some(Ok(record))) => {
                    assert!(number(&record) >= 100, "of the other cluster: {record:?}");
                    seen.insert(record.offset);
                    quiet = 0;
                }
                Ok(Some(Err(error))) => assert!(error.is_retriable(), "what is told meanwhile passes: {error}"),
                Ok(None) => panic!("the end"),
                Err(_) => quiet += 1,
            }
        }
        assert_eq!(Vec::from_iter(seen), (0..30).collect::<Vec<_>>(), "all of it; subscribes: {subscribes}");
        assert_eq!((first.committed("g", "t", 0), second.committed("g", "t", 0)), (Some(10), Some(30)));
    }
}
