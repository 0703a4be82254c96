use std::time::UNIX_EPOCH;

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{
        IsolationLevel, OffsetReset,
        test_batches::{Sort, batch},
    },
    testkit::on,
};

#[tokio::test(start_paused = true)]
async fn seeks_to_beginning_end_and_timestamp() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    for partition in 0..2 {
        for n in 0..5 {
            let record = Record::to("t").with_value(n.to_string()).with_timestamp_millis(1000 * n);
            cluster.append("t", partition, &[record]).unwrap();
        }
    }
    let consumer = consumer(&cluster).await;
    let (one, two) = (tp("t", 0), tp("t", 1));
    consumer.assign([(one.clone(), 2), (two.clone(), 5)]).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [2, 3, 4]);
    consumer.seek_to_beginning([&one]).unwrap();
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
    consumer.seek_to_timestamp([&one, &two], UNIX_EPOCH + Duration::from_millis(2001)).unwrap();
    let mut seen = numbers(&consumer, 4).await;
    seen.sort_unstable();
    assert_eq!(seen, [3, 3, 4, 4]);
    consumer.seek_to_timestamp([&two], UNIX_EPOCH + 100 * SECOND).unwrap();
    consumer.seek_to_end([&one]).unwrap();
    assert!(is_quiet(&consumer).await);
    assert_eq!((consumer.position(&one), consumer.position(&two)), (Some(5), Some(5)));
    append(&cluster, "t", 1, 5..6);
    assert_eq!(numbers(&consumer, 1).await, [5]);
    consumer.seek_to_timestamp([&one], UNIX_EPOCH - SECOND).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [0], "before all time is the beginning");
    for bad in [consumer.seek_to_beginning([&one, &tp("t", 7)]), consumer.seek_to_end([&tp("u", 0)])] {
        assert_eq!(bad.unwrap_err().kind(), ErrorKind::NotAssigned);
    }
    assert_eq!(numbers(&consumer, 1).await, [1], "then none is sought");
    consumer.close(SECOND).await.unwrap();
    assert_eq!(consumer.seek_to_beginning([&one]).unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn latest_seek_overrides_pending_offset_lookup() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 10).await;
    assert_eq!(number(&next(&consumer).await), 0);
    let slow = cluster.fault(on(ApiKey::ListOffsets).delay(20 * SECOND).times(1));
    consumer.seek_to_end([&tp("t", 0)]).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(consumer.position(&tp("t", 0)), None, "not known yet");
    consumer.seek_to_beginning([&tp("t", 0)]).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    assert_eq!(slow.hits(), 1);
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(number(&next(&consumer).await), 3);
}

#[tokio::test(start_paused = true)]
async fn repeated_offset_reset_backs_off_and_reports() {
    let cluster = cluster(1).await;
    let refused = on(ApiKey::Fetch).partition("t", 0).error(ErrorCode::OFFSET_OUT_OF_RANGE).forever();
    let refused = cluster.fault(refused);
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::Earliest).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.code(), Some(ErrorCode::OFFSET_OUT_OF_RANGE));
    assert!(error.to_string().contains("t[0]") && !error.is_fatal(), "{error}");
    assert!(is_quiet(&consumer).await, "it is told once");
    let status = consumer.status().partitions.remove(&tp("t", 0)).unwrap();
    assert!(matches!(status.waiting, crate::consumer::WaitReason::BackingOff(_)), "{status:?}");
    assert!(refused.hits() < 20, "{} fetches", refused.hits());
    refused.clear();
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn lag_counts_records_before_log_end() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 10).await;
    assert_eq!(consumer.lag(&tp("t", 0)), None);
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    assert_eq!(consumer.lag(&tp("t", 0)), Some(7));
    append(&cluster, "t", 0, 10..15);
    tokio::time::sleep(SECOND).await;
    assert_eq!(consumer.lag(&tp("t", 0)), Some(12));
    assert_eq!(numbers(&consumer, 12).await.len(), 12);
    assert_eq!((consumer.lag(&tp("t", 0)), consumer.lag(&tp("t", 1))), (Some(0), None));
}

