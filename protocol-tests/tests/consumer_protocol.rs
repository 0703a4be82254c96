//! Tests of groups of the consumer protocol (KIP-848) on a real Kafka: moved from the classic
//! protocol and back while they run, with expressions that the brokers match, and static members.
//! Groups with Java's client as a member are in `mixed_groups.rs`.

#![cfg(unix)]

#[path = "common/members.rs"]
mod members;
#[path = "common/requests.rs"]
mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use members::{ByJava, Journal, LONG, Member, PARTITIONS, Source, read_once, until};
use ottla::{
    Consumer, TopicPartition,
    consumer::{ConsumerBuilder, GroupProtocol, GroupState},
};
use protocol_tests::{Kafka, needs, or_skip, unique};
use requests::logged;
use tokio::time::{sleep, timeout};

/// Starts one node with a heartbeat interval of one second and a session timeout of ten seconds for
/// its groups.
async fn kafka() -> Option<Kafka> {
    if !needs("4.0", "the consumer protocol (KIP-848)") {
        return None;
    }
    let builder = Kafka::builder()
        .config("group.consumer.min.heartbeat.interval.ms", "1000")
        .config("group.consumer.heartbeat.interval.ms", "1000")
        .config("group.consumer.min.session.timeout.ms", "6000")
        .config("group.consumer.session.timeout.ms", "10000")
        .log_requests();
    or_skip(builder.start().await)
}

fn new(kafka: &Kafka, group: &str) -> ConsumerBuilder {
    classic(kafka, group).group_protocol(GroupProtocol::Consumer)
}

fn classic(kafka: &Kafka, group: &str) -> ConsumerBuilder {
    Consumer::builder(kafka.bootstrap()).group(group).property("metadata.max.age.ms", "2000")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn live_group_migrates_from_classic_and_back() {
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
    until("only the new members", &[&new_one, &new_two], || new_one.owned().len() == 3 && new_two.owned().len() == 3)
        .await;

    // Back to the classic protocol.
    let back = Member::start("back", old(), &topic, &journal).await;
    until("a share", &[&new_one, &new_two, &back], || back.owned().len() == 2).await;
    new_one.close().await;
    // One by one: when the group moves back, Kafka removes a classic member with an epoch behind
    // the group's, and records that the member has not committed by then are read again.
    until("three each", &[&new_two, &back], || new_two.owned().len() == 3 && back.owned().len() == 3).await;
    new_two.close().await;
    until("all partitions", &[&back], || back.owned().len() == 6).await;
    let also_back = Member::start("also back", old(), &topic, &journal).await;
    until("three each", &[&back, &also_back], || back.owned().len() == 3 && also_back.owned().len() == 3).await;

    let ends = source.end().await;
    read_once(&journal, &ByJava::default(), &ends, &[&back, &also_back]).await;
    back.close().await;
    also_back.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn matches_patterns_including_topics_created_later() {
    let Some(kafka) = kafka().await else { return };
    let (prefix, group) = (unique("expr"), unique("expr"));
    let named = |name: &str| format!("{prefix}-{name}");
    for name in ["a", "b-1"] {
        kafka.create_topic(&named(name), 1, 1, &[]).await.unwrap();
    }
    kafka.create_topic(&format!("not-{prefix}-a"), 1, 1, &[]).await.unwrap();
    let consumer = new(&kafka, &group).build().await.unwrap();
    // A pattern anchored at the start of a name and open at its end; and one anchored at both.
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

    // Ottla itself matches expressions that the brokers' engine cannot parse.
    let consumer = new(&kafka, &unique("expr")).build().await.unwrap();
    consumer.subscribe([format!(r"^(?x) {prefix}-b-1 $")]).unwrap();
    let owned = async {
        while consumer.assignment() != [TopicPartition::new(named("b-1"), 0)] {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, owned).await.unwrap_or_else(|_| panic!("{:?}", consumer.assignment()));
    consumer.close(Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_member_regains_its_partitions() {
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
    assert_eq!(second.owned(), kept, "the member's place is reserved");
    let again = Member::start("again", member("a"), &topic, &journal).await;
    until("the member's former partitions", &[&again, &second], || again.owned() == had).await;
    assert_eq!(second.owned(), kept);

    // The member dies, and is started again before its session ends: it waits until then.
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_offsets_are_available_during_rebalances() {
    let Some(kafka) = kafka().await else { return };
    let (topic, group) = (unique("committed"), unique("committed"));
    kafka.create_topic(&topic, PARTITIONS, 1, &[]).await.unwrap();
    let source = Source::start(&kafka, &topic).await;
    let journal = Journal::default();
    let member = || new(&kafka, &group).property("auto.commit.interval.ms", "100");
    let first = Member::start("first", member(), &topic, &journal).await;
    until("all six", &[&first], || first.owned().len() == 6).await;

    let partitions: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(topic.as_str(), partition)).collect();
    let (asking, stop) = (first.consumer.clone(), Arc::new(AtomicBool::new(false)));
    let looking_up = tokio::spawn({
        let (partitions, stop) = (partitions.clone(), stop.clone());
        async move {
            let (mut last, mut epochs) = (BTreeMap::new(), BTreeSet::new());
            while !stop.load(Ordering::Relaxed) {
                // Requested in the member's epoch at that time, which the next heartbeat may end.
                let found = asking.committed(partitions.clone()).await.unwrap();
                for (partition, committed) in found {
                    let offset = committed.map_or(0, |committed| committed.offset);
                    let before = last.insert(partition.clone(), offset).unwrap_or(0);
                    assert!(offset >= before, "{partition}: {offset} after {before}");
                }
                if let GroupState::Stable { generation, .. } = asking.status().group.unwrap().state {
                    epochs.insert(generation);
                }
                sleep(Duration::from_millis(10)).await;
            }
            epochs
        }
    });
    for name in ["second", "third", "fourth"] {
        let other = Member::start(name, member(), &topic, &journal).await;
        until("three each", &[&first, &other], || first.owned().len() == 3 && other.owned().len() == 3).await;
        other.close().await;
        until("all six partitions again", &[&first], || first.owned().len() == 6).await;
    }
    stop.store(true, Ordering::Relaxed);
    let epochs = timeout(LONG, looking_up).await.expect("every look-up ends").unwrap();
    assert!(epochs.len() > 3, "look-ups in several epochs: {epochs:?}");
    let look_ups = logged(&kafka, "OFFSET_FETCH", &group, 1).await;
    let asked_in = |epoch: &i32| look_ups.iter().any(|line| line.contains(&format!("\"memberEpoch\":{epoch},")));
    assert!(epochs.iter().filter(|epoch| asked_in(epoch)).count() > 3, "the member's epoch is sent: {epochs:?}");

    let ends = source.end().await;
    read_once(&journal, &ByJava::default(), &ends, &[&first]).await;
    first.consumer.commit().await.unwrap();
    let found = first.consumer.committed(partitions).await.unwrap();
    for (partition, committed) in found {
        assert_eq!(committed.map(|committed| committed.offset), ends.get(&partition.partition).copied(), "{partition}");
    }
    first.close().await;
}
