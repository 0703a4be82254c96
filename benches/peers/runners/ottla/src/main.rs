//! Runs the work through Ottla. `--api`: `callback` (`try_send`, results by `on_delivery`),
//! `delivery` (`try_send`, every `Delivery` awaited) or `batch` (`send_batch` of 500 records, its
//! results checked). For `consume`: `poll` (the default) or `recv`.

mod consume;
mod transact;

use std::{
    collections::VecDeque,
    process::ExitCode,
    sync::mpsc,
    time::{Duration, Instant},
};

use ottla::{
    Delivery, ErrorKind, Producer, Record,
    producer::{Deliveries, TrySendError},
};
use peers_common::{Clock, Counter, Failure, Mode, Outcome, Work, finish};

/// Number of deliveries that are kept before the older half of them is awaited.
const KEPT: usize = 1 << 17;
/// Records of one `send_batch`.
const AT_ONCE: u64 = 500;

/// There is one worker thread beside the program's own: with more, every record that is sent alone
/// would wake two of them.
#[tokio::main(worker_threads = 1)]
async fn main() -> ExitCode {
    finish(run().await)
}

async fn run() -> Result<Outcome, Failure> {
    let work = Work::from_args()?;
    match work.mode {
        Mode::Produce => {}
        Mode::Latency => return latency(work).await,
        Mode::Consume => return consume::run(&work).await,
        Mode::Transact => return transact::run(&work).await,
    }
    let api = work.api.clone().unwrap_or_else(|| "callback".to_owned());
    let results = Counter::default();
    let mut builder = Producer::builder(work.bootstrap.as_str()).properties(properties(&work));
    if api == "callback" {
        let results = results.clone();
        builder = builder.on_delivery(move |report| results.count(report.result.is_ok()));
    }
    let producer = builder.build().await?;
    producer.partitions_for(&work.topic).await?;
    pass(&work, work.warmup, &producer, &api, &results).await?;
    let clock = Clock::start()?;
    let sent = pass(&work, work.timed, &producer, &api, &results).await?;
    let outcome = clock.stop("ottla", env!("CARGO_PKG_VERSION"), sent)?;
    producer.close(Duration::from_secs(10)).await?;
    Ok(outcome)
}

fn properties(work: &Work) -> Vec<(&'static str, String)> {
    let mut properties = vec![
        ("client.id", "peers".to_owned()),
        ("acks", "all".to_owned()),
        ("enable.idempotence", "true".to_owned()),
        ("max.in.flight.requests.per.connection", "5".to_owned()),
        ("linger.ms", work.linger_ms.to_string()),
        ("compression.type", work.compression.clone()),
    ];
    properties.extend(work.batch_size.map(|bytes| ("batch.size", bytes.to_string())));
    properties.extend(work.level.map(|level| ("compression.level", level.to_string())));
    properties.extend(tls(work));
    properties
}

/// Returns the properties of a connection over TLS, if the work uses TLS.
fn tls(work: &Work) -> Vec<(&'static str, String)> {
    let Some(ca) = &work.ca else { return Vec::new() };
    vec![
        ("security.protocol", "SSL".to_owned()),
        ("ssl.enabled.protocols", "TLSv1.3".to_owned()),
        ("ssl.truststore.type", "PEM".to_owned()),
        ("ssl.truststore.location", ca.clone()),
    ]
}

#[inline(always)]
fn record(work: &Work, n: u64) -> Record<'_> {
    let mut record = Record::to(work.topic.as_str()).with_value(work.value(n));
    if work.keyed {
        record.set_key(Some(work.key(n).into()));
    }
    record
}

/// Sends for that long, and waits until every record has its result.
async fn pass(work: &Work, time: Duration, producer: &Producer, api: &str, results: &Counter) -> Result<u64, Failure> {
    let before = results.delivered();
    let sent = match api {
        "callback" => callback(work, time, producer).await?,
        "delivery" => delivery(work, time, producer).await?,
        "batch" => batch(work, time, producer).await?,
        other => return Err(format!("unknown --api {other}").into()),
    };
    let outstanding = producer.flush(Duration::from_secs(60)).await;
    let (delivered, failed) = (results.delivered() - before, results.failed());
    if api == "callback" && (delivered != sent || failed > 0 || outstanding > 0) {
        return Err(format!("{sent} sent, {delivered} delivered, {failed} failed, {outstanding} outstanding").into());
    }
    Ok(sent)
}

