//! Runs the work through krafka: `enqueue`, and every `DeliveryHandle` awaited; it has no callback
//! for each record.

mod consume;
mod transact;

use std::{
    collections::VecDeque,
    process::ExitCode,
    time::{Duration, Instant},
};

use krafka::{
    Compression, Kafka, Record,
    auth::{AuthConfig, TlsConfig},
    producer::{Acks, DeliveryHandle, Producer},
};
use peers_common::{Clock, Failure, Mode, Outcome, Work, finish};

/// The release in Cargo.toml.
const VERSION: &str = "0.28.1";
/// Number of handles that are kept before the older half of them is awaited.
const KEPT: usize = 1 << 17;

/// There is one worker thread beside the program's own: with more, every record that is sent alone
/// would wake two of them.
#[tokio::main(worker_threads = 1)]
async fn main() -> ExitCode {
    finish(run().await)
}

async fn run() -> Result<Outcome, Failure> {
    let work = Work::from_args()?;
    if let Some(api) = &work.api {
        return Err(format!("unknown --api {api}").into());
    }
    let mut builder = Kafka::builder(&work.bootstrap).client_id("peers").max_in_flight_requests(5);
    if let Some(ca) = &work.ca {
        builder = builder.security(AuthConfig::ssl(TlsConfig::new().with_ca_cert(ca.as_str())));
    }
    let kafka = builder.connect().await?;
    if work.mode == Mode::Consume {
        return consume::run(&work, &kafka).await;
    }
    let mut builder = kafka
        .producer()
        .acks(Acks::All)
        .idempotent(true)
        .linger(Duration::from_millis(work.linger_ms))
        .compression(compression(&work.compression)?)
        .compression_level(work.level);
    if let Some(bytes) = work.batch_size {
        builder = builder.batch_size(bytes);
    }
    if work.mode == Mode::Transact {
        return transact::run(&work, builder).await;
    }
    let producer = builder.build().await?;
    let partitions = producer.partitions_for(&work.topic).await?.len();
    if partitions != work.partitions {
        return Err(format!("{} has {partitions} partitions", work.topic).into());
    }
    let outcome = match work.mode {
        Mode::Produce => {
            produce(&work, work.warmup, &producer).await?;
            let clock = Clock::start()?;
            let sent = produce(&work, work.timed, &producer).await?;
            clock.stop("krafka", VERSION, sent)?
        }
        Mode::Latency => latency(&work, &producer).await?,
        Mode::Consume | Mode::Transact => return Err("another client does this work".into()),
    };
    producer.close().await?;
    Ok(outcome)
}

fn compression(name: &str) -> Result<Compression, Failure> {
    Ok(match name {
        "none" => Compression::None,
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        other => return Err(format!("unknown compression {other}").into()),
    })
}

fn record(work: &Work, n: u64) -> Record {
    let record = Record::new(work.topic.as_str(), work.value(n));
    if work.keyed { record.key(work.key(n).to_vec()) } else { record }
}

/// Sends for that long, and waits until every record has its result.
async fn produce(work: &Work, time: Duration, producer: &Producer) -> Result<u64, Failure> {
    let mut kept: VecDeque<DeliveryHandle> = VecDeque::with_capacity(KEPT);
    let (mut n, mut delivered) = (0, 0);
    let end = Instant::now() + time;
    while n < work.records && (n % peers_common::STRIDE != 0 || Instant::now() < end) {
        kept.push_back(producer.enqueue(record(work, n)).await?);
        n += 1;
        if kept.len() == KEPT {
            for handle in kept.drain(..KEPT / 2) {
                delivered += look_at(handle).await?;
            }
        }
    }
    producer.flush().await?;
    for handle in kept {
        delivered += look_at(handle).await?;
    }
    if delivered == n { Ok(n) } else { Err(format!("{n} sent, {delivered} delivered").into()) }
}

async fn look_at(handle: DeliveryHandle) -> Result<u64, Failure> {
    let result = handle.await?;
    if result.is_persisted() { Ok(1) } else { Err(format!("a record was not persisted: {result:?}").into()) }
}

/// Sends from this thread, which runs nothing else and sleeps more precisely than a runtime's
/// timer. Each handle is awaited by a task of its own, which takes the time.
async fn latency(work: &Work, producer: &Producer) -> Result<Outcome, Failure> {
    latency_pass(work, work.scheduled(work.warmup), producer).await?;
    let clock = Clock::start()?;
    let latencies = latency_pass(work, work.scheduled(work.timed), producer).await?;
    Ok(clock.stop("krafka", VERSION, latencies.len() as u64)?.with_latencies(latencies))
}

async fn latency_pass(work: &Work, count: u64, producer: &Producer) -> Result<Vec<Duration>, Failure> {
    let mut ends = Vec::with_capacity(count as usize);
    let start = Instant::now();
    for n in 0..count {
        let from = work.wait_until_due(start, n);
        let handle = producer.enqueue(record(work, n)).await?;
        ends.push(tokio::spawn(async move { look_at(handle).await.map(|_| from.elapsed()) }));
    }
    let mut latencies = Vec::with_capacity(ends.len());
    for end in ends {
        latencies.push(end.await??);
    }
    Ok(latencies)
}
