//! Tests of metadata that is stale, or of another cluster.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::*;
use crate::{
    error::ErrorCode,
    net::{BoxFuture, Endpoint, MemoryNetwork, Network, Stream},
    testkit::tampered::tampered,
    tests::named_network::NamedNetwork,
    wire::{ApiKey, messages::MetadataResponse},
};

/// Sends numbers to two partitions in turn, and returns their deliveries.
async fn to_both(producer: &Producer, numbers: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::to(TOPIC).with_partition((number % 2) as i32).with_value(number.to_string());
        deliveries.push(producer.send(record).await.unwrap());
        tokio::time::sleep(ms(1)).await;
    }
    deliveries
}

/// Asserts that all numbers were delivered, each once and in order.
async fn both_have_all(cluster: &Cluster, deliveries: Vec<Delivery>) {
    let count = deliveries.len() as u64;
    delivered(deliveries).await;
    for partition in 0..2u64 {
        let expected: Vec<String> = (0..count).filter(|n| n % 2 == partition).map(|n| n.to_string()).collect();
        assert_eq!(log(cluster, partition as i32), expected, "{partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn new_partition_with_error_is_requested_again() {
    let cluster = cluster(1).await;
    let rounds = AtomicU64::new(0);
    let network = tampered(&cluster, ApiKey::Metadata, move |_, _, response: &mut MetadataResponse| {
        for topic in response.topics.iter_mut().filter(|topic| topic.partitions.len() == 2) {
            if rounds.fetch_add(1, Ordering::Relaxed) < 4 {
                for partition in topic.partitions.iter_mut().filter(|partition| partition.partition_index == 1) {
                    partition.error_code = ErrorCode::LEADER_NOT_AVAILABLE.code();
                    partition.leader_id = -1;
                }
            }
        }
    });
    let producer = builder(&cluster).network(network).build().await.unwrap();
    // The first metadata that includes the partition has an error for it.
    let mut deliveries = to_both(&producer, 0..2).await;
    tokio::time::sleep(ms(500)).await;
    cluster.add_partitions(TOPIC, 2).unwrap();
    deliveries.extend(to_both(&producer, 2..100).await);
    both_have_all(&cluster, deliveries).await;
    assert!(cluster.requests(ApiKey::Metadata) < 30);
}

#[tokio::test(start_paused = true)]
async fn stale_metadata_fails_no_partition_records() {
    let cluster = cluster(2).await;
    let behind = Arc::new(AtomicBool::new(false));
    let now_and_then = behind.clone();
    let network = tampered(&cluster, ApiKey::Metadata, move |round, _, response: &mut MetadataResponse| {
        if now_and_then.load(Ordering::Relaxed) && round % 2 == 1 {
            for topic in &mut response.topics {
                topic.partitions.retain(|partition| partition.partition_index == 0);
            }
        }
    });
    let builder = builder(&cluster).network(network).max_block(ms(2000)).batch_size(100);
    let producer = builder.property("metadata.max.age.ms", "20").build().await.unwrap();
    let mut deliveries = to_both(&producer, 0..20).await;
    behind.store(true, Ordering::Relaxed);
    deliveries.extend(to_both(&producer, 20..1000).await);
    both_have_all(&cluster, deliveries).await;
}

#[tokio::test(start_paused = true)]
async fn rebootstraps_to_replacement_cluster_by_dns_name() {
    let network = MemoryNetwork::new();
    let first = Cluster::start(Options::new().network(network.clone()).brokers(2)).await.unwrap();
    let second = Cluster::start(Options::new().network(network.clone()).seed(99)).await.unwrap();
    for cluster in [&first, &second] {
        cluster.create_topic(TOPIC, 1).unwrap();
    }
    let named = NamedNetwork::new(network, &first);
    let producer = Producer::builder("kafka:9092").network(Arc::new(named.clone())).seed(7);
    let producer = producer.property("metadata.recovery.rebootstrap.trigger.ms", "3000").build().await.unwrap();
    delivered(send_numbers(&producer, 0..100).await).await;
    for broker in first.brokers() {
        first.kill(broker).await.unwrap();
    }
    let mut deliveries = send_numbers(&producer, 100..200).await;
    tokio::time::sleep(ms(1000)).await;
    named.point_to(&second);
    deliveries.extend(send_numbers(&producer, 200..300).await);
    delivered(deliveries).await;
    assert_eq!(log(&first, 0), numbers(0..100));
    assert_eq!(log(&second, 0), numbers(100..300));
}

/// A network on which one address leads to another cluster while it is reused.
#[derive(Clone, Debug)]
struct Reused {
    inner: MemoryNetwork,
    from: SocketAddr,
    to: SocketAddr,
    is_reused: Arc<AtomicBool>,
    /// Number of connections to the reused address that are closed at once.
    hang_ups: Arc<AtomicU64>,
}

impl Network for Reused {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        self.inner.resolve(host, port)
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        let reused = endpoint == self.from.into() && self.is_reused.load(Ordering::Relaxed);
        let left = |left: u64| left.checked_sub(1);
        if reused && self.hang_ups.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok() {
            return Box::pin(async { Ok(Box::new(tokio::io::duplex(64).0) as Box<dyn Stream>) });
        }
        self.inner.connect(if reused { self.to.into() } else { endpoint })
    }
}

/// Starts two clusters with the same topic; the address of the first one's leader leads to the
/// second.
async fn reused_address() -> (Cluster, Cluster, Reused) {
    let inner = MemoryNetwork::new();
    let ours = Cluster::start(Options::new().network(inner.clone()).brokers(2)).await.unwrap();
    let theirs = Options::new().network(inner.clone()).cluster_id("another");
    let theirs = Cluster::start(theirs).await.unwrap();
    for cluster in [&ours, &theirs] {
        cluster.create_topic(TOPIC, 1).unwrap();
    }
    ours.move_leader(TOPIC, 0, 2).unwrap();
    let address = |cluster: &Cluster, broker: usize| {
        let bootstrap = cluster.bootstrap();
        let port = bootstrap.split(',').nth(broker - 1).unwrap().rsplit(':').next().unwrap().to_owned();
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
    };
    let (from, to) = (address(&ours, 2), address(&theirs, 1));
    let network = Reused { inner, from, to, is_reused: Arc::new(AtomicBool::new(true)), hang_ups: Arc::default() };
    (ours, theirs, network)
}

fn at_first_broker(cluster: &Cluster, network: &Reused) -> ProducerBuilder {
    let bootstrap = cluster.bootstrap();
    let first = bootstrap.split(',').next().unwrap();
    Producer::builder(first).network(Arc::new(network.clone())).seed(7)
}

#[tokio::test(start_paused = true)]
async fn reused_address_of_another_cluster_is_left() {
    let (ours, theirs, network) = reused_address().await;
    let producer = at_first_broker(&ours, &network).build().await.unwrap();
    let deliveries = send_numbers(&producer, 0..10).await;
    tokio::time::sleep(ms(60_000)).await;
    assert_eq!(log(&theirs, 0), [""; 0], "nothing is written to the other cluster");
    let asked = theirs.requests(ApiKey::ApiVersions);
    assert!((2..100).contains(&asked), "{asked} connections in a minute");
    let metadata = ours.requests(ApiKey::Metadata);
    assert!(metadata < 200, "{metadata} look-ups in a minute");
    network.is_reused.store(false, Ordering::Relaxed);
    delivered(deliveries).await;
    assert_eq!(log(&ours, 0), numbers(0..10));
    assert_eq!(log(&theirs, 0), [""; 0]);
}

/// Brokers before 0.10 close the connection on newer versions of ApiVersions; a broker that is
/// expected to be newer is not asked again in a version without the cluster check.
#[tokio::test(start_paused = true)]
async fn reused_address_that_hangs_up_is_left() {
    let (ours, theirs, network) = reused_address().await;
    network.hang_ups.store(3, Ordering::Relaxed);
    let producer = at_first_broker(&ours, &network).build().await.unwrap();
    let deliveries = send_numbers(&producer, 0..10).await;
    tokio::time::sleep(ms(20_000)).await;
    assert_eq!(log(&theirs, 0), [""; 0], "nothing is written to the other cluster");
    network.is_reused.store(false, Ordering::Relaxed);
    delivered(deliveries).await;
    assert_eq!(log(&ours, 0), numbers(0..10));
}

/// The check is necessary: without it, the wrong cluster accepts the records.
#[tokio::test(start_paused = true)]
async fn reused_address_is_written_to_without_check() {
    for (name, value) in [("metadata.cluster.check.enable", "false"), ("metadata.recovery.strategy", "none")] {
        let (ours, theirs, network) = reused_address().await;
        let producer = at_first_broker(&ours, &network).property(name, value).build().await.unwrap();
        delivered(send_numbers(&producer, 0..10).await).await;
        assert_eq!(log(&theirs, 0), numbers(0..10), "{name}={value}");
    }
}
