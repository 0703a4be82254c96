//! Checks that no acknowledged record is lost or duplicated while a broker dies: on a real
//! three-node Kafka, records are sent at a steady rate, a node that leads some of their partitions
//! is killed with SIGKILL and started again, and the log is compared with the records that were
//! sent. A group with one member reads meanwhile and must not skip a record.
//!
//! ```sh
//! cargo run --release -p protocol-tests --example failover
//! cargo run --release -p protocol-tests --example failover -- --records 200000 --rate 20000 \
//!     --kill-at 3 --restart-at 8
//! ```

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::{ArgAction, Command, value_parser};
use ottla::{Consumer, Offset, Producer, Record, TopicPartition, consumer::OffsetReset};
use protocol_tests::{
    Kafka,
    arguments::{self, option, pair, value, values, version},
    unique,
};

const PARTITIONS: u32 = 6;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Plan {
    version: String,
    records: u32,
    rate: u32,
    kill_at: Duration,
    restart_at: Duration,
    properties: Vec<(String, String)>,
}

fn plan() -> Result<Plan, clap::Error> {
    let seconds = |text: &str| -> Result<Duration, Failure> { Ok(Duration::try_from_secs_f64(text.parse()?)?) };
    let command = Command::new("failover").args([
        version(),
        option("records", "N", "number of records").default_value("1000000").value_parser(value_parser!(u32)),
        option("rate", "N", "records per second").default_value("20000").value_parser(value_parser!(u32).range(1..)),
        option("kill-at", "SECONDS", "seconds after which the node is killed")
            .default_value("10")
            .value_parser(seconds),
        option("restart-at", "SECONDS", "seconds after which it is started again")
            .default_value("25")
            .value_parser(seconds),
        option("property", "PROPERTY=VALUE", "a property of the producer")
            .long(None)
            .short('X')
            .action(ArgAction::Append)
            .value_parser(pair),
    ]);
    let given = &command.try_get_matches()?;
    Ok(Plan {
        version: value(given, "version"),
        records: value(given, "records"),
        rate: value(given, "rate"),
        kill_at: value(given, "kill-at"),
        restart_at: value(given, "restart-at"),
        properties: values(given, "property"),
    })
}

#[tokio::main]
async fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(why) => return arguments::exit(&why, 1),
    };
    match run(plan).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(plan: Plan) -> Result<(), Failure> {
    let kafka = Kafka::builder().version(&plan.version).nodes(3).start().await?;
    let topic = unique("failover");
    kafka.create_topic(&topic, PARTITIONS.try_into()?, 3, &[("min.insync.replicas", "2")]).await?;
    println!("Kafka {} with three nodes at {}", kafka.version().as_str(), kafka.bootstrap());

    let mut properties = vec![("bootstrap.servers".to_owned(), kafka.bootstrap())];
    properties.extend(plan.properties.iter().cloned());
    let producer = Producer::from_properties(properties).await?;

    let along = tokio::spawn(read_along(kafka.bootstrap(), topic.clone(), plan.records));
    let (sent, hurt) = tokio::join!(produce(&plan, &producer, &topic), hurt(&plan, &kafka, &topic));
    let sent = sent?;
    hurt?;
    producer.close(Duration::from_secs(30)).await?;
    println!("{} records acknowledged in {:.1} s, the slowest after {:.1} s", plan.records, sent.0, sent.1);

    let (again, longest) = along.await??;
    println!("a group read all of them meanwhile, {again} twice; no record for {longest:.1} s at most");

    verify(&plan, &kafka, &topic).await?;
    println!("PASSED: each of {} records is in the log exactly once, in order per partition", plan.records);
    Ok(())
}

/// Sends everything at the planned rate and waits for every acknowledgement. Returns the seconds it
/// took, and the longest time until the acknowledgement of one record.
async fn produce(plan: &Plan, producer: &Producer, topic: &str) -> Result<(f64, f64), Failure> {
    let started = Instant::now();
    let (sent, mut sends) = tokio::sync::mpsc::unbounded_channel();
    let acknowledged = tokio::spawn(async move {
        let (mut failed, mut first, mut slowest) = (0_u32, None, Duration::ZERO);
        while let Some((at, delivery)) = sends.recv().await {
            let (at, delivery): (Instant, ottla::Delivery) = (at, delivery);
            match delivery.await {
                Ok(_) => slowest = slowest.max(at.elapsed()),
                Err(error) => {
                    failed += 1;
                    first.get_or_insert(error);
                }
            }
        }
        (failed, first, slowest)
    });
    for n in 0..plan.records {
        let due = started + Duration::from_nanos(u64::from(n) * 1_000_000_000 / u64::from(plan.rate));
        // The timer is coarse: a few records at a time are sent at once.
        if due.saturating_duration_since(Instant::now()) > Duration::from_millis(2) {
            tokio::time::sleep_until(due.into()).await;
        }
        let (partition, sequence) = (n % PARTITIONS, n / PARTITIONS);
        let value = format!("{partition}-{sequence}-{}", "x".repeat(80));
        let record = Record::to(topic).with_partition(partition.try_into()?).with_value(&value);
        sent.send((Instant::now(), producer.send(record).await?))?;
    }
    drop(sent);
    let (failed, first, slowest) = acknowledged.await?;
    match first {
        Some(error) => Err(format!("{failed} records were not acknowledged; the first: {error:?}").into()),
        None => Ok((started.elapsed().as_secs_f64(), slowest.as_secs_f64())),
    }
}

