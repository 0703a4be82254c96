//! Records the offsets that brokers report, and derives lag and partition ends from them.
//!
//! Sans-IO.

use crate::{
    consumer::{
        fetch::batch_scan::{ScannedEntry, ScannedSlice},
        state::ConsumerState,
        subscription::fetch_position::FetchState,
    },
    error::{Error, ErrorKind, Result},
    record::TopicPartition,
    wire::fetch::FetchPartitionResponse,
};

impl ConsumerState {
    /// Records the values of a partition in a fetch response.
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

    /// Reports the partition's end to the reader if `enable.partition.eof` is set and the partition
    /// was fetched to its end.
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

    /// Returns the number of offsets between the delivered position and the end.
    pub(crate) fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        let state = self.partitions.get(partition)?;
        let end = state.offsets.end(self.rules.isolation)?;
        let position = state.progress.as_ref()?.delivered();
        Some(u64::try_from(end.saturating_sub(position)).unwrap_or(0))
    }

    /// Skips damaged records, and returns a lower bound of the offset at which reading continues.
    pub(crate) fn skip_corruption(&mut self, partition: &TopicPartition) -> Result<i64> {
        let Some(damage) = self.get(partition)?.corruption else {
            let message =
                format!("{partition}: its reader has not reached corrupt records, so there is nothing to skip");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        };
        match damage.end {
            Some(end) => self.reposition(partition, FetchState::Fetching { offset: end, epoch: -1 }, false),
            None => self.start_corruption_skip(partition, damage.at),
        }
        Ok(damage.end.unwrap_or(damage.at.saturating_add(1)))
    }
}
