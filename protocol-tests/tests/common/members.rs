//! Group members that read while a producer sends, and the checks of the records that they have
//! read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ottla::{
    Consumer, Producer, Record, TopicPartition,
    consumer::{ConsumerBuilder, OffsetReset},
};
use protocol_tests::{Kafka, has_producer_ids};
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub(crate) const PARTITIONS: i32 = 6;
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Records that were read: member, partition and offset, in the order in which they arrived.
pub(crate) type Journal = Arc<Mutex<Vec<(&'static str, i32, i64)>>>;

/// An Ottla member, with a task that reads.
pub(crate) struct Member {
    pub(crate) consumer: Arc<Consumer>,
    pub(crate) reading: JoinHandle<()>,
}

impl Member {
    pub(crate) async fn start(name: &'static str, builder: ConsumerBuilder, topic: &str, journal: &Journal) -> Self {
        let builder = builder.auto_offset_reset(OffsetReset::Earliest);
        let consumer = Arc::new(builder.build().await.unwrap());
        consumer.subscribe([topic]).unwrap();
        let (reader, journal) = (consumer.clone(), journal.clone());
        let reading = tokio::spawn(async move {
            while let Some(record) = reader.recv().await {
                let record = record.unwrap_or_else(|error| panic!("{name}: {error}"));
                journal.lock().unwrap().push((name, record.partition, record.offset));
            }
        });
        Self { consumer, reading }
    }

    pub(crate) fn owned(&self) -> BTreeSet<TopicPartition> {
        self.consumer.assignment().into_iter().collect()
    }

    pub(crate) async fn close(self) {
        self.consumer.close(Duration::from_secs(20)).await.unwrap();
        self.reading.await.unwrap();
    }
}

/// A producer that sends until it is stopped, and then returns the number of records in each
/// partition.
pub(crate) struct Source {
    stop: tokio::sync::oneshot::Sender<()>,
    producing: JoinHandle<BTreeMap<i32, i64>>,
}

impl Source {
    pub(crate) async fn start(kafka: &Kafka, topic: &str) -> Self {
        let producer = Producer::builder(kafka.bootstrap()).idempotence(has_producer_ids()).build().await.unwrap();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let topic = topic.to_owned();
        let producing = tokio::spawn(async move {
            let mut ends = BTreeMap::new();
            let mut next = 0;
            while stopped.try_recv().is_err() {
                let partition = next % PARTITIONS;
                next += 1;
                let record = Record::to(&topic).with_partition(partition).with_value("v");
                let at = producer.send(record).await.unwrap().await.unwrap();
                ends.insert(partition, at.offset.unwrap() + 1);
                sleep(Duration::from_millis(10)).await;
            }
            producer.close(Duration::from_secs(10)).await.unwrap();
            ends
        });
        Self { stop, producing }
    }

    pub(crate) async fn end(self) -> BTreeMap<i32, i64> {
        self.stop.send(()).unwrap();
        self.producing.await.unwrap()
    }
}

/// Waits until `reached` returns true, and asserts meanwhile that no partition belongs to two Ottla
/// members.
pub(crate) async fn until(what: &str, members: &[&Member], mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    loop {
        let owned: Vec<_> = members.iter().map(|member| member.owned()).collect();
        for (i, one) in owned.iter().enumerate() {
            for other in &owned[i + 1..] {
                assert!(one.is_disjoint(other), "{what}: {one:?} and {other:?}");
            }
        }
        if reached() {
            return;
        }
        assert!(Instant::now() < deadline, "not reached: {what}: {owned:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Records that Java members have read: partition and offset.
#[derive(Default)]
pub(crate) struct ByJava {
    pub(crate) read: Vec<(i32, i64)>,
    /// True if Ottla members may read some of these records again.
    pub(crate) may_repeat: bool,
}

/// Asserts that every record was read, in order within each partition, and once (all stops were
/// clean).
pub(crate) async fn read_once(journal: &Journal, java: &ByJava, ends: &BTreeMap<i32, i64>, members: &[&Member]) {
    let total: i64 = ends.values().sum();
    let all = || {
        let ours = journal.lock().unwrap();
        let read: BTreeSet<_> = ours.iter().map(|(_, p, offset)| (*p, *offset)).chain(java.read.clone()).collect();
        i64::try_from(read.len()).unwrap()
    };
    until(&format!("reading {total} records"), members, || all() >= total).await;
    sleep(Duration::from_millis(500)).await;
    let journal = journal.lock().unwrap().clone();
    let mut seen = BTreeMap::new();
    for (name, partition, offset) in &journal {
        let before = seen.insert((*partition, *offset), *name);
        assert_eq!(before, None, "[{partition}]@{offset} was also read by {name}");
    }
    for at in &java.read {
        let before = seen.insert(*at, "java");
        assert!(before.is_none() || java.may_repeat, "{at:?} was read by Java and {before:?}");
    }
    let expected: BTreeSet<_> = ends.iter().flat_map(|(p, end)| (0..*end).map(|offset| (*p, offset))).collect();
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), expected);
    for partition in ends.keys() {
        let offsets: Vec<_> = journal.iter().filter(|(_, p, _)| p == partition).map(|(_, _, offset)| *offset).collect();
        assert!(offsets.is_sorted(), "[{partition}]: {offsets:?}");
    }
}
