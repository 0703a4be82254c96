//! Pictures of the cluster that are behind the truth, or of another cluster altogether.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::*;
use crate::{
    error::ErrorCode,
    net::{BoxFuture, MemoryNetwork, Network, Stream},
    testkit::tampered::tampered,
    wire::{ApiKey, messages::MetadataResponse},
};

/// Sends numbers to two partitions in turn, and gives their results.
async fn to_both(producer: &Producer, numbers: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::to(TOPIC).partition((number % 2) as i32).value(number.to_string());
        deliveries.push(producer.send(record).await.unwrap());
        tokio::time::sleep(ms(1)).await;
    }
    deliveries
}

/// All were delivered, each once and in order.
async fn both_have_all(cluster: &Cluster, deliveries: Vec<Delivery>) {
    let count = deliveries.len() as u64;
    for result in results(deliveries).await {
        result.unwrap();
    }
    for partition in 0..2u64 {
        let expected: Vec<String> = (0..count).filter(|n| n % 2 == partition).map(|n| n.to_string()).collect();
        assert_eq!(log(cluster, partition as i32), expected, "{partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_partition_that_begins_with_an_error_is_asked_for_again() {
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
    // The first metadata that has the partition has an error for it.
    let mut deliveries = to_both(&producer, 0..2).await;
    tokio::time::sleep(ms(500)).await;
    cluster.add_partitions(TOPIC, 2).unwrap();
    deliveries.extend(to_both(&producer, 2..100).await);
    both_have_all(&cluster, deliveries).await;
    assert!(cluster.requests(ApiKey::Metadata) < 30);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_has_not_heard_of_a_new_partition_fails_none_of_its_records() {
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

/// A network on which the name `kafka` stands for one cluster after the other.
#[derive(Clone, Debug)]
struct Named {
    inner: MemoryNetwork,
    stands_for: Arc<Mutex<SocketAddr>>,
}

impl Network for Named {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        let named = *self.stands_for.lock().unwrap();
        if host == "kafka" { Box::pin(async move { Ok(vec![named]) }) } else { self.inner.resolve(host, port) }
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        self.inner.connect(address)
    }
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_replaced_by_another_is_found_by_its_name() {
    let network = MemoryNetwork::new();
    let first = Cluster::start(Options::new().network(network.clone()).brokers(2)).await.unwrap();
    let second = Cluster::start(Options::new().network(network.clone()).seed(99)).await.unwrap();
    for cluster in [&first, &second] {
        cluster.create_topic(TOPIC, 1).unwrap();
    }
    let address = |cluster: &Cluster| {
        let bootstrap = cluster.bootstrap();
        let port = bootstrap.split(',').next().unwrap().rsplit(':').next().unwrap();
        SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
    };
    let named = Named { inner: network, stands_for: Arc::new(Mutex::new(address(&first))) };
    let producer = Producer::builder("kafka:9092").network(Arc::new(named.clone())).seed(7);
    let producer = producer.property("metadata.recovery.rebootstrap.trigger.ms", "3000").build().await.unwrap();
    for result in results(send_numbers(&producer, 0..100).await).await {
        result.unwrap();
    }
    for broker in first.brokers() {
        first.kill(broker).await.unwrap();
    }
    let mut deliveries = send_numbers(&producer, 100..200).await;
    tokio::time::sleep(ms(1000)).await;
    *named.stands_for.lock().unwrap() = address(&second);
    deliveries.extend(send_numbers(&producer, 200..300).await);
    for result in results(deliveries).await {
        result.unwrap();
    }
    assert_eq!(log(&first, 0), numbers(0..100));
    assert_eq!(log(&second, 0), numbers(100..300));
}
