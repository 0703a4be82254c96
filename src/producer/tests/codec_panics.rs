//! Tests of a codec that panics: its batch fails, with one result for each record, and everything
//! else continues.

use super::{super::sealing::tests::UNLUCKY, *};
use crate::{DeliveryStatus, ErrorKind, wire::Compression};

const LUCKY: u32 = 1000;

/// Sends `count` records of `size` bytes to a partition, in a separate batch.
async fn send_batch(producer: &Producer, partition: i32, count: u32, size: usize) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in 0..count {
        let record = Record::to(TOPIC).with_partition(partition).with_value(format!("{number:>size$}"));
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

#[track_caller]
fn all_failed_and_say_why(results: Vec<Result<RecordMetadata, Error>>) {
    for result in results {
        let error = result.unwrap_err();
        let expected = (ErrorKind::Internal, Some(DeliveryStatus::NotPersisted));
        assert_eq!((error.kind(), error.delivery_status()), expected, "{error}");
        assert!(error.to_string().contains("the codec panicked"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn codec_panic_fails_only_its_batch() {
    // Without compression the producer's own task seals batches; large ones with compression are
    // sealed on a blocking pool.
    for (codec, size) in [(Compression::None, 8), (Compression::Lz4, 200)] {
        let cluster = cluster(3).await;
        let reports = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = reports.clone();
        let builder = builder(&cluster).compression(codec).batch_size(1 << 20).max_request_size(4 << 20);
        let builder = builder.on_delivery(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        let producer = builder.linger(ms(100)).build().await.unwrap();
        producer.partitions_for(TOPIC).await.unwrap();
        let mut delivered = 0;
        for round in 0..4 {
            // One request with three batches, one of which makes the codec panic; it is the first
            // of all, or one behind others.
            let unlucky = send_batch(&producer, round % 3, UNLUCKY, size).await;
            let mut lucky = send_batch(&producer, (round + 1) % 3, LUCKY, size).await;
            lucky.extend(send_batch(&producer, (round + 2) % 3, LUCKY + 1, size).await);
            assert_eq!(producer.flush(Duration::from_secs(10)).await, 0);
            all_failed_and_say_why(results(unlucky).await);
            delivered += lucky.len();
            for result in results(lucky).await {
                result.unwrap();
            }
        }
        // The partitions continue, in order and without duplicates.
        for partition in 0..3 {
            results(send_batch(&producer, partition, 5, size).await).await.into_iter().for_each(|at| drop(at.unwrap()));
            let log: Vec<u32> = log(&cluster, partition).iter().map(|value| value.trim().parse().unwrap()).collect();
            assert_eq!(log.len() as i64, cluster.log_end(TOPIC, partition).unwrap());
            assert_eq!(log[log.len() - 5..], [0, 1, 2, 3, 4]);
            delivered += 5;
        }
        let all: i64 = (0..3).map(|partition| cluster.log_end(TOPIC, partition).unwrap()).sum();
        assert_eq!(all, delivered as i64);
        producer.close(Duration::from_secs(10)).await.unwrap();
        let metrics = producer.metrics();
        assert_eq!(metrics.records_acknowledged, delivered as u64);
        assert_eq!(metrics.records_not_persisted, 4 * u64::from(UNLUCKY));
        assert_eq!(reports.load(std::sync::atomic::Ordering::Relaxed), delivered as u32 + 4 * UNLUCKY, "each once");
        assert_eq!(producer.0.shared.batch_shared.buffer.free(), 32 << 20);
    }
}

#[tokio::test(start_paused = true)]
async fn codec_panic_keeps_order_of_inflight_batches() {
    let cluster = cluster(1).await;
    let builder = builder(&cluster).compression(Compression::Lz4).batch_size(1 << 20).max_request_size(4 << 20);
    let producer = builder.linger(ms(10)).build().await.unwrap();
    results(send_batch(&producer, 0, 1, 8).await).await;
    cluster.fault(crate::testkit::on(crate::wire::ApiKey::Produce).times(3).delay(ms(50)));
    let mut lucky = Vec::new();
    let mut unlucky = Vec::new();
    for batch in 0..5 {
        match batch {
            2 => unlucky = send_batch(&producer, 0, UNLUCKY, 200).await,
            _ => lucky.extend(send_batch(&producer, 0, LUCKY + batch, 200).await),
        }
        tokio::time::sleep(ms(11)).await;
    }
    all_failed_and_say_why(results(unlucky).await);
    for result in results(lucky).await {
        result.unwrap();
    }
    let log: Vec<u32> = log(&cluster, 0).iter().map(|value| value.trim().parse().unwrap()).collect();
    let expected = (0..1).chain(0..LUCKY).chain(0..LUCKY + 1).chain(0..LUCKY + 3).chain(0..LUCKY + 4);
    assert_eq!(log, expected.collect::<Vec<_>>());
}
