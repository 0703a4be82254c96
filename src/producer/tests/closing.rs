//! Tests of a producer that is closed, dropped, or left without a runtime.

use super::*;
use crate::{DeliveryStatus, ErrorKind, producer::PurgeScope, testkit::on, wire::ApiKey};

#[tokio::test(start_paused = true)]
async fn close_delivers_pending_and_rejects_new_records() {
    let cluster = cluster(1).await;
    let producer = lingering(&cluster).await;
    let deliveries = send_numbers(&producer, 0..20).await;
    producer.close(Duration::from_secs(10)).await.unwrap();
    delivered(deliveries).await;
    assert_eq!(producer.send(Record::to(TOPIC).with_value("x")).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(producer.try_send(Record::to(TOPIC).with_value("x")).unwrap_err().error().kind(), ErrorKind::Closed);
    assert_eq!(producer.flush(ms(10)).await, 0);
    producer.close(ms(10)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_times_out_when_broker_is_dead() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..1).await).await;
    cluster.kill(1).await.unwrap();
    let deliveries = send_numbers(&producer, 1..4).await;
    let before = tokio::time::Instant::now();
    let error = producer.close(ms(700)).await.unwrap_err();
    assert!(before.elapsed() < ms(800), "{:?}", before.elapsed());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("3 records"), "{error}");
    for result in results(deliveries).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Closed, Some(DeliveryStatus::NotPersisted)));
    }
}

#[tokio::test(start_paused = true)]
async fn close_reports_possibly_persisted_records() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..1).await).await;
    let fault = cluster.fault(on(ApiKey::Produce).hang());
    let deliveries = send_numbers(&producer, 1..4).await;
    fault.reached(1).await;
    producer.close(ms(100)).await.unwrap_err();
    for result in results(deliveries).await {
        let error = result.unwrap_err();
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_producer_delivers_pending_records() {
    let cluster = cluster(1).await;
    let producer = lingering(&cluster).await;
    let deliveries = send_numbers(&producer, 0..20).await;
    let clone = producer.clone();
    drop(producer);
    drop(clone);
    let before = tokio::time::Instant::now();
    delivered(deliveries).await;
    assert!(before.elapsed() < Duration::from_secs(5), "it waited for the linger");
}

#[test]
fn dropped_runtime_completes_all_deliveries() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (cluster, producer, deliveries, waiting) = runtime.block_on(async {
        let cluster = cluster(1).await;
        let fault = cluster.fault(on(ApiKey::Produce).forever().hang());
        let producer = builder(&cluster).linger(Duration::ZERO).build().await.unwrap();
        let mut deliveries = send_numbers(&producer, 0..3).await;
        fault.reached(1).await;
        deliveries.extend(send_numbers(&producer, 3..200).await);
        let waiting = producer.send(Record::to("unknown").with_value("x")).await.unwrap();
        (cluster, producer, deliveries, waiting)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        let mut statuses = Vec::new();
        for result in results(deliveries).await {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
            statuses.push(error.delivery_status().unwrap());
        }
        assert_eq!(statuses[0], DeliveryStatus::PossiblyPersisted);
        assert_eq!(*statuses.last().unwrap(), DeliveryStatus::NotPersisted);
        assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(producer.send(Record::to(TOPIC).with_value("x")).await.unwrap_err().kind(), ErrorKind::Closed);
        let closed = tokio::time::timeout(Duration::from_secs(5), producer.close(ms(100))).await;
        let error = closed.expect("close hangs without a runtime of its own").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.to_string().contains("201 records"), "{error}");
    });
    drop(cluster);
}

#[test]
fn purge_returns_when_runtime_is_idle() {
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (cluster, producer, delivery) = own.block_on(async {
        let cluster = cluster(1).await;
        let producer = builder(&cluster).linger(Duration::from_secs(60)).max_block(ms(200)).build().await.unwrap();
        producer.partitions_for(TOPIC).await.unwrap();
        let delivery = producer.send(Record::to(TOPIC).with_value("x")).await.unwrap();
        (cluster, producer, delivery)
    });
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let purged =
        other.block_on(async { tokio::time::timeout(Duration::from_secs(20), producer.purge(PurgeScope::All)).await });
    assert_eq!(purged.expect("it hangs"), 0);
    // Once the runtime runs again, the records fail all the same.
    let error = own.block_on(async { tokio::time::timeout(Duration::from_secs(20), delivery).await });
    assert_eq!(error.expect("it was forgotten").unwrap_err().kind(), ErrorKind::Purged);
    drop(cluster);
}

#[test]
fn build_fails_outside_tokio_runtime() {
    let mut build = Box::pin(Producer::builder("a:1").build());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Err(error)) = build.as_mut().poll(&mut cx) else { panic!("it was built") };
    assert_eq!(error.kind(), ErrorKind::Configuration);
}
