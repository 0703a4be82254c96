//! Tests of ends while operations are pending.

use super::*;
use crate::{DeliveryStatus, ErrorKind, testkit::on, wire::ApiKey};

const SOON: Duration = Duration::from_secs(5);

/// Creates a producer with a buffer that one record fills; also returns that record's delivery and
/// the fault that keeps it in flight.
async fn filled(cluster: &Cluster) -> (Producer, Delivery, crate::testkit::FaultHandle) {
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    let hour = Duration::from_secs(3600);
    let builder = builder(cluster).buffer_memory(1000).max_block(hour).request_timeout(hour).delivery_timeout(hour * 2);
    let producer = builder.build().await.unwrap();
    let first = producer.send(wide()).await.unwrap();
    hang.reached(1).await;
    (producer, first, hang)
}

fn wide() -> Record<'static> {
    Record::to(TOPIC).with_partition(0).with_value(vec![b'x'; 800])
}

#[tokio::test(start_paused = true)]
async fn dropped_producer_completes_records_in_flight() {
    for broker_dies in [false, true] {
        let cluster = cluster(1).await;
        let slow = cluster.fault(on(ApiKey::Produce).forever().delay(ms(2000)));
        let builder = builder(&cluster).batch_size(200).linger(Duration::from_secs(1));
        let producer = builder.request_timeout(ms(10_000)).delivery_timeout(ms(30_000)).build().await.unwrap();
        let deliveries = send_numbers(&producer, 0..50).await;
        slow.reached(1).await;
        drop(producer);
        if broker_dies {
            cluster.kill(1).await.unwrap();
        }
        let results = tokio::time::timeout(Duration::from_secs(35), results(deliveries)).await.unwrap();
        for result in results {
            match result {
                Ok(_) => assert!(!broker_dies),
                Err(error) => assert!(broker_dies && error.kind() == ErrorKind::Timeout, "{error}"),
            }
        }
        assert_eq!(log(&cluster, 0), if broker_dies { Vec::new() } else { numbers(0..50) });
    }
}

#[test]
fn runtime_shutdown_completes_every_send_and_delivery() {
    for millis in [0, 1, 3, 10, 30] {
        let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (cluster, producer, mut deliveries) = own.block_on(async {
            let cluster = cluster(1).await;
            cluster.fault(on(ApiKey::Produce).forever().delay(ms(5)));
            let producer = builder(&cluster).batch_size(300).buffer_memory(20_000).build().await.unwrap();
            let deliveries = send_numbers(&producer, 0..100).await;
            (cluster, producer, deliveries)
        });
        let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sender = {
            let producer = producer.clone();
            // Sends until it is refused, sometimes while it waits for buffer memory.
            std::thread::spawn(move || {
                other.block_on(async {
                    let mut sent = Vec::new();
                    loop {
                        match producer.send(Record::to(TOPIC).with_partition(0).with_value(vec![b'x'; 100])).await {
                            Ok(delivery) => sent.push(delivery),
                            Err(error) => return (sent, error),
                        }
                    }
                })
            })
        };
        std::thread::sleep(ms(millis));
        own.shutdown_timeout(SOON);
        let (sent, error) = sender.join().unwrap();
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        deliveries.extend(sent);
        let waiting = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ended = async { tokio::time::timeout(SOON * 4, results(deliveries)).await };
        for result in waiting.block_on(ended).expect("a delivery is left without a result") {
            if let Err(error) = result {
                assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            }
        }
        drop(cluster);
    }
}

#[tokio::test(start_paused = true)]
async fn concurrent_closes_both_deliver_records() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).delay(ms(500)));
    let producer = producer(&cluster).await;
    let deliveries = send_numbers(&producer, 0..20).await;
    let other = tokio::spawn({
        let producer = producer.clone();
        async move { producer.close(SOON).await }
    });
    producer.close(SOON).await.unwrap();
    other.await.unwrap().unwrap();
    delivered(deliveries).await;
    assert_eq!(log(&cluster, 0), numbers(0..20));
}

