//! Tests of purged records.

use super::*;
use crate::{
    DeliveryStatus, ErrorKind,
    error::ErrorCode,
    producer::{Acks, PurgeScope},
    testkit::on,
    wire::ApiKey,
};

fn purged(result: Result<RecordMetadata, Error>) -> DeliveryStatus {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Purged, "{error}");
    error.delivery_status().unwrap()
}

#[tokio::test(start_paused = true)]
async fn purges_lingering_records_and_delivers_later_ones() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).linger(Duration::from_secs(20)).batch_size(300).build().await.unwrap();
    producer.partitions_for(TOPIC).await.unwrap();
    // Few enough for one batch, which is open, and then enough to fill others.
    for count in [3, 100] {
        let before = tokio::time::Instant::now();
        let deliveries = send_numbers(&producer, 0..count).await;
        assert_eq!(producer.purge(PurgeScope::Queued).await, count as usize);
        assert_eq!(producer.purge(PurgeScope::InFlight).await, 0);
        for result in results(deliveries).await {
            assert_eq!(purged(result), DeliveryStatus::NotPersisted);
        }
        assert_eq!(before.elapsed(), Duration::ZERO);
        assert_eq!(producer.flush(ms(1000)).await, 0);
        assert_eq!(producer.0.shared.batch_shared.buffer.free(), 33_554_432);
        assert_eq!(producer.purge(PurgeScope::All).await, 0);
    }
    let after = send_numbers(&producer, 7..9).await;
    producer.close(ms(5000)).await.unwrap();
    assert!(results(after).await.iter().all(Result::is_ok));
    assert_eq!(log(&cluster, 0), numbers(7..9));
}

#[tokio::test(start_paused = true)]
async fn purges_record_waiting_for_topic_metadata() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let producer = builder(&cluster).max_block(ms(1000)).build().await.unwrap();
    let lost = producer.send(Record::to("later").with_value("purged")).await.unwrap();
    tokio::time::sleep(ms(800)).await;
    assert_eq!(producer.purge(PurgeScope::Queued).await, 1);
    assert_eq!(purged(lost.await), DeliveryStatus::NotPersisted);
    // The look-up for the first record is still running, and ends before this record's time is up.
    let kept = producer.send(Record::to("later").with_value("kept")).await.unwrap();
    tokio::time::sleep(ms(600)).await;
    cluster.create_topic("later", 1).unwrap();
    kept.await.unwrap();
    assert_eq!(cluster.log_end("later", 0).unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn purged_requests_in_flight_are_possibly_persisted() {
    for (acks, written) in [(Acks::All, true), (Acks::All, false), (Acks::Leader, true), (Acks::Leader, false)] {
        let cluster = cluster(1).await;
        let producer = builder(&cluster).linger(Duration::ZERO).acks(acks).build().await.unwrap();
        delivered(send_numbers(&producer, 0..1).await).await;
        let fault = on(ApiKey::Produce).delay_response(ms(500));
        let fault = if written { fault } else { fault.error(ErrorCode::NOT_ENOUGH_REPLICAS) };
        let fault = cluster.fault(fault);
        let wire = send_numbers(&producer, 1..4).await;
        fault.reached(1).await;
        assert_eq!(producer.purge(PurgeScope::Queued).await, 0);
        assert_eq!(producer.purge(PurgeScope::InFlight).await, 3);
        for result in results(wire).await {
            assert_eq!(purged(result), DeliveryStatus::PossiblyPersisted);
        }
        assert_eq!(producer.flush(Duration::ZERO).await, 0, "a flush does not wait for what was given up");
        delivered(send_numbers(&producer, 4..8).await).await;
        let mut expected = numbers(0..8);
        if !written {
            expected.drain(1..4);
        }
        assert_eq!(log(&cluster, 0), expected, "{acks:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn purged_retry_reports_status_of_attempts() {
    for (code, appended) in
        [(ErrorCode::NOT_ENOUGH_REPLICAS, false), (ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND, true)]
    {
        let cluster = cluster(1).await;
        let producer = builder(&cluster).retry_backoff(ms(5000), ms(5000)).build().await.unwrap();
        delivered(send_numbers(&producer, 0..1).await).await;
        let produce = on(ApiKey::Produce);
        let fault = cluster.fault(if appended { produce.act_then_error(code) } else { produce.error(code) });
        let again = send_numbers(&producer, 1..3).await;
        fault.reached(1).await;
        tokio::time::sleep(ms(100)).await;
        assert_eq!(producer.purge(PurgeScope::InFlight).await, 0);
        assert_eq!(producer.purge(PurgeScope::Queued).await, 2);
        for result in results(again).await {
            let expected = if appended { DeliveryStatus::PossiblyPersisted } else { DeliveryStatus::NotPersisted };
            assert_eq!(purged(result), expected, "{code}");
        }
        delivered(send_numbers(&producer, 3..6).await).await;
        let expected = if appended { numbers(0..6) } else { [numbers(0..1), numbers(3..6)].concat() };
        assert_eq!(log(&cluster, 0), expected, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn purge_lets_pending_close_return() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..1).await).await;
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    let stuck = send_numbers(&producer, 1..4).await;
    hang.reached(1).await;
    let before = tokio::time::Instant::now();
    let other = producer.clone();
    let (closed, count) = tokio::join!(producer.close(Duration::from_secs(60)), async {
        tokio::time::sleep(ms(50)).await;
        other.purge(PurgeScope::All).await
    });
    closed.unwrap();
    assert_eq!(count, 3);
    assert!(before.elapsed() < ms(1000), "{:?}", before.elapsed());
    for result in results(stuck).await {
        purged(result);
    }
    assert_eq!(producer.purge(PurgeScope::All).await, 0, "after the end there is nothing to purge");
}

#[tokio::test(start_paused = true)]
async fn purge_reports_all_records_in_order() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).batch_size(200).build().await.unwrap();
    delivered(send_numbers(&producer, 0..1).await).await;
    let mut reports = producer.delivery_reports();
    let hang = cluster.fault(on(ApiKey::Produce).forever().hang());
    let deliveries = send_numbers(&producer, 1..200).await;
    hang.reached(1).await;
    let ids: Vec<_> = deliveries.iter().map(Delivery::id).collect();
    assert_eq!(producer.purge(PurgeScope::All).await, 199);
    let seen: Vec<_> = std::iter::from_fn(|| reports.try_next()).map(|report| report.id).collect();
    assert_eq!(seen, ids);
    let statuses: Vec<_> = results(deliveries).await.into_iter().map(purged).collect();
    assert_eq!(statuses[0], DeliveryStatus::PossiblyPersisted);
    assert_eq!(statuses[198], DeliveryStatus::NotPersisted);
}
