use std::sync::Arc;

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{OffsetAndMetadata, OffsetReset},
    testkit::on,
};

async fn member(cluster: &Cluster, group: &str) -> Consumer {
    let builder = builder(cluster).group(group).auto_offset_reset(OffsetReset::Earliest);
    builder.auto_commit_interval(SECOND).build().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn auto_commit_covers_only_processed_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let consumer = member(&cluster, "g").await;
    consumer.subscribe(["t"]).unwrap();
    for expected in 0..4 {
        assert_eq!(number(&next(&consumer).await), expected);
        tokio::time::sleep(5 * SECOND).await;
        assert_eq!(cluster.committed("g", "t", 0), Some(expected), "the record in hand is not done");
    }
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.iter().take(3).count(), 3);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(4));
    drop(records);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(4), "putting them down is not asking for the next");
    let records = consumer.poll(60 * SECOND).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(7), "those that were iterated, not those that were not");
    assert_eq!(records.iter().map(|record| record.offset()).collect::<Vec<_>>(), [7, 8, 9]);
    drop(records);
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(10), "a close is the end of what was held");
}

#[tokio::test(start_paused = true)]
async fn new_member_resumes_after_dropped_consumer() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let first = member(&cluster, "g").await;
    first.subscribe(["t"]).unwrap();
    assert_eq!(numbers(&first, 5).await, [0, 1, 2, 3, 4]);
    tokio::time::sleep(5 * SECOND).await;
    drop(first);
    let second = member(&cluster, "g").await;
    second.subscribe(["t"]).unwrap();
    let next = tokio::time::timeout(120 * SECOND, second.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(number(&next), 4, "the record that was in hand comes again");
    assert_eq!(cluster.committed("g", "t", 0), Some(4));
}

#[tokio::test(start_paused = true)]
async fn commit_covers_all_delivered_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    tokio::time::sleep(20 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), None, "enable.auto.commit is off");
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(3));
    let requests = cluster.requests(ApiKey::OffsetCommit);
    consumer.commit().await.unwrap();
    assert_eq!(cluster.requests(ApiKey::OffsetCommit), requests, "nothing new, nothing to ask");
    let records = consumer.poll(60 * SECOND).await.unwrap();
    let mut iter = records.iter();
    assert_eq!(iter.by_ref().take(2).count(), 2);
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(5), "in the midst of a poll's records");
    drop(iter);
    drop(records);
    let with_text = OffsetAndMetadata { metadata: "why".to_owned(), ..OffsetAndMetadata::new(1) };
    consumer.commit_offsets([(tp("t", 0), with_text)]).await.unwrap();
    let committed = consumer.committed([tp("t", 0), tp("t", 5)]).await.unwrap();
    assert_eq!(committed[&tp("t", 0)].as_ref().map(|c| (c.offset, c.metadata.as_str())), Some((1, "why")));
    assert_eq!(committed[&tp("t", 5)], None);
    assert_eq!(consumer.commit_offsets([(tp("t", 0), -3)]).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(1), "a close without enable.auto.commit commits nothing");
    let alone = reading(&cluster, "u", 0).await;
    assert_eq!(alone.commit().await.unwrap_err().kind(), ErrorKind::InvalidArgument, "there is no group");
}

#[tokio::test(start_paused = true)]
async fn commit_includes_leader_epoch_of_records() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..2);
    let epoch = cluster.leader_epoch("t", 0).unwrap();
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    consumer.commit().await.unwrap();
    let committed = consumer.committed([tp("t", 0)]).await.unwrap();
    assert_eq!(committed[&tp("t", 0)].as_ref().and_then(|c| c.leader_epoch), Some(epoch));
}

#[tokio::test(start_paused = true)]
async fn commit_succeeds_when_coordinator_moves() {
    let cluster = cluster(3).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let consumer = member(&cluster, "g").await;
    consumer.subscribe(["t"]).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    cluster.fault(on(ApiKey::OffsetCommit).times(3).error(ErrorCode::NOT_COORDINATOR));
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(3));
    assert_eq!(numbers(&consumer, 3).await, [3, 4, 5]);
    cluster.fault(on(ApiKey::OffsetCommit).times(2).drop_connection());
    consumer.commit().await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(6));
}

