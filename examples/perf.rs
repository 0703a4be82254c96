//! Measures throughput and latency.
//!
//! ```sh
//! perf produce --bootstrap-server localhost:9092 --topic t --records 5000000 --size 100 --partitions 4
//! perf consume --bootstrap-server localhost:9092 --topic t --records 5000000 --partitions 4
//! perf latency --bootstrap-server localhost:9092 --topic t --records 20000 --rate 2000
//! perf transactions --bootstrap-server localhost:9092 --topic t --records 1000000 --transaction-size 100
//! ```
//! Progress goes to standard error; the last line on standard output is one JSON object. Without an
//! address it measures against a broker in the process; CPU and memory then include the broker's.

mod common;

use std::{
    collections::VecDeque,
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use common::{Args, Failure};
use ottla::{
    Admin, Compression, Consumer, Delivery, ErrorCode, Offset, Producer, Record, TopicPartition, TransactionalProducer,
    admin::NewTopic, testkit,
};

const HELP: &str = "\
usage: perf produce|consume|latency|transactions [--bootstrap-server B] [--topic T] [--records N] [--size S]
            [--partitions P] [--compression none|gzip|snappy|lz4|zstd] [--rate R]
            [--transactional-id ID] [--transaction-size R] [-X property=value]...

produce   spreads N records of S bytes round-robin over partitions 0..P and counts until the last acknowledgement
consume   reads N records from partitions 0..P, from offset 0, without a group
latency   sends R records a second with linger 0 and measures from send to acknowledgement
transactions
          sends N records as `produce` does, in transactions of R records, one after the other, and measures each
          commit from its call to its confirmation, which includes sending the records that are still buffered
defaults: topic perf, 1000000 records (latency: 20000) of 100 bytes, 1 partition, no compression, 2000 records a second,
          transactional.id perf, 1000 records a transaction";

struct Settings {
    mode: String,
    bootstrap: Option<String>,
    topic: String,
    records: u64,
    size: usize,
    partitions: i32,
    compression: String,
    rate: u64,
    transactional_id: String,
    transaction_size: u64,
    properties: Vec<(String, String)>,
}

/// The result of a run.
#[derive(Default)]
struct Outcome {
    records: u64,
    bytes: u64,
    elapsed: Duration,
    cpu: Option<Duration>,
    /// Microseconds, unsorted.
    latencies: Vec<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Failure> {
    let Some(mut settings) = parse(&mut Args::from_env())? else {
        println!("{HELP}");
        return Ok(());
    };
    let mut embedded = None;
    if settings.bootstrap.is_none() {
        let cluster = testkit::Cluster::start(testkit::Options::new().brokers(1)).await?;
        settings.bootstrap = Some(cluster.bootstrap());
        embedded = Some(cluster);
        eprintln!("no --bootstrap-server: starting a broker in the process; cpu and rss include it");
    }
    create_topic(&settings).await?;
    let outcome = match settings.mode.as_str() {
        "produce" => produce(&settings).await?,
        "consume" => {
            if embedded.is_some() {
                // A broker in the process starts empty, so the records to be read are written
                // first.
                produce(&settings).await?;
            }
            consume(&settings).await?
        }
        "transactions" => transactions(&settings).await?,
        _ => latency(&settings).await?,
    };
    println!("{}", report(&settings, outcome));
    drop(embedded);
    Ok(())
}

fn parse(args: &mut Args) -> Result<Option<Settings>, Failure> {
    let mode = match args.next() {
        None => return Err(HELP.into()),
        Some(word) if matches!(word.as_str(), "-h" | "--help") => return Ok(None),
        Some(word) if matches!(word.as_str(), "produce" | "consume" | "latency" | "transactions") => word,
        Some(other) => return Err(format!("unknown mode {other:?}\n{HELP}").into()),
    };
    let records = if mode == "latency" { 20_000 } else { 1_000_000 };
    let mut settings = Settings {
        mode,
        bootstrap: None,
        topic: "perf".to_owned(),
        records,
        size: 100,
        partitions: 1,
        compression: "none".to_owned(),
        rate: 2_000,
        transactional_id: "perf".to_owned(),
        transaction_size: 1_000,
        properties: Vec::new(),
    };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "-b" | "--bootstrap-server" => settings.bootstrap = Some(args.value(&arg)?),
            "-t" | "--topic" => settings.topic = args.value(&arg)?,
            "--records" => settings.records = args.number(&arg)?,
            "--size" => settings.size = args.number(&arg)?,
            "--partitions" => settings.partitions = args.number(&arg)?,
            "--compression" => settings.compression = args.value(&arg)?,
            "--rate" => settings.rate = args.number(&arg)?,
            "--transactional-id" => settings.transactional_id = args.value(&arg)?,
            "--transaction-size" => settings.transaction_size = args.number(&arg)?,
            "-X" => {
                let pair = args.repeated(&arg)?;
                let (name, value) =
                    pair.split_once('=').ok_or_else(|| format!("-X requires property=value, not {pair:?}"))?;
                settings.properties.push((name.to_owned(), value.to_owned()));
            }
            "-h" | "--help" => return Ok(None),
            other => return Err(format!("unknown argument {other:?}\n{HELP}").into()),
        }
    }
    let at_least_one = [u64::try_from(settings.partitions).unwrap_or(0), settings.rate, settings.records];
    if at_least_one.contains(&0) || settings.transaction_size == 0 {
        return Err("--partitions, --rate, --records and --transaction-size require at least 1".into());
    }
    settings.compression.parse::<Compression>()?;
    Ok(Some(settings))
}

