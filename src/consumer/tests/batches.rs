//! Tests of `recv_batch`: full batches, their time, and the records that a dropped call leaves.

use std::pin::pin;

use tokio::time::{Instant, timeout};

use super::*;
use crate::{ErrorKind, Record};

fn values(batch: &[ConsumerRecord]) -> Vec<i64> {
    batch.iter().map(number).collect()
}

#[tokio::test(start_paused = true)]
async fn full_batch_returns_at_once() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 25).await;
    let began = Instant::now();
    for from in [0, 10] {
        let batch = consumer.recv_batch(10, 600 * SECOND).await.unwrap();
        assert_eq!(values(&batch), (from..from + 10).collect::<Vec<_>>());
    }
    assert!(began.elapsed() < 5 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waits_until_batch_is_full() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 3).await;
    let later = async {
        for from in (3..30).step_by(3) {
            tokio::time::sleep(SECOND).await;
            append(&cluster, "t", 0, from..from + 3);
        }
    };
    let began = Instant::now();
    let (batch, ()) = tokio::join!(consumer.recv_batch(20, 60 * SECOND), later);
    assert_eq!(values(&batch.unwrap()), (0..20).collect::<Vec<_>>());
    assert!(began.elapsed() < 10 * SECOND, "{:?}", began.elapsed());
    assert_eq!(values(&consumer.recv_batch(20, SECOND).await.unwrap()), (20..30).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn returns_partial_batch_after_timeout() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 3).await;
    let began = Instant::now();
    assert_eq!(values(&consumer.recv_batch(10, 7 * SECOND).await.unwrap()), [0, 1, 2]);
    assert!((7 * SECOND..8 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(consumer.recv_batch(10, 7 * SECOND).await.unwrap().is_empty());
    assert!(consumer.recv_batch(10, Duration::ZERO).await.unwrap().is_empty());
    assert_eq!(consumer.recv_batch(0, SECOND).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn dropped_recv_batch_loses_no_record() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    for _ in 0..3 {
        assert!(timeout(SECOND, consumer.recv_batch(10, 600 * SECOND)).await.is_err());
    }
    // All records that the call had gathered are delivered in order, by any later call.
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
    let polled: Vec<i64> =
        consumer.poll(SECOND).await.unwrap().iter().map(|record| number(&record.to_owned())).collect();
    assert_eq!(polled, [2, 3, 4]);
    append(&cluster, "t", 0, 5..15);
    assert!(timeout(SECOND, consumer.recv_batch(11, 600 * SECOND)).await.is_err());
    assert_eq!(values(&consumer.recv_batch(10, SECOND).await.unwrap()), (5..15).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn commits_only_batches_already_processed() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..25);
    let builder = group_builder(&cluster, GroupProtocol::Classic);
    let consumer = subscribed(builder.auto_commit_interval(SECOND), &["t"]).await;
    assert_eq!(consumer.recv_batch(10, 60 * SECOND).await.unwrap().len(), 10);
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0).unwrap_or(0), 0, "they are worked on");
    assert!(timeout(3 * SECOND, consumer.recv_batch(100, 600 * SECOND)).await.is_err());
    assert_eq!(cluster.committed("g", "t", 0), Some(10), "those gathered for a full batch are not handed out");
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(10));
    assert_eq!(consumer.recv_batch(1, SECOND).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn seek_discards_records_gathered_before() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 10).await;
    let mut batch = pin!(consumer.recv_batch(15, 20 * SECOND));
    // The call gathers all ten records.
    assert!(timeout(SECOND, &mut batch).await.is_err());
    consumer.seek(&tp("t", 0), 7).unwrap();
    assert_eq!(values(&batch.await.unwrap()), [7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn error_follows_records_received_before_it() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..4);
    let consumer = builder(&cluster).enable_partition_eof(true).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let began = Instant::now();
    assert_eq!(values(&consumer.recv_batch(10, 600 * SECOND).await.unwrap()), [0, 1, 2, 3]);
    assert_eq!(consumer.recv_batch(10, 600 * SECOND).await.unwrap_err().kind(), ErrorKind::EndOfPartition);
    assert!(began.elapsed() < 60 * SECOND, "{:?}", began.elapsed());
}

