//! Tests of the fault scenarios with which other clients are tested.

use super::*;
use crate::{DeliveryStatus, ErrorKind, error::ErrorCode, testkit::on, wire::ApiKey};

#[tokio::test(start_paused = true)]
async fn retry_after_lost_response_does_not_duplicate() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).act_then_drop());
    let producer = producer(&cluster).await;
    let deliveries = send_numbers(&producer, 0..10).await;
    assert!(results(deliveries).await.iter().all(Result::is_ok));
    assert_eq!(log(&cluster, 0), numbers(0..10));
}

#[tokio::test(start_paused = true)]
async fn lost_response_without_retries_is_possibly_persisted() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).act_then_drop());
    let producer = builder(&cluster).retries(0).build().await.unwrap();
    for result in results(send_numbers(&producer, 0..3).await).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network);
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
    }
}

#[tokio::test(start_paused = true)]
async fn late_response_is_retried_if_allowed() {
    for (retries, delivered) in [(u32::MAX, true), (0, false)] {
        let cluster = cluster(1).await;
        cluster.fault(on(ApiKey::Produce).delay_response(ms(3000)));
        let producer = builder(&cluster).request_timeout(ms(1000)).retries(retries).build().await.unwrap();
        let result = send_numbers(&producer, 0..1).await.pop().unwrap().await;
        if delivered {
            result.unwrap();
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Timeout);
            assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
        }
        assert_eq!(log(&cluster, 0), ["0"]);
    }
}

#[tokio::test(start_paused = true)]
async fn retries_storage_errors_up_to_limit() {
    for (retries, succeeds) in [(5, true), (1, false)] {
        let cluster = cluster(1).await;
        let fault = cluster.fault(on(ApiKey::Produce).times(3).error(ErrorCode::KAFKA_STORAGE_ERROR));
        let producer = builder(&cluster).retries(retries).build().await.unwrap();
        let result = send_numbers(&producer, 0..1).await.pop().unwrap().await;
        if succeeds {
            result.unwrap();
            assert_eq!(fault.hits(), 3);
        } else {
            let error = result.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::KAFKA_STORAGE_ERROR));
            assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
            assert_eq!(fault.hits(), 2);
            cluster.clear_faults();
            // The first record may or may not be in the log: later records must be written all the
            // same.
            delivered(send_numbers(&producer, 1..2).await).await;
            assert_eq!(log(&cluster, 0), ["1"]);
        }
    }
}

/// Creates a producer with small batches, so that several requests are in flight at once.
async fn pipelined(cluster: &Cluster) -> Producer {
    pipelined_by(cluster, 5).await
}

async fn pipelined_by(cluster: &Cluster, in_flight: usize) -> Producer {
    let producer = builder(cluster).batch_size(200).max_in_flight(in_flight).build().await.unwrap();
    // The first response allows several requests in flight.
    producer.send(Record::to(TOPIC).with_partition(0).with_value("first")).await.unwrap().await.unwrap();
    producer
}

fn with_first(range: std::ops::Range<u64>) -> Vec<String> {
    std::iter::once("first".to_owned()).chain(numbers(range)).collect()
}

#[tokio::test(start_paused = true)]
async fn disconnects_and_errors_keep_record_order() {
    let codes = [ErrorCode::NOT_ENOUGH_REPLICAS, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER];
    for (in_flight, code) in (1..=5).flat_map(|in_flight| codes.map(|code| (in_flight, code))) {
        let cluster = cluster(1).await;
        let producer = pipelined_by(&cluster, in_flight).await;
        cluster.fault(on(ApiKey::Produce).delay(ms(20)).times(5));
        cluster.fault(on(ApiKey::Produce).skip(2).drop_connection());
        cluster.fault(on(ApiKey::Produce).skip(4).times(3).error(code));
        let deliveries = send_numbers(&producer, 0..300).await;
        delivered(deliveries).await;
        assert_eq!(log(&cluster, 0), with_first(0..300), "{code}, {in_flight} in flight");
    }
}

