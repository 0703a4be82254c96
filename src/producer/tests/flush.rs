//! Tests of flush and close, in every state.

use super::*;
use crate::{ErrorKind, producer::PurgeScope, testkit::on, wire::ApiKey};

#[tokio::test(start_paused = true)]
async fn flush_returns_promptly_without_pending_records() {
    let cluster = cluster(1).await;
    let producer = lingering(&cluster).await;
    let before = tokio::time::Instant::now();
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
    drop(send_numbers(&producer, 0..1).await);
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
    assert_eq!(producer.flush(Duration::ZERO).await, 0);
    assert!(before.elapsed() < ms(1000));
}

#[tokio::test(start_paused = true)]
async fn flush_ends_linger_for_unknown_topic() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let producer = lingering(&cluster).await;
    let early = producer.send(Record::to("later").with_value("early")).await.unwrap();
    let before = tokio::time::Instant::now();
    let (left, ()) = tokio::join!(producer.flush(Duration::from_secs(60)), async {
        tokio::time::sleep(ms(500)).await;
        cluster.create_topic("later", 1).unwrap();
    });
    assert_eq!(left, 0);
    early.await.unwrap();
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn concurrent_flushes_each_wait_for_own_records() {
    let cluster = std::sync::Arc::new(cluster(1).await);
    let producer = lingering(&cluster).await;
    producer.partitions_for(TOPIC).await.unwrap();
    let mut flushes = Vec::new();
    for number in 0..10 {
        drop(send_numbers(&producer, number * 5..number * 5 + 5).await);
        let (own, cluster) = (producer.clone(), cluster.clone());
        flushes.push(tokio::spawn(async move {
            let left = own.flush(Duration::from_secs(60)).await;
            (left, cluster.log_end(TOPIC, 0).unwrap() >= (number as i64 + 1) * 5)
        }));
        tokio::task::yield_now().await;
    }
    for flush in flushes {
        assert_eq!(flush.await.unwrap(), (0, true));
    }
    assert_eq!(log(&cluster, 0), numbers(0..50));
}

#[tokio::test(start_paused = true)]
async fn flush_ends_when_producer_closes() {
    let cluster = cluster(1).await;
    let producer = lingering(&cluster).await;
    drop(send_numbers(&producer, 0..1).await);
    assert_eq!(producer.flush(ms(5000)).await, 0);
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    drop(send_numbers(&producer, 1..4).await);
    let before = tokio::time::Instant::now();
    let (left, closed) = tokio::join!(producer.flush(Duration::from_secs(600)), producer.close(ms(300)));
    assert_eq!(left, 0, "all have their results, if only that the producer was closed");
    assert_eq!(closed.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(before.elapsed() < ms(400), "{:?}", before.elapsed());
    assert_eq!(hang.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn close_times_out_without_metadata() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Metadata).forever().hang());
    let producer = producer(&cluster).await;
    let waiting = producer.send(Record::to(TOPIC).with_value("x")).await.unwrap();
    let before = tokio::time::Instant::now();
    let error = producer.close(ms(300)).await.unwrap_err();
    assert!(error.to_string().contains("1 records"), "{error}");
    assert!(before.elapsed() < ms(400), "{:?}", before.elapsed());
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn close_respects_timeout_beside_purge_and_close() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    cluster.fault(on(ApiKey::InitProducerId).forever().hang());
    let deliveries = send_numbers(&producer, 0..10).await;
    let before = tokio::time::Instant::now();
    let (one, other, first, second) = tokio::join!(
        producer.close(ms(300)),
        producer.close(Duration::ZERO),
        producer.purge(PurgeScope::InFlight),
        producer.purge(PurgeScope::Queued),
    );
    assert!(before.elapsed() < ms(400), "{:?}", before.elapsed());
    let failures = results(deliveries).await.into_iter().filter(Result::is_err).count();
    assert_eq!(failures, 10);
    // The first of the two calls ended the records.
    assert!(first + second == 10 || one.is_err() || other.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn send_beside_close_returns_error_or_result() {
    for round in 0..20 {
        let cluster = cluster(1).await;
        let producer = builder(&cluster).linger(ms(1)).build().await.unwrap();
        producer.partitions_for(TOPIC).await.unwrap();
        let senders: Vec<_> = (0..4)
            .map(|_| {
                let producer = producer.clone();
                tokio::spawn(async move {
                    let mut deliveries = Vec::new();
                    for number in 0u64.. {
                        let record = Record::to(TOPIC).with_partition(0).with_value(number.to_string());
                        match producer.send(record).await {
                            Ok(delivery) => deliveries.push(delivery),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::Closed);
                                break;
                            }
                        }
                        tokio::task::yield_now().await;
                    }
                    deliveries
                })
            })
            .collect();
        tokio::time::sleep(ms(round % 5)).await;
        producer.close(if round % 2 == 0 { Duration::from_secs(10) } else { Duration::ZERO }).await.ok();
        let mut delivered = 0;
        for sender in senders {
            for delivery in sender.await.unwrap() {
                let result = tokio::time::timeout(Duration::from_secs(10), delivery).await.expect("no result ever");
                match result {
                    Ok(_) => delivered += 1,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Closed),
                }
            }
        }
        assert!(cluster.log_end(TOPIC, 0).unwrap() >= delivered);
    }
}
