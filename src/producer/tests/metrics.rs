//! Tests of the metrics, with faults that make the counts predictable.

use super::*;
use crate::{Compression, error::ErrorCode, producer::ProducerMetrics, testkit::on, wire::ApiKey};

/// Sends a record and waits for its result.
async fn send_one(producer: &Producer) -> Result<RecordMetadata, Error> {
    send_numbers(producer, 0..1).await.pop().unwrap().await
}

/// Asserts the invariants of the metrics of an idle producer.
fn assert_adds_up(metrics: &ProducerMetrics) {
    assert_eq!(metrics.records_outstanding, 0);
    assert_eq!((metrics.batches_queued, metrics.batches_in_flight, metrics.requests_in_flight), (0, 0, 0));
    assert_eq!(metrics.records_sent, metrics.records_acknowledged + metrics.records_failed());
    assert_eq!((metrics.buffer_used_bytes, metrics.senders_waiting), (0, 0));
    assert_eq!(metrics.request_records.count(), metrics.request_batches.count());
    assert!(metrics.request_records.count() <= metrics.requests);
}

#[tokio::test(start_paused = true)]
async fn counts_refusals_by_code_and_as_retries() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).times(3).error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    cluster.fault(on(ApiKey::Produce).times(2).error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let producer = producer(&cluster).await;
    assert!(results(send_numbers(&producer, 0..10).await).await.iter().all(Result::is_ok));
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    let errors: Vec<_> = metrics.errors.clone().into_iter().collect();
    assert_eq!(errors, [(ErrorCode::NOT_LEADER_OR_FOLLOWER, 3), (ErrorCode::NOT_ENOUGH_REPLICAS, 2)]);
    assert_eq!((metrics.batches_retried, metrics.records_retried), (5, 50));
    assert_eq!((metrics.requests, metrics.requests_failed), (6, 0));
    assert_eq!((metrics.records_sent, metrics.records_acknowledged), (10, 10));
    assert_eq!((metrics.batch_records.count(), metrics.batch_records.sum()), (1, 10));
    assert_eq!((metrics.request_records.count(), metrics.request_records.sum()), (6, 60));
    assert_eq!(metrics.request_batches.sum(), 6);
    assert_eq!(metrics.queue_time_micros.count(), 1, "only the first time counts");
    assert_eq!(metrics.uncompressed_bytes, metrics.batch_bytes.sum());
    assert!(metrics.request_bytes.sum() > 6 * metrics.batch_bytes.sum());
    assert_eq!(metrics.compression_ratio(), Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn separates_queue_time_from_produce_latency() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).skip(1).delay(ms(300)));
    let producer = builder(&cluster).linger(ms(50)).build().await.unwrap();
    send_one(&producer).await.unwrap();
    let before = producer.metrics();
    send_one(&producer).await.unwrap();
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    // In between the producer only waited, on a clock that stands still otherwise (and counts in
    // milliseconds).
    let queued = metrics.queue_time_micros.since(&before.queue_time_micros);
    assert_eq!(queued.count(), 1);
    assert!((50_000..53_000).contains(&queued.sum()), "{queued:?}");
    let latency = metrics.produce_latency_micros[&1].since(&before.produce_latency_micros[&1]);
    assert_eq!(latency.count(), 1);
    assert!((300_000..303_000).contains(&latency.sum()), "{latency:?}");
    assert_eq!(metrics.all_produce_latency_micros(), metrics.produce_latency_micros[&1]);
    assert_eq!(metrics.metadata_age.map(|age| age < ms(1000)), Some(true));
}

#[tokio::test(start_paused = true)]
async fn counts_lost_connections_as_failed_requests() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).times(2).drop_connection());
    let producer = producer(&cluster).await;
    send_one(&producer).await.unwrap();
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    assert_eq!((metrics.requests, metrics.requests_failed, metrics.batches_retried), (3, 2, 2));
    assert!(metrics.errors.is_empty(), "no broker said anything");
    let broker = &metrics.brokers[&1];
    assert_eq!((broker.connections_made, broker.connections_closed, broker.connections_failed), (3, 2, 0));
    assert_eq!(broker.requests, broker.responses + 2);
    assert!(broker.bytes_written > metrics.request_bytes.sum() && broker.bytes_read > 4);
    assert_eq!(metrics.produce_latency_micros[&1].count(), 1, "what is not answered has no latency");
}

#[tokio::test(start_paused = true)]
async fn counts_failed_connection_attempts_to_dead_broker() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).request_timeout(ms(500)).delivery_timeout(ms(2000)).build().await.unwrap();
    send_one(&producer).await.unwrap();
    cluster.kill(1).await.unwrap();
    send_one(&producer).await.unwrap_err();
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    assert!(metrics.brokers[&1].connections_failed > 0);
    assert_eq!((metrics.records_acknowledged, metrics.records_failed()), (1, 1));
    assert_eq!((metrics.batches_expired, metrics.records_expired), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn counts_failed_records_by_delivery_status() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).retries(0).max_block(ms(1000)).build().await.unwrap();
    cluster.fault(on(ApiKey::Produce).error(ErrorCode::INVALID_RECORD));
    send_one(&producer).await.unwrap_err();
    cluster.fault(on(ApiKey::Produce).act_then_drop());
    send_one(&producer).await.unwrap_err();
    producer.send(Record::to("not-there").with_partition(77).with_value("x")).await.unwrap().await.unwrap_err();
    send_one(&producer).await.unwrap();
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    assert_eq!((metrics.records_not_persisted, metrics.records_possibly_persisted), (2, 1));
    assert_eq!(metrics.errors[&ErrorCode::INVALID_RECORD], 1);
}

