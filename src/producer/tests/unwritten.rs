//! Tests of records with requests that wait in a connection and are withdrawn there: no byte of
//! them was written.

use super::*;
use crate::{
    DeliveryStatus, ErrorKind,
    producer::PurgeScope,
    security::{Sasl, Security},
    testkit::{self, on},
    wire::ApiKey,
};

const SECOND: Duration = Duration::from_secs(1);

/// Sends a first record, which is acknowledged with a throttle time that mutes the connection for
/// `mute`.
async fn muted(idempotent: bool, partitions: i32, mute: Duration) -> (Cluster, Producer) {
    let cluster = cluster(partitions).await;
    cluster.fault(on(ApiKey::Produce).throttle(mute));
    let producer = builder(&cluster)
        .idempotence(idempotent)
        .linger(Duration::ZERO)
        .batch_size(16)
        .request_timeout(3 * SECOND)
        .delivery_timeout(5 * SECOND)
        .build()
        .await
        .unwrap();
    delivered(send_numbers(&producer, 0..1).await).await;
    (cluster, producer)
}

#[track_caller]
fn not_persisted(result: Result<RecordMetadata, Error>, kind: ErrorKind) {
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (kind, Some(DeliveryStatus::NotPersisted)), "{error}");
}

/// Asserts that later records are delivered, and that none of the withdrawn ones arrives.
async fn only_later_records_arrive(cluster: &Cluster, producer: &Producer) {
    tokio::time::sleep(60 * SECOND).await;
    delivered(send_numbers(producer, 90..93).await).await;
    assert_eq!(log(cluster, 0), ["0", "90", "91", "92"]);
}

#[tokio::test(start_paused = true)]
async fn records_expiring_behind_throttle_are_not_persisted() {
    for idempotent in [true, false] {
        let (cluster, producer) = muted(idempotent, 1, 60 * SECOND).await;
        for result in results(send_numbers(&producer, 1..4).await).await {
            not_persisted(result, ErrorKind::Timeout);
        }
        only_later_records_arrive(&cluster, &producer).await;
    }
}

#[tokio::test(start_paused = true)]
async fn sequence_of_unwritten_batch_is_reused() {
    let (cluster, producer) = muted(true, 1, 60 * SECOND).await;
    not_persisted(send_numbers(&producer, 1..2).await.pop().unwrap().await, ErrorKind::Timeout);
    only_later_records_arrive(&cluster, &producer).await;
    assert_eq!(producer.metrics().epoch_bumps, 0);
    assert_eq!(cluster.requests(ApiKey::InitProducerId), 1);
}

#[tokio::test(start_paused = true)]
async fn records_purged_behind_throttle_are_not_persisted() {
    for idempotent in [true, false] {
        let (cluster, producer) = muted(idempotent, 1, 60 * SECOND).await;
        let deliveries = send_numbers(&producer, 1..4).await;
        tokio::time::sleep(SECOND).await;
        assert_eq!(producer.purge(PurgeScope::All).await, 3);
        for result in results(deliveries).await {
            not_persisted(result, ErrorKind::Purged);
        }
        only_later_records_arrive(&cluster, &producer).await;

        let (cluster, producer) = muted(idempotent, 1, 60 * SECOND).await;
        let deliveries = send_numbers(&producer, 1..4).await;
        producer.close(SECOND).await.unwrap_err();
        for result in results(deliveries).await {
            not_persisted(result, ErrorKind::Closed);
        }
        tokio::time::sleep(100 * SECOND).await;
        assert_eq!(log(&cluster, 0), ["0"]);
    }
}

#[tokio::test(start_paused = true)]
async fn records_expiring_during_reauthentication_are_not_persisted() {
    for idempotent in [true, false] {
        let sasl = testkit::Sasl::new().user("alice", "wonder").max_reauth(5 * SECOND);
        let cluster = cluster_with(Options::new().sasl(sasl), 1).await;
        let producer = builder(&cluster)
            .security(Security::sasl_plaintext(Sasl::plain("alice", "wonder")))
            .idempotence(idempotent)
            .linger(Duration::ZERO)
            .request_timeout(3 * SECOND)
            .delivery_timeout(5 * SECOND)
            .build()
            .await
            .unwrap();
        delivered(send_numbers(&producer, 0..1).await).await;
        let hang = cluster.fault(on(ApiKey::SaslAuthenticate).hang().forever());
        tokio::time::sleep(6 * SECOND).await;
        for result in results(send_numbers(&producer, 1..4).await).await {
            not_persisted(result, ErrorKind::Timeout);
        }
        hang.clear();
        only_later_records_arrive(&cluster, &producer).await;
    }
}

/// A request waits with two batches, the older of which expires: the other one is sent in a
/// separate request.
#[tokio::test(start_paused = true)]
async fn batch_beside_expired_one_is_delivered() {
    // Without retries, because the request that was withdrawn does not count as an attempt.
    for (idempotent, retries) in [(true, u32::MAX), (false, 0)] {
        let cluster = cluster(3).await;
        cluster.fault(on(ApiKey::Produce).throttle(ms(5500)));
        let producer = builder(&cluster)
            .idempotence(idempotent)
            .retries(retries)
            .max_in_flight(1)
            .linger(Duration::ZERO)
            .request_timeout(3 * SECOND)
            .delivery_timeout(5 * SECOND)
            .build()
            .await
            .unwrap();
        let record = |partition, value: &'static str| Record::to(TOPIC).with_partition(partition).with_value(value);
        producer.send(record(2, "mutes")).await.unwrap().await.unwrap();
        // Occupies the only place in flight until its request times out; after it the other two are
        // sent together.
        let first = producer.send(record(2, "holds")).await.unwrap();
        tokio::time::sleep(ms(100)).await;
        let expires = producer.send(record(0, "expires")).await.unwrap();
        tokio::time::sleep(ms(2700)).await;
        let lives = producer.send(record(1, "lives")).await.unwrap();
        not_persisted(expires.await, ErrorKind::Timeout);
        not_persisted(first.await, ErrorKind::Timeout);
        lives.await.unwrap();
        assert_eq!(
            (log(&cluster, 0), log(&cluster, 1), log(&cluster, 2)),
            (vec![], vec!["lives".into()], vec!["mutes".into()])
        );
    }
}

#[tokio::test(start_paused = true)]
async fn written_record_without_response_is_possibly_persisted() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster)
        .linger(Duration::ZERO)
        .request_timeout(3 * SECOND)
        .delivery_timeout(5 * SECOND)
        .build()
        .await
        .unwrap();
    cluster.fault(on(ApiKey::Produce).hang().forever());
    let error = send_numbers(&producer, 0..1).await.pop().unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::PossiblyPersisted)));
}
