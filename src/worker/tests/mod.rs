//! Tests of the worker against brokers in the process, under paused time.

mod ending;
mod exactly_once;
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
    consumer::{ConsumerBuilder, GroupProtocol, OffsetReset},
    testkit::{Cluster, Options},
    tests::{SECOND, cluster, for_each_group_protocol, until},
    worker::WorkerBuilder,
};

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
    member_by(cluster, GroupProtocol::Classic)
}

fn member_by(cluster: &Cluster, protocol: GroupProtocol) -> ConsumerBuilder {
    let builder = cluster.consumer().seed(1).group("g").group_protocol(protocol);
    builder.auto_offset_reset(OffsetReset::Earliest).auto_commit_interval(SECOND)
}

async fn subscribed(builder: ConsumerBuilder) -> Consumer {
    let consumer = builder.build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    consumer
}

async fn worker(cluster: &Cluster) -> WorkerBuilder {
    worker_by(cluster, GroupProtocol::Classic).await
}

async fn worker_by(cluster: &Cluster, protocol: GroupProtocol) -> WorkerBuilder {
    subscribed(member_by(cluster, protocol)).await.worker().seed(1)
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

    /// Starts a worker whose handler works on each record for that time.
    fn started(&self, builder: WorkerBuilder, time: Duration) -> Worker {
        self.started_with(builder, move |_| time)
    }

    fn started_with(
        &self,
        builder: WorkerBuilder,
        time: impl Fn(&ConsumerRecord) -> Duration + Send + Sync + 'static,
    ) -> Worker {
        let seen = self.clone();
        let worker = builder.start(move |record: ConsumerRecord| {
            let (seen, time) = (seen.clone(), time(&record));
            async move { seen.work(record, time).await }
        });
        worker.unwrap()
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

fn numbers(range: std::ops::Range<i64>) -> Vec<i64> {
    range.collect()
}

async fn close(worker: &Worker) {
    worker.close(60 * SECOND).await.unwrap();
}
