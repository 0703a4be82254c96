//! The program that `scripts/instructions` measures: it does one thing many times, in separately
//! named functions, so that callgrind can count their instructions. Run alone it only does the work
//! and prints the number of units.
//!
//! ```sh
//! scripts/instructions                # the table, and whether every figure is within its bound
//! ```
//!
//! The program has one thread, a clock that stands still and a network in memory, so that the
//! machine's load does not change the counts. The broker and the tasks of producer and consumer are
//! in the process, but none of them runs during a counted function.

use std::{
    hint::black_box,
    pin::pin,
    process::ExitCode,
    task::{Context, Poll},
    time::Duration,
};

use ottla::{
    Consumer, Offset, Producer, Record, TopicPartition,
    testkit::{Cluster, Options},
};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 4;
const VALUE: [u8; 100] = [b'x'; 100];
/// Records of one round, fewer than the buffer can hold.
const RECORDS: usize = 20_000;
const ROUNDS: usize = 5;
/// Records of one `send_batch`.
const AT_ONCE: usize = 500;

/// The number of counted units, and their name.
struct Done {
    units: u64,
    what: &'static str,
}

async fn producer(cluster: &Cluster) -> ottla::Result<Producer> {
    // The bounds are for batches of this size.
    let builder = cluster.producer().batch_size(16_384);
    let producer = builder.build().await?;
    // Afterwards the client is connected, the topic is known, and the memory of a round is
    // allocated.
    for _ in 0..2 {
        for _ in 0..RECORDS {
            drop(producer.send(Record::to(TOPIC).with_value(&VALUE)).await?);
        }
        flushed(&producer).await;
    }
    Ok(producer)
}

/// Counted: appends records to batches, including those that become full.
#[inline(never)]
fn append(producer: &Producer, records: usize) -> ottla::Result<()> {
    for _ in 0..records {
        let _delivery = black_box(producer.try_send(Record::to(TOPIC).with_value(black_box(&VALUE)))?);
    }
    Ok(())
}

/// Counted: appends records like [`append`], many at a time. There is room, so that it never waits.
#[inline(never)]
fn append_at_once(producer: &Producer, cx: &mut Context<'_>, records: usize) {
    for _ in 0..records / AT_ONCE {
        let batch = (0..AT_ONCE).map(|_| Record::to(TOPIC).with_value(black_box(&VALUE)));
        let Poll::Ready(deliveries) = pin!(producer.send_batch(batch)).poll(cx) else { panic!("there is no room") };
        drop(black_box(deliveries));
    }
}

/// Counted: polls the records that were read ahead, and reads every one.
#[inline(never)]
fn read(consumer: &Consumer, cx: &mut Context<'_>) -> u64 {
    let mut count = 0;
    loop {
        let Poll::Ready(records) = pin!(consumer.poll(Duration::ZERO)).poll(cx) else { return count };
        let records = records.expect("records");
        if records.is_empty() {
            return count;
        }
        for record in &records {
            black_box(record.value());
            count += 1;
        }
    }
}

/// Runs a function that may not wait, with a task's context.
async fn now<T>(work: impl FnOnce(&mut Context<'_>) -> T) -> T {
    let mut work = Some(work);
    std::future::poll_fn(move |cx| Poll::Ready(work.take().map(|work| work(cx)))).await.expect("it is polled once")
}

async fn flushed(producer: &Producer) {
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0, "all records are sent");
}

async fn run(what: &str) -> ottla::Result<Option<Done>> {
    let options = Options::new().in_memory().default_partitions(PARTITIONS);
    let records = (ROUNDS * RECORDS) as u64;
    Ok(Some(match what {
        "append" => {
            let cluster = Cluster::start(options.sink(true)).await?;
            let producer = producer(&cluster).await?;
            for _ in 0..ROUNDS {
                append(&producer, RECORDS)?;
                flushed(&producer).await;
            }
            Done { units: records, what: "record" }
        }
        "append_at_once" => {
            let cluster = Cluster::start(options.sink(true)).await?;
            let producer = producer(&cluster).await?;
            for _ in 0..ROUNDS {
                now(|cx| append_at_once(&producer, cx, RECORDS)).await;
                flushed(&producer).await;
            }
            Done { units: records, what: "record" }
        }
        // Counts the work of the producer's task on full batches.
        "request" | "answer" => {
            let cluster = Cluster::start(options.sink(true)).await?;
            let producer = producer(&cluster).await?;
            for _ in 0..ROUNDS {
                append(&producer, RECORDS)?;
                flushed(&producer).await;
            }
            Done { units: producer.metrics().batch_records.count(), what: "batch" }
        }
        "read" => {
            let cluster = Cluster::start(options).await?;
            cluster.create_topic(TOPIC, PARTITIONS)?;
            let batch: Vec<_> = (0..160).map(|_| Record::to(TOPIC).with_value(&VALUE[..])).collect();
            for partition in 0..PARTITIONS {
                for _ in 0..RECORDS / batch.len() {
                    cluster.append(TOPIC, partition, &batch)?;
                }
            }
            let mut units = 0;
            for _ in 0..ROUNDS {
                let consumer = cluster.consumer().build().await?;
                let all = (0..PARTITIONS).map(|index| (TopicPartition::new(TOPIC, index), Offset::Beginning));
                consumer.assign(all)?;
                // Leaves time to read ahead up to the limit.
                tokio::time::sleep(Duration::from_millis(100)).await;
                units += now(|cx| read(&consumer, cx)).await;
            }
            Done { units, what: "record" }
        }
        _ => return Ok(None),
    }))
}

fn main() -> ExitCode {
    let what = std::env::args().nth(1).unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    match runtime.expect("a runtime").block_on(run(&what)) {
        Ok(Some(Done { units, what })) => {
            println!("{units} {what}");
            ExitCode::SUCCESS
        }
        // `cargo bench` names no measurement.
        Ok(None) => {
            eprintln!("usage: instructions append|append_at_once|request|answer|read; see scripts/instructions");
            ExitCode::from(if what.is_empty() || what.starts_with("--") { 0 } else { 2 })
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
