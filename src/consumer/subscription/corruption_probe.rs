//! Probes a partition for the first readable offset behind corrupt data.
//!
//! Sans-IO.

use crate::{
    consumer::{
        fetch::batch_scan::{ScannedEntry, ScannedSlice},
        state::ConsumerState,
        subscription::{corruption_skip::CorruptionSkip, fetch_position::FetchState},
    },
    error::ErrorCode,
    log::event,
    record::TopicPartition,
    wire::fetch::FetchPartitionResponse,
};

impl ConsumerState {
    /// Begins to search for the first readable offset after `bad`.
    pub(crate) fn start_corruption_skip(&mut self, partition: &TopicPartition, bad: i64) {
        self.reposition(partition, FetchState::Fetching { offset: bad.saturating_add(1), epoch: -1 }, false);
        if let Some(state) = self.partitions.get_mut(partition) {
            state.corruption_skip = Some(CorruptionSkip::new(bad));
        }
        self.continue_corruption_skip(partition);
    }

    fn continue_corruption_skip(&mut self, partition: &TopicPartition) {
        let isolation = self.rules.isolation;
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let Some(search) = &mut state.corruption_skip else { return };
        if let Some(end) = state.offsets.end(isolation) {
            search.log_ends_at(end);
        }
        let Some(offset) = search.first_readable() else {
            let offset = search.probe();
            self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch: -1 });
            return;
        };
        event!(DEBUG, self.rules.origin, %partition, offset, "found the end of the damaged batches; reading continues here");
        state.corruption_skip = None;
        state.queue.push_skip(offset);
        self.enter_fetch_state(partition, FetchState::Fetching { offset, epoch: -1 });
        self.enqueue_for_delivery(partition);
        self.wake_reader_of(partition);
    }

    /// Handles a response to a probe of a corruption skip; returns true if it was one.
    pub(crate) fn handle_probe(
        &mut self,
        id: i32,
        partition: &TopicPartition,
        at: i64,
        head: &FetchPartitionResponse,
        scan: &ScannedSlice,
    ) -> bool {
        let fetch_bytes = self.rules.partition_bytes;
        let Some(state) = self.partitions.get_mut(partition) else { return false };
        let more = scan.too_small && state.fetch_bytes < i32::MAX;
        let elsewhere = head.preferred_read_replica >= 0;
        // If a preferred read replica fails in any way, its leader is asked first.
        let replica = state.preferred_replica.node() == Some(id) && !head.error.is_ok();
        let Some(search) = state.corruption_skip.as_mut().filter(|_| !replica) else { return false };
        match head.error {
            ErrorCode::NONE if elsewhere || more => return false,
            ErrorCode::NONE => match (scan.entries.first(), scan.resync_offset) {
                (Some(ScannedEntry::Corrupt { end: Some(end), .. }), _) if *end > at => search.corruption_ends_at(*end),
                (None, Some(end)) if scan.too_small && end > at => search.corruption_ends_at(end),
                (None, _) if scan.too_small => search.corrupt_at(at),
                (Some(ScannedEntry::Corrupt { .. }), _) => search.corrupt_at(at),
                (Some(ScannedEntry::Batch(batch)), _) => search.readable_at(at, batch.header.base_offset),
                (Some(ScannedEntry::Skip(_)) | None, _) => search.readable_at(at, at),
            },
            ErrorCode::CORRUPT_MESSAGE => search.corrupt_at(at),
            // There is no damage beyond the log's end. If the log's start has moved, this leads
            // back to where the search began, and from there the reset policy applies.
            ErrorCode::OFFSET_OUT_OF_RANGE => search.readable_at(at, at),
            // A temporary error.
            _ => return false,
        }
        state.fetch_bytes = fetch_bytes;
        self.continue_corruption_skip(partition);
        true
    }
}
