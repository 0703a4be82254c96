//! A small kcat.
//!
//! ```sh
//! seq 1 1000 | kat produce -b localhost:9092 -t numbers
//! kat consume -b localhost:9092 -t numbers --exit-at-end
//! kat metadata -b localhost:9092 --json
//! ```

mod common;

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, BufWriter, Write},
    process::ExitCode,
    time::Duration,
};

use common::{Args, Failure, json};
use ottla::{Admin, Consumer, Offset, Producer, Record, TopicPartition, consumer::RecordRef};

const HELP: &str = "\
usage: kat produce  -b BROKERS -t TOPIC [-p PARTITION] [--key-delimiter D] [-X property=value]...
       kat consume  -b BROKERS -t TOPIC... [-p PARTITION]... [--from beginning|end|OFFSET] [--exit-at-end]
                    [--group GROUP] [--json] [-X property=value]...
       kat metadata -b BROKERS [-t TOPIC]... [--json] [-X property=value]...

produce   sends each line of standard input as a record; with --key-delimiter, the text before the delimiter is the key
consume   reads all partitions of the topics, or those that -p names; prints each record's value on a line of its own,
          or with --json an object with topic, partition, offset, timestamp, key, value and headers; --group reads as a
          member of a group, from the group's committed offsets on
metadata  prints brokers, topics and partitions
-t        may be repeated for consume and metadata, and -p for consume; all other options are given once
-X        any property of Kafka's clients by its name (Java's or librdkafka's); may be repeated";

#[derive(Default)]
struct Settings {
    bootstrap: Option<String>,
    topics: Vec<String>,
    partitions: Vec<i32>,
    key_delimiter: Option<String>,
    from: Option<Offset>,
    exit_at_end: bool,
    group: Option<String>,
    json: bool,
    properties: Vec<(String, String)>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = run().await;
    // The reader of the output may close it early (`kat … | head`): that is not a failure.
    if let Err(error) = &result
        && error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    {
        return ExitCode::SUCCESS;
    }
    common::exit(result)
}

async fn run() -> Result<(), Failure> {
    let mut args = Args::from_env();
    let Some(command) = args.next() else { return Err(HELP.into()) };
    if matches!(command.as_str(), "-h" | "--help" | "help") {
        println!("{HELP}");
        return Ok(());
    }
    let settings = parse(&mut args)?;
    match command.as_str() {
        "produce" => produce(settings).await,
        "consume" => consume(settings).await,
        "metadata" => metadata(settings).await,
        other => Err(format!("unknown command {other:?}\n{HELP}").into()),
    }
}

fn parse(args: &mut Args) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-b" | "--bootstrap-server" => settings.bootstrap = Some(args.value(&arg)?),
            "-t" | "--topic" => add(&mut settings.topics, args.repeated(&arg)?),
            "-p" | "--partition" => add(&mut settings.partitions, args.repeated_number(&arg)?),
            "--key-delimiter" => settings.key_delimiter = Some(args.value(&arg)?).filter(|d| !d.is_empty()),
            "--from" => {
                settings.from =
                    Some(match args.value(&arg)?.as_str() {
                        "beginning" => Offset::Beginning,
                        "end" => Offset::End,
                        number => {
                            Offset::At(number.parse().ok().filter(|at| *at >= 0).ok_or_else(|| {
                                format!("--from requires beginning, end or an offset, not {number:?}")
                            })?)
                        }
                    });
            }
            "--exit-at-end" => settings.exit_at_end = true,
            "--group" => settings.group = Some(args.value(&arg)?),
            "--json" => settings.json = true,
            "-X" => {
                let pair = args.repeated(&arg)?;
                let (name, value) =
                    pair.split_once('=').ok_or_else(|| format!("-X requires property=value, not {pair:?}"))?;
                settings.properties.push((name.to_owned(), value.to_owned()));
            }
            other => return Err(format!("unknown argument {other:?}\n{HELP}").into()),
        }
    }
    Ok(settings)
}

/// Adds a value, unless it is in the list already.
fn add<T: PartialEq>(values: &mut Vec<T>, value: T) {
    if !values.contains(&value) {
        values.push(value);
    }
}

impl Settings {
    fn properties(&self, more: &[(&str, &str)]) -> Result<Vec<(String, String)>, Failure> {
        let mut pairs: Vec<(String, String)> =
            more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        // The user's -X overrides the settings of this program.
        pairs.retain(|(name, _)| !self.properties.iter().any(|(said, _)| said == name));
        pairs.extend(self.properties.iter().cloned());
        match &self.bootstrap {
            Some(bootstrap) => pairs.push(("bootstrap.servers".to_owned(), bootstrap.clone())),
            None if pairs.iter().any(|(name, _)| name == "bootstrap.servers" || name == "metadata.broker.list") => {}
            None => return Err("-b BROKERS is missing".into()),
        }
        Ok(pairs)
    }