#[tokio::test(start_paused = true)]
async fn reassigning_commits_progress_of_old_partitions() {
    let cluster = cluster(1).await;
    for topic in ["a", "b"] {
        cluster.create_topic(topic, 1).unwrap();
        append(&cluster, topic, 0, 0..5);
    }
    let builder = builder(&cluster).group("g").auto_commit_interval(1000 * SECOND);
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("a", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    consumer.assign([(tp("b", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [0]);
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "a", 0), Some(2));
}

#[tokio::test(start_paused = true)]
async fn close_is_bounded_without_reachable_broker() {
    let cluster = Arc::new(cluster(1).await);
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let consumer = Arc::new(member(&cluster, "g").await);
    consumer.subscribe(["t"]).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    for broker in cluster.brokers() {
        cluster.kill(broker).await.unwrap();
    }
    let reader = consumer.clone();
    let waiting = tokio::spawn(async move {
        let mut last = reader.recv().await;
        while let Some(Ok(_)) = last {
            last = reader.recv().await;
        }
        last
    });
    tokio::time::sleep(SECOND / 10).await;
    let closed = tokio::time::timeout(6 * SECOND, consumer.close(5 * SECOND)).await.expect("bounded");
    assert!(closed.is_err(), "what was done could not be committed");
    assert!(waiting.await.unwrap().is_none_or(|error| error.is_err()), "a waiting reader sees the end");
    assert!(consumer.recv().await.is_none());
    assert_eq!(consumer.poll(SECOND).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(consumer.subscribe(["t"]).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(consumer.assign([(tp("t", 0), 0)]).unwrap_err().kind(), ErrorKind::Closed);
    let again = tokio::time::timeout(6 * SECOND, consumer.close(5 * SECOND)).await;
    assert!(again.is_ok(), "closing twice is bounded too");
}

#[tokio::test(start_paused = true)]
async fn unused_consumer_closes_at_once() {
    let cluster = cluster(1).await;
    consumer(&cluster).await.close(SECOND).await.unwrap();
    member(&cluster, "g").await.close(SECOND).await.unwrap();
    let network = Arc::new(crate::net::MemoryNetwork::new());
    let unreachable = Consumer::builder("127.0.0.1:1").group("g").network(network).build().await.unwrap();
    unreachable.close(SECOND).await.unwrap();
}

#[test]
fn recv_fails_after_runtime_is_dropped() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let consumer = runtime.block_on(async {
        let network = Arc::new(crate::net::MemoryNetwork::new());
        Consumer::builder("127.0.0.1:1").network(network).build().await.unwrap()
    });
    drop(runtime);
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let error = other.block_on(consumer.recv()).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    assert!(other.block_on(consumer.recv()).is_none());
}

#[tokio::test(start_paused = true)]
async fn commits_single_record_or_partition() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..5);
    append(&cluster, "t", 1, 0..5);
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    let mut seen = [0; 2];
    for _ in 0..10 {
        let record = next(&consumer).await;
        consumer.commit_record(&record).await.unwrap();
        seen[record.partition as usize] = record.offset + 1;
        for (partition, committed) in (0..).zip(seen) {
            assert_eq!(cluster.committed("g", "t", partition), Some(committed).filter(|offset| *offset > 0));
        }
    }
    let committed = consumer.committed([tp("t", 0)]).await.unwrap();
    let epoch = cluster.leader_epoch("t", 0).unwrap();
    assert_eq!(committed[&tp("t", 0)].as_ref().unwrap().leader_epoch, Some(epoch));
    consumer.commit_offsets([(tp("t", 1), OffsetAndMetadata::new(2).with_metadata("again"))]).await.unwrap();
    assert_eq!((cluster.committed("g", "t", 0), cluster.committed("g", "t", 1)), (Some(5), Some(2)));
}

#[tokio::test(start_paused = true)]
async fn async_commits_keep_order_and_are_merged() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    cluster.fault(on(ApiKey::OffsetCommit).delay(SECOND));
    let before = cluster.requests(ApiKey::OffsetCommit);
    let mut pending = Vec::new();
    for offset in 1..=100 {
        pending.push(consumer.commit_async([(tp("t", 0), offset), (tp("t", 1), 2 * offset)]).unwrap());
        tokio::task::yield_now().await;
    }
    // A commit that is not awaited is sent as well.
    drop(consumer.commit_async([(tp("t", 1), 7)]).unwrap());
    for pending in pending {
        pending.await.unwrap();
    }
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!((cluster.committed("g", "t", 0), cluster.committed("g", "t", 1)), (Some(100), Some(7)));
    let requests = cluster.requests(ApiKey::OffsetCommit) - before;
    assert!(requests <= 3, "those that waited went together: {requests}");
}

#[tokio::test(start_paused = true)]
async fn close_waits_for_commit_in_flight() {
    for dropped in [false, true] {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 1).unwrap();
        let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
        consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
        consumer.commit_offsets([(tp("t", 0), OffsetAndMetadata::new(1))]).await.unwrap();
        let before = cluster.requests(ApiKey::OffsetCommit);
        cluster.fault(on(ApiKey::OffsetCommit).times(2).error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
        cluster.fault(on(ApiKey::OffsetCommit).forever().delay(SECOND));
        let pending = consumer.commit_async([(tp("t", 0), 2)]).unwrap();
        while cluster.requests(ApiKey::OffsetCommit) == before {
            tokio::time::sleep(SECOND / 100).await;
        }
        let later = consumer.commit_async([(tp("t", 0), 3)]).unwrap();
        if dropped {
            let close = tokio::time::timeout(SECOND / 2, consumer.close(30 * SECOND));
            assert!(close.await.is_err(), "it waits");
        }
        consumer.close(30 * SECOND).await.unwrap();
        pending.await.unwrap();
        later.await.unwrap();
        assert_eq!(cluster.committed("g", "t", 0), Some(3));
    }
}