#[tokio::test(start_paused = true)]
async fn skip_corrupt_skips_only_corrupt_batches() {
    let mut bad = batch(0, 3, Sort::Plain).to_vec();
    bad[70] ^= 0x40;
    let batches = vec![batch(0, 3, Sort::Plain), bad.into()];
    let options = Options::new().brokers(1).in_memory().sink(true).prepared("t", batches);
    let cluster = Cluster::start(options).await.unwrap();
    let consumer = consumer(&cluster).await;
    let partition = tp("t", 0);
    assert_eq!(consumer.skip_corrupt(&partition).unwrap_err().kind(), ErrorKind::NotAssigned);
    consumer.assign([(partition.clone(), 0)]).unwrap();
    assert_eq!(next(&consumer).await.offset, 0);
    assert_eq!(consumer.skip_corrupt(&partition).unwrap_err().kind(), ErrorKind::InvalidArgument);
    let mut seen = vec![0];
    for _ in 0..3 {
        match consumer.recv().await.unwrap() {
            Ok(record) => seen.push(record.offset),
            Err(error) => panic!("{error}"),
        }
        if seen.len() == 3 {
            let error = next_error(&consumer, 60).await;
            assert_eq!(
                (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
                (ErrorKind::Corrupt, Some(("t", 0, 3)))
            );
            assert_eq!(consumer.skip_corrupt(&partition).unwrap(), 6);
            assert_eq!(consumer.skip_corrupt(&partition).unwrap_err().kind(), ErrorKind::InvalidArgument, "once");
        }
    }
    assert_eq!(seen, [0, 1, 2, 6]);
    // Now through a stream of the partition, and through polls.
    let mut stream = consumer.split_partition(&partition).unwrap();
    assert_eq!(stream.recv().await.unwrap().unwrap().offset, 7);
    assert_eq!(stream.recv().await.unwrap().unwrap().offset, 8);
    assert_eq!(
        stream.recv().await.unwrap().unwrap_err().location().map(|at| (&*at.topic, at.partition, at.offset)),
        Some(("t", 0, 9))
    );
    assert_eq!(consumer.skip_corrupt(&partition).unwrap(), 12);
    assert_eq!(stream.recv().await.unwrap().unwrap().offset, 12);
    drop(stream);
    let rest = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(rest.iter().map(|record| record.offset()).collect::<Vec<_>>(), [13, 14]);
    drop(rest);
    assert_eq!(
        consumer.poll(60 * SECOND).await.unwrap_err().location().map(|at| (&*at.topic, at.partition, at.offset)),
        Some(("t", 0, 15))
    );
}

async fn at_end(consumer: &Consumer) -> (i32, i64) {
    let error = next_error(consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::EndOfPartition, "{error}");
    let (topic, partition, offset) = error.location().map(|at| (&*at.topic, at.partition, at.offset)).unwrap();
    assert_eq!(topic, "t");
    (partition, offset)
}

#[tokio::test(start_paused = true)]
async fn partition_end_is_reported_once_when_reached() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..3);
    let consumer = builder(&cluster).property("enable.partition.eof", "true").build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    assert_eq!(at_end(&consumer).await, (0, 3));
    assert!(is_quiet(&consumer).await, "told once");
    append(&cluster, "t", 0, 3..5);
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.iter().count(), 2, "records come before it");
    drop(records);
    assert_eq!(at_end(&consumer).await, (0, 5));
    consumer.seek(&tp("t", 0), 4).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [4]);
    assert_eq!(at_end(&consumer).await, (0, 5), "a seek begins again");
    consumer.assign([(tp("t", 1), Offset::Beginning)]).unwrap();
    assert_eq!(at_end(&consumer).await, (1, 0), "an empty partition ends where it begins");
    let mut stream = consumer.split_partition(&tp("t", 1)).unwrap();
    append(&cluster, "t", 1, 0..1);
    assert_eq!(stream.recv().await.unwrap().unwrap().offset, 0);
    assert_eq!(stream.recv().await.unwrap().unwrap_err().kind(), ErrorKind::EndOfPartition);
    drop(stream);
    let silent = reading(&cluster, "u", 1).await;
    assert_eq!(numbers(&silent, 1).await, [0]);
    assert!(is_quiet(&silent).await, "only on request");
}

#[tokio::test(start_paused = true)]
async fn requeued_partition_end_follows_its_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..4);
    let builder = builder(&cluster).enable_partition_eof(true).isolation_level(IsolationLevel::ReadCommitted);
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    assert_eq!(numbers(&consumer, 1).await, [0]);
    consumer.pause([&tp("t", 0)]).unwrap();
    assert!(is_quiet(&consumer).await);
    consumer.resume([&tp("t", 0)]).unwrap();
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.iter().take(2).count(), 2);
    drop(records);
    assert_eq!(numbers(&consumer, 1).await, [3]);
    assert_eq!(at_end(&consumer).await, (0, 4));
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn evicted_partition_end_is_reported_when_refetched() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    let value = vec![7; 9_000];
    for partition in 0..2 {
        for _ in 0..(5 + 45 * partition) {
            cluster.append("t", partition, &[Record::to("t").with_value(&value[..])]).unwrap();
        }
    }
    let builder = builder(&cluster).queued_max_bytes(50_000).max_partition_fetch_bytes(50_000);
    let consumer = builder.enable_partition_eof(true).build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    let counted = || consumer.metrics().partitions[&tp("t", 0)].records_fetched;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(counted(), 5);
    consumer.assign([(tp("t", 0), 0), (tp("t", 1), 0)]).unwrap();
    drop(std::mem::replace(&mut stream, consumer.split_partition(&tp("t", 0)).unwrap()));
    tokio::time::sleep(60 * SECOND).await;
    for offset in 0..50 {
        assert_eq!(next(&consumer).await.offset, offset);
    }
    assert_eq!(at_end(&consumer).await, (1, 50));
    for offset in 0..5 {
        assert_eq!(stream.recv().await.unwrap().unwrap().offset, offset);
    }
    assert!(counted() > 5, "it was evicted and fetched again: {}", counted());
    let end = tokio::time::timeout(60 * SECOND, stream.recv()).await.expect("the end").unwrap().unwrap_err();
    assert_eq!(end.location().map(|at| (&*at.topic, at.partition, at.offset)), Some(("t", 0, 5)));
}
