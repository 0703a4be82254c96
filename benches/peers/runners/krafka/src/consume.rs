//! Reads through krafka: `poll`, which returns owned records; it always compares checksums.

use std::time::{Duration, Instant};

use krafka::{
    Kafka,
    consumer::{AutoOffsetReset, Consumer},
};
use peers_common::{Clock, Failure, Outcome, STALLED, Tally, Work};

use crate::VERSION;

/// Its defaults of 500 records, for the read-ahead and for a poll, are less than one batch: it
/// would wait for the broker each time.
const MAX_POLL_RECORDS: i32 = 10_000;
/// 0 stands for no bound, because `fetch.max.bytes` is a bound already.
const MAX_BUFFERED_RECORDS: i32 = 0;

pub async fn run(work: &Work, kafka: &Kafka) -> Result<Outcome, Failure> {
    let consumer = kafka
        .consumer_without_group()
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .max_poll_records(MAX_POLL_RECORDS)
        .max_buffered_records(MAX_BUFFERED_RECORDS)
        .build()
        .await?;
    let partitions = i32::try_from(work.partitions)?;
    consumer.assign(&work.topic, (0..partitions).collect()).await?;
    let warmed_up = pass(work.warmup, work.most_to_warm_up(), &consumer).await?;
    let clock = Clock::start()?;
    let tally = pass(work.timed, work.most_to_time(&warmed_up), &consumer).await?;
    clock.stop_reading("krafka", VERSION, tally)
}

async fn pass(time: Duration, most: u64, consumer: &Consumer) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    while tally.records < most && Instant::now() < end {
        let records = consumer.poll(STALLED).await?;
        if records.is_empty() {
            return Err("no record arrived".into());
        }
        for record in &records {
            tally.look_at(record.value.as_deref());
        }
    }
    Ok(tally)
}
