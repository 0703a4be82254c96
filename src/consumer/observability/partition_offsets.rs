//! The offsets that brokers report of a partition, and what was fetched of it.
//!
//! Sans-IO.

use std::time::{Duration, Instant};

use crate::{
    consumer::{
        config::settings::IsolationLevel,
        fetch::batch_scan::{ScannedEntry, ScannedSlice},
        observability::metrics::ConsumerMetrics,
    },
    error::Error,
    record::TopicPartition,
    wire::fetch::FetchPartitionResponse,
};

/// The values that brokers last reported of a partition.
#[derive(Debug)]
pub(crate) struct PartitionOffsets {
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start: i64,
    /// The offset at which the end of the partition was last reported to the reader; −1 if it was
    /// not.
    pub(crate) reported_end: i64,
    /// The error that prevents reading at present.
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
    /// Resets the reported end, because the partition is repositioned.
    pub(crate) fn reset(&mut self) {
        self.reported_end = -1;
    }

    /// Records that fetching continues at that offset. A reported end after it is reported again
    /// when it is reached again.
    pub(crate) fn fetched_from(&mut self, offset: i64) {
        if offset < self.reported_end {
            self.reported_end = -1;
        }
    }

    /// Returns the offset after the last record that may be read.
    pub(crate) fn end(&self, isolation: IsolationLevel) -> Option<i64> {
        let end = match isolation {
            IsolationLevel::ReadUncommitted => self.high_watermark,
            IsolationLevel::ReadCommitted => self.last_stable,
        };
        (end >= 0).then_some(end)
    }

    /// Records the values of the partition in a fetch response, and adds them to the consumer's
    /// sums.
    pub(crate) fn record_response(
        &mut self,
        partition: &TopicPartition,
        head: &FetchPartitionResponse,
        scan: &ScannedSlice,
        sums: &mut ConsumerMetrics,
    ) {
        if !head.error.is_ok() {
            self.error = Some(Error::broker(head.error, format_args!("fetch of {partition}")));
            *sums.errors.entry(head.error).or_default() += 1;
            return;
        }
        self.error = None;
        for (known, reported) in [
            (&mut self.high_watermark, head.high_watermark),
            (&mut self.last_stable, head.last_stable_offset),
            (&mut self.log_start, head.log_start_offset),
        ] {
            if reported >= 0 {
                *known = reported;
            }
        }
        for entry in &scan.entries {
            match entry {
                ScannedEntry::Batch(batch) => {
                    let records = u64::try_from(batch.header.record_count).unwrap_or(0);
                    let bytes = batch.bytes().len() as u64;
                    sums.batch_records.record(records);
                    sums.batch_bytes.record(bytes);
                    self.records += records;
                    self.bytes += bytes;
                    self.batches += 1;
                }
                ScannedEntry::Corrupt { .. } => sums.corrupt += 1,
                ScannedEntry::Skip(_) => {}
            }
        }
    }
}

/// A partition's progress at the last observation.
#[derive(Debug, Default)]
pub(crate) struct ProgressSample {
    /// The delivered offset and the fetched offset.
    pub(crate) at: Option<(i64, i64)>,
    pub(crate) reason: &'static str,
    /// Time since which it waits for that reason without progress.
    pub(crate) since: Option<Instant>,
    /// Time since which it makes no progress, for any reasons that are not the user's.
    pub(crate) stuck: Option<Instant>,
    /// True if this was logged.
    pub(crate) warned: bool,
}

impl ProgressSample {
    /// Returns the time for which the partition has made no progress.
    pub(crate) fn stuck_for(&self, now: Instant) -> Duration {
        self.stuck.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}
