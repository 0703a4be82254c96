//! Measures the cost of `try_send` and `send_batch` of small records for their caller, from the
//! record to the full batch, in nanoseconds per record.
//!
//! There is one thread: the producer's task sleeps while records are timed, and sends them
//! afterwards to a broker in the process that keeps no records.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use ottla::{
    Record,
    testkit::{Cluster, Options},
};

/// Number of records, small enough for the allocator to reuse freed batches, as it does in a
/// program that runs on.
const RECORDS: u32 = 10_000;
const ROUNDS: usize = 101;
/// Records of one `send_batch`.
const AT_ONCE: u32 = 500;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ottla::Result<()> {
    let cluster = Cluster::start(Options::new().in_memory().sink(true)).await?;
    cluster.create_topic("orders", 4)?;
    let value = [b'x'; 100];
    for (name, key, partition) in [
        ("no key, any partition", None, None),
        ("no key, one partition", None, Some(1)),
        ("a key of 8 bytes", Some(b"customer"), None),
    ] {
        let producer = cluster.producer().buffer_memory(1 << 30).build().await?;
        producer.send(Record::to("orders").with_value(&value)).await?.await?;
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..RECORDS {
                let _delivery = black_box(producer.try_send(record(black_box(&value), key, partition))?);
            }
            rounds.push(start.elapsed());
            assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
        }
        report(name, rounds);
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..RECORDS / AT_ONCE {
                let records = (0..AT_ONCE).map(|_| record(black_box(&value), key, partition));
                let _deliveries = black_box(producer.send_batch(records).await);
            }
            rounds.push(start.elapsed());
            assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
        }
        report(&format!("{name}, {AT_ONCE} at once"), rounds);
        producer.close(Duration::from_secs(10)).await?;
    }
    Ok(())
}

fn record<'a>(value: &'a [u8], key: Option<&'a [u8; 8]>, partition: Option<i32>) -> Record<'a> {
    let mut record = Record::to("orders").with_value(value);
    if let Some(key) = key {
        record = record.with_key(black_box(key));
    }
    if let Some(partition) = partition {
        record = record.with_partition(partition);
    }
    record
}

fn report(name: &str, mut rounds: Vec<Duration>) {
    rounds.sort();
    let nanos = |time: Duration| time.as_nanos() as f64 / f64::from(RECORDS);
    println!("{name}: {:.0} ns a record (best {:.0})", nanos(rounds[ROUNDS / 2]), nanos(rounds[0]));
}
