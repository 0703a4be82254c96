//! Tests with a topic that was deleted and created again under its name, and with another cluster
//! that has taken over an address, on a real Kafka: commits by topic id (OffsetCommit 10) and the
//! check of the cluster's id (KIP-1242).

#![cfg(unix)]

#[path = "common/requests.rs"]
mod requests;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ottla::{
    Admin, Consumer, ErrorKind, Offset, Producer, Record, TopicPartition,
    consumer::{ConsumerBuilder, GroupProtocol, OffsetReset},
    net::{BoxFuture, Endpoint, Network, Stream, Tcp},
};
use protocol_tests::{Kafka, at_least, has_producer_ids, needs, or_skip, unique};
use requests::logged;
use tokio::{sync::OnceCell, time::timeout};

const LONG: Duration = Duration::from_secs(60);
/// An address on which no process listens: a test's network maps it to the first cluster.
const BOOTSTRAP: &str = "127.0.0.1:1";
const ANOTHER_CLUSTER: &str = "b3R0bGEtYW5vdGhlci0wMQ";
const UNKNOWN_TOPIC_ID: i16 = 100;

/// Returns the cluster that the tests of this file share, which logs the requests. A deleted topic
/// stays deleted until it is created.
async fn kafka() -> Option<&'static Kafka> {
    static SHARED: OnceCell<Option<Kafka>> = OnceCell::const_new();
    let builder = Kafka::builder().log_requests().config("auto.create.topics.enable", "false");
    SHARED.get_or_init(|| async { or_skip(builder.start().await) }).await.as_ref()
}

fn producer(bootstrap: &str) -> ottla::producer::ProducerBuilder {
    Producer::builder(bootstrap).idempotence(has_producer_ids())
}

async fn write(kafka: &Kafka, topic: &str, count: usize) {
    let producer = producer(&kafka.bootstrap()).build().await.unwrap();
    for n in 0..count {
        producer.send(Record::to(topic).with_partition(0).with_value(n.to_string())).await.unwrap().await.unwrap();
    }
    producer.close(LONG).await.unwrap();
}

fn reader(kafka: &Kafka, group: &str) -> ConsumerBuilder {
    let builder = Consumer::builder(kafka.bootstrap()).group(group).property("enable.auto.commit", "false");
    builder.auto_offset_reset(OffsetReset::Earliest)
}

async fn read(consumer: &Consumer, count: usize) {
    for n in 0..count {
        let record = timeout(LONG, consumer.recv()).await.expect("a record in time").unwrap().unwrap();
        assert_eq!(record.offset, n as i64);
    }
}

/// Returns the committed offset, fetched by a consumer that does not know the topic yet.
async fn committed(kafka: &Kafka, group: &str, partition: &TopicPartition) -> Option<i64> {
    let consumer = reader(kafka, group).build().await.unwrap();
    let found = consumer.committed([partition.clone()]).await.unwrap();
    found[partition].as_ref().map(|committed| committed.offset)
}

/// Lets a consumer read a topic, which is then deleted and created again unnoticed, and checks that
/// its commit has no effect on the new topic.
async fn commit_for_recreated_topic(is_member: bool) {
    let Some(kafka) = kafka().await else { return };
    let (topic, group) = (unique("recreated"), unique("recreated"));
    let partition = TopicPartition::new(topic.as_str(), 0);
    kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
    write(kafka, &topic, 10).await;
    let consumer = reader(kafka, &group).build().await.unwrap();
    if is_member {
        consumer.subscribe([topic.as_str()]).unwrap();
    } else {
        consumer.assign([(partition.clone(), Offset::Beginning)]).unwrap();
    }
    read(&consumer, 10).await;
    // A fetch would notice, so there must be none: the last one ends after fetch.max.wait.ms.
    consumer.pause([&partition]).unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let admin = Admin::builder(kafka.bootstrap()).build().await.unwrap();
    let deleted = admin.delete_topics([topic.as_str()]).await.unwrap();
    deleted.into_result().unwrap();
    kafka.until_topic(&topic, LONG, |topic| topic.error == 3).await.unwrap();
    kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();

    let result = consumer.commit_offsets([(partition.clone(), 10)]).await;
    let found = committed(kafka, &group, &partition).await;
    if at_least("4.2") {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAssigned, "{error}");
        assert!(error.to_string().contains("created again"), "{error}");
        assert_eq!(found, None, "no offset is committed for the new topic");
        let commits = logged(kafka, "OFFSET_COMMIT", &group, 1).await;
        let refused = format!("\"errorCode\":{UNKNOWN_TOPIC_ID}");
        assert!(commits.iter().any(|line| line.contains(&refused)), "the broker refused it: {commits:?}");
    } else {
        // By name (OffsetCommit 9 and older) the broker applies it to the new topic.
        result.unwrap();
        assert_eq!(found, Some(10));
    }
    consumer.close(LONG).await.unwrap();
}

