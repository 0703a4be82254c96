//! Tests of records that `send` rejects, by each way of sending: their error says that they are not
//! persisted.

use super::*;
use crate::{
    DeliveryStatus, ErrorKind,
    producer::{CustomPartitioner, PartitionChoice, Partitioner, TopicSnapshot},
    testkit::on,
    wire::ApiKey,
};

#[derive(Debug)]
struct Panics;

impl CustomPartitioner for Panics {
    fn partition(&self, _: &Record<'_>, _: &TopicSnapshot<'_>) -> PartitionChoice {
        panic!("no\r\nchoice")
    }
}

#[derive(Debug)]
struct Beyond;

impl CustomPartitioner for Beyond {
    fn partition(&self, _: &Record<'_>, _: &TopicSnapshot<'_>) -> PartitionChoice {
        PartitionChoice::Partition(99)
    }
}

/// Sends with `send`, `try_send` and `send_batch`: each fails with that kind, at once or through
/// its delivery.
async fn refused(producer: &Producer, record: Record<'_>, kind: ErrorKind) {
    let mut errors = Vec::new();
    errors.push(match producer.send(record.clone()).await {
        Ok(delivery) => delivery.await.unwrap_err(),
        Err(error) => error,
    });
    errors.push(match producer.try_send(record.clone()) {
        Ok(delivery) => delivery.await.unwrap_err(),
        Err(refused) => {
            assert_eq!(refused.error().delivery_status(), Some(DeliveryStatus::NotPersisted));
            refused.into()
        }
    });
    let results = producer.send_batch([record]).await.await;
    errors.extend(results.iter().map(|result| result.unwrap_err()));
    assert_eq!(errors.len(), 3);
    for error in errors {
        assert_eq!((error.kind(), error.delivery_status()), (kind, Some(DeliveryStatus::NotPersisted)), "{error}");
        assert!(!error.to_string().contains(['\r', '\n']), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_refused_record_is_not_persisted() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let producer = builder(&cluster).max_block(ms(500)).max_request_size(2000).build().await.unwrap();
    let large = vec![0; 4000];
    for (record, kind) in [
        (Record::to(TOPIC).with_value(&large), ErrorKind::RecordTooLarge),
        (Record::to(TOPIC).with_partition(-1), ErrorKind::InvalidArgument),
        (Record::to(TOPIC).with_partition(7), ErrorKind::UnknownTopicOrPartition),
        (Record::to("a\r\nb"), ErrorKind::InvalidArgument),
        (Record::to("missing"), ErrorKind::UnknownTopicOrPartition),
    ] {
        refused(&producer, record, kind).await;
    }
    producer.close(ms(1000)).await.unwrap();
    refused(&producer, Record::to(TOPIC).with_value("x"), ErrorKind::Closed).await;
}

#[tokio::test(start_paused = true)]
async fn record_of_failing_partitioner_is_not_persisted() {
    let cluster = cluster(1).await;
    for partitioner in [Partitioner::custom(Panics), Partitioner::custom(Beyond)] {
        let producer = builder(&cluster).partitioner(partitioner).build().await.unwrap();
        // While the topic is unknown, and after that.
        for _ in 0..2 {
            refused(&producer, Record::to(TOPIC).with_value("x"), ErrorKind::InvalidArgument).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn full_buffer_record_is_not_persisted() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).hang().forever());
    let producer = builder(&cluster).buffer_memory(3000).max_block(ms(300)).build().await.unwrap();
    let value = vec![b'x'; 2000];
    let _fills = producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap();
    refused(&producer, Record::to(TOPIC).with_value(&value), ErrorKind::BufferFull).await;
}
