//! One run: the cluster, the copiers, the faults, and the history at the end.

use std::{sync::Arc, time::Duration};

use history::{Event, History, check};
use ottla::{
    Consumer, Offset, Record, TopicPartition,
    consumer::{GroupProtocol, IsolationLevel},
    testkit::{Cluster, Options},
};
use tokio::time::Instant;

use crate::{
    Failure,
    copier::{Copier, Recorder},
    faults::plant,
};

pub(crate) const INPUT: &str = "in";
pub(crate) const OUTPUT: &str = "out";
pub(crate) const GROUP: &str = "copiers";

const PARTITIONS: i32 = 4;
/// Records of each partition of the input.
const RECORDS: i64 = 80;
/// Time without faults within which the copiers have to reach the end.
const PATIENCE: Duration = Duration::from_secs(600);

/// Random numbers of a seed (xorshift).
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..8 {
            dice.roll(2);
        }
        dice
    }

    /// Returns a number from 0 to `sides` - 1.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % sides
    }
}

/// Runs a seed; returns the anomaly that its history has, if there is one.
pub(crate) fn run(seed: u64) -> Result<Option<String>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    let result = runtime.block_on(play(seed));
    // Tasks of one run must not go on in the next.
    runtime.shutdown_background();
    result
}

async fn play(seed: u64) -> Result<Option<String>, Failure> {
    let mut dice = Dice::new(seed);
    let level = if dice.roll(2) == 0 { 1 } else { 2 };
    let protocol = if dice.roll(2) == 0 { GroupProtocol::Classic } else { GroupProtocol::Consumer };
    let options = Options::new().brokers(3).feature("transaction.version", level);
    let options = options.consumer_group_timeouts(Duration::from_secs(1), Duration::from_secs(6));
    let options = options.session_timeouts(Duration::from_secs(1), Duration::from_secs(60)).seed(seed).in_memory();
    let cluster = Arc::new(Cluster::start(options).await?);
    for topic in [INPUT, OUTPUT] {
        cluster.create_topic(topic, PARTITIONS)?;
    }
    for partition in 0..PARTITIONS {
        let values: Vec<String> = (0..RECORDS).map(|n| format!("{partition}-{n}")).collect();
        let records: Vec<_> = values.iter().map(|value| Record::to(INPUT).with_value(value.clone())).collect();
        cluster.append(INPUT, partition, &records)?;
    }
    let recorder = Recorder::default();
    let members: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .map(|name| {
            let dice = Dice::new(seed ^ u64::from(name.as_bytes()[0]) << 32);
            let copier = Copier::new(cluster.clone(), name.to_owned(), protocol, recorder.clone(), dice);
            tokio::spawn(copier.run())
        })
        .collect();
    let reached = until_copied(&cluster, &mut dice).await?;
    for member in members {
        member.abort();
    }
    // Transactions of members that crashed end by their timeout.
    tokio::time::sleep(Duration::from_secs(90)).await;
    if !reached {
        return Ok(Some(format!("no progress for {} s", PATIENCE.as_secs())));
    }
    let mut events = vec![Event::History { version: history::VERSION }];
    events.extend(recorder.take());
    events.extend(final_events(&cluster).await?);
    let mut whole = History::default();
    for (line, event) in events.into_iter().enumerate() {
        if let Err(malformed) = whole.add(line as u64 + 1, &event) {
            return Ok(Some(format!("contradictory events: {}", malformed.reason)));
        }
    }
    let verdict = check(&whole);
    if verdict.valid {
        return Ok(None);
    }
    Ok(verdict.anomalies.first().map(|anomaly| format!("`{}`: {}", anomaly.kind.name(), anomaly.message)))
}

/// Plants faults, and waits until the group has committed the whole input; returns false if that
/// does not happen.
async fn until_copied(cluster: &Cluster, dice: &mut Dice) -> Result<bool, Failure> {
    let faults_until = Instant::now() + Duration::from_secs(60);
    let consumer = cluster.consumer().group(GROUP).auto_commit(false).build().await?;
    let places: Vec<_> = (0..PARTITIONS).map(|partition| TopicPartition::new(INPUT, partition)).collect();
    while Instant::now() < faults_until + PATIENCE {
        if Instant::now() < faults_until {
            plant(cluster, dice);
        }
        tokio::time::sleep(Duration::from_millis(300 + dice.roll(2_000))).await;
        let committed = tokio::time::timeout(Duration::from_secs(5), consumer.committed(places.clone())).await;
        if let Ok(Ok(committed)) = committed
            && committed.values().all(|at| at.as_ref().is_some_and(|at| at.offset >= RECORDS))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the events of the end: the logs, their ends, and what is copied.
async fn final_events(cluster: &Cluster) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    for topic in [INPUT, OUTPUT] {
        for partition in 0..PARTITIONS {
            let last_stable_offset = cluster.last_stable_offset(topic, partition)?;
            let high_watermark = cluster.log_end(topic, partition)?;
            let records = content(cluster, topic, partition, last_stable_offset).await?;
            let topic = topic.to_owned();
            events.push(Event::Log { topic: topic.clone(), partition, records });
            events.push(Event::LogEnd { topic, partition, last_stable_offset, high_watermark });
        }
    }
    events.push(Event::Copy { from: INPUT.to_owned(), to: OUTPUT.to_owned(), group: GROUP.to_owned() });
    Ok(events)
}

/// Returns the committed records of a partition up to `end`.
async fn content(cluster: &Cluster, topic: &str, partition: i32, end: i64) -> Result<Vec<(i64, String)>, Failure> {
    let consumer: Consumer = cluster.consumer().isolation_level(IsolationLevel::ReadCommitted).build().await?;
    let place = TopicPartition::new(topic, partition);
    consumer.assign([(place.clone(), Offset::Beginning)])?;
    let mut all = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while consumer.position(&place).is_none_or(|position| position < end) && Instant::now() < deadline {
        for record in &consumer.poll(Duration::from_secs(1)).await? {
            all.push((record.offset(), String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned()));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    #[test]
    fn histories_of_fifty_seeds_are_valid() {
        for seed in 1..=50 {
            assert_eq!(super::run(seed).unwrap(), None, "seed {seed}");
        }
    }
}