#[tokio::test(start_paused = true)]
async fn failed_async_commit_affects_no_other() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    let consumer = member(&cluster, "g").await;
    consumer.subscribe(["t"]).unwrap();
    assert!(is_quiet(&consumer).await);
    let first = consumer.commit_async([(tp("t", 0), 1)]).unwrap();
    let foreign = consumer.commit_async([(tp("other", 0), 1)]).unwrap();
    let last = consumer.commit_async([(tp("t", 1), 3)]).unwrap();
    assert_eq!(foreign.await.unwrap_err().kind(), ErrorKind::NotAssigned);
    first.await.unwrap();
    last.await.unwrap();
    assert_eq!((cluster.committed("g", "t", 0), cluster.committed("g", "t", 1)), (Some(1), Some(3)));
    assert_eq!(consumer.commit_async([(tp("t", 0), -1)]).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let pending = consumer.commit_async([(tp("t", 0), 2)]).unwrap();
    drop(consumer);
    pending.await.expect("it goes on in the background");
    assert_eq!(cluster.committed("g", "t", 0), Some(2));
}

/// Fault scenario 9 of Kafka's and librdkafka's suites.
#[tokio::test(start_paused = true)]
async fn commit_reports_rebalance_and_reading_continues() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let consumer = builder(&cluster).group("g").auto_commit(false).auto_offset_reset(OffsetReset::Earliest);
    let consumer = subscribed(consumer, &["t"]).await;
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    cluster.fault(on(ApiKey::OffsetCommit).times(6).error(ErrorCode::REBALANCE_IN_PROGRESS));
    let error = consumer.commit().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::REBALANCE_IN_PROGRESS));
    assert!(error.is_retriable());
    let mut read = Vec::new();
    while !read.contains(&9) {
        read.push(number(&next(&consumer).await));
    }
    assert!((3..10).all(|n| read.contains(&n)), "{read:?}");
}

#[tokio::test(start_paused = true)]
async fn continuous_async_commits_never_time_out() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    cluster.fault(on(ApiKey::OffsetCommit).forever().delay(SECOND));
    let mut pending = Vec::new();
    for offset in 1..=1000 {
        pending.push(consumer.commit_async([(tp("t", 0), offset)]).unwrap());
        tokio::time::sleep(SECOND / 10).await;
    }
    for pending in pending {
        pending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn revocation_waits_for_async_commits() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..5);
    append(&cluster, "t", 1, 0..5);
    let member = || builder(&cluster).group("g").auto_commit(false).auto_offset_reset(OffsetReset::Earliest).build();
    let first = member().await.unwrap();
    first.subscribe(["t"]).unwrap();
    next(&first).await;
    let second = member().await.unwrap();
    second.subscribe(["t"]).unwrap();
    cluster.fault(on(ApiKey::OffsetCommit).forever().delay(2 * SECOND));
    let mut pending = Vec::new();
    // Until the rebalance is noticed, some commits are in flight and some wait.
    for offset in 1..=50 {
        if first.assignment().len() < 2 {
            break;
        }
        pending.push(first.commit_async([(tp("t", 0), offset), (tp("t", 1), offset)]).unwrap());
        let _ = tokio::time::timeout(SECOND / 10, first.recv()).await;
    }
    for pending in pending {
        pending.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn commit_has_epoch_of_last_delivered_record() {
    use crate::consumer::test_batches::{Sort, built, noise};
    let cluster = cluster(2).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..10);
    let leader = cluster.leader("t", 0).unwrap().unwrap();
    cluster.move_leader("t", 0, 3 - leader).unwrap();
    let epoch = cluster.leader_epoch("t", 0).unwrap();
    // Large enough to be decompressed in advance, unlike the batch before it.
    let mut large = built(10, 10, Sort::Plain, crate::Compression::Gzip(1), &noise(60_000)).to_vec();
    large[12..16].copy_from_slice(&epoch.to_be_bytes());
    cluster.append_raw("t", 0, large, 10).unwrap();
    let consumer = builder(&cluster).group("g").auto_commit(false).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    tokio::time::sleep(5 * SECOND).await;
    for (records, expected) in [(10, epoch - 1), (1, epoch), (8, epoch), (1, epoch)] {
        for _ in 0..records {
            next(&consumer).await;
        }
        consumer.commit().await.unwrap();
        let committed = consumer.committed([tp("t", 0)]).await.unwrap();
        let committed = committed[&tp("t", 0)].clone().unwrap();
        assert_eq!(committed.leader_epoch, Some(expected), "{committed:?}");
    }
}
