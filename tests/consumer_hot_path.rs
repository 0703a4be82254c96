//! Bounds the allocations for a record and a batch, from the broker's response to the reader: they
//! are counted, so that the machine's load does not matter.
//!
//! The broker is a process of its own, so that only the client's allocations are counted. There is
//! only one test, because another one in the same process would be counted too.

mod broker;

use std::{alloc::System, time::Duration};

use broker::{BATCH, Broker, PARTITIONS};
use ottla::{Consumer, TopicPartition};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: usize = 500_000;

/// Returns the allocations and reallocations of a run.
fn counted(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

/// Reads `records` records by polls; returns the number of polls.
async fn by_polls(consumer: &Consumer, records: usize) -> usize {
    let (mut read, mut polls, mut bytes) = (0, 0, 0);
    while read < records {
        let batch = consumer.poll(Duration::from_secs(10)).await.expect("no error");
        for record in &batch {
            bytes += record.value().map_or(0, <[u8]>::len);
            read += 1;
        }
        polls += 1;
    }
    assert_eq!(bytes, read * 100);
    polls
}

async fn one_by_one(consumer: &Consumer, records: usize) {
    for _ in 0..records {
        let record = consumer.recv().await.expect("not the end").expect("no error");
        assert_eq!(record.value.as_ref().map(|value| value.len()), Some(100));
    }
}

#[tokio::test]
async fn allocates_per_batch_but_not_per_record() {
    let source = Broker::source();
    let consumer = Consumer::builder(source.address.as_str()).build().await.expect("a consumer");
    consumer.assign((0..PARTITIONS).map(|partition| (TopicPartition::new("orders", partition), 0))).expect("assigned");
    by_polls(&consumer, RECORDS).await;
    one_by_one(&consumer, RECORDS / 10).await;

    let region = Region::new(ALLOCATOR);
    let polls = by_polls(&consumer, RECORDS).await;
    let polled = counted(&region);
    println!(
        "poll: {polled} allocations for {RECORDS} records in {polls} polls and {} batches, {:.2} a poll",
        RECORDS / BATCH,
        polled as f64 / polls as f64
    );
    let region = Region::new(ALLOCATOR);
    one_by_one(&consumer, RECORDS).await;
    let received = counted(&region);
    println!(
        "recv: {received} allocations for {RECORDS} records in {} batches, {:.4} a record",
        RECORDS / BATCH,
        received as f64 / RECORDS as f64
    );

    // A poll has its list of batches, a response its buffer and lists, and each of its slices its
    // batches: no allocation is per record.
    assert!(polled <= 6 * polls, "{polled} allocations in {polls} polls of {RECORDS} records");
    assert!(received * 20 <= RECORDS, "{received} allocations for {RECORDS} records");
    consumer.close(Duration::from_secs(10)).await.expect("closed");
}