/// Reads everything as a group's only member while the cluster is disturbed. A record may be
/// repeated after the coordinator was lost, but none may be skipped. Returns the number of repeated
/// records, and the longest time without a record in seconds.
async fn read_along(bootstrap: String, topic: String, records: u32) -> Result<(u32, f64), Failure> {
    let builder = Consumer::builder(bootstrap).group(unique("along"));
    let consumer = builder.auto_offset_reset(OffsetReset::Earliest).build().await?;
    consumer.subscribe([topic.as_str()])?;
    let mut next = [0_i64; PARTITIONS as usize];
    let (mut again, mut longest, mut last) = (0, Duration::ZERO, Instant::now());
    while next.iter().sum::<i64>() < i64::from(records) {
        let polled = consumer.poll(Duration::from_secs(1)).await;
        let records = match polled {
            Ok(records) => records,
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => {
                println!("the reader got an error: {error}");
                continue;
            }
        };
        for record in records.iter() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
            let expected = &mut next[usize::try_from(record.partition())?];
            match record.offset() {
                offset if offset == *expected => *expected += 1,
                offset if offset < *expected => again += 1,
                offset => {
                    return Err(format!("{topic}[{}]: {expected} to {offset} were skipped", record.partition()).into());
                }
            }
        }
        if last.elapsed() > Duration::from_secs(120) {
            return Err(format!("the reader makes no progress at {next:?}").into());
        }
    }
    consumer.close(Duration::from_secs(10)).await?;
    Ok((again, longest.as_secs_f64()))
}

/// Kills a node that leads partitions of the topic, and starts it again.
async fn hurt(plan: &Plan, kafka: &Kafka, topic: &str) -> Result<(), Failure> {
    let started = tokio::time::Instant::now();
    tokio::time::sleep_until(started + plan.kill_at).await;
    let view = kafka.view(0, &[topic]).await?;
    let leaders: Vec<i32> = view.topics.iter().flat_map(|t| &t.partitions).map(|p| p.leader).collect();
    // Never the first node, so that one bootstrap address stays valid.
    let victim = leaders.iter().copied().find(|leader| *leader > 0).ok_or("no partition has a leader to kill")?;
    let led = leaders.iter().filter(|leader| **leader == victim).count();
    let node = kafka.node(victim.try_into()?);
    node.kill()?;
    println!("{:5.1} s: node {victim}, leader of {led} partitions, killed", started.elapsed().as_secs_f64());
    tokio::time::sleep_until(started + plan.restart_at).await;
    node.start()?;
    println!("{:5.1} s: node {victim} started again", started.elapsed().as_secs_f64());
    Ok(())
}

/// Reads every partition from its start to its end and compares it with the records that were sent.
async fn verify(plan: &Plan, kafka: &Kafka, topic: &str) -> Result<(), Failure> {
    let consumer = Consumer::builder(kafka.bootstrap()).build().await?;
    let partitions: Vec<TopicPartition> =
        (0..PARTITIONS.try_into()?).map(|partition| TopicPartition::new(topic, partition)).collect();
    let ends = consumer.end_offsets(partitions.clone()).await?;
    consumer.assign(partitions.into_iter().map(|partition| (partition, Offset::Beginning)))?;
    let total: i64 = ends.values().sum();
    let mut next = [0_u32; PARTITIONS as usize];
    let (mut seen, mut last) = (0_i64, Instant::now());
    let mut wrong = Vec::new();
    while seen < total {
        let records = consumer.poll(Duration::from_secs(1)).await?;
        for record in records.iter() {
            (seen, last) = (seen + 1, Instant::now());
            let value = String::from_utf8_lossy(record.value().unwrap_or_default());
            let mut parts = value.split('-');
            let mut number = || parts.next().and_then(|part| part.parse::<u32>().ok());
            let partition = u32::try_from(record.partition())?;
            let (Some(said), Some(sequence)) = (number(), number()) else {
                return Err(
                    format!("{topic}[{partition}]@{} holds something else: {value:.40}", record.offset()).into()
                );
            };
            let expected = &mut next[partition as usize];
            if (said, sequence) != (partition, *expected) && wrong.len() < 20 {
                wrong.push(format!(
                    "{topic}[{partition}]@{}: expected {partition}-{expected}, found {said}-{sequence}",
                    record.offset()
                ));
            }
            *expected = sequence + 1;
        }
        if last.elapsed() > Duration::from_secs(60) {
            return Err(format!("{seen} of {total} records could be read").into());
        }
    }
    consumer.close(Duration::from_secs(10)).await?;
    for (partition, found) in next.iter().enumerate() {
        let wanted = (plan.records + PARTITIONS - 1 - partition as u32) / PARTITIONS;
        if *found != wanted {
            wrong.push(format!("{topic}[{partition}]: ends at {found} instead of {wanted}"));
        }
    }
    if total != i64::from(plan.records) {
        wrong.push(format!("{total} records are in the log, {} were sent", plan.records));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}
