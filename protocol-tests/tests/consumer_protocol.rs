//! Groups of the consumer protocol (KIP-848) on a real Kafka: with Java's client as a member, moved from the classic protocol
//! and back while they run, with expressions that the brokers match, and static members.

#![cfg(unix)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ottla::{Consumer, ConsumerBuilder, GroupProtocol, GroupState, OffsetReset, Producer, Record, TopicPartition};
use protocol_tests::{Kafka, or_skip, unique};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const PARTITIONS: i32 = 6;
const LONG: Duration = Duration::from_secs(60);

/// One node whose groups heartbeat every second, and give a member up after ten.
async fn kafka() -> Option<Kafka> {
    let builder = Kafka::builder()
        .config("group.consumer.min.heartbeat.interval.ms", "1000")
        .config("group.consumer.heartbeat.interval.ms", "1000")
        .config("group.consumer.min.session.timeout.ms", "6000")
        .config("group.consumer.session.timeout.ms", "10000");
    or_skip(builder.start().await)
}

/// What was read, by whom: partition and offset, in the order in which it came.
type Journal = Arc<Mutex<Vec<(&'static str, i32, i64)>>>;

/// One of ours, with a task that reads.
struct Member {
    consumer: Arc<Consumer>,
    reading: JoinHandle<()>,
}

impl Member {
    async fn start(name: &'static str, builder: ConsumerBuilder, topic: &str, journal: &Journal) -> Self {
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

    fn owned(&self) -> BTreeSet<TopicPartition> {
        self.consumer.assignment().into_iter().collect()
    }

    async fn close(self) {
        self.consumer.close(Duration::from_secs(20)).await.unwrap();
        self.reading.await.unwrap();
    }
}

fn new(kafka: &Kafka, group: &str) -> ConsumerBuilder {
    classic(kafka, group).group_protocol(GroupProtocol::Consumer)
}

fn classic(kafka: &Kafka, group: &str) -> ConsumerBuilder {
    Consumer::builder(kafka.bootstrap()).group(group).property("metadata.max.age.ms", "2000")
}

/// Produces until it is told to stop, and says how many records there are in each partition.
struct Source {
    stop: tokio::sync::oneshot::Sender<()>,
    producing: JoinHandle<BTreeMap<i32, i64>>,
}

impl Source {
    async fn start(kafka: &Kafka, topic: &str) -> Self {
        let producer = Producer::builder(kafka.bootstrap()).build().await.unwrap();
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let topic = topic.to_owned();
        let producing = tokio::spawn(async move {
            let mut ends = BTreeMap::new();
            let mut next = 0;
            while stopped.try_recv().is_err() {
                let partition = next % PARTITIONS;
                next += 1;
                let record = Record::to(&topic).partition(partition).value("v");
                let at = producer.send(record).await.unwrap().await.unwrap();
                ends.insert(partition, at.offset.unwrap() + 1);
                sleep(Duration::from_millis(10)).await;
            }
            producer.close(Duration::from_secs(10)).await.unwrap();
            ends
        });
        Self { stop, producing }
    }

    async fn end(self) -> BTreeMap<i32, i64> {
        self.stop.send(()).unwrap();
        self.producing.await.unwrap()
    }
}

/// Waits for that, holding all the while that no partition is with two of ours.
async fn until(what: &str, members: &[&Member], mut reached: impl FnMut() -> bool) {
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
        assert!(Instant::now() < deadline, "it never came to {what}: {owned:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Everything was read, in order within each partition, and (all stops were clean) once.
async fn read_once(journal: &Journal, java: &[(i32, i64)], ends: &BTreeMap<i32, i64>, members: &[&Member]) {
    let total: i64 = ends.values().sum();
    let all = || i64::try_from(journal.lock().unwrap().len() + java.len()).unwrap();
    until(&format!("reading {total} records"), members, || all() >= total).await;
    sleep(Duration::from_millis(500)).await;
    let journal = journal.lock().unwrap().clone();
    let mut seen = BTreeMap::new();
    for (name, partition, offset) in &journal {
        let before = seen.insert((*partition, *offset), *name);
        assert_eq!(before, None, "[{partition}]@{offset} was read by {name} as well");
    }
    for at in java {
        assert_eq!(seen.insert(*at, "java"), None, "{at:?} was read by Java as well");
    }
    let expected: BTreeSet<_> = ends.iter().flat_map(|(p, end)| (0..*end).map(|offset| (*p, offset))).collect();
    assert_eq!(seen.keys().copied().collect::<BTreeSet<_>>(), expected);
    for partition in ends.keys() {
        let offsets: Vec<_> = journal.iter().filter(|(_, p, _)| p == partition).map(|(_, _, offset)| *offset).collect();
        assert!(offsets.is_sorted(), "[{partition}]: {offsets:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ours_and_javas_share_a_group_and_come_and_go() {
    let Some(kafka) = kafka().await else { return };
    let (topic, group) = (unique("mixed"), unique("mixed"));
    kafka.create_topic(&topic, PARTITIONS, 1, &[]).await.unwrap();
    let source = Source::start(&kafka, &topic).await;
    let journal = Journal::default();

    let first = Member::start("first", new(&kafka, &group), &topic, &journal).await;
    until("all of it", &[&first], || first.owned().len() == 6).await;
    let second = Member::start("second", new(&kafka, &group), &topic, &journal).await;
    until("three each", &[&first, &second], || first.owned().len() == 3 && second.owned().len() == 3).await;

    // A member of Java's comes, reads a while and goes.
    let (tools, named, in_group) = (kafka.tools(), topic.clone(), group.clone());
    let java = tokio::spawn(async move {
        tools.consume(&named, 150, &[("group.id", &in_group), ("group.protocol", "consumer")]).await.unwrap()
    });
    until("two each", &[&first, &second], || first.owned().len() == 2 && second.owned().len() == 2).await;
    until("Java to leave", &[&first, &second], || first.owned().len() + second.owned().len() == 6).await;
    let java: Vec<_> = java.await.unwrap().iter().map(|read| (read.partition, read.offset)).collect();
    let third = Member::start("third", new(&kafka, &group), &topic, &journal).await;
    until("two each", &[&first, &second, &third], || third.owned().len() == 2).await;
    second.close().await;
    until("three each", &[&first, &third], || first.owned().len() == 3 && third.owned().len() == 3).await;
    first.close().await;
    until("all of it", &[&third], || third.owned().len() == 6).await;

    let ends = source.end().await;
    read_once(&journal, &java, &ends, &[&third]).await;
    third.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_group_moves_from_classic_to_consumer_and_back() {
    let Some(kafka) = kafka().await else { return };
    let (topic, group) = (unique("moving"), unique("moving"));
    kafka.create_topic(&topic, PARTITIONS, 1, &[]).await.unwrap();
    let source = Source::start(&kafka, &topic).await;
    let journal = Journal::default();
    let old = || classic(&kafka, &group).heartbeat_interval(Duration::from_millis(500));

    let old_one = Member::start("old one", old(), &topic, &journal).await;
    let old_two = Member::start("old two", old(), &topic, &journal).await;
    until("three each", &[&old_one, &old_two], || old_one.owned().len() == 3 && old_two.owned().len() == 3).await;

    let new_one = Member::start("new one", new(&kafka, &group), &topic, &journal).await;
    until("two each", &[&old_one, &old_two, &new_one], || {
        [&old_one, &old_two, &new_one].iter().all(|member| member.owned().len() == 2)
    })
    .await;
    old_one.close().await;
    let new_two = Member::start("new two", new(&kafka, &group), &topic, &journal).await;
    old_two.close().await;
    until("the new ones alone", &[&new_one, &new_two], || new_one.owned().len() == 3 && new_two.owned().len() == 3)
        .await;

    // And back.
    let back = Member::start("back", old(), &topic, &journal).await;
    until("a share", &[&new_one, &new_two, &back], || back.owned().len() == 2).await;
    new_one.close().await;
    // One by one: Kafka counts a classic member out whose epoch is behind the group's when the group moves back, and what it
    // has not committed by then is read again.
    until("three each", &[&new_two, &back], || new_two.owned().len() == 3 && back.owned().len() == 3).await;
    new_two.close().await;
    until("all of it", &[&back], || back.owned().len() == 6).await;
    let also_back = Member::start("also back", old(), &topic, &journal).await;
    until("three each", &[&back, &also_back], || back.owned().len() == 3 && also_back.owned().len() == 3).await;

    let ends = source.end().await;
    read_once(&journal, &[], &ends, &[&back, &also_back]).await;
    back.close().await;
    also_back.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn brokers_match_expressions_as_ours_are_meant_and_topics_come_later() {
    let Some(kafka) = kafka().await else { return };
    let (prefix, group) = (unique("expr"), unique("expr"));
    let named = |name: &str| format!("{prefix}-{name}");
    for name in ["a", "b-1"] {
        kafka.create_topic(&named(name), 1, 1, &[]).await.unwrap();
    }
    kafka.create_topic(&format!("not-{prefix}-a"), 1, 1, &[]).await.unwrap();
    let consumer = new(&kafka, &group).build().await.unwrap();
    // A search from the start of a name, open at the end; and one that is closed.
    consumer.subscribe([format!("^{prefix}-b"), format!("^{prefix}-[ac]$")]).unwrap();
    let reading = async {
        let owns = |names: &[&str]| {
            let expected: BTreeSet<_> = names.iter().map(|name| TopicPartition::new(named(name), 0)).collect();
            consumer.assignment().into_iter().collect::<BTreeSet<_>>() == expected
        };
        while !owns(&["a", "b-1"]) {
            sleep(Duration::from_millis(50)).await;
        }
        for name in ["c", "b-2", "cc", "d"] {
            kafka.create_topic(&named(name), 1, 1, &[]).await.unwrap();
        }
        while !owns(&["a", "b-1", "b-2", "c"]) {
            sleep(Duration::from_millis(50)).await;
        }
        let state = consumer.status().group.unwrap().state;
        assert!(matches!(state, GroupState::Stable { .. }), "{state:?}");
    };
    timeout(LONG, reading).await.unwrap_or_else(|_| panic!("{:?}", consumer.assignment()));
    consumer.close(Duration::from_secs(10)).await.unwrap();

    // What the brokers' engine cannot read is the user's to mend.
    let consumer = new(&kafka, &unique("expr")).build().await.unwrap();
    consumer.subscribe([r"^a(?x) b"]).unwrap();
    let told = timeout(LONG, consumer.recv()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(told.code(), Some(ottla::ErrorCode::INVALID_REGULAR_EXPRESSION), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_members_come_back_to_what_they_had() {
    let Some(kafka) = kafka().await else { return };
    let (topic, group) = (unique("static"), unique("static"));
    kafka.create_topic(&topic, PARTITIONS, 1, &[]).await.unwrap();
    let journal = Journal::default();
    let member = |name| new(&kafka, &group).group_instance_id(name);
    let first = Member::start("first", member("a"), &topic, &journal).await;
    let second = Member::start("second", member("b"), &topic, &journal).await;
    until("three each", &[&first, &second], || first.owned().len() == 3 && second.owned().len() == 3).await;
    let (had, kept) = (first.owned(), second.owned());
    first.close().await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(second.owned(), kept, "its place is held");
    let again = Member::start("again", member("a"), &topic, &journal).await;
    until("what it had", &[&again, &second], || again.owned() == had).await;
    assert_eq!(second.owned(), kept);

    // It dies, and is started again before its session is over: it waits that out.
    again.reading.abort();
    drop(again);
    let reborn = new(&kafka, &group).group_instance_id("a").build().await.unwrap();
    reborn.subscribe([&topic]).unwrap();
    let back = async {
        while reborn.assignment().len() != 3 {
            if let Ok(Some(Err(error))) = timeout(Duration::from_millis(50), reborn.recv()).await {
                assert_eq!(error.code(), Some(ottla::ErrorCode::UNRELEASED_INSTANCE_ID), "{error}");
            }
        }
    };
    timeout(LONG, back).await.unwrap();
    reborn.close(Duration::from_secs(10)).await.unwrap();
    second.close().await;
}