#[tokio::test(start_paused = true)]
async fn appended_batch_with_error_is_written_once() {
    let cluster = cluster(1).await;
    let producer = pipelined(&cluster).await;
    cluster.fault(on(ApiKey::Produce).skip(1).times(3).act_then_error(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
    cluster.fault(on(ApiKey::Produce).skip(6).act_then_error(ErrorCode::REQUEST_TIMED_OUT));
    delivered(send_numbers(&producer, 0..300).await).await;
    assert_eq!(log(&cluster, 0), with_first(0..300));
}

#[tokio::test(start_paused = true)]
async fn duplicate_sequence_error_counts_as_success() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).act_then_drop());
    cluster.fault(on(ApiKey::Produce).error(ErrorCode::DUPLICATE_SEQUENCE_NUMBER));
    let producer = producer(&cluster).await;
    let at = send_numbers(&producer, 0..1).await.pop().unwrap().await.unwrap();
    assert_eq!(at.offset, None);
    assert_eq!(log(&cluster, 0), ["0"]);
    assert_eq!(cluster.requests(ApiKey::Produce), 2);
}

#[tokio::test(start_paused = true)]
async fn delivers_after_broker_loses_producer_state() {
    let cluster = cluster_with(Options::new().strict_producer_ids(true), 1).await;
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..1).await).await;
    cluster.forget_producers(TOPIC, 0).unwrap();
    delivered(send_numbers(&producer, 1..50).await).await;
    assert_eq!(log(&cluster, 0), numbers(0..50));
}

#[tokio::test(start_paused = true)]
async fn resends_in_order_after_leader_changes() {
    for hints in [true, false] {
        let cluster = cluster_with(Options::new().brokers(3).leader_hints(hints), 1).await;
        let producer = pipelined(&cluster).await;
        let mut deliveries = Vec::new();
        for round in 0..12u64 {
            deliveries.extend(send_numbers(&producer, round * 50..(round + 1) * 50).await);
            let leader = cluster.leader(TOPIC, 0).unwrap().unwrap();
            cluster.move_leader(TOPIC, 0, leader % 3 + 1).unwrap();
            tokio::time::sleep(ms(7)).await;
        }
        delivered(deliveries).await;
        assert_eq!(log(&cluster, 0), with_first(0..600), "hints: {hints}");
    }
}

#[tokio::test(start_paused = true)]
async fn broker_restart_only_delays_records() {
    let cluster = cluster_with(Options::new().brokers(1), 1).await;
    let producer = pipelined(&cluster).await;
    let mut deliveries = send_numbers(&producer, 0..100).await;
    cluster.kill(1).await.unwrap();
    deliveries.extend(send_numbers(&producer, 100..200).await);
    tokio::time::sleep(ms(5000)).await;
    cluster.restart(1).await.unwrap();
    deliveries.extend(send_numbers(&producer, 200..300).await);
    delivered(deliveries).await;
    assert_eq!(log(&cluster, 0), with_first(0..300));
}

#[tokio::test(start_paused = true)]
async fn request_timeout_is_possibly_persisted_then_recovers() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).request_timeout(ms(500)).delivery_timeout(ms(2000)).build().await.unwrap();
    delivered(send_numbers(&producer, 0..1).await).await;
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    for result in results(send_numbers(&producer, 1..4).await).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
    }
    hang.clear();
    delivered(send_numbers(&producer, 4..8).await).await;
    assert_eq!(log(&cluster, 0), ["0", "4", "5", "6", "7"]);
}

#[tokio::test(start_paused = true)]
async fn malformed_responses_are_retried_without_loss() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).respond_garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice()));
    cluster.fault(on(ApiKey::Produce).truncate_response());
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..10).await).await;
    assert_eq!(log(&cluster, 0), numbers(0..10));
}

#[tokio::test(start_paused = true)]
async fn blocked_partition_does_not_block_others() {
    let cluster = cluster(2).await;
    cluster.fault(on(ApiKey::Produce).partition(TOPIC, 0).forever().error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let producer = builder(&cluster).delivery_timeout(Duration::from_secs(40)).build().await.unwrap();
    let blocked = send_numbers(&producer, 0..5).await;
    for _ in 0..20 {
        producer.send(Record::to(TOPIC).with_partition(1).with_value("x")).await.unwrap().await.unwrap();
    }
    for result in results(blocked).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::NotPersisted)));
        assert!(error.to_string().contains("NOT_ENOUGH_REPLICAS"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn authorization_error_fails_record_without_retry() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let producer = producer(&cluster).await;
    let error = send_numbers(&producer, 0..1).await.pop().unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Authorization, Some(DeliveryStatus::NotPersisted)));
    delivered(send_numbers(&producer, 1..2).await).await;
    assert_eq!(log(&cluster, 0), ["1"]);
}

