//! Tests of the producer's parts together: against a model of a broker, and against the embedded
//! one.

mod buffer;
mod closing;
mod codec_panics;
mod cut_off;
mod delivery;
mod ends;
mod estimate;
mod faults;
mod flush;
mod growing;
mod hostile;
mod interceptors;
mod log_events;
mod log_lines;
mod many_topics;
mod metrics;
mod model;
mod model_broker;
mod no_acks;
mod purge;
mod queue;
mod refused;
mod reports;
mod results;
mod sequences;
mod spreading;
mod stale;
mod topics;
mod transactions;
mod unwritten;
mod waiting;

use std::time::Duration;

use super::{Delivery, Producer, ProducerBuilder};
use crate::{
    error::Error,
    record::{Record, RecordMetadata},
    testkit::{Cluster, Options},
};

const TOPIC: &str = "orders";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Starts a cluster of one broker on a network of its own, with a topic of `partitions` partitions.
async fn cluster(partitions: i32) -> Cluster {
    cluster_with(Options::new(), partitions).await
}

async fn cluster_with(options: Options, partitions: i32) -> Cluster {
    let cluster = Cluster::start(options.in_memory()).await.unwrap();
    cluster.create_topic(TOPIC, partitions).unwrap();
    cluster
}

fn builder(cluster: &Cluster) -> ProducerBuilder {
    cluster.producer().seed(7)
}

async fn producer(cluster: &Cluster) -> Producer {
    builder(cluster).build().await.unwrap()
}

/// Creates a producer that sends what is appended only when it is flushed, closed or full.
async fn lingering(cluster: &Cluster) -> Producer {
    let builder = builder(cluster).linger(Duration::from_secs(3600)).delivery_timeout(Duration::from_secs(7200));
    builder.build().await.unwrap()
}

/// Sends the values "from", "from + 1", … to partition 0.
async fn send_numbers(producer: &Producer, numbers: std::ops::Range<u64>) -> Vec<Delivery> {
    let mut deliveries = Vec::new();
    for number in numbers {
        let record = Record::to(TOPIC).with_partition(0).with_value(number.to_string());
        deliveries.push(producer.send(record).await.unwrap());
    }
    deliveries
}

async fn results(deliveries: Vec<Delivery>) -> Vec<Result<RecordMetadata, Error>> {
    let mut results = Vec::new();
    for delivery in deliveries {
        results.push(delivery.await);
    }
    results
}

/// Asserts that all records were delivered.
async fn delivered(deliveries: Vec<Delivery>) {
    for (n, result) in results(deliveries).await.into_iter().enumerate() {
        result.unwrap_or_else(|error| panic!("record {n}: {error}"));
    }
}

/// Returns the values in the log of a partition, as text.
fn log(cluster: &Cluster, partition: i32) -> Vec<String> {
    let records = cluster.records(TOPIC, partition).unwrap();
    records.into_iter().map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()).collect()
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}
