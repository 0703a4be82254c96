//! Tests of topics that get more partitions, or fewer, while records are sent.

use std::collections::HashMap;

use super::*;
use crate::{
    ErrorKind,
    producer::{CustomPartitioner, PartitionChoice, Partitioner, TopicSnapshot},
};

const KEYS: u64 = 7;

async fn restless(cluster: &Cluster) -> Producer {
    let builder = builder(cluster).property("metadata.max.age.ms", "200").batch_size(300);
    builder.request_timeout(ms(5000)).delivery_timeout(ms(60_000)).build().await.unwrap()
}

/// Sends numbers, half of them with one of a few keys.
async fn flow(producer: &Producer, numbers: std::ops::Range<u64>) -> Vec<(u64, Delivery)> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let mut record = Record::to(TOPIC).with_value(number.to_string());
        if number % 2 == 0 {
            record = record.with_key((number % KEYS).to_string());
        }
        deliveries.push((number, producer.send(record).await.unwrap()));
        if number % 20 == 0 {
            tokio::time::sleep(ms(10)).await;
        }
    }
    deliveries
}

/// Returns the position of each number in the topic. Asserts that the numbers of a partition are in
/// the order of sending, and that none occurs twice.
#[track_caller]
fn places(cluster: &Cluster, partitions: i32) -> HashMap<u64, (i32, i64)> {
    let mut places = HashMap::new();
    for partition in 0..partitions {
        let numbers: Vec<u64> = log(cluster, partition).iter().map(|value| value.parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "in {partition}: {numbers:?}");
        for (offset, number) in (0..).zip(numbers) {
            assert_eq!(places.insert(number, (partition, offset)), None, "{number} is there twice");
        }
    }
    places
}

#[tokio::test(start_paused = true)]
async fn added_partitions_receive_records_exactly_once() {
    let cluster = cluster(3).await;
    let producer = restless(&cluster).await;
    let mut deliveries = flow(&producer, 0..400).await;
    cluster.add_partitions(TOPIC, 6).unwrap();
    deliveries.extend(flow(&producer, 400..1600).await);
    let mut told = HashMap::new();
    for (number, delivery) in deliveries {
        let at = delivery.await.unwrap();
        told.insert(number, (at.partition, at.offset.unwrap()));
    }
    assert_eq!(places(&cluster, 6), told);
    assert_eq!(told.len(), 1600);
    for partition in 3..6 {
        assert!(cluster.log_end(TOPIC, partition).unwrap() > 0, "nothing goes to partition {partition}");
    }
    // A key stays in its partition as long as the number of partitions does not change.
    for range in [0..400, 1000..1600] {
        let mut homes = HashMap::new();
        for number in range.step_by(2) {
            let partition = told[&number].0;
            assert_eq!(*homes.entry(number % KEYS).or_insert(partition), partition, "of key {}", number % KEYS);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_with_fewer_partitions_loses_nothing() {
    let cluster = cluster_with(Options::new().auto_create(false), 6).await;
    let producer = restless(&cluster).await;
    for (_, delivery) in flow(&producer, 0..400).await {
        delivery.await.unwrap();
    }
    assert_eq!(places(&cluster, 6).len(), 400);
    // Records in flight meanwhile may have been acknowledged by the deleted topic.
    let passing = flow(&producer, 400..500).await;
    cluster.delete_topic(TOPIC).unwrap();
    let mut deliveries = flow(&producer, 500..600).await;
    tokio::time::sleep(ms(500)).await;
    cluster.create_topic(TOPIC, 2).unwrap();
    deliveries.extend(flow(&producer, 600..1000).await);
    tokio::time::sleep(ms(2000)).await;
    cluster.add_partitions(TOPIC, 6).unwrap();
    deliveries.extend(flow(&producer, 1000..2000).await);
    for (_, delivery) in passing {
        let _ = tokio::time::timeout(Duration::from_secs(70), delivery).await.expect("it hangs");
    }
    let (mut told, mut failed) = (HashMap::new(), Vec::new());
    for (number, delivery) in deliveries {
        match tokio::time::timeout(Duration::from_secs(70), delivery).await.expect("it hangs") {
            Ok(at) => drop(told.insert(number, (at.partition, at.offset))),
            Err(error) => failed.push((number, error)),
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
    let places = places(&cluster, 6);
    for (number, (partition, offset)) in &told {
        let (at, place) = places.get(number).unwrap_or_else(|| panic!("{number} is lost: told {partition} {offset:?}"));
        assert_eq!((at, Some(*place)), (partition, *offset), "{number}");
    }
    for partition in 2..6 {
        let at =
            producer.send(Record::to(TOPIC).with_partition(partition).with_value("9999")).await.unwrap().await.unwrap();
        assert!(at.offset.unwrap() > 0, "nothing went to partition {partition} before");
    }
    producer.close(ms(5000)).await.unwrap();
}

/// Chooses the partition that the record's key names.
#[derive(Debug)]
struct AsTold;

impl CustomPartitioner for AsTold {
    fn partition(&self, record: &Record<'_>, _: &TopicSnapshot<'_>) -> PartitionChoice {
        let said = record.key().map(|key| std::str::from_utf8(key).unwrap().parse().unwrap());
        said.map_or(PartitionChoice::Any, PartitionChoice::Partition)
    }
}

#[tokio::test(start_paused = true)]
async fn partitioner_choice_out_of_range_is_rejected() {
    let cluster = cluster(3).await;
    let producer = builder(&cluster).partitioner(Partitioner::custom(AsTold)).build().await.unwrap();
    let keyed = |key: i32| Record::to(TOPIC).with_key(key.to_string()).with_value("0");
    for topic_is_known in [false, true] {
        for wrong in [3, -1, i32::MAX, i32::MIN] {
            let error = match producer.send(keyed(wrong)).await {
                // The record waits for the topic, because its partitions are not known yet.
                Ok(delivery) if !topic_is_known => delivery.await.unwrap_err(),
                Ok(_) => panic!("{wrong} was taken"),
                Err(error) => error,
            };
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
            assert!(error.to_string().contains(&wrong.to_string()), "{error}");
        }
        if topic_is_known {
            let refused = producer.try_send(keyed(7)).unwrap_err();
            assert_eq!((refused.error().kind(), refused.into_record()), (ErrorKind::InvalidArgument, keyed(7)));
        }
        assert_eq!(producer.send(keyed(2)).await.unwrap().await.unwrap().partition, 2);
        producer.send(Record::to(TOPIC).with_value("0")).await.unwrap().await.unwrap();
    }
    cluster.add_partitions(TOPIC, 5).unwrap();
    while producer.partitions_for(TOPIC).await.unwrap().len() < 5 {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    assert_eq!(producer.send(keyed(3)).await.unwrap().await.unwrap().partition, 3);
}
