//! Measures the cost of reading records that have already arrived: `cargo bench --bench poll`.
//!
//! A broker in the process serves the same batches without end. The consumer reads ahead up to its
//! limit; then `poll` and `recv` are timed while they return the buffered records, so that neither
//! the network nor the broker is measured.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use ottla::{
    Consumer, Offset, Record, TopicPartition,
    testkit::{Cluster, Options},
};

const PARTITIONS: i32 = 4;
const ROUNDS: usize = 60;
/// Bytes that are read of each partition: less than the read-ahead.
const BYTES: usize = 1 << 20;

/// Returns a consumer that begins to read ahead.
async fn reading(cluster: &Cluster) -> Consumer {
    let consumer = cluster.consumer().max_partition_fetch_bytes(4 << 20).build().await.expect("a consumer");
    let all = (0..PARTITIONS).map(|partition| (TopicPartition::new("t", partition), Offset::Beginning));
    consumer.assign(all).expect("an assignment");
    consumer
}

async fn read_ahead() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

fn report(what: &str, records: usize, took: Duration) {
    println!("{what:<28} {:>7.1} ns a record, {records} records", took.as_nanos() as f64 / records as f64);
}

async fn measure(size: usize) {
    let cluster = Cluster::start(Options::new().in_memory().default_partitions(PARTITIONS)).await.expect("a cluster");
    cluster.create_topic("t", PARTITIONS).expect("a topic");
    let value = vec![b'x'; size];
    let batch: Vec<_> = (0..(16_000 / size).max(1)).map(|_| Record::to("t").with_value(&value[..])).collect();
    for partition in 0..PARTITIONS {
        for _ in 0..BYTES / 16_000 {
            cluster.append("t", partition, &batch).expect("a place in the log");
        }
    }

    let (mut count, mut took, mut sum) = (0, Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        let consumer = reading(&cluster).await;
        read_ahead().await;
        let started = Instant::now();
        loop {
            let records = consumer.poll(Duration::ZERO).await.expect("records");
            if records.is_empty() {
                break;
            }
            for record in &records {
                sum += record.value().map_or(0, <[u8]>::len);
                count += 1;
            }
        }
        took += started.elapsed();
    }
    black_box(sum);
    report(&format!("poll, {size} B"), count, took);

    // Iterates over the same few records again and again: no memory to wait for, no checksum.
    let consumer = reading(&cluster).await;
    let records = consumer.poll(Duration::from_secs(10)).await.expect("records");
    let (mut count, started) = (0, Instant::now());
    for _ in 0..5_000 {
        for record in &records {
            black_box(record.value());
            count += 1;
        }
    }
    report(&format!("iterate, {size} B"), count, started.elapsed());
    drop(records);

    let (mut count, mut took) = (0, Duration::ZERO);
    for _ in 0..ROUNDS {
        let consumer = reading(&cluster).await;
        read_ahead().await;
        let started = Instant::now();
        for _ in 0..3 * (BYTES / size) {
            let record = consumer.recv().await.expect("not the end").expect("a record");
            black_box(&record);
            count += 1;
        }
        took += started.elapsed();
    }
    report(&format!("recv, {size} B"), count, took);
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for size in [100, 1000] {
        runtime.block_on(measure(size));
    }
}