#[tokio::test(start_paused = true)]
async fn missing_producer_id_fails_records_with_cause() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::InitProducerId).forever().error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    let producer = producer(&cluster).await;
    let error = send_numbers(&producer, 0..1).await.pop().unwrap().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::Authorization, false));
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
    let error = send_numbers(&producer, 1..2).await.pop().unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
}

#[tokio::test(start_paused = true)]
async fn later_records_retry_refused_producer_id() {
    for code in [ErrorCode::CLUSTER_AUTHORIZATION_FAILED, ErrorCode::UNKNOWN_SERVER_ERROR, ErrorCode::new(999)] {
        let cluster = cluster(1).await;
        let refused = cluster.fault(on(ApiKey::InitProducerId).forever().error(code));
        let producer = producer(&cluster).await;
        let error = send_numbers(&producer, 0..1).await.pop().unwrap().await.unwrap_err();
        assert_eq!((error.code(), error.is_fatal()), (Some(code), false));
        refused.clear();
        // The rights were granted meanwhile: these records wait for the next request, and are
        // delivered.
        delivered(send_numbers(&producer, 1..4).await).await;
        assert_eq!(log(&cluster, 0), numbers(1..4));
    }
}

#[tokio::test(start_paused = true)]
async fn refused_producer_id_is_requested_rarely() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::InitProducerId).forever().error(ErrorCode::CLUSTER_AUTHORIZATION_FAILED));
    let producer = producer(&cluster).await;
    for n in 0..60 {
        drop(send_numbers(&producer, n..n + 1).await);
        tokio::time::sleep(ms(1000)).await;
    }
    assert!(
        (3..=8).contains(&cluster.requests(ApiKey::InitProducerId)),
        "{}",
        cluster.requests(ApiKey::InitProducerId)
    );
}

#[tokio::test(start_paused = true)]
async fn transient_producer_id_error_fails_no_record() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::InitProducerId).times(3).error(ErrorCode::UNKNOWN_SERVER_ERROR));
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..3).await).await;
}

#[tokio::test(start_paused = true)]
async fn waits_while_coordinator_load_delays_producer_id() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::InitProducerId).times(5).error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..10).await).await;
}

#[tokio::test(start_paused = true)]
async fn rejection_behind_appended_batch_does_not_duplicate() {
    let cluster = cluster(1).await;
    let producer = pipelined(&cluster).await;
    // Both are in flight at once: the first is in the log although its response asks for a retry,
    // and the second never will be.
    cluster.fault(on(ApiKey::Produce).delay(ms(20)).times(2));
    cluster.fault(on(ApiKey::Produce).act_then_error(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
    cluster.fault(on(ApiKey::Produce).error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let value = [7u8; 150];
    let first = producer.send(Record::to(TOPIC).with_partition(0).with_value(&value)).await.unwrap();
    let second = producer.send(Record::to(TOPIC).with_partition(0).with_value(&value)).await.unwrap();
    assert!(first.await.is_ok());
    assert_eq!(second.await.unwrap_err().kind(), ErrorKind::Authorization);
    delivered(send_numbers(&producer, 0..1).await).await;
    let log = cluster.records(TOPIC, 0).unwrap();
    assert_eq!(log.len(), 3, "first, the record that was appended, and the last");
}

#[tokio::test(start_paused = true)]
async fn splitting_possibly_written_batch_does_not_duplicate() {
    let cluster = cluster(1).await;
    // The topic's limit was lowered after the batch was appended.
    cluster.fault(on(ApiKey::Produce).act_then_error(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
    let too_large = cluster.fault(on(ApiKey::Produce).error(ErrorCode::MESSAGE_TOO_LARGE));
    let producer = producer(&cluster).await;
    for result in results(send_numbers(&producer, 0..10).await).await {
        if let Err(error) = result {
            assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted), "{error}");
        }
    }
    assert_eq!((too_large.hits(), producer.metrics().batches_split), (1, 1));
    delivered(send_numbers(&producer, 10..20).await).await;
    assert_eq!(log(&cluster, 0), numbers(0..20));
}
