//! Transactions that Kafka's own client wrote, read by Ottla's consumer from a real broker.
#![cfg(unix)]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use ottla::{Consumer, Offset, TopicPartition, consumer::IsolationLevel};
use protocol_tests::{Kafka, needs, or_skip, shared, unique};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const PARTITIONS: i32 = 2;

/// The records of a script: every value, and the committed ones, by partition and in the log's
/// order.
#[derive(Default)]
struct Written {
    script: String,
    all: BTreeMap<i32, Vec<String>>,
    committed: BTreeMap<i32, Vec<String>>,
}

/// Returns a script of producers with interleaved transactions, in a fixed pattern that looks
/// random.
fn written(topic: &str, steps: u32) -> Written {
    let mut written = Written::default();
    let mut state = 7_u64;
    let mut roll = |sides: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % sides
    };
    let mut open: HashMap<String, Vec<(i32, String)>> = HashMap::new();
    let mut good = Vec::new();
    let line = |out: &mut String, text: std::fmt::Arguments<'_>| writeln!(out, "{text}").expect("into a string");
    for step in 0..steps {
        let id = format!("{topic}-{}", roll(4));
        match roll(10) {
            0..2 => {
                let partition = roll(2) as i32;
                line(&mut written.script, format_args!("send - {topic} {partition} plain-{step}"));
                written.all.entry(partition).or_default().push(format!("plain-{step}"));
                good.push(format!("plain-{step}"));
            }
            2..7 => {
                if !open.contains_key(&id) {
                    line(&mut written.script, format_args!("begin {id}"));
                }
                let partition = roll(2) as i32;
                line(&mut written.script, format_args!("send {id} {topic} {partition} {step}"));
                written.all.entry(partition).or_default().push(step.to_string());
                open.entry(id).or_default().push((partition, step.to_string()));
            }
            _ => {
                let Some(records) = open.remove(&id) else { continue };
                let commit = roll(2) == 0;
                line(&mut written.script, format_args!("{} {id}", if commit { "commit" } else { "abort" }));
                if commit {
                    good.extend(records.into_iter().map(|(_, value)| value));
                }
            }
        }
    }
    for id in open.keys() {
        line(&mut written.script, format_args!("abort {id}"));
    }
    for (partition, values) in &written.all {
        let committed = values.iter().filter(|value| good.contains(value)).cloned().collect();
        written.committed.insert(*partition, committed);
    }
    written
}

async fn reader(kafka: &Kafka, topic: &str, isolation: IsolationLevel) -> ottla::Result<Consumer> {
    let consumer = Consumer::builder(kafka.bootstrap()).isolation_level(isolation).build().await?;
    consumer.assign((0..PARTITIONS).map(|partition| (TopicPartition::new(topic, partition), Offset::Beginning)))?;
    Ok(consumer)
}

/// Reads all values up to the ends that this reader can reach, by partition.
async fn read(consumer: &Consumer, topic: &str) -> ottla::Result<BTreeMap<i32, Vec<String>>> {
    let places: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(topic, partition)).collect();
    let ends = consumer.end_offsets(places.clone()).await?;
    let mut values: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    let behind = |place: &TopicPartition| consumer.position(place).is_none_or(|position| position < ends[place]);
    for _ in 0..600 {
        if !places.iter().any(behind) {
            break;
        }
        for record in &consumer.poll(Duration::from_millis(100)).await? {
            let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            values.entry(record.partition()).or_default().push(value);
        }
    }
    let left: Vec<_> = places.iter().filter(|place| behind(place)).collect();
    assert!(left.is_empty(), "not read to the end within a minute: {left:?}");
    for place in &places {
        assert_eq!(consumer.lag(place), Some(0), "{place}");
    }
    Ok(values)
}

#[tokio::test]
async fn read_committed_skips_aborted_records() -> Outcome {
    if !needs("3.0", "producer ids, which transactions need") {
        return Ok(());
    }
    let Some(kafka) = shared().await else { return Ok(()) };
    let topic = unique("transactions");
    kafka.create_topic(&topic, PARTITIONS, 1, &[]).await?;
    let written = written(&topic, 300);
    if or_skip(kafka.tools().transact(&written.script).await).is_none() {
        return Ok(());
    }
    for (isolation, expected) in
        [(IsolationLevel::ReadCommitted, &written.committed), (IsolationLevel::ReadUncommitted, &written.all)]
    {
        let consumer = reader(kafka, &topic, isolation).await?;
        assert_eq!(&read(&consumer, &topic).await?, expected, "{isolation:?}");
        consumer.close(Duration::from_secs(10)).await?;
    }
    let [all, good] = [&written.all, &written.committed].map(|part| part.values().map(Vec::len).sum::<usize>());
    assert!(good > 50 && all > good + 50, "both kinds: {good} of {all}");
    // Ranges that begin and end in the middle of transactions.
    let builder = Consumer::builder(kafka.bootstrap()).isolation_level(IsolationLevel::ReadCommitted);
    let consumer = builder.max_partition_fetch_bytes(150).build().await?;
    consumer
        .assign((0..PARTITIONS).map(|partition| (TopicPartition::new(topic.as_str(), partition), Offset::Beginning)))?;
    assert_eq!(read(&consumer, &topic).await?, written.committed);
    Ok(())
}

#[tokio::test]
async fn read_committed_waits_for_open_transaction() -> Outcome {
    if !needs("3.0", "producer ids, which transactions need") {
        return Ok(());
    }
    let Some(kafka) = shared().await else { return Ok(()) };
    let topic = unique("open");
    kafka.create_topic(&topic, PARTITIONS, 1, &[]).await?;
    let script = format!(
        "send - {topic} 0 first\nbegin {topic}\nsend {topic} {topic} 0 open\nsend - {topic} 0 behind\nsend - {topic} 1 other\n"
    );
    if or_skip(kafka.tools().transact(&script).await).is_none() {
        return Ok(());
    }
    let consumer = reader(kafka, &topic, IsolationLevel::ReadCommitted).await?;
    let expected = BTreeMap::from([(0, vec!["first".to_owned()]), (1, vec!["other".to_owned()])]);
    assert_eq!(read(&consumer, &topic).await?, expected);
    let all = reader(kafka, &topic, IsolationLevel::ReadUncommitted).await?;
    assert_eq!(read(&all, &topic).await?[&0], ["first", "open", "behind"]);
    // The next producer with that id aborts the transaction that the last one left open.
    kafka.tools().transact(&format!("begin {topic}\nsend {topic} {topic} 0 next\ncommit {topic}\n")).await?;
    assert_eq!(read(&consumer, &topic).await?, BTreeMap::from([(0, vec!["behind".to_owned(), "next".to_owned()])]));
    Ok(())
}