/// Sends a record that `try_send` refused. It waits only if the buffer is full.
#[cold]
async fn wait(producer: &Producer, refused: TrySendError<'_>) -> Result<Delivery, Failure> {
    match refused.error().kind() {
        ErrorKind::BufferFull => Ok(producer.send(refused.into_record()).await?),
        _ => Err(refused.error().clone().into()),
    }
}

async fn callback(work: &Work, time: Duration, producer: &Producer) -> Result<u64, Failure> {
    let mut n = 0;
    let end = Instant::now() + time;
    while n < work.records && (n % peers_common::STRIDE != 0 || Instant::now() < end) {
        if let Err(refused) = producer.try_send(record(work, n)) {
            drop(wait(producer, refused).await?);
        }
        n += 1;
    }
    Ok(n)
}

async fn delivery(work: &Work, time: Duration, producer: &Producer) -> Result<u64, Failure> {
    let mut kept: VecDeque<Delivery> = VecDeque::with_capacity(KEPT);
    let mut n = 0;
    let end = Instant::now() + time;
    while n < work.records && (n % peers_common::STRIDE != 0 || Instant::now() < end) {
        kept.push_back(match producer.try_send(record(work, n)) {
            Ok(delivery) => delivery,
            Err(refused) => wait(producer, refused).await?,
        });
        n += 1;
        if kept.len() == KEPT {
            for delivery in kept.drain(..KEPT / 2) {
                delivery.await?;
            }
        }
    }
    producer.flush(Duration::from_secs(60)).await;
    for delivery in kept {
        delivery.await?;
    }
    Ok(n)
}

async fn batch(work: &Work, time: Duration, producer: &Producer) -> Result<u64, Failure> {
    let mut kept: VecDeque<Deliveries> = VecDeque::new();
    let mut n = 0;
    let end = Instant::now() + time;
    while n < work.records && Instant::now() < end {
        let up_to = (n + AT_ONCE).min(work.records);
        kept.push_back(producer.send_batch((n..up_to).map(|n| record(work, n))).await);
        n = up_to;
        if kept.len() * AT_ONCE as usize >= KEPT {
            for deliveries in kept.drain(..kept.len() / 2) {
                look_at(deliveries).await?;
            }
        }
    }
    producer.flush(Duration::from_secs(60)).await;
    for deliveries in kept {
        look_at(deliveries).await?;
    }
    Ok(n)
}

async fn look_at(deliveries: Deliveries) -> Result<(), Failure> {
    for result in deliveries.await.iter() {
        result?;
    }
    Ok(())
}

/// Sends from a thread of its own, which sleeps more precisely than a runtime's timer; the callback
/// takes the time of each result.
async fn latency(work: Work) -> Result<Outcome, Failure> {
    let (done, ends) = mpsc::channel::<(u64, Instant, bool)>();
    let producer = Producer::builder(work.bootstrap.as_str())
        .properties(properties(&work))
        .on_delivery(move |report| {
            // The receiver lives until the end, and all records have tags.
            let _ = done.send((report.tag.unwrap_or(u64::MAX), Instant::now(), report.result.is_ok()));
        })
        .build()
        .await?;
    producer.partitions_for(&work.topic).await?;
    let sender = producer.clone();
    let outcome = tokio::task::spawn_blocking(move || {
        let pass = |count: u64| -> Result<Vec<Duration>, Failure> {
            let start = Instant::now();
            let mut from = Vec::with_capacity(count as usize);
            for n in 0..count {
                from.push(work.wait_until_due(start, n));
                drop(sender.try_send(record(&work, n).with_tag(n)).map_err(|refused| refused.error().clone())?);
            }
            let mut latencies = Vec::with_capacity(count as usize);
            for _ in 0..count {
                let (n, at, delivered) = ends.recv_timeout(Duration::from_secs(60))?;
                let from = from.get(n as usize).filter(|_| delivered).ok_or("a record was not delivered")?;
                latencies.push(at.saturating_duration_since(*from));
            }
            Ok(latencies)
        };
        pass(work.scheduled(work.warmup))?;
        let clock = Clock::start()?;
        let latencies = pass(work.scheduled(work.timed))?;
        let outcome = clock.stop("ottla", env!("CARGO_PKG_VERSION"), latencies.len() as u64)?;
        Ok::<_, Failure>(outcome.with_latencies(latencies))
    })
    .await??;
    producer.close(Duration::from_secs(10)).await?;
    Ok(outcome)
}
