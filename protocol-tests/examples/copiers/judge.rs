//! Reads the final content of all topics, and judges the history.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use history::{Event, Verdict, check, read};
use ottla::{
    Consumer, Offset, TopicPartition,
    consumer::{IsolationLevel, OffsetReset},
};

use crate::Failure;
use crate::seat::Orders;

/// Time within which the last stable offset has to reach the end: longer than any transaction's
/// timeout.
const STABLE: Duration = Duration::from_secs(90);
/// Time within which the log must have returned another record, if there should be more.
const STALL: Duration = Duration::from_secs(90);
/// Number of records on a line of the history.
const LINE: usize = 500;

/// Returns the events of the end: the logs, their ends, the committed offsets, and the copies.
pub(crate) async fn final_events(orders: &Orders) -> Result<Vec<Event>, Failure> {
    let mut events = Vec::new();
    for topic in &orders.topics {
        let places: Vec<TopicPartition> =
            (0..orders.args.partitions).map(|n| TopicPartition::new(topic.as_str(), n as i32)).collect();
        let ends = ends(orders, &places).await?;
        for (place, (last_stable_offset, high_watermark)) in places.iter().zip(ends) {
            let (topic, partition) = (place.topic.to_string(), place.partition);
            for records in content(orders, place, last_stable_offset).await?.chunks(LINE) {
                events.push(Event::Log { topic: topic.clone(), partition, records: records.to_vec() });
            }
            events.push(Event::LogEnd { topic, partition, last_stable_offset, high_watermark });
        }
    }
    for (stage, group) in orders.groups.iter().enumerate() {
        let from = &orders.topics[stage];
        let places = (0..orders.args.partitions).map(|n| TopicPartition::new(from.as_str(), n as i32));
        let consumer = Consumer::builder(&orders.bootstrap).group(group).auto_commit(false).build().await?;
        for (place, committed) in consumer.committed(places).await? {
            let offset = committed.map_or(0, |committed| committed.offset);
            let (group, topic, partition) = (group.clone(), from.clone(), place.partition);
            events.push(Event::CommittedOffset { group, topic, partition, offset });
        }
        consumer.close(Duration::from_secs(10)).await?;
        events.push(Event::Copy { from: from.clone(), to: orders.topics[stage + 1].clone(), group: group.clone() });
    }
    Ok(events)
}

/// Returns the last stable offset and the high watermark of each partition, as soon as they are
/// equal, otherwise after a while.
async fn ends(orders: &Orders, places: &[TopicPartition]) -> Result<Vec<(i64, i64)>, Failure> {
    let started = Instant::now();
    let mut consumers = Vec::new();
    for isolation in [IsolationLevel::ReadCommitted, IsolationLevel::ReadUncommitted] {
        consumers.push(Consumer::builder(&orders.bootstrap).isolation_level(isolation).build().await?);
    }
    loop {
        let stable = consumers[0].end_offsets(places.to_vec()).await?;
        let high = consumers[1].end_offsets(places.to_vec()).await?;
        let of = |ends: &std::collections::HashMap<TopicPartition, i64>, place| ends.get(place).copied().unwrap_or(0);
        let pairs: Vec<(i64, i64)> = places.iter().map(|place| (of(&stable, place), of(&high, place))).collect();
        if pairs.iter().all(|(stable, high)| stable == high) || started.elapsed() > STABLE {
            return Ok(pairs);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Returns offsets and values of a partition's committed records up to its last stable offset.
async fn content(orders: &Orders, place: &TopicPartition, end: i64) -> Result<Vec<(i64, String)>, Failure> {
    let consumer = Consumer::builder(&orders.bootstrap)
        .isolation_level(IsolationLevel::ReadCommitted)
        .auto_offset_reset(OffsetReset::None)
        .build()
        .await?;
    consumer.assign([(place.clone(), Offset::Beginning)])?;
    let (mut all, mut progress) = (Vec::new(), Instant::now());
    while consumer.position(place).is_none_or(|position| position < end) {
        match consumer.poll(Duration::from_millis(500)).await {
            Ok(records) => {
                for record in records.iter() {
                    progress = Instant::now();
                    let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
                    all.push((record.offset(), value));
                }
            }
            Err(error) if error.is_fatal() => return Err(error.into()),
            Err(error) => eprintln!("{place} cannot be read at present: {error}"),
        }
        if progress.elapsed() > STALL {
            return Err(format!("{place} cannot be read up to {end}: {:?}", consumer.position(place)).into());
        }
    }
    consumer.close(Duration::from_secs(10)).await?;
    Ok(all)
}

/// Writes one history from the driver's events and the files of the copiers.
pub(crate) fn write_history(to: &Path, files: &Path, before: &[Event], after: &[Event]) -> Result<(), Failure> {
    let mut out = BufWriter::new(File::create(to)?);
    let mut write = |events: &[Event]| -> Result<(), Failure> {
        for event in events {
            serde_json::to_writer(&mut out, event)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    };
    write(&[Event::History { version: history::VERSION }])?;
    write(before)?;
    write(after)?;
    let mut paths: Vec<PathBuf> =
        fs::read_dir(files)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    // Names end with the number of the process.
    paths.sort();
    for path in paths {
        let text = fs::read(path)?;
        // A process that was killed may leave an incomplete line.
        let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        out.write_all(&text[..complete])?;
    }
    Ok(out.flush()?)
}

/// Judges a history in a file.
pub(crate) fn judge(path: &Path) -> Result<Verdict, Failure> {
    Ok(check(&read(BufReader::new(File::open(path)?))?))
}
