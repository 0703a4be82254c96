use futures_util::{StreamExt, future::join_all};

use super::*;
use crate::{
    Compression, ErrorKind,
    error::ErrorCode,
    producer::{Acks, DeliveryReport},
    testkit::on,
    wire::ApiKey,
};

#[tokio::test(start_paused = true)]
async fn delivery_returns_partition_offset_and_timestamp() {
    let cluster = cluster(3).await;
    let producer = producer(&cluster).await;
    let record =
        Record::to(TOPIC).with_key("kafka").with_value("shipped").with_header("trace", "a1").with_null_header("none");
    let at = producer.send(record.with_timestamp_millis(1_700_000_000_000)).await.unwrap().await.unwrap();
    assert_eq!((&*at.topic, at.partition, at.offset), (TOPIC, 1, Some(0)), "murmur2 of \"kafka\" modulo 3 is 1");
    assert_eq!(at.timestamp_millis, 1_700_000_000_000);
    let stored = &cluster.records(TOPIC, 1).unwrap()[0];
    assert_eq!(stored.key.as_deref(), Some(&b"kafka"[..]));
    assert_eq!(stored.headers.len(), 2);
    assert_eq!(stored.timestamp_millis, 1_700_000_000_000);
}

#[tokio::test(start_paused = true)]
async fn batches_many_records_and_keeps_order() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    let deliveries = send_numbers(&producer, 0..2000).await;
    let results = join_all(deliveries).await;
    for (number, at) in results.into_iter().enumerate() {
        assert_eq!(at.unwrap().offset, Some(number as i64));
    }
    assert_eq!(log(&cluster, 0), numbers(0..2000));
    assert!(cluster.requests(ApiKey::Produce) < 20, "{} requests", cluster.requests(ApiKey::Produce));
}

#[tokio::test(start_paused = true)]
async fn keyless_records_fill_partitions_in_turn() {
    let cluster = cluster(3).await;
    let producer = builder(&cluster).batch_size(1000).build().await.unwrap();
    producer.partitions_for(TOPIC).await.unwrap();
    producer.send(Record::to(TOPIC).with_value("first")).await.unwrap().await.unwrap();
    for _ in 0..3000 {
        drop(producer.send(Record::to(TOPIC).with_value([7u8; 50].as_slice())).await.unwrap());
    }
    assert_eq!(producer.flush(ms(10_000)).await, 0);
    let ends: Vec<i64> = (0..3).map(|partition| cluster.log_end(TOPIC, partition).unwrap()).collect();
    assert!(ends.iter().all(|end| (700..1300).contains(end)), "not spread evenly: {ends:?}");
    let requests = cluster.requests(ApiKey::Produce);
    assert!(requests < 3000 / 10, "batches are not filled: {requests} requests");
}

#[tokio::test(start_paused = true)]
async fn every_codec_and_acks_deliver() {
    let cluster = cluster(1).await;
    let mut expected = 0;
    let codecs = [
        Compression::None,
        #[cfg(feature = "gzip")]
        Compression::Gzip(-1),
        #[cfg(feature = "snappy")]
        Compression::Snappy,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd(3),
    ];
    for compression in codecs {
        for acks in [Acks::All, Acks::Leader, Acks::None] {
            let producer = builder(&cluster).compression(compression).acks(acks).build().await.unwrap();
            let deliveries = send_numbers(&producer, 0..1500).await;
            for at in results(deliveries).await {
                let offset = at.unwrap().offset;
                if acks == Acks::None {
                    assert_eq!(offset, None, "without acknowledgement no offset is known");
                } else {
                    assert_eq!(offset, Some(expected));
                }
                expected += 1;
            }
            producer.close(ms(5000)).await.unwrap();
        }
    }
    // Records that were written without acknowledgement are in the log as well.
    tokio::time::sleep(ms(100)).await;
    assert_eq!(cluster.log_end(TOPIC, 0).unwrap(), expected);
}

#[tokio::test]
async fn compresses_large_batches_outside_sender_task() {
    let cluster = cluster(1).await;
    let producer =
        builder(&cluster).compression(Compression::Lz4).batch_size(200_000).linger(ms(20)).build().await.unwrap();
    let value = vec![b'x'; 1000];
    let mut deliveries = Vec::new();
    for _ in 0..500 {
        deliveries.push(producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap());
    }
    for (offset, at) in results(deliveries).await.into_iter().enumerate() {
        assert_eq!(at.unwrap().offset, Some(offset as i64));
    }
}

#[tokio::test(start_paused = true)]
async fn returns_log_append_time_of_topic() {
    let cluster = cluster(1).await;
    cluster.create_topic_with("stamped", 1, [("message.timestamp.type", "LogAppendTime")]).unwrap();
    let producer = producer(&cluster).await;
    let record = Record::to("stamped").with_value("x").with_timestamp_millis(5);
    let at = producer.send(record).await.unwrap().await.unwrap();
    assert_ne!(at.timestamp_millis, 5);
}

