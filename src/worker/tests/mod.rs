//! Tests of the worker against brokers in the process, under paused time.

mod consumer_protocol;
mod ending;
mod failures;
mod handling;
mod hanging;
mod rebalances;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout};

use crate::{
    Consumer, ConsumerRecord, Producer, Record, TopicPartition, Worker,
    consumer::{ConsumerBuilder, OffsetReset},
    testkit::{Cluster, Options},
    worker::WorkerBuilder,
};

const SECOND: Duration = Duration::from_secs(1);

async fn cluster(brokers: usize) -> Cluster {
    Cluster::start(Options::new().brokers(brokers).in_memory()).await.unwrap()
}

/// Creates a topic `t` with `partitions` partitions and `records` records in each; the keys are
/// their numbers modulo 5.
async fn filled(partitions: i32, records: i64) -> Cluster {
    let cluster = cluster(1).await;
    cluster.create_topic("t", partitions).unwrap();
    for partition in 0..partitions {
        append(&cluster, partition, 0..records);
    }
    cluster
}

fn append(cluster: &Cluster, partition: i32, numbers: std::ops::Range<i64>) {
    let records: Vec<_> =
        numbers.map(|n| Record::to("t").with_key((n % 5).to_string()).with_value(n.to_string())).collect();
    if !records.is_empty() {
        cluster.append("t", partition, &records).unwrap();
    }
}

fn member(cluster: &Cluster) -> ConsumerBuilder {
    cluster.consumer().seed(1).group("g").auto_offset_reset(OffsetReset::Earliest).auto_commit_interval(SECOND)
}

async fn subscribed(builder: ConsumerBuilder) -> Consumer {
    let consumer = builder.build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    consumer
}

async fn worker(cluster: &Cluster) -> WorkerBuilder {
    subscribed(member(cluster)).await.worker().seed(1)
}

async fn producer(cluster: &Cluster) -> Producer {
    cluster.producer().build().await.unwrap()
}

/// Records that handlers have completed: by partition, offsets in the order of completion.
#[derive(Clone, Default)]
struct Seen {
    done: Arc<Mutex<BTreeMap<i32, Vec<i64>>>>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// Counts a running handler, also until one that is aborted has ended.
struct AtWork(Arc<AtomicUsize>);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Seen {
    fn begin(&self) -> AtWork {
        self.most.fetch_max(self.now.fetch_add(1, SeqCst) + 1, SeqCst);
        AtWork(self.now.clone())
    }

    fn done(&self, record: &ConsumerRecord) {
        self.done.lock().unwrap().entry(record.partition).or_default().push(record.offset);
    }

    /// Works on a record for a while.
    async fn work(&self, record: ConsumerRecord, time: Duration) {
        let _at_work = self.begin();
        sleep(time).await;
        self.done(&record);
    }

    fn of(&self, partition: i32) -> Vec<i64> {
        self.done.lock().unwrap().get(&partition).cloned().unwrap_or_default()
    }

    fn count(&self) -> usize {
        self.done.lock().unwrap().values().map(Vec::len).sum()
    }

    async fn reaches(&self, count: usize) {
        until(&format!("{count} records were handled"), || self.count() >= count).await;
    }
}

/// Waits until the condition is true, ten minutes at most.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if condition() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to it that {what}");
}

fn numbers(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

async fn close(worker: &Worker) {
    worker.close(60 * SECOND).await.unwrap();
}
