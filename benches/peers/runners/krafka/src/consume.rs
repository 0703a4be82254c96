//! Reading through krafka: `poll`, which gives owned records; it compares checksums always.

use std::time::{Duration, Instant};

use krafka::{
    Kafka,
    consumer::{AutoOffsetReset, Consumer},
};
use peers_common::{Clock, Failure, Outcome, STALLED, Tally, Work};

use crate::VERSION;

pub async fn run(work: &Work, kafka: &Kafka) -> Result<Outcome, Failure> {
    let consumer = kafka.consumer_without_group().auto_offset_reset(AutoOffsetReset::Earliest).build().await?;
    let partitions = i32::try_from(work.partitions)?;
    consumer.assign(&work.topic, (0..partitions).collect()).await?;
    pass(work.warmup, &consumer).await?;
    let clock = Clock::start()?;
    let tally = pass(work.timed, &consumer).await?;
    clock.stop_reading("krafka", VERSION, tally)
}

async fn pass(time: Duration, consumer: &Consumer) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    while Instant::now() < end {
        let records = consumer.poll(STALLED).await?;
        if records.is_empty() {
            return Err("no record came".into());
        }
        for record in &records {
            tally.look_at(record.value.as_deref());
        }
    }
    Ok(tally)
}
