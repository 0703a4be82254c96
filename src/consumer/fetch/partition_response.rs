//! Handles one partition's part of a fetch response: batches for its buffer, another broker to read
//! from, or an error.
//!
//! Sans-IO.

use std::{sync::Arc, time::Instant};

use crate::consumer::{
    fetch::{
        batch_scan::{ScannedEntry, ScannedSlice},
        connection_id::FetchConnectionId,
        fetch_size::{PartitionResponseSize, partition_bytes},
        memory_budget::Reservation,
    },
    subscription::{corruption_probe::handle_probe, fetch_position::FetchState, partition_context::PartitionContext},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy},
    log::event,
    wire::fetch::FetchPartitionResponse,
};

/// One partition's part of a fetch response that belongs to its present positioning.
pub(crate) struct PartitionResponse<'a> {
    /// The connection over which it came.
    pub(crate) id: FetchConnectionId,
    /// The fetched offset.
    pub(crate) asked_from: i64,
    pub(crate) head: FetchPartitionResponse,
    /// Reservation of the whole response.
    pub(crate) reservation: &'a Arc<Reservation>,
    /// Largest `max_bytes` that the partition may grow to.
    pub(crate) largest_fetch: i32,
    pub(crate) now: Instant,
}

impl PartitionResponse<'_> {
    /// Handles the partition's part of the response; returns true if the metadata has to be
    /// refreshed.
    pub(crate) fn handle(&self, partition: &mut PartitionContext<'_>, scan: ScannedSlice) -> bool {
        let (broker, replica) = (self.id.broker, self.head.preferred_read_replica);
        if handle_probe(partition, broker, self.asked_from, &self.head, &scan) {
            return false;
        }
        if !self.head.error.is_ok() {
            return self.handle_error(partition, self.head.error);
        }
        if replica >= 0 && replica != broker {
            return partition.redirect_to_replica(broker, replica, self.now);
        }
        self.handle_data(partition, scan);
        report_end(partition);
        false
    }

    /// Handles a slice of the log.
    fn handle_data(&self, partition: &mut PartitionContext<'_>, scan: ScannedSlice) {
        let state = &mut *partition.state;
        if scan.next_offset.is_none_or(|next| next > self.asked_from) {
            state.reported = false;
            state.retries.reset();
        }
        state.position.retry_now();
        state.resets.clear();
        if state.preferred_replica.node() == Some(self.id.broker) {
            state.preferred_replica.served();
        }
        if scan.too_small {
            return self.handle_partial_batch(partition, scan.resync_offset);
        }
        let Some(last) = scan.entries.last() else { return };
        let is_corrupt = matches!(last, ScannedEntry::Corrupt { .. });
        match scan.next_offset {
            Some(next) if next <= self.asked_from && !is_corrupt => self.handle_stale_batches(partition, next),
            _ => self.handle_batches(partition, scan, is_corrupt),
        }
    }

    /// Adds batches to the buffer, and fetches on behind them.
    fn handle_batches(&self, partition: &mut PartitionContext<'_>, scan: ScannedSlice, is_corrupt: bool) {
        let state = &mut *partition.state;
        state.last_data_at = Some(self.now);
        let size =
            PartitionResponseSize { bytes: scan.bytes, largest: scan.largest_batch, buffered: state.queue.bytes() };
        state.fetch_bytes =
            partition_bytes(state.fetch_bytes, size, partition.rules.partition_bytes, self.largest_fetch);
        let (FetchState::Fetching { epoch, .. }, Some(progress)) = (state.position.state(), &state.progress) else {
            return;
        };
        state.queue.push(scan.entries, progress, self.asked_from, self.reservation);
        let epoch = scan.epochs.last().map_or(epoch, |(_, epoch)| *epoch);
        scan.epochs.into_iter().for_each(|(from, epoch)| progress.note_epoch(from, epoch));
        if is_corrupt {
            return partition.stop_behind_buffered();
        }
        let offset = scan.next_offset.map_or(self.asked_from, |next| next.max(self.asked_from));
        partition.enter_fetch_state(FetchState::Fetching { offset, epoch });
        partition.enqueue();
        partition.readers.wake_common();
    }

    /// Handles the beginning of a batch that is larger than the fetch: asks for more bytes, or
    /// stops at the batch if the fetch asked for as many as possible.
    fn handle_partial_batch(&self, partition: &mut PartitionContext<'_>, resync_offset: Option<i64>) {
        let (state, asked_from) = (&mut *partition.state, self.asked_from);
        if state.fetch_bytes < i32::MAX {
            state.fetch_bytes = state.fetch_bytes.saturating_mul(2);
            return partition.mark_changed();
        }
        // The broker's data ends before the batch does.
        let message =
            format!("{}: the batch at offset {asked_from} announces more bytes than the broker has", partition.name);
        state.fetch_bytes = partition.rules.partition_bytes;
        state.push_corrupt(Error::new(ErrorKind::Corrupt, message), asked_from, resync_offset);
        partition.stop_behind_buffered();
    }

    /// Handles a response with only batches before the requested offset: the partition is fetched
    /// again after a backoff, and the error is reported once.
    fn handle_stale_batches(&self, partition: &mut PartitionContext<'_>, end: i64) {
        let (name, asked_from) = (partition.name, self.asked_from);
        partition.fetch_later(self.now);
        let message = format!("{name}: a fetch at offset {asked_from} returned only batches that end before {end}");
        partition.report_once(Error::new(ErrorKind::Corrupt, message));
        partition.mark_changed();
    }

    /// Handles the partition's error; returns true if the metadata has to be refreshed.
    fn handle_error(&self, partition: &mut PartitionContext<'_>, code: ErrorCode) -> bool {
        let (broker, name, asked_from) = (self.id.broker, partition.name, self.asked_from);
        event!(DEBUG, partition.rules.origin, partition = %name, node = broker, %code, "a partition cannot be fetched");
        if partition.state.preferred_replica.node() == Some(broker) {
            // A follower may lag or be gone, so its error says nothing of the offset in the
            // leader's log.
            partition.leave_preferred_replica(false, self.now);
            return code.remedy() == Remedy::RefreshMetadata;
        }
        let error = || Error::broker(code, format_args!("fetch of {name} at offset {asked_from}"));
        match code {
            ErrorCode::OFFSET_OUT_OF_RANGE => {
                partition.state.push_out_of_range(asked_from);
                partition.state.resets.refused(self.now);
                partition.stop_behind_buffered();
                false
            }
            ErrorCode::CORRUPT_MESSAGE => {
                let cause = error();
                let corrupt = Error::new(ErrorKind::Corrupt, cause.to_string()).with_source(cause);
                partition.state.push_corrupt(corrupt, asked_from, None);
                partition.stop_behind_buffered();
                false
            }
            _ => {
                partition.retry_later(None, self.now);
                if !code.is_retriable() && code != ErrorCode::UNKNOWN_SERVER_ERROR {
                    partition.report_once(error());
                }
                partition.mark_changed();
                code.remedy() == Remedy::RefreshMetadata
            }
        }
    }
}

/// Reports the partition's end to the reader if `enable.partition.eof` is set and the partition was
/// fetched to its end.
fn report_end(partition: &mut PartitionContext<'_>) {
    let FetchState::Fetching { offset, .. } = partition.state.position.state() else { return };
    let offsets = &mut partition.state.offsets;
    let is_at_end = offsets.end(partition.rules.isolation.level()).is_some_and(|end| offset >= end);
    if partition.rules.partition_eof && is_at_end && offsets.reported_end != offset {
        offsets.reported_end = offset;
        partition.state.push_log_end(offset);
        partition.enqueue();
        partition.readers.wake_for(partition.name);
    }
}
