//! Reads through librdkafka: a `BaseConsumer`, polled record by record; its records borrow from
//! librdkafka's.

use std::time::{Duration, Instant};

use peers_common::{Clock, Failure, Outcome, STALLED, STRIDE, Tally, Work};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    util::get_rdkafka_version,
};

pub fn run(work: &Work) -> Result<Outcome, Failure> {
    if let Some(api) = &work.api {
        return Err(format!("unknown --api {api}").into());
    }
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &work.bootstrap)
        .set("client.id", "peers")
        // librdkafka requires a group, though nothing is committed.
        .set("group.id", "peers")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true");
    crate::tls(work, &mut config);
    let consumer: BaseConsumer = config.create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::try_from(work.partitions)? {
        all.add_partition_offset(&work.topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let warmed_up = pass(work.warmup, work.most_to_warm_up(), &consumer)?;
    let clock = Clock::start()?;
    let tally = pass(work.timed, work.most_to_time(&warmed_up), &consumer)?;
    clock.stop_reading("rdkafka", &get_rdkafka_version().1, tally)
}

fn pass(time: Duration, most: u64, consumer: &BaseConsumer) -> Result<Tally, Failure> {
    let mut tally = Tally::default();
    let end = Instant::now() + time;
    while tally.records < most && (tally.records % STRIDE != 0 || Instant::now() < end) {
        let message = consumer.poll(STALLED).ok_or("no record arrived")??;
        tally.look_at(message.payload());
    }
    Ok(tally)
}