    fn topics(&self) -> Result<&[String], Failure> {
        if self.topics.is_empty() { Err("-t TOPIC is missing".into()) } else { Ok(&self.topics) }
    }
}

async fn produce(settings: Settings) -> Result<(), Failure> {
    let [topic] = settings.topics()? else { return Err("produce sends to one topic: -t is given once".into()) };
    let partition = match settings.partitions[..] {
        [] => None,
        [partition] => Some(partition),
        _ => return Err("produce sends to one partition: -p is given once".into()),
    };
    let producer = Producer::from_properties(settings.properties(&[("client.id", "kat")])?).await?;

    // Counts failures while lines are still being sent, and keeps the first error.
    let mut reports = producer.delivery_reports();
    let failures = tokio::spawn(async move {
        let (mut failed, mut first) = (0_u64, None);
        while let Some(report) = reports.next().await {
            if let Err(error) = report.result {
                failed += 1;
                first.get_or_insert(error);
            }
        }
        (failed, first)
    });

    // Standard input blocks its thread, so it has one of its own.
    let (lines, mut incoming) = tokio::sync::mpsc::channel::<io::Result<Vec<Vec<u8>>>>(8);
    let reader = tokio::task::spawn_blocking(move || read_lines(&lines));

    while let Some(chunk) = incoming.recv().await {
        for line in chunk? {
            let mut record = Record::to(topic.as_str());
            if let Some(partition) = partition {
                record = record.with_partition(partition);
            }
            let record = match settings.key_delimiter.as_deref().and_then(|d| split_once(&line, d.as_bytes())) {
                Some((key, value)) => record.with_key(key).with_value(value),
                None => record.with_value(&line),
            };
            let _delivery = producer.send(record).await?;
        }
    }
    reader.await?;

    let closed = producer.close(Duration::from_secs(120)).await;
    let (failed, first) = failures.await?;
    if let Some(error) = first {
        eprintln!("{failed} records were not acknowledged; the first error:");
        return Err(error.into());
    }
    Ok(closed?)
}

/// Sends the lines of standard input in chunks, without their line ends.
fn read_lines(out: &tokio::sync::mpsc::Sender<io::Result<Vec<Vec<u8>>>>) {
    let mut input = BufReader::with_capacity(256 * 1024, io::stdin());
    let mut chunk = Vec::new();
    loop {
        let mut line = Vec::new();
        let end = match input.read_until(b'\n', &mut line) {
            Ok(read) => read == 0,
            Err(error) => {
                // If the channel is closed, the sending side has failed first.
                let _ = out.blocking_send(Err(error));
                return;
            }
        };
        if !end {
            if line.last() == Some(&b'\n') {
                line.pop();
            }
            chunk.push(line);
        }
        // Lines that were already read go together; a line never waits for the next.
        let ready = input.buffer().is_empty() || chunk.len() == 1024;
        if (end || ready) && !chunk.is_empty() && out.blocking_send(Ok(std::mem::take(&mut chunk))).is_err() {
            return;
        }
        if end {
            return;
        }
    }
}

fn split_once<'a>(line: &'a [u8], delimiter: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(delimiter.len()).position(|window| window == delimiter)?;
    Some((&line[..at], &line[at + delimiter.len()..]))
}

async fn consume(settings: Settings) -> Result<(), Failure> {
    let topics = settings.topics()?;
    if settings.group.is_some() && (settings.from.is_some() || !settings.partitions.is_empty()) {
        return Err(
            "with --group the group decides which partitions are read and from where: leave -p and --from out".into()
        );
    }
    let mut properties = vec![("client.id", "kat"), ("auto.offset.reset", "earliest")];
    if let Some(group) = &settings.group {
        properties.push(("group.id", group));
    }
    let consumer = Consumer::from_properties(settings.properties(&properties)?).await?;

    // The end for `--exit-at-end`: the end offsets of the partitions at the start.
    let mut ends = HashMap::new();
    if settings.group.is_some() {
        consumer.subscribe(topics)?;
    }
    if settings.group.is_none() || settings.exit_at_end {
        let mut partitions = Vec::new();
        for topic in topics {
            partitions.extend(partitions_of(&consumer, topic, &settings.partitions).await?);
        }
        if settings.exit_at_end {
            ends = consumer.end_offsets(partitions.clone()).await?;
        }
        if settings.group.is_none() {
            let from = settings.from.unwrap_or(Offset::Beginning);
            consumer.assign(partitions.into_iter().map(|partition| (partition, from)))?;
        }
    }

    let mut out = BufWriter::new(io::stdout().lock());
    loop {
        if settings.exit_at_end {
            let mut left = false;
            for (partition, end) in &ends {
                // A partition without a position (its offset is being looked up) is not at its end.
                left |= *end > 0 && consumer.position(partition).is_none_or(|at| at < *end);
            }
            if !left {
                break;
            }
        }
        let records = consumer.poll(Duration::from_millis(500)).await?;
        for record in records.iter() {
            if settings.json { write_json(&mut out, &record)? } else { write_line(&mut out, &record)? }
        }
        out.flush()?;
    }
    consumer.close(Duration::from_secs(30)).await?;
    Ok(())
}