impl Settings {
    fn properties(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let bootstrap = self.bootstrap.as_deref().unwrap_or_default();
        let mut pairs: Vec<(String, String)> = [("bootstrap.servers", bootstrap), ("client.id", "perf")]
            .iter()
            .chain(more)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        pairs.retain(|(name, _)| !self.properties.iter().any(|(said, _)| said == name));
        pairs.extend(self.properties.iter().cloned());
        pairs
    }

    /// Returns a value of words, which compresses about as well as text, unlike noise or zeros.
    fn value(&self) -> Vec<u8> {
        let words = ["append", "broker", "topic", "partition", "offset", "group", "leader", "epoch", "batch", "record"];
        let (mut value, mut state) = (Vec::with_capacity(self.size + 16), 42_u64);
        while value.len() < self.size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            value.extend_from_slice(words[(state >> 33) as usize % words.len()].as_bytes());
            value.extend_from_slice(format!("-{} ", state >> 52).as_bytes());
        }
        value.truncate(self.size);
        value
    }
}

async fn create_topic(settings: &Settings) -> Result<(), Failure> {
    let admin = Admin::from_properties(settings.properties_for_admin()).await?;
    for created in admin.create_topics([NewTopic::new(settings.topic.as_str(), settings.partitions)]).await? {
        match created.result {
            Ok(_) => eprintln!("created {} with {} partitions", settings.topic, settings.partitions),
            Err(error) if error.code() == Some(ErrorCode::TOPIC_ALREADY_EXISTS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Settings {
    /// `-X` is for the producer or the consumer that is measured; the admin client only has to find
    /// the cluster.
    fn properties_for_admin(&self) -> Vec<(String, String)> {
        vec![("bootstrap.servers".to_owned(), self.bootstrap.clone().unwrap_or_default())]
    }
}

async fn produce(settings: &Settings) -> Result<Outcome, Failure> {
    let producer =
        Producer::from_properties(settings.properties(&[("compression.type", &settings.compression)])).await?;
    let value = settings.value();
    producer.partitions_for(&settings.topic).await?;

    // Deliveries are awaited in order, a bounded number of records after their sends, so that every
    // failure is noticed.
    let mut deliveries: VecDeque<Delivery> = VecDeque::with_capacity(1 << 17);
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut progress = Progress::start();
    for n in 0..settings.records {
        let partition = i32::try_from(n % u64::from(settings.partitions.unsigned_abs())).unwrap_or_default();
        let record = Record::to(settings.topic.as_str()).with_partition(partition).with_value(&value);
        deliveries.push_back(match producer.try_send(record) {
            Ok(delivery) => delivery,
            // Waits only if the buffer is full.
            Err(full) if full.error().kind() == ottla::ErrorKind::BufferFull => {
                producer.send(full.into_record()).await?
            }
            Err(other) => return Err(other.error().clone().into()),
        });
        if deliveries.len() == 1 << 17 {
            for delivery in deliveries.drain(..1 << 16) {
                delivery.await?;
            }
            progress.tell(n + 1);
        }
    }
    let outstanding = producer.flush(Duration::from_secs(300)).await;
    let (elapsed, cpu) = (started.elapsed(), cpu_since(cpu));
    for delivery in deliveries {
        delivery.await?;
    }
    producer.close(Duration::from_secs(10)).await?;
    if outstanding > 0 {
        return Err(format!("{outstanding} records were not acknowledged").into());
    }
    let bytes = settings.records * settings.size as u64;
    Ok(Outcome { records: settings.records, bytes, elapsed, cpu, latencies: Vec::new() })
}

async fn transactions(settings: &Settings) -> Result<Outcome, Failure> {
    let properties =
        [("compression.type", settings.compression.as_str()), ("transactional.id", &settings.transactional_id)];
    let mut producer = TransactionalProducer::from_properties(settings.properties(&properties)).await?;
    let value = settings.value();
    producer.partitions_for(&settings.topic).await?;
    producer.init().await?;
    let (started, cpu) = (Instant::now(), cpu_time());
    let mut progress = Progress::start();
    let (mut sent, mut latencies) = (0, Vec::new());
    while sent < settings.records {
        let transaction = producer.begin().await?;
        let end = settings.records.min(sent + settings.transaction_size);
        for n in sent..end {
            let partition = i32::try_from(n % u64::from(settings.partitions.unsigned_abs())).unwrap_or_default();
            let record = Record::to(settings.topic.as_str()).with_partition(partition).with_value(&value);
            // A record that fails makes the commit fail.
            drop(transaction.send(record).await?);
        }
        let at = Instant::now();
        transaction.commit().await.map_err(ottla::Error::from)?;
        latencies.push(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        sent = end;
        progress.tell(sent);
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_since(cpu));
    producer.close(Duration::from_secs(10)).await?;
    Ok(Outcome { records: sent, bytes: sent * settings.size as u64, elapsed, cpu, latencies })
}

async fn consume(settings: &Settings) -> Result<Outcome, Failure> {
    let consumer = Consumer::from_properties(settings.properties(&[])).await?;
    let partitions = (0..settings.partitions).map(|p| (TopicPartition::new(settings.topic.as_str(), p), Offset::At(0)));
    let (started, cpu) = (Instant::now(), cpu_time());
    consumer.assign(partitions)?;
    let (mut records, mut bytes) = (0, 0);
    let mut progress = Progress::start();
    let mut last = Instant::now();
    while records < settings.records {
        let batch = consumer.poll(Duration::from_secs(1)).await?;
        let before = records;
        for record in batch.iter() {
            records += 1;
            bytes += record.value().map_or(0, |value| value.len() as u64);
        }
        if records > before {
            last = Instant::now();
        } else if last.elapsed() > Duration::from_secs(30) {
            return Err(format!("no record for 30 s, after {records} of {}", settings.records).into());
        }
        progress.tell(records);
    }
    let (elapsed, cpu) = (started.elapsed(), cpu_since(cpu));
    consumer.close(Duration::from_secs(10)).await?;
    Ok(Outcome { records, bytes, elapsed, cpu, latencies: Vec::new() })
}

async fn latency(settings: &Settings) -> Result<Outcome, Failure> {
    let defaults = [("compression.type", settings.compression.as_str()), ("linger.ms", "0")];
    let producer = Producer::from_properties(settings.properties(&defaults)).await?;
    let value = settings.value();
    // The first record includes connecting, so it is not measured.
    producer.send(Record::to(settings.topic.as_str()).with_partition(0).with_value(&value)).await?.await?;

    let (sent, mut sends) = tokio::sync::mpsc::unbounded_channel::<(Instant, Delivery)>();
    let collector = tokio::spawn(async move {
        let mut latencies = Vec::new();
        while let Some((at, delivery)) = sends.recv().await {
            delivery.await?;
            latencies.push(u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        Ok::<_, ottla::Error>(latencies)
    });

    let (started, cpu) = (Instant::now(), cpu_time());
    let mut progress = Progress::start();
    for n in 0..settings.records {
        // Each send is scheduled by the clock, not after the last send, so that a stall shows in
        // the latencies of all records that it delays.
        let due = started + Duration::from_nanos(n.saturating_mul(1_000_000_000) / settings.rate);
        if due > Instant::now() {
            tokio::time::sleep_until(due.into()).await;
        }
        let partition = i32::try_from(n % u64::from(settings.partitions.unsigned_abs())).unwrap_or_default();
        let record = Record::to(settings.topic.as_str()).with_partition(partition).with_value(&value);
        let at = Instant::now();
        let delivery = producer.send(record).await?;
        if sent.send((at, delivery)).is_err() {
            break;
        }
        progress.tell(n + 1);
    }
    drop(sent);
    let latencies = collector.await??;
    let (elapsed, cpu) = (started.elapsed(), cpu_since(cpu));
    producer.close(Duration::from_secs(10)).await?;
    let bytes = settings.records * settings.size as u64;
    Ok(Outcome { records: settings.records, bytes, elapsed, cpu, latencies })
}

fn report(settings: &Settings, mut outcome: Outcome) -> String {
    let secs = outcome.elapsed.as_secs_f64();
    let records = outcome.records as f64;
    let number = |value: Option<f64>| value.map_or_else(|| "null".to_owned(), |value| format!("{value:.3}"));
    let mut out = format!(
        "{{\"mode\":\"{}\",\"records\":{},\"size\":{},\"partitions\":{},\"compression\":\"{}\",\"secs\":{secs:.3},\
         \"records_per_s\":{:.0},\"mb_per_s\":{:.2},\"cpu_us_per_record\":{},\"rss_mb\":{}",
        settings.mode,
        outcome.records,
        settings.size,
        settings.partitions,
        settings.compression,
        records / secs,
        outcome.bytes as f64 / secs / 1e6,
        number(outcome.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / records)),
        number(peak_rss_mb()),
    );
    if settings.mode == "transactions" {
        let (size, count) = (settings.transaction_size, outcome.latencies.len());
        out.push_str(&format!(",\"transaction_size\":{size},\"transactions\":{count}"));
    }
    if !outcome.latencies.is_empty() {
        outcome.latencies.sort_unstable();
        for (name, share) in [("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)] {
            let at = ((outcome.latencies.len() - 1) as f64 * share).round() as usize;
            out.push_str(&format!(",\"{name}\":{}", outcome.latencies[at]));
        }
    }
    out.push('}');
    out
}

/// Prints a line on standard error every two seconds.
struct Progress {
    started: Instant,
    last: Instant,
}

impl Progress {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, last: now }
    }

    fn tell(&mut self, records: u64) {
        if self.last.elapsed() >= Duration::from_secs(2) {
            self.last = Instant::now();
            let rate = records as f64 / self.started.elapsed().as_secs_f64();
            eprintln!("{records} records, {rate:.0} a second");
        }
    }
}

/// Returns user and system time of this process so far, or `None` if the system has no /proc.
fn cpu_time() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in parentheses that may contain spaces; after it, utime and stime
    // are the 12th and 13th field.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // Linux reports hundredths of a second here on every platform.
    Some(Duration::from_millis(ticks * 10))
}

fn cpu_since(before: Option<Duration>) -> Option<Duration> {
    Some(cpu_time()?.saturating_sub(before?))
}

/// Returns the peak of the resident memory.
fn peak_rss_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024.0)
}