#[tokio::test(start_paused = true)]
async fn uncertain_batch_counts_epoch_bump() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).request_timeout(ms(500)).delivery_timeout(ms(2000)).build().await.unwrap();
    send_one(&producer).await.unwrap();
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    send_one(&producer).await.unwrap_err();
    hang.clear();
    send_one(&producer).await.unwrap();
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    assert_eq!((metrics.epoch_bumps, metrics.batches_expired, metrics.records_possibly_persisted), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn counts_batch_splits_sizes_and_compression() {
    let cluster = cluster_with(Options::new().max_message_bytes(1500), 1).await;
    let producer = builder(&cluster).batch_size(4000).linger(ms(20)).build().await.unwrap();
    let value = "x".repeat(500);
    let many = (0..4).map(|_| Record::to(TOPIC).with_partition(0).with_value(&value));
    assert!(producer.send_batch(many).await.await.iter().all(|result| result.is_ok()));
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    assert_eq!((metrics.batches_split, metrics.errors[&ErrorCode::MESSAGE_TOO_LARGE]), (1, 1));
    assert_eq!((metrics.batch_records.count(), metrics.batch_records.sum()), (3, 8), "the whole and its two parts");
    assert_eq!(metrics.queue_time_micros.count(), 1, "parts have waited already");
    assert_eq!(metrics.batches_retried, 0);

    #[cfg(feature = "lz4")]
    {
        let producer = builder(&cluster).compression(Compression::Lz4).build().await.unwrap();
        producer.send(Record::to(TOPIC).with_partition(0).with_value(&value)).await.unwrap().await.unwrap();
        let metrics = producer.metrics();
        assert!(metrics.compression_ratio().unwrap() < 0.5, "{metrics:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn counts_throttle_time_per_broker() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).throttle(ms(100)));
    cluster.fault(on(ApiKey::Produce).skip(1).throttle(ms(250)));
    let producer = producer(&cluster).await;
    for _ in 0..3 {
        send_one(&producer).await.unwrap();
    }
    let broker = producer.metrics().brokers.remove(&1).unwrap();
    assert_eq!((broker.throttled, broker.throttle_time, broker.throttle_time_max), (2, ms(350), ms(250)));
}

#[tokio::test(start_paused = true)]
async fn counts_buffer_waits_by_outcome() {
    let cluster = cluster(1).await;
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    let producer =
        builder(&cluster).buffer_memory(400).max_block(ms(700)).request_timeout(ms(1500)).build().await.unwrap();
    let value = "x".repeat(250);
    let first = producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap();
    producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap_err();
    let metrics = producer.metrics();
    assert_eq!((metrics.buffer_waits, metrics.buffer_exhausted, metrics.buffer_wait_time.as_millis()), (1, 1, 700));
    assert_eq!((metrics.records_sent, metrics.records_outstanding, metrics.batches_in_flight), (1, 1, 1));
    assert_eq!(metrics.buffer_total_bytes, 400);
    assert!(metrics.buffer_used_bytes > 250);
    hang.clear();
    let second = producer.clone();
    let text = value.clone();
    let waiter = tokio::spawn(async move { second.send(Record::to(TOPIC).with_value(&text)).await.unwrap().await });
    tokio::time::sleep(ms(1)).await;
    assert_eq!(producer.metrics().senders_waiting, 1);
    waiter.abort();
    first.await.unwrap();
    assert!(waiter.await.unwrap_err().is_cancelled());
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    assert_eq!((metrics.buffer_waits, metrics.buffer_exhausted), (2, 1), "a cancelled wait is a wait");
    assert!(metrics.buffer_wait_time >= ms(701), "{:?}", metrics.buffer_wait_time);
    assert_eq!((metrics.senders_waiting, metrics.buffer_used_bytes), (0, 0), "and its memory is released");
}

#[tokio::test(start_paused = true)]
async fn closed_producer_has_no_outstanding_records() {
    let cluster = cluster(1).await;
    let producer = pipelined_by_one(&cluster).await;
    cluster.fault(on(ApiKey::Produce).forever().hang());
    let deliveries = send_numbers(&producer, 0..5).await;
    tokio::time::sleep(ms(20)).await;
    assert_eq!(producer.metrics().requests_in_flight, 1);
    producer.close(ms(50)).await.unwrap_err();
    assert!(results(deliveries).await.iter().all(Result::is_err));
    let metrics = producer.metrics();
    assert_adds_up(&metrics);
    assert_eq!((metrics.records_acknowledged, metrics.records_failed()), (1, 5));
}

async fn pipelined_by_one(cluster: &Cluster) -> Producer {
    let producer = producer(cluster).await;
    send_one(&producer).await.unwrap();
    producer
}