#[tokio::test(start_paused = true)]
async fn unread_delivery_reports_hold_buffer_memory() {
    let cluster = cluster(2).await;
    let producer = builder(&cluster).buffer_memory(20_000).max_block(ms(50)).build().await.unwrap();
    let mut reports = producer.delivery_reports();
    let mut expected = Vec::new();
    for number in 0..100 {
        let record =
            Record::to(TOPIC).with_partition(number % 2).with_value("v").with_timestamp_millis(i64::from(number));
        expected.push(producer.send(record).await.unwrap().id());
    }
    assert_eq!(producer.flush(ms(5000)).await, 0);
    assert_ne!(producer.0.shared.batch_shared.buffer.free(), 20_000, "unread reports hold their buffer_pool");
    let mut seen: Vec<DeliveryReport> = Vec::new();
    while let Some(report) = reports.try_next() {
        seen.push(report);
    }
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 20_000);
    assert_eq!(seen.len(), 100);
    for report in &seen {
        let at = report.result.as_ref().unwrap();
        assert_eq!(report.partition, Some(at.partition));
        let number = expected.iter().position(|id| *id == report.id).unwrap() as i64;
        assert_eq!(at.timestamp_millis, number);
        assert_eq!(at.offset, Some(number / 2));
    }
    // Without a reader reports are not kept.
    drop(reports);
    for delivery in send_numbers(&producer, 0..500).await {
        drop(delivery);
    }
    assert_eq!(producer.flush(ms(5000)).await, 0);
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 20_000);
}

#[tokio::test(start_paused = true)]
async fn report_stream_ends_after_producer_closes() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    let mut reports = producer.delivery_reports();
    drop(send_numbers(&producer, 0..10).await);
    producer.close(ms(5000)).await.unwrap();
    let mut count = 0;
    while let Some(report) = StreamExt::next(&mut reports).await {
        report.result.unwrap();
        count += 1;
    }
    assert_eq!(count, 10);
}

#[tokio::test(start_paused = true)]
async fn flush_does_not_wait_for_linger() {
    let cluster = cluster(1).await;
    let producer = lingering(&cluster).await;
    producer.partitions_for(TOPIC).await.unwrap();
    let before = tokio::time::Instant::now();
    let deliveries = send_numbers(&producer, 0..10).await;
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
    assert!(before.elapsed() < Duration::from_secs(5));
    assert!(results(deliveries).await.iter().all(Result::is_ok));
    // A flush that times out returns the number of outstanding records.
    cluster.fault(on(ApiKey::Produce).times(1).delay_response(Duration::from_secs(5)));
    let deliveries = send_numbers(&producer, 10..14).await;
    assert_eq!(producer.flush(ms(100)).await, 4);
    assert!(results(deliveries).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn sends_batch_when_linger_elapses() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).linger(ms(500)).build().await.unwrap();
    producer.send(Record::to(TOPIC).with_value("warm up")).await.unwrap().await.unwrap();
    let before = tokio::time::Instant::now();
    let mut deliveries = send_numbers(&producer, 0..5).await;
    tokio::time::sleep(ms(300)).await;
    deliveries.extend(send_numbers(&producer, 5..10).await);
    let requests = cluster.requests(ApiKey::Produce);
    assert!(results(deliveries).await.iter().all(Result::is_ok));
    let waited = before.elapsed();
    assert!((ms(500)..ms(600)).contains(&waited), "{waited:?}");
    assert_eq!(cluster.requests(ApiKey::Produce), requests + 1);
}

#[tokio::test(start_paused = true)]
async fn splits_batch_too_large_for_topic() {
    let cluster = cluster_with(Options::new().max_message_bytes(2000), 1).await;
    let producer = builder(&cluster).batch_size(16_384).linger(ms(50)).build().await.unwrap();
    let mut reports = producer.delivery_reports();
    let deliveries = send_numbers(&producer, 0..800).await;
    for (number, at) in results(deliveries).await.into_iter().enumerate() {
        assert_eq!(at.unwrap().offset, Some(number as i64));
    }
    assert_eq!(log(&cluster, 0), numbers(0..800));
    for _ in 0..800 {
        reports.try_next().unwrap().result.unwrap();
    }
    assert!(reports.try_next().is_none());
    // A batch of one record that is too large cannot be split.
    let large = vec![b'x'; 3000];
    let error = producer.send(Record::to(TOPIC).with_value(&large)).await.unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::RecordTooLarge, Some(ErrorCode::MESSAGE_TOO_LARGE)));
    let after = producer.send(Record::to(TOPIC).with_value("after")).await.unwrap().await.unwrap();
    assert_eq!(after.offset, Some(800));
}

#[tokio::test(start_paused = true)]
async fn collected_deliveries_report_each_failure() {
    let cluster = cluster_with(Options::new().max_message_bytes(400), 2).await;
    let producer = builder(&cluster).idempotence(false).build().await.unwrap();
    let mut deliveries = crate::producer::Deliveries::default();
    for number in 0..20_usize {
        let value = "x".repeat(if number % 10 == 7 { 1000 } else { 5 });
        let record = Record::to(TOPIC).with_partition((number % 2) as i32).with_value(value);
        deliveries.push(producer.send(record).await.unwrap());
    }
    assert_eq!(deliveries.len(), 20);
    let results = deliveries.await;
    assert_eq!(results.failures().map(|(at, _)| at).collect::<Vec<_>>(), [7, 17]);
    assert_eq!(results.ok().unwrap_err().kind(), ErrorKind::RecordTooLarge);
    let collected: crate::producer::Deliveries = send_numbers(&producer, 0..5).await.into_iter().collect();
    assert!(collected.await.ok().is_ok());
}
