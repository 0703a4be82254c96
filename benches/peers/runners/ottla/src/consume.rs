//! Reads through Ottla. `--api`: `poll` (the default: borrowed records) or `recv` (owned, one by
//! one).

use std::time::{Duration, Instant};

use ottla::{Consumer, Offset, TopicPartition};
use peers_common::{Clock, Failure, Outcome, STALLED, STRIDE, Tally, Work};

pub async fn run(work: &Work) -> Result<Outcome, Failure> {
    let mut properties = vec![("client.id", "peers".to_owned()), ("check.crcs", "true".to_owned())];
    properties.extend(crate::tls(work));
    let consumer = Consumer::builder(work.bootstrap.as_str()).properties(properties).build().await?;
    let partitions = i32::try_from(work.partitions)?;
    let all = (0..partitions).map(|n| (TopicPartition::new(work.topic.as_str(), n), Offset::Beginning));
    consumer.assign(all)?;
    let warmed_up = pass(work, work.warmup, work.most_to_warm_up(), &consumer).await?;
    let clock = Clock::start()?;
    let tally = pass(work, work.timed, work.most_to_time(&warmed_up), &consumer).await?;
    let outcome = clock.stop_reading("ottla", env!("CARGO_PKG_VERSION"), tally)?;
    consumer.close(Duration::from_secs(10)).await?;
    Ok(outcome)
}

async fn pass(work: &Work, time: Duration, most: u64, consumer: &Consumer) -> Result<Tally, Failure> {
    match work.api.as_deref() {
        None | Some("poll") => poll(time, most, consumer).await,
        Some("recv") => recv(time, most, consumer).await,
        Some(other) => Err(format!("unknown --api {other}").into()),
    }
}

async fn poll(time: Duration, most: u64, consumer: &Consumer) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    while tally.records < most && Instant::now() < end {
        let records = consumer.poll(STALLED).await?;
        if records.is_empty() {
            return Err("no record arrived".into());
        }
        for record in &records {
            tally.look_at(record.value());
        }
    }
    Ok(tally)
}

async fn recv(time: Duration, most: u64, consumer: &Consumer) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    while tally.records < most && (tally.records % STRIDE != 0 || Instant::now() < end) {
        let record = consumer.recv().await.ok_or("the consumer ended")??;
        tally.look_at(record.value.as_deref());
    }
    Ok(tally)
}