#[tokio::test]
async fn rejects_member_commit_for_recreated_topic() {
    commit_for_recreated_topic(true).await;
}

#[tokio::test]
async fn rejects_nonmember_commit_for_recreated_topic() {
    commit_for_recreated_topic(false).await;
}

#[tokio::test]
async fn both_protocols_commit_by_topic_id() {
    if !needs("4.2", "commits by topic id (OffsetCommit 10)") {
        return;
    }
    let Some(kafka) = kafka().await else { return };
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let (topic, group) = (unique("by-id"), unique("by-id"));
        let partition = TopicPartition::new(topic.as_str(), 0);
        kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
        write(kafka, &topic, 10).await;
        let consumer = reader(kafka, &group).group_protocol(protocol).build().await.unwrap();
        consumer.subscribe([topic.as_str()]).unwrap();
        read(&consumer, 10).await;
        consumer.commit().await.unwrap();
        let found = consumer.committed([partition.clone()]).await.unwrap();
        assert_eq!(found[&partition].as_ref().unwrap().offset, 10);
        consumer.close(LONG).await.unwrap();
        assert_eq!(committed(kafka, &group, &partition).await, Some(10));
        let by_id = |line: &String| line.contains("\"requestApiVersion\":10");
        let commits = logged(kafka, "OFFSET_COMMIT", &group, 1).await;
        assert!(commits.iter().all(by_id), "{protocol:?}: {commits:?}");
        // A look-up before the topic's id is known uses the name.
        let look_ups = logged(kafka, "OFFSET_FETCH", &group, 1).await;
        assert!(look_ups.iter().any(by_id), "{protocol:?}: {look_ups:?}");
    }
}

/// TCP that connects to the second cluster instead of the first cluster's broker while `is_reused`
/// is set. The first cluster is reached through [`BOOTSTRAP`].
#[derive(Clone, Debug)]
struct Reused {
    ours: SocketAddr,
    theirs: SocketAddr,
    is_reused: Arc<AtomicBool>,
}

impl Network for Reused {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        Tcp.resolve(host, port)
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let is_bootstrap = endpoint.to_string() == BOOTSTRAP;
        let is_reused = endpoint.address() == Some(self.ours) && self.is_reused.load(Ordering::Relaxed);
        let to = if is_bootstrap { self.ours.into() } else { endpoint };
        Box::pin(async move { Tcp.connect(if is_reused { self.theirs.into() } else { to }).await })
    }

    fn check_runtime(&self) -> io::Result<()> {
        Tcp.check_runtime()
    }
}

/// Returns the number of records that the topic has had.
async fn end(kafka: &Kafka, topic: &str) -> i64 {
    let consumer = Consumer::builder(kafka.bootstrap()).build().await.unwrap();
    let partition = TopicPartition::new(topic, 0);
    consumer.end_offsets([partition.clone()]).await.unwrap()[&partition]
}

#[tokio::test]
async fn leaves_broker_of_another_cluster() {
    if !needs("4.4", "brokers that compare the cluster's id (KIP-1242)") {
        return;
    }
    let Some(ours) = kafka().await else { return };
    let Some(theirs) = or_skip(Kafka::builder().cluster_id(ANOTHER_CLUSTER).start().await) else { return };
    let network = Reused {
        ours: ours.node(0).address(),
        theirs: theirs.node(0).address(),
        is_reused: Arc::new(AtomicBool::new(true)),
    };
    let topic = unique("reused");
    for kafka in [ours, &theirs] {
        kafka.create_topic(&topic, 1, 1, &[]).await.unwrap();
    }
    let builder = || producer(BOOTSTRAP).network(Arc::new(network.clone()));
    let checking = builder().build().await.unwrap();
    let mut deliveries = Vec::new();
    for n in 0..10 {
        deliveries.push(checking.send(Record::to(&topic).with_partition(0).with_value(n.to_string())).await.unwrap());
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(end(&theirs, &topic).await, 0, "no record is written to the other cluster");
    assert_eq!(end(ours, &topic).await, 0);

    // The check is necessary: without it, records go to the other cluster.
    let unchecking = builder().property("metadata.cluster.check.enable", "false").build().await.unwrap();
    unchecking.send(Record::to(&topic).with_partition(0).with_value("lost")).await.unwrap().await.unwrap();
    unchecking.close(LONG).await.unwrap();
    assert_eq!(end(&theirs, &topic).await, 1);

    network.is_reused.store(false, Ordering::Relaxed);
    for (n, delivery) in deliveries.into_iter().enumerate() {
        assert_eq!(delivery.await.unwrap().offset, Some(n as i64));
    }
    checking.close(LONG).await.unwrap();
    assert_eq!((end(ours, &topic).await, end(&theirs, &topic).await), (10, 1));
}
