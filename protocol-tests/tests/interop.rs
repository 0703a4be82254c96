//! Each client reads the records that the others write: Ottla, librdkafka (kcat) and Kafka's own
//! console tools, with every codec.

#![cfg(unix)]

mod common;

use std::time::Duration;

use ottla::{Consumer, ConsumerRecord, Offset, Producer, Record, TopicPartition, consumer::OffsetReset};
use protocol_tests::{Consumed, Kafka, Message, has_producer_ids, kcat::Kcat, needs, or_skip, shared, unique};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Returns messages with every part of a record that all of these clients can carry.
fn messages(count: usize) -> Vec<Message> {
    (0..count)
        .map(|n| {
            let value = format!("value {n} {}", "words that repeat and so compress ".repeat(n % 7));
            let message = Message::value(value).key(format!("key-{}", n % 13));
            message.header("trace", "a1b2").header("again", "one").header("again", "two")
        })
        .collect()
}

async fn producer(kafka: &Kafka, codec: &str) -> Producer {
    let properties = [
        ("bootstrap.servers", kafka.bootstrap()),
        ("compression.type", codec.to_owned()),
        ("enable.idempotence", has_producer_ids().to_string()),
    ];
    Producer::from_properties(properties).await.unwrap()
}

/// Sends through Ottla and waits for every acknowledgement.
async fn write(kafka: &Kafka, topic: &str, codec: &str, messages: &[Message]) {
    let producer = producer(kafka, codec).await;
    let mut deliveries = Vec::new();
    for message in messages {
        deliveries.push(producer.send(common::record(topic, message)).await.unwrap());
    }
    for (n, delivery) in deliveries.into_iter().enumerate() {
        let at = delivery.await.unwrap();
        assert_eq!(at.offset, Some(n as i64), "one partition, in order");
    }
    producer.close(Duration::from_secs(10)).await.unwrap();
}

fn message(record: &ConsumerRecord) -> Message {
    Message {
        key: record.key.as_ref().map(|bytes| bytes.to_vec()),
        value: record.value.as_ref().map(|bytes| bytes.to_vec()),
        headers: record
            .headers
            .iter()
            .map(|header| (header.name.clone(), header.value.as_ref().map(|bytes| bytes.to_vec())))
            .collect(),
    }
}

/// Reads `count` records of partition 0 through Ottla.
async fn read(kafka: &Kafka, topic: &str, count: usize) -> Vec<Message> {
    let consumer = Consumer::builder(kafka.bootstrap()).build().await.unwrap();
    consumer.assign([(TopicPartition::new(topic, 0), Offset::Beginning)]).unwrap();
    let mut found = Vec::new();
    while found.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(30), consumer.recv()).await;
        let record = next.expect("records within 30 s").expect("no end").expect("no error");
        assert_eq!(record.offset, found.len() as i64);
        found.push(message(&record));
    }
    consumer.close(Duration::from_secs(10)).await.unwrap();
    found
}

fn bodies(consumed: &[Consumed]) -> Vec<Message> {
    consumed.iter().map(|consumed| consumed.message.clone()).collect()
}

#[tokio::test]
async fn java_and_kcat_read_ottla_records() {
    let Some(kafka) = shared().await else { return };
    let messages = messages(200);
    for codec in CODECS {
        let topic = unique(&format!("ours-{codec}"));
        kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
        write(kafka, &topic, codec, &messages).await;
        let java = kafka.tools().consume(&topic, messages.len(), &[]).await.unwrap();
        assert_eq!(bodies(&java), messages, "Kafka's console consumer reads {codec}");
        if let Some(kcat) = or_skip(Kcat::find(kafka.bootstrap())) {
            let theirs = kcat.consume(&topic, &[("check.crcs", "true")]).await.unwrap();
            assert_eq!(bodies(&theirs), messages, "kcat reads {codec}");
        }
        assert_eq!(read(kafka, &topic, messages.len()).await, messages, "Ottla reads {codec}");
    }
}

#[tokio::test]
async fn ottla_reads_kcat_records_in_every_codec() {
    let Some(kafka) = shared().await else { return };
    let Some(kcat) = or_skip(Kcat::find(kafka.bootstrap())) else { return };
    let messages = messages(200);
    for codec in CODECS {
        let topic = unique(&format!("kcat-{codec}"));
        kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
        kcat.produce(&topic, &messages, &[("compression.codec", codec)]).await.unwrap();
        assert_eq!(read(kafka, &topic, messages.len()).await, messages, "{codec}");
    }
}

