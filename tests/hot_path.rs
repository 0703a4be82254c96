//! Bounds the allocations for a record and a batch, from `send` to the acknowledgement: they are
//! counted, so that the machine's load does not matter.
//!
//! The broker is a process of its own, so that only the client's allocations are counted. There is
//! only one test, because another one in the same process would be counted too.

mod broker;

use std::{alloc::System, time::Duration};

use broker::Broker;
use ottla::{Producer, Record};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: usize = 200_000;
const AT_ONCE: usize = 1_000;
/// Maximum number of records in the buffer, like in a program that sends steadily, and unlike one
/// that fills all memory first.
const BEHIND: usize = 20_000;

/// Returns the allocations and reallocations of a run.
fn counted(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

/// Returns the number of batches that were sent.
fn batches(producer: &Producer) -> usize {
    usize::try_from(producer.metrics().batch_records.count()).expect("a count")
}

async fn one_by_one(producer: &Producer, value: &[u8]) {
    for n in 1..=RECORDS {
        let delivery = producer.send(Record::to("orders").with_value(value)).await.expect("room");
        if n.is_multiple_of(BEHIND) {
            delivery.await.expect("acknowledged");
        }
    }
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
}

async fn many_at_once(producer: &Producer, value: &[u8]) {
    for n in 1..=RECORDS / AT_ONCE {
        let deliveries = producer.send_batch((0..AT_ONCE).map(|_| Record::to("orders").with_value(value))).await;
        if (n * AT_ONCE).is_multiple_of(BEHIND) {
            deliveries.await.ok().expect("acknowledged");
        }
    }
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
}

#[tokio::test]
async fn allocates_per_batch_but_not_per_record() {
    // The default size, and Java's; more batches of the latter share the cost of a request.
    for batch_size in [256 * 1024, 16 * 1024] {
        hold(batch_size).await;
    }
}

async fn hold(batch_size: usize) {
    let sink = Broker::start(["--topic", "orders:4"]);
    let builder = Producer::builder(sink.address.as_str()).batch_size(batch_size);
    let producer = builder.build().await.expect("a producer");
    let value = [b'x'; 100];
    one_by_one(&producer, &value).await;
    many_at_once(&producer, &value).await;

    let before = batches(&producer);
    let region = Region::new(ALLOCATOR);
    one_by_one(&producer, &value).await;
    let single = counted(&region);
    let single_batches = batches(&producer) - before;
    println!(
        "send: {single} allocations for {RECORDS} records in {single_batches} batches, {:.2} a batch",
        single as f64 / single_batches as f64
    );
    let before = batches(&producer);
    let region = Region::new(ALLOCATOR);
    many_at_once(&producer, &value).await;
    let run = counted(&region);
    let run_batches = batches(&producer) - before;
    println!(
        "send_batch: {run} allocations for {RECORDS} records in {run_batches} batches, {:.2} a batch",
        run as f64 / run_batches as f64
    );

    assert!(single <= 4 * single_batches, "{single} allocations for {single_batches} batches of {RECORDS} records");
    // Each call has a few lists of its own.
    let calls = RECORDS / AT_ONCE;
    assert!(run <= 4 * (run_batches + calls), "{run} allocations for {run_batches} batches in {calls} calls");
    producer.close(Duration::from_secs(10)).await.expect("closed");
}
