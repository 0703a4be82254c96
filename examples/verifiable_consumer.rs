//! Consumes a topic as a member of a group and prints its events as lines of JSON: Kafka's
//! `VerifiableConsumer`, for its system tests. Events go to standard output, everything else to
//! standard error; SIGTERM closes the consumer and ends the program.
//!
//! ```sh
//! verifiable_consumer --bootstrap-server localhost:9092 --topic numbers --group-id g --verbose
//! ```

mod common;

use std::{process::ExitCode, time::Duration};

use common::{
    Args, Failure, json,
    verifiable::{self, Event},
};
use ottla::{
    Consumer, TopicPartition,
    consumer::{Assigned, ListenerResult, RebalanceListener, Records, Revoked},
};

const HELP: &str = "usage: verifiable_consumer --bootstrap-server HOST:PORT[,...] --topic TOPIC --group-id GROUP
  --group-protocol P          classic (the default) or consumer
  --group-remote-assignor A   for the consumer protocol
  --group-instance-id ID      makes it a static member
  --session-timeout MS        for the classic protocol; default 30000
  --assignment-strategy A     for the classic protocol, also by Java's class names; default RangeAssignor
  --max-messages N            number of records; -1 (the default): no limit
  --verbose                   prints an event for each record
  --enable-autocommit         commits in the background instead of after each poll
  --reset-policy P            earliest (the default), latest or none
  --command-config FILE       file of properties";

/// Maximum duration of one poll; a poll without records is repeated.
const POLL: Duration = Duration::from_secs(1);

struct Options {
    topic: String,
    max_messages: Option<u64>,
    verbose: bool,
    auto_commit: bool,
    properties: Vec<(String, String)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    verifiable::main(HELP, parse, run).await
}

fn parse(args: &mut Args) -> Result<Option<Options>, Failure> {
    let (mut topic, mut max_messages, mut verbose, mut auto_commit) = (None, None, false, false);
    let (mut protocol, mut remote_assignor, mut session, mut reset) =
        ("classic".to_owned(), None, 30_000_u64, "earliest".to_owned());
    let mut strategy = "org.apache.kafka.clients.consumer.RangeAssignor".to_owned();
    let (mut named, mut from_file) = (Vec::new(), Vec::new());
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--bootstrap-server" | "--broker-list" => named.push(("bootstrap.servers", args.value(&arg)?)),
            "--topic" => topic = Some(args.value(&arg)?),
            "--group-id" => named.push(("group.id", args.value(&arg)?)),
            "--group-instance-id" => named.push(("group.instance.id", args.value(&arg)?)),
            "--group-protocol" => protocol = args.value(&arg)?.to_ascii_lowercase(),
            "--group-remote-assignor" => remote_assignor = Some(args.value(&arg)?),
            "--assignment-strategy" => strategy = args.value(&arg)?,
            "--session-timeout" => session = args.number(&arg)?,
            "--reset-policy" => reset = args.value(&arg)?,
            "--max-messages" => max_messages = u64::try_from(args.number::<i64>(&arg)?).ok(),
            "--verbose" => verbose = true,
            "--enable-autocommit" => auto_commit = true,
            "--command-config" | "--consumer.config" => from_file = verifiable::properties(&args.value(&arg)?)?,
            "-h" | "--help" => return Ok(None),
            other => return Err(format!("unknown argument {other}\n{HELP}").into()),
        }
    }
    for needed in ["bootstrap.servers", "group.id"] {
        if !named.iter().any(|(name, _)| *name == needed) {
            return Err(format!("{needed} is missing\n{HELP}").into());
        }
    }
    named.push(("enable.auto.commit", auto_commit.to_string()));
    named.push(("auto.offset.reset", reset));
    let classic = protocol == "classic";
    if classic {
        named.push(("partition.assignment.strategy", strategy));
        named.push(("session.timeout.ms", session.to_string()));
    } else {
        named.extend(remote_assignor.map(|assignor| ("group.remote.assignor", assignor)));
        named.push(("group.protocol", protocol));
    }
    // The options override the file, as in Kafka's own program.
    from_file.retain(|(name, _)| !named.iter().any(|(known, _)| known == name));
    from_file.extend(named.into_iter().map(|(name, value)| (name.to_owned(), value)));
    Ok(Some(Options {
        topic: topic.ok_or("--topic is missing")?,
        max_messages,
        verbose,
        auto_commit,
        properties: from_file,
    }))
}

