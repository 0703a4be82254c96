//! What is counted and remembered of fetches, for metrics and status. Decides nothing; does no IO.
//!
//! Everything here is added up once for each response, under the assignment's lock, which is held
//! then anyway.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    assignment::Assignment,
    lanes::Source,
    metrics::ConsumerMetrics,
    pace::Rebalances,
    position::State,
    settings::IsolationLevel,
    status::Progress,
    walk::{Step, Walk},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
    wire::fetch::FetchPartitionResponse,
};

/// What brokers last said of a partition.
#[derive(Debug)]
pub(super) struct Seen {
    high_watermark: i64,
    last_stable: i64,
    pub(super) log_start: i64,
    /// At which offset the reader was told of the end.
    told_end: i64,
    /// Why it cannot be read at present.
    pub(super) trouble: Option<Error>,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) batches: u64,
    pub(super) progress: Progress,
}

impl Default for Seen {
    fn default() -> Self {
        Self {
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            told_end: -1,
            trouble: None,
            records: 0,
            bytes: 0,
            batches: 0,
            progress: Progress::default(),
        }
    }
}

impl Seen {
    /// The partition is positioned anew.
    pub(super) fn begin(&mut self) {
        self.told_end = -1;
    }

    /// It is fetched from there on; what was told of the log's end and is fetched anew is told
    /// anew.
    pub(super) fn fetched_from(&mut self, offset: i64) {
        if offset < self.told_end {
            self.told_end = -1;
        }
    }

    /// Behind the last record that can be read.
    pub(super) fn end(&self, isolation: IsolationLevel) -> Option<i64> {
        let end = match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark,
            IsolationLevel::ReadCommitted => self.last_stable,
        };
        (end >= 0).then_some(end)
    }
}

/// What is remembered of a broker, as it is fetched from over one connection.
#[derive(Debug, Default)]
pub(super) struct Broker {
    /// Since when a fetch is under way.
    pub(super) asked: Option<Instant>,
    /// Until when it has to be answered.
    pub(super) due: Option<Instant>,
    /// Why the last fetch failed, if it did.
    pub(super) trouble: Option<Error>,
    /// It asked for silence until then (KIP-219).
    pub(super) throttled: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Watch {
    pub(super) sums: ConsumerMetrics,
    /// By the connection that is fetched over.
    pub(super) brokers: BTreeMap<Source, Broker>,
    pub(super) rebalances: Rebalances,
}

impl Watch {
    /// A fetch leaves, to be answered within that time.
    pub(super) fn asks(&mut self, node: Source, timeout: Duration, now: Instant) {
        self.sums.fetches_in_flight += 1;
        let broker = self.brokers.entry(node).or_default();
        broker.asked = Some(now);
        broker.due = now.checked_add(timeout);
    }

    /// A fetch was answered, with so many bytes.
    pub(super) fn answered(&mut self, node: Source, error: ErrorCode, bytes: usize, throttle: Duration, now: Instant) {
        let broker = self.brokers.entry(node).or_default();
        let took = broker.asked.take().map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        broker.trouble =
            (!error.is_ok()).then(|| Error::broker(error, format_args!("fetch from broker {}", node.broker)));
        broker.throttled = (!throttle.is_zero()).then(|| now + throttle);
        let sums = &mut self.sums;
        sums.fetches += 1;
        sums.fetches_in_flight = sums.fetches_in_flight.saturating_sub(1);
        sums.fetch_bytes.record(bytes as u64);
        sums.fetch_latency_micros.entry(node.broker).or_default().record_micros(took);
        if !error.is_ok() {
            *sums.errors.entry(error).or_default() += 1;
        }
    }

    /// A commit ended after so long.
    pub(super) fn committed(&mut self, taken: bool, took: Duration) {
        if taken {
            self.sums.commits += 1;
            self.sums.commit_latency_micros.record_micros(took);
        } else {
            self.sums.commits_failed += 1;
        }
    }

    /// A fetch got no answer.
    pub(super) fn unanswered(&mut self, node: Source, error: &Error) {
        let broker = self.brokers.entry(node).or_default();
        broker.asked = None;
        broker.trouble = Some(error.clone());
        self.sums.fetches += 1;
        self.sums.fetches_failed += 1;
        self.sums.fetches_in_flight = self.sums.fetches_in_flight.saturating_sub(1);
    }
}

impl Assignment {
    /// What an answer says of a partition.
    pub(super) fn saw(&mut self, partition: &TopicPartition, head: &FetchPartitionResponse, walk: &Walk) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let (seen, sums) = (&mut found.seen, &mut self.watch.sums);
        if !head.error.is_ok() {
            seen.trouble = Some(Error::broker(head.error, format_args!("fetch of {partition}")));
            *sums.errors.entry(head.error).or_default() += 1;
            return;
        }
        seen.trouble = None;
        for (known, said) in [
            (&mut seen.high_watermark, head.high_watermark),
            (&mut seen.last_stable, head.last_stable_offset),
            (&mut seen.log_start, head.log_start_offset),
        ] {
            if said >= 0 {
                *known = said;
            }
        }
        for step in &walk.steps {
            match step {
                Step::Batch(batch) => {
                    let records = u64::try_from(batch.header.record_count).unwrap_or(0);
                    let bytes = batch.bytes().len() as u64;
                    sums.batch_records.record(records);
                    sums.batch_bytes.record(bytes);
                    seen.records += records;
                    seen.bytes += bytes;
                    seen.batches += 1;
                }
                Step::Broken { .. } => sums.corrupt += 1,
                Step::Skip(_) => {}
            }
        }
    }

    /// Tells the reader, where it wants to know, that a partition was fetched to its end.
    pub(super) fn look_for_end(&mut self, partition: &TopicPartition) {
        let (eof, isolation) = (self.rules.partition_eof, self.rules.isolation);
        let Some(found) = self.partitions.get_mut(partition).filter(|_| eof) else { return };
        let State::Fetch { offset, .. } = found.position.state() else { return };
        let at_end = found.seen.end(isolation).is_some_and(|end| offset >= end);
        if at_end && found.seen.told_end != offset {
            found.seen.told_end = offset;
            found.queue.push_end(offset);
            self.queue_up(partition);
            self.wake_reader_of(partition);
        }
    }

    /// How far the reader is behind the end.
    pub(super) fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        let found = self.partitions.get(partition)?;
        let end = found.seen.end(self.rules.isolation)?;
        let position = found.lease.as_ref()?.handed();
        Some(u64::try_from(end.saturating_sub(position)).unwrap_or(0))
    }

    /// Goes on behind what cannot be read, and says from which offset at the least.
    pub(super) fn skip_damage(&mut self, partition: &TopicPartition) -> Result<i64> {
        let Some(damage) = self.get(partition)?.damage else {
            let message =
                format!("{partition}: its reader has not come to corrupt records, so there is nothing to skip");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        match damage.end {
            Some(end) => self.begin(partition, State::Fetch { offset: end, epoch: -1 }, false),
            None => self.search(partition, damage.at),
        }
        Ok(damage.end.unwrap_or(damage.at.saturating_add(1)))
    }
}