/// Returns all partitions of a topic, or only those with the numbers in `only`.
async fn partitions_of(consumer: &Consumer, topic: &str, only: &[i32]) -> Result<Vec<TopicPartition>, Failure> {
    let all = consumer.partitions_for(topic).await?;
    if let Some(missing) = only.iter().find(|number| all.iter().all(|found| found.partition != **number)) {
        return Err(format!("{topic} has partitions 0 to {}, not {missing}", all.len().saturating_sub(1)).into());
    }
    let wanted = all.iter().filter(|found| only.is_empty() || only.contains(&found.partition));
    Ok(wanted.map(|found| TopicPartition::new(&found.topic, found.partition)).collect())
}

fn write_line(out: &mut impl Write, record: &RecordRef<'_>) -> io::Result<()> {
    out.write_all(record.value().unwrap_or_default())?;
    out.write_all(b"\n")
}

fn write_json(out: &mut impl Write, record: &RecordRef<'_>) -> io::Result<()> {
    write!(out, "{{\"topic\":{},\"partition\":{},", json::text(record.topic()), record.partition())?;
    write!(out, "\"offset\":{},\"timestamp\":{},", record.offset(), record.timestamp_millis())?;
    write!(out, "\"key\":{},\"value\":{},\"headers\":[", json_bytes(record.key()), json_bytes(record.value()))?;
    for (i, (name, value)) in record.headers().enumerate() {
        let comma = if i == 0 { "" } else { "," };
        write!(out, "{comma}[{},{}]", json::text(&name), json_bytes(value))?;
    }
    out.write_all(b"]}\n")
}

fn json_bytes(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| "null".to_owned(), |bytes| json::text(&String::from_utf8_lossy(bytes)))
}

async fn metadata(settings: Settings) -> Result<(), Failure> {
    let admin = Admin::from_properties(settings.properties(&[("client.id", "kat")])?).await?;
    let cluster = admin.describe_cluster().await?;
    let names: Vec<String> = match &settings.topics[..] {
        [] => admin.list_topics().await?.into_iter().map(|topic| topic.name).collect(),
        topics => topics.to_vec(),
    };
    let mut topics = Vec::new();
    for topic in admin.describe_topics(&names).await? {
        topics.push(topic.result?);
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));

    let mut out = BufWriter::new(io::stdout().lock());
    if settings.json {
        let list = |numbers: &[i32]| numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
        let brokers: Vec<String> = cluster
            .brokers
            .iter()
            .map(|b| format!("{{\"id\":{},\"host\":{},\"port\":{}}}", b.id, json::text(&b.host), b.port))
            .collect();
        let topics: Vec<String> = topics
            .iter()
            .map(|topic| {
                let partitions: Vec<String> = topic
                    .partitions
                    .iter()
                    .map(|p| {
                        let leader = p.leader.map_or_else(|| "null".to_owned(), |leader| leader.to_string());
                        let (replicas, isr) = (list(&p.replicas), list(&p.isr));
                        let partition = p.partition;
                        format!("{{\"partition\":{partition},\"leader\":{leader},\"replicas\":[{replicas}],\"isr\":[{isr}]}}")
                    })
                    .collect();
                format!("{{\"topic\":{},\"partitions\":[{}]}}", json::text(&topic.name), partitions.join(","))
            })
            .collect();
        let controller = cluster.controller.map_or_else(|| "null".to_owned(), |id| id.to_string());
        let brokers = brokers.join(",");
        writeln!(out, "{{\"controller\":{controller},\"brokers\":[{brokers}],\"topics\":[{}]}}", topics.join(","))?;
    } else {
        writeln!(out, "{} brokers:", cluster.brokers.len())?;
        for broker in &cluster.brokers {
            let controller = if cluster.controller == Some(broker.id) { " (controller)" } else { "" };
            writeln!(out, "  broker {} at {}:{}{controller}", broker.id, broker.host, broker.port)?;
        }
        writeln!(out, "{} topics:", topics.len())?;
        for topic in &topics {
            writeln!(out, "  topic {:?} with {} partitions:", &*topic.name, topic.partitions.len())?;
            for p in &topic.partitions {
                let leader = p.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
                writeln!(
                    out,
                    "    partition {}, leader {leader}, replicas {:?}, isr {:?}",
                    p.partition, p.replicas, p.isr
                )?;
            }
        }
    }
    out.flush()?;
    Ok(())
}
