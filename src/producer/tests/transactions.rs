//! Tests of transactional producers against the embedded broker, under both protocols.

mod calls;
mod commits;
mod coordinators;
mod failures;
mod fencing;
mod outcomes;
mod permissions;
mod versions;

use std::future::Future;

use super::*;
use crate::{
    error::ErrorKind,
    producer::{CommitError, Outcome, Transaction, TransactionState, TransactionalProducer},
    record::TopicPartition,
    testkit::on,
    wire::ApiKey,
};

const ID: &str = "tx";

/// The protocols, by the level of `transaction.version`.
const BOTH: [i16; 2] = [0, 2];

fn options(level: i16) -> Options {
    if level > 0 { Options::new().feature("transaction.version", level) } else { Options::new() }
}

/// Starts a cluster of one broker with a topic of two partitions.
async fn started(level: i16) -> (Cluster, TransactionalProducer) {
    started_with(options(level)).await
}

async fn started_with(options: Options) -> (Cluster, TransactionalProducer) {
    let cluster = cluster_with(options, 2).await;
    let producer = transactional(&cluster).await;
    (cluster, producer)
}

async fn transactional(cluster: &Cluster) -> TransactionalProducer {
    builder(cluster).transactional_id(ID).build().await.unwrap()
}

fn record(partition: i32, value: &str) -> Record<'_> {
    Record::to(TOPIC).with_partition(partition).with_value(value)
}

/// Puts a record into the transaction, and leaves its result unread.
async fn put(transaction: &Transaction<'_>, partition: i32, value: &str) {
    drop(transaction.send(record(partition, value)).await.unwrap());
}

/// Commits a transaction with one record.
async fn commit_one(producer: &mut TransactionalProducer, partition: i32, value: &str) {
    let transaction = producer.begin().await.unwrap();
    put(&transaction, partition, value).await;
    transaction.commit().await.unwrap();
}

/// Returns the values of a partition that consumers with `read_committed` see.
async fn visible(cluster: &Cluster, partition: i32) -> Vec<String> {
    let consumer = cluster.consumer().property("isolation.level", "read_committed").enable_partition_eof(true);
    let consumer = consumer.build().await.unwrap();
    consumer.assign([(TopicPartition::new(TOPIC, partition), 0)]).unwrap();
    let mut values = Vec::new();
    loop {
        match consumer.recv().await.unwrap() {
            Ok(record) => values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap()),
            Err(error) if error.kind() == ErrorKind::EndOfPartition => return values,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Returns the error of a commit that is known to be aborted.
fn aborted(result: Result<(), CommitError<'_>>) -> Error {
    match result {
        Err(CommitError::Aborted(error)) => error,
        result => panic!("aborted: {result:?}"),
    }
}

/// Returns the first cause of a failed transaction.
fn cause(error: &Error) -> Error {
    assert_eq!(error.kind(), ErrorKind::TransactionFailed, "{error}");
    let source = std::error::Error::source(error).expect("a cause");
    source.downcast_ref::<Error>().expect("an error of this crate").clone()
}

/// Polls a future that many times, then drops it; returns its output if it was ready.
async fn polled<F: Future>(future: F, mut times: usize) -> Option<F::Output> {
    let mut future = Box::pin(future);
    std::future::poll_fn(move |cx| {
        if times == 0 {
            return std::task::Poll::Ready(None);
        }
        times -= 1;
        match future.as_mut().poll(cx) {
            std::task::Poll::Ready(output) => std::task::Poll::Ready(Some(output)),
            std::task::Poll::Pending if times == 0 => std::task::Poll::Ready(None),
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}
