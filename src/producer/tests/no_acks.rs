//! Tests of acks=0: there is no response, so a record gets its result when it is written, and one
//! that cannot be written is sent again or fails.

use super::*;
use crate::{DeliveryStatus, ErrorKind, testkit::on, wire::ApiKey};

fn unacknowledged(cluster: &Cluster) -> ProducerBuilder {
    builder(cluster)
        .buffer_memory(32 << 20)
        .acks(super::super::Acks::None)
        .request_timeout(ms(5000))
        .delivery_timeout(ms(20_000))
}

#[tokio::test(start_paused = true)]
async fn disconnect_loses_only_records_in_flight() {
    let cluster = cluster(1).await;
    let producer = unacknowledged(&cluster).build().await.unwrap();
    let mut written = 0;
    for round in 0..10u64 {
        if round % 3 == 1 {
            cluster.fault(on(ApiKey::Produce).drop_connection());
        }
        for result in results(send_numbers(&producer, round * 10..(round + 1) * 10).await).await {
            match result {
                Ok(at) => {
                    assert_eq!(at.offset, None, "the offset is unknown");
                    written += 1;
                }
                Err(error) => assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted), "{error}"),
            }
        }
        tokio::time::sleep(ms(500)).await;
    }
    producer.close(Duration::from_secs(5)).await.unwrap();
    let log: Vec<u64> = log(&cluster, 0).iter().map(|value| value.parse().unwrap()).collect();
    assert!(log.is_sorted_by(|a, b| a < b), "doubled or out of order: {log:?}");
    assert!(log.len() >= 70, "more was lost than three requests: {log:?}");
    assert!(written >= log.len() as u64);
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 32 << 20);
}

#[tokio::test(start_paused = true)]
async fn waits_for_dead_broker_until_delivery_timeout() {
    for comes_back in [true, false] {
        let cluster = cluster(1).await;
        let producer = unacknowledged(&cluster).build().await.unwrap();
        delivered(send_numbers(&producer, 0..1).await).await;
        tokio::time::sleep(ms(100)).await;
        cluster.kill(1).await.unwrap();
        tokio::time::sleep(ms(100)).await;
        let deliveries = send_numbers(&producer, 1..10).await;
        if comes_back {
            tokio::time::sleep(ms(5000)).await;
            cluster.restart(1).await.unwrap();
            for result in results(deliveries).await {
                assert_eq!(result.unwrap().offset, None);
            }
            producer.close(Duration::from_secs(5)).await.unwrap();
            tokio::time::sleep(ms(100)).await;
            assert_eq!(log(&cluster, 0), numbers(0..10));
        } else {
            let before = tokio::time::Instant::now();
            for result in results(deliveries).await {
                let error = result.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
                assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
            }
            let took = before.elapsed();
            assert!(took < Duration::from_secs(21), "{took:?}");
        }
    }
}
