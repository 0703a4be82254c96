//! Tests of topics that are not known yet, grow, are deleted, or are created again.

use super::*;
use crate::{DeliveryStatus, ErrorKind, error::ErrorCode, testkit::on, wire::ApiKey};

#[tokio::test(start_paused = true)]
async fn records_keep_order_until_topic_is_created() {
    let cluster = Cluster::start(Options::new().in_memory().auto_create(false)).await.unwrap();
    let producer = producer(&cluster).await;
    let mut deliveries = send_numbers(&producer, 0..500).await;
    tokio::time::sleep(ms(2000)).await;
    cluster.create_topic(TOPIC, 1).unwrap();
    for round in 5..100u64 {
        deliveries.extend(send_numbers(&producer, round * 100..(round + 1) * 100).await);
        tokio::time::sleep(ms(10)).await;
    }
    delivered(deliveries).await;
    let expected: Vec<String> = (0..10_000).map(|number: u64| number.to_string()).collect();
    assert_eq!(log(&cluster, 0), expected);
}

#[tokio::test(start_paused = true)]
async fn missing_topic_fails_only_its_own_records() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let producer = builder(&cluster).max_block(ms(1500)).build().await.unwrap();
    let mut reports = producer.delivery_reports();
    let missing = producer.send(Record::to("missing").with_value("x")).await.unwrap();
    let id = missing.id();
    producer.send(Record::to(TOPIC).with_value("x")).await.unwrap().await.unwrap();
    let before = tokio::time::Instant::now();
    let error = missing.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}");
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
    assert!(before.elapsed() < ms(2500), "{:?}", before.elapsed());
    assert!(error.to_string().contains("missing"), "{error}");
    assert!(reports.try_next().unwrap().result.is_ok());
    let report = reports.try_next().unwrap();
    assert_eq!((report.id, &*report.topic, report.partition), (id, "missing", None));
    assert_eq!(report.result.unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    assert!(reports.try_next().is_none());
    let error = producer.partitions_for("missing").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
}