/// `recv_batch` does not wait for more records than the consumer's memory can hold.
#[tokio::test(start_paused = true)]
async fn batch_is_bounded_by_queued_bytes() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let value = vec![b'x'; 10_000];
    for _ in 0..200 {
        cluster.append("t", 0, &[Record::to("t").with_value(&value)]).unwrap();
    }
    let consumer = builder(&cluster).queued_max_bytes(400_000).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let (began, mut count) = (Instant::now(), 0);
    // The last ones may be too few to fill the memory.
    while count <= 190 {
        let batch = consumer.recv_batch(1000, 600 * SECOND).await.unwrap();
        assert!((1..=40).contains(&batch.len()), "{} records", batch.len());
        count += batch.len();
    }
    assert!(began.elapsed() < 60 * SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn stream_batch_ends_when_partition_is_unassigned() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    let mut stream = consumer.split_partition(&tp("t", 0)).unwrap();
    assert!(timeout(SECOND, stream.recv_batch(10, 600 * SECOND)).await.is_err());
    assert_eq!(values(&stream.recv_batch(3, 600 * SECOND).await.unwrap().unwrap()), [0, 1, 2]);
    assert_eq!(values(&stream.recv_batch(3, 5 * SECOND).await.unwrap().unwrap()), [3, 4]);
    assert_eq!(stream.recv_batch(0, SECOND).await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    consumer.unsubscribe().unwrap();
    assert!(stream.recv_batch(3, 600 * SECOND).await.is_none());
    assert!(stream.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn clones_of_consumer_share_one_reader() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    let clone = consumer.clone();
    assert_eq!(clone.assignment(), [tp("t", 0)]);
    assert_eq!((numbers(&consumer, 2).await, numbers(&clone, 1).await), (vec![0, 1], vec![2]));
    let (batch, error) = tokio::join!(consumer.recv_batch(10, 5 * SECOND), clone.recv());
    assert_eq!(values(&batch.unwrap()), [3, 4]);
    assert_eq!(error.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
}

#[tokio::test(start_paused = true)]
async fn consumer_ends_with_its_last_clone_only() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    let (clone, mut stream) = (consumer.clone(), consumer.split_partition(&tp("t", 0)).unwrap());
    drop(consumer);
    assert_eq!(number(&stream.recv().await.unwrap().unwrap()), 0);
    drop(clone);
    assert!(stream.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn close_of_one_clone_closes_all() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    let clone = consumer.clone();
    clone.close(SECOND).await.unwrap();
    assert!(consumer.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn polled_records_are_forwarded_whole() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let full = Record::to("t").with_key("k").with_value("").with_timestamp_millis(77);
    let full = full.with_header("b", "1").with_null_header("a").with_header("b", "").with_header("b", "1");
    cluster.append("t", 0, &[full, Record::to("t").with_key("").with_null_header("n")]).unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let producer = cluster.producer().build().await.unwrap();
    let records = consumer.poll(60 * SECOND).await.unwrap();
    for partition in records.partitions() {
        for record in &partition {
            assert_eq!(TopicPartition::new(record.topic(), record.partition()), *partition.partition());
            producer.send(Record::forward("borrowed", record)).await.unwrap().await.unwrap();
            producer.send(Record::forward("owned", record.to_owned())).await.unwrap().await.unwrap();
        }
    }
    let of = |topic: &str| {
        let records = cluster.records(topic, 0).unwrap().into_iter();
        records.map(|record| (record.key, record.value, record.headers, record.timestamp_millis)).collect::<Vec<_>>()
    };
    assert_eq!(of("t").len(), 2);
    assert_eq!(of("borrowed"), of("t"));
    assert_eq!(of("owned"), of("t"));
}
