//! Tests of results: invalid single records, order under faults, and access to a delivery.

use super::*;
use crate::{DeliveryStatus, ErrorKind, error::ErrorCode, testkit::on, wire::ApiKey};

#[tokio::test(start_paused = true)]
async fn distinguishes_invalid_records_from_rest_of_batch() {
    for idempotent in [true, false] {
        let cluster = cluster(1).await;
        let producer = builder(&cluster).linger(ms(20)).idempotence(idempotent).build().await.unwrap();
        producer.partitions_for(TOPIC).await.unwrap();
        // An index that the batch does not have concerns no record.
        cluster.fault(on(ApiKey::Produce).invalid_records([5, 2, 2, 77]));
        for (index, result) in results(send_numbers(&producer, 0..8).await).await.into_iter().enumerate() {
            let error = result.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::INVALID_RECORD));
            assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
            let at_fault = index == 2 || index == 5;
            assert_eq!(error.is_retriable(), !at_fault, "{error}");
            assert_eq!(error.to_string().contains(&format!("record {index} is invalid")), at_fault, "{error}");
            assert_eq!(error.to_string().contains("other records of its batch"), !at_fault, "{error}");
        }
        delivered(send_numbers(&producer, 10..20).await).await;
        assert_eq!(log(&cluster, 0), numbers(10..20), "idempotent: {idempotent}");
    }
}

#[tokio::test(start_paused = true)]
async fn results_keep_send_order_despite_reordered_responses() {
    for idempotent in [true, false] {
        let cluster = cluster_with(Options::new().max_message_bytes(400), 1).await;
        let (told, order) = std::sync::mpsc::channel();
        let producer = builder(&cluster)
            .batch_size(600)
            .idempotence(idempotent)
            .on_delivery(move |report| told.send((report.tag.unwrap(), report.result.clone())).unwrap())
            .build()
            .await
            .unwrap();
        producer
            .send(Record::to(TOPIC).with_partition(0).with_value("first").with_tag(0))
            .await
            .unwrap()
            .await
            .unwrap();
        cluster.fault(on(ApiKey::Produce).delay(ms(20)).times(5));
        cluster.fault(on(ApiKey::Produce).act_then_error(ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND));
        cluster.fault(on(ApiKey::Produce).skip(1).times(2).invalid_records([1]));
        cluster.fault(on(ApiKey::Produce).skip(2).error(ErrorCode::NOT_ENOUGH_REPLICAS));
        for number in 1..300u64 {
            let record = Record::to(TOPIC).with_partition(0).with_value(number.to_string()).with_tag(number);
            drop(producer.send(record).await.unwrap());
        }
        assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
        let told: Vec<_> = order.try_iter().collect();
        let tags: Vec<u64> = told.iter().map(|(tag, _)| *tag).collect();
        assert_eq!(tags, (0..300).collect::<Vec<_>>(), "idempotent: {idempotent}");
        assert!(told.iter().any(|(_, result)| result.is_err()), "no record was at fault");
        if idempotent {
            let fine = told.iter().filter(|(_, result)| result.is_ok()).count();
            assert_eq!(
                cluster.log_end(TOPIC, 0).unwrap(),
                fine as i64,
                "what failed is not in the log, the rest is once"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn record_expires_within_its_delivery_timeout() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster)
        .batch_size(200)
        .linger(Duration::ZERO)
        .request_timeout(ms(1000))
        .delivery_timeout(ms(3000))
        .build()
        .await
        .unwrap();
    delivered(send_numbers(&producer, 0..1).await).await;
    cluster.fault(on(ApiKey::Produce).forever().hang());
    let mut reports = producer.delivery_reports();
    let before = tokio::time::Instant::now();
    let mut ids = Vec::new();
    for number in 1..100u64 {
        let record = Record::to(TOPIC).with_partition(0).with_value(number.to_string());
        ids.push(producer.send(record).await.unwrap().id());
        tokio::time::sleep(ms(10)).await;
    }
    for (number, id) in (0..).zip(ids) {
        let report = reports.next().await.unwrap();
        assert_eq!(report.id, id);
        assert_eq!(report.result.unwrap_err().kind(), ErrorKind::Timeout);
        let sent = ms(10) * number;
        // Measured from the creation of the record's batch, which was not later than the record.
        let waited = before.elapsed() - sent;
        assert!(waited <= ms(3020), "record {number} waited {waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn splits_compressed_batch_too_large_for_topic() {
    let cluster = cluster_with(Options::new().max_message_bytes(700), 1).await;
    let codecs = [
        crate::Compression::None,
        #[cfg(feature = "gzip")]
        crate::Compression::Gzip(-1),
        #[cfg(feature = "lz4")]
        crate::Compression::Lz4,
    ];
    let mut expected = Vec::new();
    for compression in codecs {
        let producer = builder(&cluster).compression(compression).linger(ms(50)).build().await.unwrap();
        producer.partitions_for(TOPIC).await.unwrap();
        let deliveries = send_numbers(&producer, 0..600).await;
        // A record that does not fit even alone fails, and no other record does.
        let mut noise = 1u32;
        let value: Vec<u8> = std::iter::repeat_with(|| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 24) as u8
        })
        .take(900)
        .collect();
        let large = producer.send(Record::to(TOPIC).with_partition(0).with_value(value)).await.unwrap();
        let rest = send_numbers(&producer, 600..700).await;
        for at in results(deliveries).await.into_iter().chain(results(rest).await) {
            at.unwrap();
        }
        let error = large.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
        expected.extend(numbers(0..700));
        assert_eq!(log(&cluster, 0), expected, "{compression:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn try_result_does_not_consume_delivery() {
    let cluster = cluster(1).await;
    let producer = producer(&cluster).await;
    let delivery = send_numbers(&producer, 0..1).await.pop().unwrap();
    assert!(delivery.try_result().is_none());
    assert_eq!(producer.flush(ms(5000)).await, 0);
    assert_eq!(delivery.try_result().unwrap().unwrap().offset, Some(0));
    assert_eq!(delivery.await.unwrap().offset, Some(0), "looking at it takes nothing away");
}
