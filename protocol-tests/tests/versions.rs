//! A short run against old and new versions of Kafka, independent of the version for the rest of
//! the suite.
#![cfg(unix)]

use std::time::Duration;

use ottla::{
    Consumer, Producer, Record, TopicPartition,
    consumer::{GroupProtocol, OffsetReset},
};
use protocol_tests::{Error, Kafka, Message, or_skip, unique};

/// Makes a round trip with that version's console tools, which also changed packages and options,
/// and then one with Ottla, in a group of each protocol.
async fn round_trip(version: &str) -> Result<(), Error> {
    let Some(kafka) = or_skip(Kafka::builder().version(version).start().await) else {
        return Ok(());
    };
    let topic = unique("old");
    kafka.create_topic(&topic, 2, 1, &[]).await?;
    assert_eq!(kafka.tools().describe_topic(&topic).await?.len(), 2);
    let sent = [Message::value("v").key("k"), Message::value("w").key("k")];
    kafka.tools().produce(&topic, &sent, &[("acks", "all")]).await?;
    let consumed = kafka.tools().consume(&topic, 2, &[]).await?;
    assert_eq!(consumed.into_iter().map(|record| record.message).collect::<Vec<_>>(), sent);
    let protocols = match version.split('.').next() {
        Some("2" | "3") => &[GroupProtocol::Classic][..],
        _ => &[GroupProtocol::Classic, GroupProtocol::Consumer],
    };
    // The first brokers without ZooKeeper, 2.8's, assign no producer ids.
    let topic = write(&kafka, !version.starts_with("2.8")).await;
    for protocol in protocols {
        read(&kafka, &topic, *protocol).await;
    }
    Ok(())
}

/// Produces, with idempotence if the broker supports it.
async fn write(kafka: &Kafka, idempotence: bool) -> String {
    let topic = unique("ottla");
    kafka.create_topic(&topic, 3, 1, &[]).await.expect("a topic");
    let builder = Producer::builder(kafka.bootstrap()).idempotence(idempotence);
    let producer = builder.build().await.expect("a producer");
    let mut deliveries = Vec::new();
    for n in 0..300 {
        let value = format!("{n}");
        let record = Record::to(topic.as_str()).with_partition(n % 3).with_value(&value).with_header("n", &value);
        deliveries.push(producer.send(record).await.expect("room"));
    }
    for delivery in deliveries {
        delivery.await.expect("an acknowledgement");
    }
    producer.close(Duration::from_secs(10)).await.expect("a close");
    topic
}

/// Reads the topic as a group member, commits, and looks the offsets up: the client agrees with
/// this broker on the versions of all requests that this needs.
async fn read(kafka: &Kafka, topic: &str, protocol: GroupProtocol) {
    let builder = Consumer::builder(kafka.bootstrap()).group(unique("group")).group_protocol(protocol);
    let consumer = builder.auto_offset_reset(OffsetReset::Earliest).build().await.expect("a consumer");
    consumer.subscribe([topic]).expect("a subscription");
    let mut next = [0_i64; 3];
    for _ in 0..300 {
        let record = tokio::time::timeout(Duration::from_secs(60), consumer.recv()).await.expect("a record in time");
        let record = record.expect("no end").expect("no error");
        let partition = record.partition as usize;
        assert_eq!(record.offset, next[partition]);
        assert_eq!(record.value.as_deref(), Some((record.offset * 3 + record.partition as i64).to_string().as_bytes()));
        next[partition] += 1;
    }
    consumer.commit().await.expect("a commit");
    let partitions: Vec<_> = (0..3).map(|partition| TopicPartition::new(topic, partition)).collect();
    let committed = consumer.committed(partitions).await.expect("committed offsets");
    assert!(committed.values().all(|committed| committed.as_ref().is_some_and(|at| at.offset == 100)), "{committed:?}");
    consumer.close(Duration::from_secs(10)).await.expect("a close");
}

#[tokio::test]
async fn round_trips_records_through_kafka_4_3() -> Result<(), Error> {
    round_trip("4.3.1").await
}

#[tokio::test]
async fn round_trips_records_through_kafka_4_1() -> Result<(), Error> {
    round_trip("4.1.1").await
}

#[tokio::test]
async fn round_trips_records_through_kafka_4_0() -> Result<(), Error> {
    round_trip("4.0.1").await
}

#[tokio::test]
async fn round_trips_records_through_kafka_3_9() -> Result<(), Error> {
    round_trip("3.9.2").await
}

#[tokio::test]
async fn round_trips_records_through_kafka_3_7() -> Result<(), Error> {
    round_trip("3.7.2").await
}

#[tokio::test]
async fn round_trips_records_through_kafka_2_8() -> Result<(), Error> {
    round_trip("2.8.2").await
}

#[tokio::test]
async fn unavailable_or_unsupported_version_is_error() {
    for (version, unavailable) in [("4.99.0", true), ("2.7.2", false), ("latest", false)] {
        match Kafka::builder().version(version).start().await {
            Ok(kafka) => panic!("{version} runs at {}", kafka.bootstrap()),
            Err(error) if error.is_unavailable() => assert!(unavailable, "{version}: {error}"),
            Err(error) => assert!(matches!(error, Error::Unfit(_)), "{version}: {error}"),
        }
    }
}
