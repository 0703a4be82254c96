//! What a record and a batch may allocate, from `send` to the acknowledgement: counted, so that no machine's mood matters.
//!
//! The broker is a process of its own, so that only the client's allocations are counted. One test, because whatever else
//! runs in the process would be counted, too.

use std::{
    alloc::System,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use ottla::{Deliveries, Producer, Record};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: usize = 200_000;
/// The bytes of a record whose value has 100, and of a batch.
const RECORD: usize = 108;
const BATCH: usize = 16_384;
const AT_ONCE: usize = 1_000;

/// A broker that keeps nothing; ends with its standard input.
struct Sink {
    process: Child,
    address: String,
}

impl Sink {
    fn start() -> Self {
        let mut path: PathBuf = std::env::current_exe().expect("this test's own path");
        path.pop();
        path.pop();
        let path = path.join("examples").join(format!("broker{}", std::env::consts::EXE_SUFFIX));
        let mut command = Command::new(path);
        command.args(["--sink", "--topic", "orders:4"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().expect("`cargo test` (or `cargo build --examples`) builds the broker");
        let mut address = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut address).expect("an address");
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Allocations, and reallocations, of a run.
fn counted(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

async fn one_by_one(producer: &Producer, value: &[u8]) {
    for _ in 0..RECORDS {
        let _delivery = producer.send(Record::to("orders").value(value)).await.expect("room");
    }
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
}

async fn many_at_once(producer: &Producer, value: &[u8], deliveries: &mut Vec<Deliveries>) {
    for _ in 0..RECORDS / AT_ONCE {
        deliveries.push(producer.send_batch((0..AT_ONCE).map(|_| Record::to("orders").value(value))).await);
    }
    for deliveries in deliveries.drain(..) {
        deliveries.await.ok().expect("acknowledged");
    }
}

#[tokio::test]
async fn a_record_allocates_nothing_and_a_batch_little() {
    let sink = Sink::start();
    let producer = Producer::builder(sink.address.as_str()).build().await.expect("a producer");
    let value = [b'x'; 100];
    let mut deliveries = Vec::with_capacity(RECORDS / AT_ONCE);
    one_by_one(&producer, &value).await;
    many_at_once(&producer, &value, &mut deliveries).await;

    let batches = RECORDS * RECORD / BATCH;
    let region = Region::new(ALLOCATOR);
    one_by_one(&producer, &value).await;
    let single = counted(&region);
    println!("send: {single} allocations for {RECORDS} records, {:.2} a batch", single as f64 / batches as f64);
    let region = Region::new(ALLOCATOR);
    many_at_once(&producer, &value, &mut deliveries).await;
    let run = counted(&region);
    println!("send_batch: {run} allocations for {RECORDS} records, {:.2} a batch", run as f64 / batches as f64);

    assert!(single <= 16 * batches, "{single} allocations for {batches} batches of {RECORDS} records");
    producer.close(Duration::from_secs(10)).await.expect("closed");
}
