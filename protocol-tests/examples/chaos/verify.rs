//! Reads the log and passes its records to the books.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ottla::{Consumer, Offset, TopicPartition, consumer::RecordRef};

use crate::Failure;
use crate::ledger::{Wrong, Wrongs};
use crate::load::Load;
use crate::profile::{Aim, key, read_value, write_value};

/// Time after which the log must have returned another record, if there should be more.
const STALL: Duration = Duration::from_secs(90);

/// The positions up to which the log was read.
pub(crate) struct Reader {
    bootstrap: String,
    topic: String,
    /// Per partition: the offset of the next record.
    next: Vec<i64>,
    pub(crate) wrongs: Wrongs,
}

impl Reader {
    pub(crate) fn new(bootstrap: String, topic: String, partitions: usize) -> Self {
        Self { bootstrap, topic, next: vec![0; partitions], wrongs: Wrongs::default() }
    }

    /// Reads on to the present end of the log, and at least past all acknowledged records.
    pub(crate) async fn read_on(&mut self, loads: &[Load]) -> Result<(), Failure> {
        let acknowledged = |partition| loads.iter().map(|load| load.book().end(partition)).max().unwrap_or_default();
        let least: Vec<i64> = (0..self.next.len()).map(acknowledged).collect();
        let (next, wrongs) = (&mut self.next, &mut self.wrongs);
        let mut value = Vec::new();
        read(&self.bootstrap, &self.topic, next, &least, wrongs, |record, wrongs| {
            let (partition, offset) = (record.partition(), record.offset());
            let found = record.value().and_then(read_value);
            let Some((load, (producer, number))) = found.and_then(|found| Some((loads.get(found.0)?, found))) else {
                wrongs.add(Wrong::Garbled, format_args!("[{partition}]@{offset}: {:?}", record.value()));
                return;
            };
            write_value(producer, number, load.size, &mut value);
            let wanted = (load.profile.aim == Aim::Keys).then(|| key(number));
            if record.value() != Some(&value) || record.key() != wanted.as_ref().map(String::as_bytes) {
                wrongs.add(Wrong::Garbled, format_args!("[{partition}]@{offset}: {producer}-{number} is not as sent"));
            }
            load.book().found(number, partition, offset);
        })
        .await
    }

    /// Reads all records that the log still holds again, and checks only their order: a record
    /// after a later one is out of order or there twice. Returns the number of records.
    pub(crate) async fn read_again(&mut self, producers: usize) -> Result<u64, Failure> {
        let mut next = vec![-1; self.next.len()];
        let mut last: Vec<BTreeMap<i32, u64>> = vec![BTreeMap::new(); producers];
        let mut count = 0;
        read(&self.bootstrap, &self.topic, &mut next, &self.next, &mut self.wrongs, |record, wrongs| {
            count += 1;
            let (partition, offset) = (record.partition(), record.offset());
            let Some((producer, number)) = record.value().and_then(read_value) else { return };
            let before = last.get_mut(producer).and_then(|last| last.insert(partition, number));
            if let Some(before) = before.filter(|before| *before >= number) {
                let wrong = if before == number { Wrong::Doubled } else { Wrong::OutOfOrder };
                wrongs.add(
                    wrong,
                    format_args!("read again, {producer}-{number} at [{partition}]@{offset}, after {before}"),
                );
            }
        })
        .await?;
        Ok(count)
    }
}

/// Reads from `next` (−1: the start of the log) to the present end of the log, and at least to
/// `least`.
async fn read(
    bootstrap: &str,
    topic: &str,
    next: &mut [i64],
    least: &[i64],
    wrongs: &mut Wrongs,
    mut each: impl FnMut(&RecordRef<'_>, &mut Wrongs),
) -> Result<(), Failure> {
    let consumer = Consumer::builder(bootstrap).build().await?;
    let places: Vec<TopicPartition> =
        (0..next.len()).map(|n| Ok(TopicPartition::new(topic, i32::try_from(n)?))).collect::<Result<_, Failure>>()?;
    let ends = consumer.end_offsets(places.clone()).await?;
    let ends: Vec<i64> =
        places.iter().zip(least).map(|(place, least)| ends.get(place).copied().unwrap_or(0).max(*least)).collect();
    if next.iter().any(|next| *next < 0) {
        let starts = consumer.beginning_offsets(places.clone()).await?;
        for (next, place) in next.iter_mut().zip(&places) {
            *next = starts.get(place).copied().unwrap_or(0);
        }
    }
    consumer.assign(places.into_iter().zip(next.iter().map(|next| Offset::At(*next))))?;
    let mut last = Instant::now();
    while next.iter().zip(&ends).any(|(next, end)| next < end) {
        match consumer.poll(Duration::from_secs(1)).await {
            Ok(records) => {
                for record in records.iter() {
                    last = Instant::now();
                    let Some(expected) = usize::try_from(record.partition()).ok().and_then(|n| next.get_mut(n)) else {
                        wrongs.add(Wrong::Unread, format_args!("a record of partition {}", record.partition()));
                        continue;
                    };
                    // There are no transactions here, so offsets are consecutive.
                    if record.offset() != *expected {
                        let (partition, offset) = (record.partition(), record.offset());
                        wrongs.add(Wrong::Unread, format_args!("[{partition}]@{offset} arrived instead of {expected}"));
                    }
                    *expected = record.offset() + 1;
                    each(&record, wrongs);
                }
            }
            Err(error) if error.is_fatal() => return Err(error.into()),
            // The consumer reports the error and continues.
            Err(error) => eprintln!("the verifier got an error: {error}"),
        }
        if last.elapsed() > STALL {
            wrongs.add(Wrong::Unread, format_args!("no record for {STALL:?}: at {next:?} of {ends:?}"));
            break;
        }
    }
    consumer.close(Duration::from_secs(10)).await?;
    Ok(())
}
