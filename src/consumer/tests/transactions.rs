//! Tests of transactions: the records that readers of committed records get, and those of all other
//! readers.

use super::*;
use crate::{ErrorKind, consumer::IsolationLevel};

async fn committed(cluster: &Cluster) -> Consumer {
    let consumer = builder(cluster).isolation_level(IsolationLevel::ReadCommitted).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    consumer
}

fn transact(cluster: &Cluster, producer_id: i64, numbers: std::ops::Range<i64>) {
    let records: Vec<_> = numbers.map(|n| Record::to("t").with_value(n.to_string())).collect();
    cluster.append_in_transaction("t", 0, producer_id, &records).unwrap();
}

/// Offsets and values.
type Places = Vec<(i64, i64)>;

/// Appends records of producers in turns, in a fixed pattern that looks random: returns the offsets
/// and values of all records, and of the committed ones.
fn interleave(cluster: &Cluster, rounds: u64) -> (Places, Places) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut roll = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let (mut all, mut good) = (Vec::new(), Vec::new());
    let mut open: std::collections::BTreeMap<i64, Places> = Default::default();
    for round in 0..rounds {
        let producer = 100 + roll(5) as i64;
        let first = cluster.log_end("t", 0).unwrap();
        match roll(10) {
            0..5 => {
                let count = 1 + roll(4) as i64;
                let numbers = round as i64 * 10..round as i64 * 10 + count;
                transact(cluster, producer, numbers.clone());
                let records: Vec<_> = (first..).zip(numbers).collect();
                all.extend(&records);
                open.entry(producer).or_default().extend(records);
            }
            5..8 => {
                let commit = roll(2) == 0;
                cluster.end_transaction("t", 0, producer, commit).unwrap();
                let records = open.remove(&producer).unwrap_or_default();
                if commit {
                    good.extend(records);
                }
            }
            _ => {
                append(cluster, "t", 0, round as i64 * 10..round as i64 * 10 + 1);
                all.push((first, round as i64 * 10));
                good.push((first, round as i64 * 10));
            }
        }
    }
    for producer in open.keys().copied().collect::<Vec<_>>() {
        cluster.end_transaction("t", 0, producer, false).unwrap();
    }
    good.sort_unstable();
    (all, good)
}

#[tokio::test(start_paused = true)]
async fn delivers_committed_records_once_in_order() {
    for (shuffle, bytes) in [(false, 1 << 20), (true, 1 << 20), (true, 400), (false, 100)] {
        let cluster = Cluster::start(Options::new().in_memory().shuffle_aborted(shuffle)).await.unwrap();
        cluster.create_topic("t", 1).unwrap();
        let (all, good) = interleave(&cluster, 300);
        assert!(good.len() > 100 && all.len() > good.len() + 100, "both kinds: {} of {}", good.len(), all.len());
        for (level, expected) in [(IsolationLevel::ReadCommitted, good), (IsolationLevel::ReadUncommitted, all)] {
            let builder = builder(&cluster).isolation_level(level).max_partition_fetch_bytes(bytes);
            let consumer = builder.build().await.unwrap();
            consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
            let mut seen = Vec::new();
            while seen.len() < expected.len() {
                let record = next(&consumer).await;
                seen.push((record.offset, number(&record)));
            }
            assert_eq!(seen, expected, "{level:?}, shuffled: {shuffle}, {bytes} bytes");
            assert!(is_quiet(&consumer).await);
            // Every marker and every skipped record counts for the position.
            assert_eq!(consumer.position(&tp("t", 0)), Some(cluster.log_end("t", 0).unwrap()));
            assert_eq!(consumer.lag(&tp("t", 0)), Some(0));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn start_inside_aborted_transaction_skips_it() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    transact(&cluster, 1, 0..3);
    transact(&cluster, 2, 3..6);
    cluster.end_transaction("t", 0, 1, false).unwrap();
    cluster.end_transaction("t", 0, 2, true).unwrap();
    let consumer = committed(&cluster).await;
    for from in [0, 1, 2, 3] {
        consumer.seek(&tp("t", 0), from).unwrap();
        assert_eq!(numbers(&consumer, 3).await, [3, 4, 5], "from {from}");
    }
    consumer.seek(&tp("t", 0), 6).unwrap();
    assert!(is_quiet(&consumer).await, "markers only");
    assert_eq!(consumer.position(&tp("t", 0)), Some(8));
}

#[tokio::test(start_paused = true)]
async fn open_transaction_blocks_only_read_committed() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..2);
    transact(&cluster, 1, 2..4);
    append(&cluster, "t", 0, 4..6);
    let consumer = committed(&cluster).await;
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    assert!(is_quiet(&consumer).await);
    assert_eq!((consumer.position(&tp("t", 0)), consumer.lag(&tp("t", 0))), (Some(2), Some(0)), "up to what is stable");
    let other = super::consumer(&cluster).await;
    other.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&other, 6).await, [0, 1, 2, 3, 4, 5]);

    let ends = consumer.end_offsets([tp("t", 0)]).await.unwrap();
    assert_eq!(ends[&tp("t", 0)], 2);
    assert_eq!(other.end_offsets([tp("t", 0)]).await.unwrap()[&tp("t", 0)], 6);
    consumer.seek_to_end([&tp("t", 0)]).unwrap();
    assert!(is_quiet(&consumer).await);
    assert_eq!(consumer.position(&tp("t", 0)), Some(2));

    cluster.end_transaction("t", 0, 1, true).unwrap();
    assert_eq!(numbers(&consumer, 4).await, [2, 3, 4, 5]);
    assert!(is_quiet(&consumer).await);
    assert_eq!((consumer.position(&tp("t", 0)), consumer.lag(&tp("t", 0))), (Some(7), Some(0)), "the marker too");
}

