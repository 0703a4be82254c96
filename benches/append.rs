//! What `try_send` of a small record costs its caller, from the record to the full batch: nanoseconds a record.
//!
//! One thread: the producer's task sleeps while records are timed and sends them afterwards, to a broker in the process
//! that keeps nothing.

use std::{hint::black_box, time::Instant};

use ottla::{
    Producer, Record,
    testkit::{Cluster, Options},
};

/// Few enough for the allocator to give freed batches out again, as it does in a program that runs on.
const RECORDS: u32 = 10_000;
const ROUNDS: usize = 101;

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
        let producer =
            Producer::builder(cluster.bootstrap()).network(cluster.network()).buffer_memory(1 << 30).build().await?;
        producer.send(Record::to("orders").value(&value)).await?.await?;
        let mut rounds = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let start = Instant::now();
            for _ in 0..RECORDS {
                let mut record = Record::to("orders").value(black_box(&value));
                if let Some(key) = key {
                    record = record.key(black_box(key));
                }
                if let Some(partition) = partition {
                    record = record.partition(partition);
                }
                let _delivery = black_box(producer.try_send(record)?);
            }
            rounds.push(start.elapsed().as_nanos() as f64 / f64::from(RECORDS));
            assert_eq!(producer.flush(std::time::Duration::from_secs(60)).await, 0);
        }
        rounds.sort_by(f64::total_cmp);
        println!("{name}: {:.0} ns a record (best {:.0})", rounds[ROUNDS / 2], rounds[0]);
        producer.close(std::time::Duration::from_secs(10)).await?;
    }
    Ok(())
}
