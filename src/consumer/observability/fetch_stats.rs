//! What is counted and remembered of fetches, for metrics and status.
//!
//! Everything here is added up once for each response, under the assignment's lock, which is held
//! then anyway.
//!
//! Sans-IO.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::consumer::{
    config::settings::IsolationLevel,
    fetch::{
        batch_scan::{ScannedEntry, ScannedSlice},
        connection_scaling::FetchConnectionId,
    },
    observability::{group_stats::RebalanceStats, metrics::ConsumerMetrics, wait_reason::ProgressSample},
    state::ConsumerState,
    subscription::fetch_position::FetchState,
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    record::TopicPartition,
    wire::fetch::FetchPartitionResponse,
};

/// What brokers last said of a partition.
#[derive(Debug)]
pub(crate) struct PartitionOffsets {
    high_watermark: i64,
    last_stable: i64,
    pub(crate) log_start: i64,
    /// At which offset the reader was told of the end.
    reported_end: i64,
    /// Why it cannot be read at present.
    pub(crate) error: Option<Error>,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) batches: u64,
    pub(crate) sample: ProgressSample,
}

impl Default for PartitionOffsets {
    fn default() -> Self {
        Self {
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            reported_end: -1,
            error: None,
            records: 0,
            bytes: 0,
            batches: 0,
            sample: ProgressSample::default(),
        }
    }
}

impl PartitionOffsets {
    /// The partition is positioned anew.
    pub(crate) fn reset(&mut self) {
        self.reported_end = -1;
    }

    /// It is fetched from there on; what was told of the log's end and is fetched anew is told
    /// anew.
    pub(crate) fn fetched_from(&mut self, offset: i64) {
        if offset < self.reported_end {
            self.reported_end = -1;
        }
    }

    /// Behind the last record that can be read.
    pub(crate) fn end(&self, isolation: IsolationLevel) -> Option<i64> {
        let end = match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark,
            IsolationLevel::ReadCommitted => self.last_stable,
        };
        (end >= 0).then_some(end)
    }
}

/// What is remembered of a broker, as it is fetched from over one connection.
#[derive(Debug, Default)]
pub(crate) struct BrokerFetchStats {
    /// Since when a fetch is under way.
    pub(crate) sent_at: Option<Instant>,
    /// Until when it has to be answered.
    pub(crate) due: Option<Instant>,
    /// Why the last fetch failed, if it did.
    pub(crate) error: Option<Error>,
    /// It asked for silence until then (KIP-219).
    pub(crate) throttled_until: Option<Instant>,
}

#[derive(Debug, Default)]
pub(crate) struct FetchStats {
    pub(crate) sums: ConsumerMetrics,
    /// By the connection that is fetched over.
    pub(crate) brokers: BTreeMap<FetchConnectionId, BrokerFetchStats>,
    pub(crate) rebalances: RebalanceStats,
}

impl FetchStats {
    /// A fetch leaves, to be answered within that time.
    pub(crate) fn fetch_sent(&mut self, node: FetchConnectionId, timeout: Duration, now: Instant) {
        self.sums.fetches_in_flight += 1;
        let broker = self.brokers.entry(node).or_default();
        broker.sent_at = Some(now);
        broker.due = now.checked_add(timeout);
    }

    /// A fetch was answered, with so many bytes.
    pub(crate) fn fetch_answered(
        &mut self,
        node: FetchConnectionId,
        error: ErrorCode,
        bytes: usize,
        throttle: Duration,
        now: Instant,
    ) {
        let broker = self.brokers.entry(node).or_default();
        let took = broker.sent_at.take().map_or(Duration::ZERO, |asked| now.saturating_duration_since(asked));
        broker.error =
            (!error.is_ok()).then(|| Error::broker(error, format_args!("fetch from broker {}", node.broker)));
        broker.throttled_until = (!throttle.is_zero()).then(|| now + throttle);
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
    pub(crate) fn commit_ended(&mut self, taken: bool, took: Duration) {
        if taken {
            self.sums.commits += 1;
            self.sums.commit_latency_micros.record_micros(took);
        } else {
            self.sums.commits_failed += 1;
        }
    }

    /// A fetch got no answer.
    pub(crate) fn fetch_failed(&mut self, node: FetchConnectionId, error: &Error) {
        let broker = self.brokers.entry(node).or_default();
        broker.sent_at = None;
        broker.error = Some(error.clone());
        self.sums.fetches += 1;
        self.sums.fetches_failed += 1;
        self.sums.fetches_in_flight = self.sums.fetches_in_flight.saturating_sub(1);
    }
}

impl ConsumerState {
    /// What an answer says of a partition.
    pub(crate) fn record_partition_data(
        &mut self,
        partition: &TopicPartition,
        head: &FetchPartitionResponse,
        scan: &ScannedSlice,
    ) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let (seen, sums) = (&mut state.offsets, &mut self.stats.sums);
        if !head.error.is_ok() {
            seen.error = Some(Error::broker(head.error, format_args!("fetch of {partition}")));
            *sums.errors.entry(head.error).or_default() += 1;
            return;
        }
        seen.error = None;
        for (known, said) in [
            (&mut seen.high_watermark, head.high_watermark),
            (&mut seen.last_stable, head.last_stable_offset),
            (&mut seen.log_start, head.log_start_offset),
        ] {
            if said >= 0 {
                *known = said;
            }
        }
        for step in &scan.entries {
            match step {
                ScannedEntry::Batch(batch) => {
                    let records = u64::try_from(batch.header.record_count).unwrap_or(0);
                    let bytes = batch.bytes().len() as u64;
                    sums.batch_records.record(records);
                    sums.batch_bytes.record(bytes);
                    seen.records += records;
                    seen.bytes += bytes;
                    seen.batches += 1;
                }
                ScannedEntry::Corrupt { .. } => sums.corrupt += 1,
                ScannedEntry::Skip(_) => {}
            }
        }
    }

    /// Tells the reader, where it wants to know, that a partition was fetched to its end.
    pub(crate) fn report_partition_end(&mut self, partition: &TopicPartition) {
        let (eof, isolation) = (self.rules.partition_eof, self.rules.isolation);
        let Some(state) = self.partitions.get_mut(partition).filter(|_| eof) else { return };
        let FetchState::Fetching { offset, .. } = state.position.state() else { return };
        let at_end = state.offsets.end(isolation).is_some_and(|end| offset >= end);
        if at_end && state.offsets.reported_end != offset {
            state.offsets.reported_end = offset;
            state.queue.push_end(offset);
            self.enqueue_for_delivery(partition);
            self.wake_reader_of(partition);
        }
    }

    /// How far the reader is behind the end.
    pub(crate) fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        let state = self.partitions.get(partition)?;
        let end = state.offsets.end(self.rules.isolation)?;
        let position = state.progress.as_ref()?.delivered();
        Some(u64::try_from(end.saturating_sub(position)).unwrap_or(0))
    }

    /// Goes on behind what cannot be read, and says from which offset at the least.
    pub(crate) fn skip_corruption(&mut self, partition: &TopicPartition) -> Result<i64> {
        let Some(damage) = self.get(partition)?.corruption else {
            let message =
                format!("{partition}: its reader has not come to corrupt records, so there is nothing to skip");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        match damage.end {
            Some(end) => self.reposition(partition, FetchState::Fetching { offset: end, epoch: -1 }, false),
            None => self.start_corruption_skip(partition, damage.at),
        }
        Ok(damage.end.unwrap_or(damage.at.saturating_add(1)))
    }
}
