//! Bounds the allocations for a record (without headers) in a worker: none except those of its
//! handler. They are counted, so that the machine's load does not matter.
//!
//! There is only one test, because another one in the same process would be counted too.

mod broker;

use std::{
    alloc::System,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use broker::{Broker, PARTITIONS};
use ottla::{
    BoxError, Consumer, ConsumerRecord, TopicPartition, Worker,
    worker::{Handler, OrderBy, WorkerBuilder},
};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::Notify;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: usize = 500_000;

/// Counts records, and notifies after every [`RECORDS`].
#[derive(Default)]
struct Count {
    handled: AtomicUsize,
    enough: Notify,
}

impl Count {
    fn one(&self, record: &ConsumerRecord) {
        assert_eq!(record.value.as_ref().map(|value| value.len()), Some(100));
        if self.handled.fetch_add(1, Relaxed) % RECORDS == RECORDS - 1 {
            self.enough.notify_one();
        }
    }
}

struct ByReference(Arc<Count>);

impl Handler for ByReference {
    async fn handle(&self, record: &ConsumerRecord) -> Result<(), BoxError> {
        self.0.one(record);
        // The handler waits once, like one that awaits something.
        tokio::task::yield_now().await;
        Ok(())
    }
}

/// Returns the number of allocations per record.
async fn of(
    what: &str,
    source: &Broker,
    start: impl FnOnce(WorkerBuilder, Arc<Count>) -> ottla::Result<Worker>,
) -> f64 {
    let consumer = Consumer::builder(source.address.as_str()).build().await.expect("a consumer");
    consumer.assign((0..PARTITIONS).map(|partition| (TopicPartition::new("orders", partition), 0))).expect("assigned");
    let count = Arc::new(Count::default());
    let worker = start(consumer.worker(), count.clone()).expect("a worker");
    count.enough.notified().await;
    let (region, before) = (Region::new(ALLOCATOR), count.handled.load(Relaxed));
    count.enough.notified().await;
    let change = region.change();
    let records = count.handled.load(Relaxed) - before;
    let each = (change.allocations + change.reallocations) as f64 / records as f64;
    println!("{what}: {each:.4} allocations a record");
    worker.close(Duration::from_secs(10)).await.expect("closed");
    each
}

#[tokio::test]
async fn handlers_cause_no_allocation_per_record() {
    let source = Broker::source();
    let closure = of("a closure", &source, |builder, count| {
        builder.start(move |record| {
            count.one(&record);
            async {}
        })
    });
    let closure = closure.await;
    let by_reference =
        of("a handler by reference", &source, |builder, count| builder.start_handler(ByReference(count)));
    let by_reference = by_reference.await;
    let by_key =
        of("by key", &source, |builder, count| builder.order_by(OrderBy::Key).start_handler(ByReference(count)));
    let by_key = by_key.await;
    let batches = of("batches", &source, |builder, count| {
        builder.start_batches(move |records: Arc<[ConsumerRecord]>| {
            records.iter().for_each(|record| count.one(record));
            async {}
        })
    });
    let batches = batches.await;
    for each in [closure, by_reference, by_key, batches] {
        assert!(each < 0.1, "{each} allocations a record");
    }
}
