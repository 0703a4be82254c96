//! Helpers of these tests: a cluster in memory, clients of it, and batches made byte by byte.

use std::{fmt, future::Future, ops::Range, pin::pin, task::Poll, time::Duration};

use ottla::{
    Consumer, ConsumerRecord, Error, ErrorKind, Record, TopicPartition,
    admin::AdminBuilder,
    consumer::ConsumerBuilder,
    producer::ProducerBuilder,
    testkit::{Cluster, Options},
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);

pub(crate) async fn cluster() -> Cluster {
    Cluster::start(Options::new().in_memory()).await.unwrap()
}

pub(crate) fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

pub(crate) fn producer(cluster: &Cluster) -> ProducerBuilder {
    cluster.producer()
}

pub(crate) fn consumer(cluster: &Cluster) -> ConsumerBuilder {
    cluster.consumer()
}

pub(crate) fn admin(cluster: &Cluster) -> AdminBuilder {
    cluster.admin()
}

/// Appends a batch with these numbers as values.
pub(crate) fn append(cluster: &Cluster, topic: &str, partition: i32, numbers: Range<i64>) {
    let records: Vec<_> = numbers.map(|n| Record::to(topic).with_value(n.to_string())).collect();
    cluster.append(topic, partition, &records).unwrap();
}

/// Returns the values of a partition's log, which are numbers.
pub(crate) fn log(cluster: &Cluster, topic: &str, partition: i32) -> Vec<i64> {
    cluster.records(topic, partition).unwrap().iter().map(number).collect()
}

pub(crate) fn number(record: &ConsumerRecord) -> i64 {
    String::from_utf8_lossy(record.value.as_deref().unwrap()).parse().unwrap()
}

/// Awaits a future for at most ten minutes, so that the test fails instead of hanging.
pub(crate) async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(600 * SECOND, future).await.expect("the future hangs")
}

/// Returns the reader's next record or error.
pub(crate) async fn next(consumer: &Consumer) -> Result<ConsumerRecord, Error> {
    in_time(consumer.recv()).await.expect("the consumer is not closed")
}

/// Returns the next `count` records as numbers.
pub(crate) async fn numbers(consumer: &Consumer, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        numbers.push(number(&next(consumer).await.unwrap()));
    }
    numbers
}

/// Checks that the result is an error of that kind, with a text that contains all of `says`, and
/// returns it.
#[track_caller]
pub(crate) fn refused<T: fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, says: &[&str]) -> Error {
    let error = result.expect_err("the call fails");
    assert_eq!(error.kind(), kind, "{error}");
    for part in says {
        assert!(error.to_string().contains(part), "{part:?} is missing in: {error}");
    }
    error
}

/// Polls a future at most `times` times, with other tasks in between, and drops it.
pub(crate) async fn polled<F: Future>(future: F, times: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..times {
        if let Poll::Ready(output) = std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

// ---- batches

/// Positions of fields in a v2 batch.
pub(crate) const LENGTH: usize = 8;
pub(crate) const MAGIC: usize = 16;
const CRC: usize = 17;
pub(crate) const ATTRIBUTES: usize = 21;
pub(crate) const LAST_OFFSET_DELTA: usize = 23;
pub(crate) const COUNT: usize = 57;
pub(crate) const HEADER: usize = 61;

/// Returns a batch of three records with the values 3, 4 and 5.
pub(crate) fn batch() -> Vec<u8> {
    let records: Vec<u8> = (0..3).flat_map(record).collect();
    batch_of(0, &records)
}

/// Returns a batch with these bytes for its records, of which its header claims three.
pub(crate) fn batch_of(codec: u8, records: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    put(&mut out, LENGTH, i32::try_from(HEADER - 12 + records.len()).unwrap().to_be_bytes());
    put(&mut out, MAGIC, [2]);
    put(&mut out, ATTRIBUTES, [0, codec]);
    put(&mut out, LAST_OFFSET_DELTA, 2_i32.to_be_bytes());
    put(&mut out, 43, [0xff; 14]); // no producer id, epoch and sequence
    put(&mut out, COUNT, 3_i32.to_be_bytes());
    out.extend_from_slice(records);
    sign(&mut out);
    out
}

/// Returns record number `delta` of [`batch`].
fn record(delta: u8) -> [u8; 8] {
    // Length 7, attributes, timestamp and offset deltas, no key, one byte of value, no headers.
    [14, 0, 0, delta * 2, 1, 2, b'3' + delta, 0]
}

pub(crate) fn put<const N: usize>(bytes: &mut [u8], at: usize, part: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&part);
}

/// Writes the correct checksum of the current bytes.
pub(crate) fn sign(batch: &mut [u8]) {
    let crc = crc_fast::crc32_iscsi(&batch[ATTRIBUTES..]);
    put(batch, CRC, crc.to_be_bytes());
}