async fn run(options: Options) -> Result<(), Failure> {
    let consumer = Consumer::from_properties(options.properties.clone()).await?;
    Event::new("startup_complete").print()?;
    let consumed = consume(&consumer, &options).await;
    if let Err(error) = &consumed {
        // As in Kafka's own program, the reason goes to the log, and the program closes in order.
        eprintln!("the consumer ends: {error}");
    }
    let closed = consumer.close(Duration::from_secs(30)).await;
    Event::new("shutdown_complete").print()?;
    if let Err(error) = closed {
        eprintln!("closed with an error: {error}");
    }
    consumed
}

async fn consume(consumer: &Consumer, options: &Options) -> Result<(), Failure> {
    consumer.subscribe_with([options.topic.as_str()], Rebalances)?;
    let mut left = options.max_messages.unwrap_or(u64::MAX);
    let terminated = verifiable::terminated();
    tokio::pin!(terminated);
    while left > 0 {
        let polled = tokio::select! {
            biased;
            () = &mut terminated => return Ok(()),
            polled = consumer.poll(POLL) => polled,
        };
        match polled {
            Ok(records) if records.is_empty() => {}
            Ok(records) => {
                let offsets = show(&records, &mut left, options.verbose)?;
                if !options.auto_commit {
                    commit(consumer, offsets).await?;
                }
            }
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => eprintln!("the consumer reports an error and continues: {error}"),
        }
    }
    Ok(())
}

/// Prints at most `left` of the records; returns the offsets to be committed.
fn show(records: &Records, left: &mut u64, verbose: bool) -> Result<Vec<(TopicPartition, i64)>, Failure> {
    let (mut summaries, mut offsets, mut count) = (Vec::new(), Vec::new(), 0_u64);
    for of_one in records.partitions() {
        let partition = of_one.partition();
        let (mut seen, mut min, mut max) = (0_u64, i64::MAX, -1);
        for record in of_one.iter().take(usize::try_from(*left).unwrap_or(usize::MAX)) {
            (seen, min, max) = (seen + 1, min.min(record.offset()), record.offset());
            if verbose {
                let event = Event::new("record_data").bytes("key", record.key()).bytes("value", record.value());
                let event = event.text("topic", Some(record.topic())).raw("partition", record.partition());
                event.raw("offset", record.offset()).print()?;
            }
        }
        if seen > 0 {
            *left -= seen;
            count += seen;
            let TopicPartition { topic, partition: number } = partition;
            summaries.push(format!(
                r#"{{"topic":{},"partition":{number},"count":{seen},"minOffset":{min},"maxOffset":{max}}}"#,
                json::text(topic)
            ));
            offsets.push((partition.clone(), max + 1));
        }
    }
    let event = Event::new("records_consumed").raw("count", count);
    event.raw("partitions", json::list(summaries)).print()?;
    Ok(offsets)
}

async fn commit(consumer: &Consumer, offsets: Vec<(TopicPartition, i64)>) -> Result<(), Failure> {
    let shown = offsets.iter().map(|(partition, offset)| {
        let (topic, number) = (json::text(&partition.topic), partition.partition);
        format!(r#"{{"topic":{topic},"partition":{number},"offset":{offset}}}"#)
    });
    let event = Event::new("offsets_committed").raw("offsets", json::list(shown));
    match consumer.commit_offsets(offsets).await {
        Ok(()) => event.raw("success", true).print()?,
        Err(error) if error.is_fatal() => return Err(error.into()),
        Err(error) => event.text("error", Some(&error.to_string())).raw("success", false).print()?,
    }
    Ok(())
}

/// Prints the partitions that the group assigns and revokes.
struct Rebalances;

impl RebalanceListener for Rebalances {
    async fn on_assigned(&self, assigned: &mut Assigned) -> ListenerResult {
        tell("partitions_assigned", assigned.partitions())
    }

    async fn on_revoked(&self, revoked: &Revoked) -> ListenerResult {
        tell("partitions_revoked", revoked.partitions())
    }

    /// Like Java's listeners without an `onPartitionsLost` of their own.
    async fn on_lost(&self, lost: &[TopicPartition]) -> ListenerResult {
        tell("partitions_revoked", lost)
    }
}

fn tell(name: &str, partitions: &[TopicPartition]) -> Result<(), Failure> {
    let shown = partitions.iter().map(|TopicPartition { topic, partition }| {
        format!(r#"{{"topic":{},"partition":{partition}}}"#, json::text(topic))
    });
    Ok(Event::new(name).raw("partitions", json::list(shown)).print()?)
}