#[tokio::test(start_paused = true)]
async fn partition_end_is_reported_behind_last_marker() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..1);
    transact(&cluster, 1, 1..4);
    cluster.end_transaction("t", 0, 1, false).unwrap();
    let builder = builder(&cluster).isolation_level(IsolationLevel::ReadCommitted).enable_partition_eof(true);
    let consumer = builder.group("g").build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [0]);
    let error = next_error(&consumer, 10).await;
    assert_eq!(
        (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
        (ErrorKind::EndOfPartition, Some(("t", 0, 5)))
    );
    // Skipped records after a record are completed together with it.
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
    transact(&cluster, 1, 5..6);
    assert!(is_quiet(&consumer).await, "nothing of it is stable, so this is the same end");
    cluster.end_transaction("t", 0, 1, false).unwrap();
    let error = next_error(&consumer, 10).await;
    assert_eq!(error.location().map(|at| (&*at.topic, at.partition, at.offset)), Some(("t", 0, 7)));
}

#[tokio::test(start_paused = true)]
async fn skips_transaction_batches_removed_by_compaction() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    transact(&cluster, 1, 0..2);
    transact(&cluster, 1, 2..3);
    cluster.end_transaction("t", 0, 1, false).unwrap();
    transact(&cluster, 2, 4..5);
    cluster.end_transaction("t", 0, 2, true).unwrap();
    append(&cluster, "t", 0, 6..7);
    // The first records of an aborted transaction, and the marker of a committed one.
    assert!(cluster.lose_batch("t", 0, 1).unwrap());
    assert!(cluster.lose_batch("t", 0, 5).unwrap());
    assert!(!cluster.lose_batch("t", 0, 5).unwrap());
    let consumer = committed(&cluster).await;
    assert_eq!(numbers(&consumer, 2).await, [4, 6]);
    assert!(is_quiet(&consumer).await);
    assert_eq!(consumer.position(&tp("t", 0)), Some(7));
}

#[tokio::test(start_paused = true)]
async fn missing_abort_marker_is_reported_and_skippable() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    transact(&cluster, 1, 0..2);
    cluster.end_transaction("t", 0, 1, false).unwrap();
    transact(&cluster, 1, 3..4);
    cluster.end_transaction("t", 0, 1, true).unwrap();
    append(&cluster, "t", 0, 5..6);
    assert!(cluster.lose_batch("t", 0, 2).unwrap(), "the marker of what was aborted");
    let consumer = committed(&cluster).await;
    // It is unknown to which of the two transactions the records between them belong.
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(
        error.to_string().contains("producer 1") && error.to_string().contains("commits it at offset 4"),
        "{error}"
    );
    assert!(is_quiet(&consumer).await, "told once");
    assert_eq!(consumer.skip_corrupt(&tp("t", 0)).unwrap(), 5);
    assert_eq!(numbers(&consumer, 1).await, [5]);
}

#[tokio::test(start_paused = true)]
async fn lagging_follower_limits_stable_offset() {
    let options = Options::new().brokers(2).in_memory().racks(["a", "b"]).rack_aware(true);
    let cluster = Cluster::start(options).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..1);
    transact(&cluster, 1, 1..2);
    cluster.end_transaction("t", 0, 1, false).unwrap();
    append(&cluster, "t", 0, 3..4);
    let builder = builder(&cluster).isolation_level(IsolationLevel::ReadCommitted).client_rack("b");
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    cluster.lag_follower("t", 0, 2, Some(3)).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [0]);
    assert!(is_quiet(&consumer).await);
    assert_eq!(consumer.position(&tp("t", 0)), Some(3));
    cluster.lag_follower("t", 0, 2, None).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [3]);
}
