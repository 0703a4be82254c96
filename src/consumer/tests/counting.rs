use super::*;
use crate::{ApiKey, ErrorCode, testkit::on};

#[tokio::test(start_paused = true)]
async fn counts_records_batches_and_fetches() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 2).unwrap();
    for partition in 0..2 {
        append(&cluster, "t", partition, 0..10);
        append(&cluster, "t", partition, 10..15);
    }
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), 0), (tp("t", 1), 0)]).unwrap();
    tokio::time::sleep(SECOND).await;
    let ahead = consumer.metrics();
    assert_eq!((ahead.records_consumed, ahead.batch_records.sum()), (0, 30));
    assert!(ahead.partitions[&tp("t", 0)].buffered_bytes > 0 && ahead.buffered_bytes > 0);
    assert!(ahead.buffered_bytes <= ahead.buffer_total_bytes);
    assert_eq!((ahead.total_lag(), ahead.max_lag()), (30, Some(15)));
    numbers(&consumer, 7).await;
    let mut stream = consumer.split_partition(&tp("t", 1)).unwrap();
    let first = stream.recv().await.unwrap().unwrap();
    let metrics = consumer.metrics();
    let consumed = |metrics: &crate::consumer::ConsumerMetrics| {
        metrics.partitions.values().map(|partition| partition.records_consumed).collect::<Vec<_>>()
    };
    assert_eq!((metrics.records_consumed, consumed(&metrics).iter().sum()), (8, 8));
    assert!(metrics.partitions[&tp("t", 1)].records_consumed >= 1);
    drop(stream);
    let mut count = 8;
    while count < 30 {
        count += consumer.poll(SECOND).await.unwrap().iter().count();
    }
    let metrics = consumer.metrics();
    assert_eq!(metrics.records_consumed, 30, "of all readers, those that are gone, too");
    assert_eq!(consumed(&metrics), [15, 15]);
    consumer.seek(&tp("t", 0), 10).unwrap();
    numbers(&consumer, 5).await;
    let metrics = consumer.metrics();
    assert_eq!((metrics.records_consumed, consumed(&metrics)), (35, vec![20, 15]), "each time that it was given them");
    assert!(first.offset <= 7);
    assert_eq!((metrics.total_lag(), metrics.max_lag()), (0, Some(0)));
    let one = &metrics.partitions[&tp("t", 0)];
    assert_eq!((one.position, one.lead, one.buffered_bytes), (Some(15), Some(15), 0));
    assert!(one.records_fetched >= 15 && one.batches_fetched >= 2 && one.bytes_fetched > 0);
    let fetched: u64 = metrics.partitions.values().map(|partition| partition.bytes_fetched).sum();
    assert_eq!(fetched, metrics.batch_bytes.sum());
    assert_eq!(metrics.fetch_latency_micros.len(), 2, "by broker");
    assert_eq!(metrics.all_fetch_latency_micros().count(), metrics.fetches);
    assert!(metrics.fetch_bytes.sum() >= metrics.batch_bytes.sum());
    assert_eq!((metrics.fetches_failed, metrics.corrupt, metrics.errors.len()), (0, 0, 0));
    assert!(metrics.brokers.values().any(|broker| broker.bytes_read > 0) && metrics.metadata_age.is_some());
}

#[tokio::test(start_paused = true)]
async fn counts_errors_by_code_and_failed_fetches() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Fetch).partition("t", 0).times(3).error(ErrorCode::KAFKA_STORAGE_ERROR));
    let consumer = reading(&cluster, "t", 5).await;
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
    assert_eq!(consumer.metrics().errors[&ErrorCode::KAFKA_STORAGE_ERROR], 3);
    cluster.fault(on(ApiKey::Fetch).times(2).drop_connection());
    tokio::time::sleep(20 * SECOND).await;
    let metrics = consumer.metrics();
    assert_eq!(metrics.fetches_failed, 2);
    assert_eq!(metrics.all_fetch_latency_micros().count(), metrics.fetches - 2);
    assert!(metrics.fetches_in_flight <= 1);
}

#[tokio::test(start_paused = true)]
async fn counts_commits_and_measures_their_latency() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    let builder = group_builder(&cluster, GroupProtocol::Classic);
    let consumer = subscribed(builder.property("enable.auto.commit", "false"), &["t"]).await;
    numbers(&consumer, 5).await;
    cluster.fault(on(ApiKey::OffsetCommit).times(1).delay(SECOND));
    consumer.commit().await.unwrap();
    cluster.fault(on(ApiKey::OffsetCommit).times(1).error(ErrorCode::GROUP_AUTHORIZATION_FAILED));
    consumer.commit_offsets([(tp("t", 0), 2)]).await.unwrap_err();
    let metrics = consumer.metrics();
    assert_eq!((metrics.commits, metrics.commits_failed, metrics.commit_latency_micros.count()), (1, 1, 1));
    assert!(metrics.commit_latency_micros.max() >= 1_000_000);
    assert_eq!(metrics.partitions[&tp("t", 0)].position, Some(5));
}
