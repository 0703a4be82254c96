//! Tests of the reports of results: the callback, the stream, tags, and their order.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{DeliveryStatus, ErrorKind, producer::DeliveryReport, testkit::on, wire::ApiKey};

/// Reports that a callback received.
type Told = Arc<Mutex<Vec<DeliveryReport>>>;

fn told() -> (Told, impl Fn(&DeliveryReport) + Send + Sync + 'static) {
    let told = Told::default();
    let into = told.clone();
    (told, move |report: &DeliveryReport| into.lock().unwrap().push(report.clone()))
}

fn tags(reports: &[DeliveryReport]) -> Vec<u64> {
    reports.iter().map(|report| report.tag.expect("it was tagged")).collect()
}

async fn send_tagged(producer: &Producer, range: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in range {
        let record =
            Record::to(TOPIC).with_partition(0).with_value(number.to_string()).with_timestamp_millis(number as i64);
        deliveries.push(producer.send(record.with_tag(number)).await.unwrap());
    }
    deliveries
}

#[tokio::test(start_paused = true)]
async fn callback_and_stream_report_every_tagged_record() {
    let cluster = cluster(1).await;
    let (told, callback) = told();
    let producer = builder(&cluster).batch_size(500).on_delivery(callback).build().await.unwrap();
    let mut stream = producer.delivery_reports();
    let deliveries = send_tagged(&producer, 0..200).await;
    let untagged = producer.send(Record::to(TOPIC).with_partition(0).with_value("untagged")).await.unwrap();
    let ids: Vec<_> = deliveries.iter().chain([&untagged]).map(Delivery::id).collect();
    assert_eq!(producer.flush(ms(5000)).await, 0);
    let told = std::mem::take(&mut *told.lock().unwrap());
    let read: Vec<_> = std::iter::from_fn(|| stream.try_next()).collect();
    for reports in [&told, &read] {
        assert_eq!(reports.iter().map(|report| report.id).collect::<Vec<_>>(), ids);
        assert_eq!(tags(&reports[..200]), (0..200).collect::<Vec<_>>());
        assert_eq!(reports[200].tag, None);
        for (number, report) in (0..).zip(&reports[..200]) {
            let at = report.result.as_ref().unwrap();
            assert_eq!((&*at.topic, at.partition, at.offset), (TOPIC, 0, Some(number)));
            assert_eq!(at.timestamp_millis, number);
            assert_eq!((&*report.topic, report.partition), (TOPIC, Some(0)));
        }
    }
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 33_554_432);
}

#[tokio::test(start_paused = true)]
async fn callback_returns_before_delivery_completes() {
    let cluster = cluster(1).await;
    let (told, callback) = told();
    let producer = builder(&cluster).on_delivery(callback).build().await.unwrap();
    producer.send(Record::to(TOPIC).with_value("x").with_tag(3)).await.unwrap().await.unwrap();
    assert_eq!(tags(&told.lock().unwrap()), [3]);
}

#[tokio::test(start_paused = true)]
async fn reports_records_without_assigned_partition() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let (told, callback) = told();
    let producer = builder(&cluster).max_block(ms(300)).on_delivery(callback).build().await.unwrap();
    let lost = producer.send(Record::to("nowhere").with_value("x").with_tag(1)).await.unwrap();
    assert_eq!(lost.await.unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    // Records that are still waiting when the producer ends are reported too.
    let left = producer.send(Record::to("elsewhere").with_value("x").with_tag(2)).await.unwrap();
    producer.close(Duration::ZERO).await.unwrap_err();
    assert_eq!(left.await.unwrap_err().kind(), ErrorKind::Closed);
    let told = told.lock().unwrap();
    assert_eq!(tags(&told), [1, 2]);
    assert!(told.iter().all(|report| report.partition.is_none() && &*report.topic != TOPIC));
}