#[tokio::test]
async fn ottla_reads_java_records_in_every_codec() {
    if !needs("3.2", "headers in the console producer (KIP-798)") {
        return;
    }
    let Some(kafka) = shared().await else { return };
    let messages = messages(200);
    for codec in CODECS {
        let topic = unique(&format!("java-{codec}"));
        kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
        kafka.tools().produce(&topic, &messages, &[("compression.type", codec)]).await.unwrap();
        assert_eq!(read(kafka, &topic, messages.len()).await, messages, "{codec}");
    }
}

#[tokio::test]
async fn round_trips_nulls_empties_and_unusual_headers() {
    let Some(kafka) = shared().await else { return };
    let messages = vec![
        Message { key: None, value: None, headers: vec![] },
        Message { key: Some(vec![]), value: Some(vec![]), headers: vec![(String::new(), Some(vec![]))] },
        Message {
            key: Some(vec![0xff, 0x00]),
            value: None,
            headers: vec![("null".into(), None), ("ü".into(), Some(vec![0xfe]))],
        },
        Message::value(vec![7; 300_000]),
    ];
    for codec in CODECS {
        let topic = unique("odd");
        kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
        write(kafka, &topic, codec, &messages).await;
        assert_eq!(read(kafka, &topic, messages.len()).await, messages, "{codec}");
    }
}

#[tokio::test]
async fn log_append_time_is_reported_and_read() {
    let Some(kafka) = shared().await else { return };
    let topic = unique("append-time");
    kafka.create_topic(&topic, 1, 1, &[("message.timestamp.type", "LogAppendTime")]).await.unwrap();
    let producer = producer(kafka, "none").await;
    let record = Record::to(topic.as_str()).with_value("v").with_timestamp_millis(1_000);
    let at = producer.send(record).await.unwrap().await.unwrap();
    assert!(at.timestamp_millis > 1_000_000_000_000, "the broker's time, not the producer's");
    let consumer = Consumer::builder(kafka.bootstrap()).build().await.unwrap();
    consumer.assign([(TopicPartition::new(topic.as_str(), 0), Offset::Beginning)]).unwrap();
    let record = consumer.recv().await.unwrap().unwrap();
    assert_eq!(record.timestamp_type, ottla::record::TimestampType::LogAppendTime);
    assert_eq!(record.timestamp_millis, at.timestamp_millis);
}

#[tokio::test]
async fn group_shares_partitions_and_resumes_from_commits() {
    let Some(kafka) = shared().await else { return };
    let (topic, group) = (unique("shared"), unique("group"));
    kafka.create_topic(&topic, 4, 1, &[]).await.unwrap();
    let member = async || {
        let builder = Consumer::builder(kafka.bootstrap()).group(group.as_str());
        let consumer = builder.auto_offset_reset(OffsetReset::Earliest).build().await.unwrap();
        consumer.subscribe([topic.as_str()]).unwrap();
        consumer
    };
    let producer = producer(kafka, "none").await;
    for n in 0..400 {
        let value = n.to_string();
        drop(producer.send(Record::to(topic.as_str()).with_partition(n % 4).with_value(&value)).await.unwrap());
    }
    assert_eq!(producer.flush(Duration::from_secs(30)).await, 0);

    let (first, second) = (member().await, member().await);
    let read_some = async |consumer: &Consumer, wanted: usize| {
        let mut found = Vec::new();
        while found.len() < wanted {
            match tokio::time::timeout(Duration::from_secs(15), consumer.recv()).await {
                Ok(Some(Ok(record))) => found.push((record.partition, record.offset)),
                Ok(Some(Err(error))) => panic!("{error:?}"),
                Ok(None) | Err(_) => break,
            }
        }
        found
    };
    // Both read until no more records arrive; together they have all. Records of a partition that
    // moved while it was being read may be repeated.
    let (a, b) = tokio::join!(read_some(&first, usize::MAX), read_some(&second, usize::MAX));
    let mut all: Vec<_> = a.iter().chain(&b).copied().collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 400, "every record was read");
    first.close(Duration::from_secs(10)).await.unwrap();
    second.close(Duration::from_secs(10)).await.unwrap();

    // A member that joins later continues after the offsets that both committed.
    let value = "later";
    producer.send(Record::to(topic.as_str()).with_partition(2).with_value(value)).await.unwrap().await.unwrap();
    let third = member().await;
    assert_eq!(read_some(&third, 1).await, [(2, 100)]);
    third.close(Duration::from_secs(10)).await.unwrap();
}