#[tokio::test(start_paused = true)]
async fn shorter_close_timeout_ends_both_closes() {
    let cluster = cluster(1).await;
    let (producer, first, _hang) = filled(&cluster).await;
    let patient = tokio::spawn({
        let producer = producer.clone();
        async move { producer.close(Duration::from_secs(1000)).await }
    });
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    let error = producer.close(ms(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("1 records"), "{error}");
    // The record failed, so no close may report success: neither the one with the longer timeout,
    // nor a later one.
    for error in [patient.await.unwrap().unwrap_err(), producer.close(SOON).await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert!(error.to_string().contains("1 records"), "{error}");
    }
    assert!(before.elapsed() < SOON, "{:?}", before.elapsed());
    let error = first.await.unwrap_err();
    let expected = (ErrorKind::Closed, Some(DeliveryStatus::PossiblyPersisted));
    assert_eq!((error.kind(), error.delivery_status()), expected);
}

#[tokio::test(start_paused = true)]
async fn concurrent_closes_succeed_after_full_delivery() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).delay(ms(200)));
    let producer = producer(&cluster).await;
    let deliveries = send_numbers(&producer, 0..20).await;
    let (impatient, patient) = tokio::join!(producer.close(ms(300)), producer.close(Duration::from_secs(1000)));
    impatient.unwrap();
    patient.unwrap();
    assert!(results(deliveries).await.iter().all(Result::is_ok));
}

#[test]
fn close_times_out_when_runtime_is_idle() {
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cluster, producer) = own.block_on(async {
        let cluster = cluster(1).await;
        let producer = producer(&cluster).await;
        (cluster, producer)
    });
    let other = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let delivery = other.block_on(producer.send(Record::to(TOPIC).with_value("x"))).unwrap();
    let closing = async { tokio::time::timeout(SOON, producer.close(ms(100))).await };
    let error = other.block_on(closing).expect("close waits without end").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("1 records"), "{error}");
    // When its runtime is dropped, the record still gets its result.
    drop(own);
    assert_eq!(other.block_on(delivery).unwrap_err().kind(), ErrorKind::Closed);
    drop(cluster);
}

#[tokio::test(start_paused = true)]
async fn close_rejects_senders_blocked_on_buffer() {
    let cluster = cluster(1).await;
    let (producer, first, hang) = filled(&cluster).await;
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let producer = producer.clone();
        senders.spawn(async move { producer.send(wide()).await.map(drop) });
    }
    let batch = tokio::spawn({
        let producer = producer.clone();
        async move { producer.send_batch((0..5).map(|_| wide())).await.await }
    });
    tokio::time::sleep(ms(100)).await;
    let closing = tokio::spawn({
        let producer = producer.clone();
        async move { producer.close(ms(500)).await }
    });
    let before = tokio::time::Instant::now();
    while let Some(sent) = senders.join_next().await {
        assert_eq!(sent.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    }
    let refused = batch.await.unwrap();
    assert_eq!(refused.len(), 5);
    for result in refused.iter() {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Closed, Some(DeliveryStatus::NotPersisted)));
    }
    assert!(before.elapsed() < ms(100), "they waited for the caller of close: {:?}", before.elapsed());
    assert_eq!(closing.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(first.await.unwrap_err().kind(), ErrorKind::Closed);
    hang.clear();
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 1000);
}

#[tokio::test(start_paused = true)]
async fn closed_producer_rejects_all_calls_immediately() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..1).await).await;
    producer.close(SOON).await.unwrap();
    let before = tokio::time::Instant::now();
    for topic in [TOPIC, "never-seen"] {
        assert_eq!(producer.send(Record::to(topic).with_value("x")).await.unwrap_err().kind(), ErrorKind::Closed);
        let refused = producer.try_send(Record::to(topic).with_value("x")).unwrap_err();
        assert_eq!(refused.error().kind(), ErrorKind::Closed);
        let refused = producer.send_batch((0..200).map(|_| Record::to(topic).with_value("x"))).await.await;
        assert_eq!(
            refused.iter().filter(|result| result.as_ref().unwrap_err().kind() == ErrorKind::Closed).count(),
            200
        );
        assert_eq!(producer.partitions_for(topic).await.unwrap_err().kind(), ErrorKind::Closed);
    }
    assert_eq!(producer.flush(SOON).await, 0);
    producer.close(SOON).await.unwrap();
    assert_eq!(before.elapsed(), Duration::ZERO);
    assert_eq!(log(&cluster, 0), numbers(0..1));
}