#[tokio::test(start_paused = true)]
async fn callback_panic_does_not_lose_reports() {
    let cluster = cluster(1).await;
    let (told, callback) = told();
    let panicking = move |report: &DeliveryReport| {
        callback(report);
        assert!(!report.tag.unwrap().is_multiple_of(3), "every third");
    };
    let producer = builder(&cluster).on_delivery(panicking).build().await.unwrap();
    delivered(send_tagged(&producer, 0..20).await).await;
    delivered(send_tagged(&producer, 20..30).await).await;
    assert_eq!(tags(&told.lock().unwrap()), (0..30).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn callback_may_send_more_records() {
    let cluster = cluster(1).await;
    let slot: Arc<std::sync::OnceLock<Producer>> = Arc::default();
    let own = slot.clone();
    let (told, callback) = told();
    let resending = move |report: &DeliveryReport| {
        callback(report);
        if let Some(tag) = report.tag.filter(|tag| *tag < 5) {
            let record = Record::to(TOPIC).with_partition(0).with_value("again").with_tag(tag + 1);
            drop(own.get().unwrap().try_send(record).unwrap());
        }
    };
    let producer = builder(&cluster).on_delivery(resending).build().await.unwrap();
    slot.set(producer.clone()).ok().unwrap();
    drop(producer.send(Record::to(TOPIC).with_partition(0).with_value("first").with_tag(0)).await.unwrap());
    while told.lock().unwrap().len() < 6 {
        tokio::time::sleep(ms(10)).await;
    }
    assert_eq!(tags(&told.lock().unwrap()), (0..6).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn tags_survive_splitting_and_topic_wait() {
    let cluster = cluster_with(Options::new().max_message_bytes(1000), 1).await;
    let (told, callback) = told();
    let producer = builder(&cluster).linger(ms(50)).on_delivery(callback).build().await.unwrap();
    // The first records wait for the topic, the others do not.
    let mut deliveries = send_tagged(&producer, 0..100).await;
    producer.partitions_for(TOPIC).await.unwrap();
    deliveries.extend(send_tagged(&producer, 100..400).await);
    for (number, at) in results(deliveries).await.into_iter().enumerate() {
        assert_eq!(at.unwrap().offset, Some(number as i64));
    }
    let told = told.lock().unwrap();
    assert_eq!(tags(&told), (0..400).collect::<Vec<_>>());
    for (number, report) in (0..).zip(told.iter()) {
        let at = report.result.as_ref().unwrap();
        assert_eq!((at.offset, at.timestamp_millis), (Some(number), number));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_report_stream_returns_its_share() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).batch_size(300).build().await.unwrap();
    let (mut one, mut other) = (producer.delivery_reports(), producer.delivery_reports());
    drop(send_tagged(&producer, 0..100).await);
    assert_eq!(producer.flush(ms(5000)).await, 0);
    let mut seen = vec![one.try_next().unwrap(), other.try_next().unwrap()];
    // Each stream has taken the rest of a batch's reports.
    drop(one);
    seen.extend(std::iter::from_fn(|| other.try_next()));
    let mut tags = tags(&seen);
    tags.sort_unstable();
    assert_eq!(tags, (0..100).collect::<Vec<_>>());
    // A stream that waits is woken for the reports that another one leaves behind.
    let mut one = producer.delivery_reports();
    drop(send_tagged(&producer, 100..103).await);
    assert_eq!(producer.flush(ms(5000)).await, 0);
    assert_eq!(one.try_next().unwrap().tag, Some(100));
    let sleeping = tokio::spawn(async move { other.next().await.unwrap().tag });
    tokio::time::sleep(ms(10)).await;
    drop(one);
    assert_eq!(sleeping.await.unwrap(), Some(101));
}

#[tokio::test(start_paused = true)]
async fn sending_from_report_reader_never_blocks() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).buffer_memory(2000).max_block(ms(100)).build().await.unwrap();
    producer.partitions_for(TOPIC).await.unwrap();
    let mut reports = producer.delivery_reports();
    // One batch takes nearly all of the buffer.
    let mut sent = 0;
    while producer.try_send(Record::to(TOPIC).with_partition(0).with_value([1u8; 60].as_slice())).is_ok() {
        sent += 1;
    }
    for _ in 0..200 {
        reports.next().await.unwrap().result.unwrap();
        drop(producer.send(Record::to(TOPIC).with_partition(0).with_value([1u8; 60].as_slice())).await.unwrap());
    }
    for _ in 0..sent {
        reports.next().await.unwrap().result.unwrap();
    }
    assert!(reports.try_next().is_none());
}

#[test]
fn dropped_runtime_reports_every_record() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (told, callback) = told();
    let (cluster, producer) = runtime.block_on(async {
        let cluster = cluster(1).await;
        let fault = cluster.fault(on(ApiKey::Produce).forever().hang());
        let producer = builder(&cluster).linger(Duration::ZERO).on_delivery(callback).build().await.unwrap();
        drop(send_tagged(&producer, 0..3).await);
        fault.reached(1).await;
        drop(send_tagged(&producer, 3..100).await);
        (cluster, producer)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let told = told.lock().unwrap();
    assert_eq!(tags(&told), (0..100).collect::<Vec<_>>());
    for report in told.iter() {
        let error = report.result.as_ref().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
    assert_eq!(told[0].result.as_ref().unwrap_err().delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
    drop((cluster, producer));
}