#[tokio::test(start_paused = true)]
async fn topic_wait_ends_at_shorter_delivery_timeout() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let builder = builder(&cluster).linger(ms(5)).request_timeout(ms(500)).delivery_timeout(ms(1500));
    let producer = builder.build().await.unwrap();
    for (topic, partition) in [("missing", None), (TOPIC, Some(5))] {
        let mut record = Record::to(topic).with_value("x");
        if let Some(partition) = partition {
            producer.partitions_for(TOPIC).await.unwrap();
            record = record.with_partition(partition);
        }
        let before = tokio::time::Instant::now();
        let error = producer.send(record).await.unwrap().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition, "{error}");
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
        assert!(before.elapsed() < ms(2000), "{:?}", before.elapsed());
        let text = error.to_string();
        assert!(text.contains("delivery.timeout.ms (1500 ms)") && text.contains(topic), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn unreachable_cluster_fails_records_at_delivery_timeout() {
    let cluster = cluster(1).await;
    for broker in cluster.brokers() {
        cluster.kill(broker).await.unwrap();
    }
    let builder = builder(&cluster).request_timeout(ms(500)).delivery_timeout(ms(1500));
    let producer = builder.build().await.unwrap();
    let before = tokio::time::Instant::now();
    let error = producer.send(Record::to(TOPIC).with_value("x")).await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
    assert!(before.elapsed() < ms(2000), "{:?}", before.elapsed());
    assert!(error.to_string().contains("delivery.timeout.ms (1500 ms)"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn wait_for_topic_counts_towards_delivery_timeout() {
    let cluster = Cluster::start(Options::new().in_memory().auto_create(false)).await.unwrap();
    let builder = builder(&cluster).request_timeout(ms(500)).delivery_timeout(ms(4000));
    let producer = builder.build().await.unwrap();
    let before = tokio::time::Instant::now();
    let delivery = producer.send(Record::to(TOPIC).with_value("x")).await.unwrap();
    tokio::time::sleep(ms(3000)).await;
    cluster.fault(on(ApiKey::Produce).forever().error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    cluster.create_topic(TOPIC, 1).unwrap();
    delivery.await.unwrap_err();
    assert!(before.elapsed() < ms(4500), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn unauthorized_topic_fails_records_immediately() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Metadata).topic("secret").forever().error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let producer = producer(&cluster).await;
    let before = tokio::time::Instant::now();
    let error = producer.send(Record::to("secret").with_value("x")).await.unwrap().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn broker_creates_missing_topic_on_send() {
    let cluster = Cluster::start(Options::new().in_memory().auto_create(true)).await.unwrap();
    let producer = producer(&cluster).await;
    producer.send(Record::to("fresh").with_value("x")).await.unwrap().await.unwrap();
    assert_eq!(cluster.log_end("fresh", 0).unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn partitions_for_makes_topic_metadata_available() {
    let cluster = cluster(3).await;
    let producer = producer(&cluster).await;
    assert_eq!(producer.partitions_for(TOPIC).await.unwrap().len(), 3);
    let delivery = producer.try_send(Record::to(TOPIC).with_partition(2).with_value("x")).unwrap();
    assert!(producer.0.shared.topics.waited_for().is_empty(), "the record waits for its topic");
    assert_eq!(delivery.await.unwrap().partition, 2);
    producer.close(ms(5000)).await.unwrap();
    assert_eq!(producer.partitions_for(TOPIC).await.unwrap_err().kind(), crate::ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn waits_for_added_partition_until_max_block() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).max_block(ms(3000)).build().await.unwrap();
    producer.send(Record::to(TOPIC).with_value("x")).await.unwrap().await.unwrap();
    let early = producer.send(Record::to(TOPIC).with_partition(3).with_value("early")).await.unwrap();
    let never = producer.send(Record::to(TOPIC).with_partition(9).with_value("never")).await.unwrap();
    tokio::time::sleep(ms(500)).await;
    cluster.add_partitions(TOPIC, 4).unwrap();
    assert_eq!(early.await.unwrap().partition, 3);
    let error = never.await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
    assert!(error.to_string().contains("4 partitions"), "{error}");
    assert_eq!(producer.partitions_for(TOPIC).await.unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_receives_records_in_order() {
    let cluster = cluster_with(Options::new().auto_create(false), 2).await;
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..20).await).await;
    cluster.delete_topic(TOPIC).unwrap();
    let deliveries = send_numbers(&producer, 20..40).await;
    tokio::time::sleep(ms(3000)).await;
    cluster.create_topic(TOPIC, 3).unwrap();
    delivered(deliveries).await;
    assert_eq!(log(&cluster, 0), numbers(20..40));
    producer.send(Record::to(TOPIC).with_partition(2).with_value("third")).await.unwrap().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn temporarily_unknown_topic_loses_no_records() {
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let producer = producer(&cluster).await;
    delivered(send_numbers(&producer, 0..1).await).await;
    let gone = cluster.fault(on(ApiKey::Metadata).topic(TOPIC).forever().error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    cluster.fault(on(ApiKey::Produce).times(3).error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    let deliveries = send_numbers(&producer, 1..50).await;
    tokio::time::sleep(ms(5000)).await;
    gone.clear();
    delivered(deliveries).await;
    assert_eq!(log(&cluster, 0), numbers(0..50));
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_records_of_unknown_topic() {
    let cluster = Cluster::start(Options::new().in_memory().auto_create(false)).await.unwrap();
    let producer = lingering(&cluster).await;
    let deliveries = send_numbers(&producer, 0..10).await;
    assert_eq!(producer.flush(ms(500)).await, 10);
    cluster.create_topic(TOPIC, 1).unwrap();
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
    delivered(deliveries).await;
}
