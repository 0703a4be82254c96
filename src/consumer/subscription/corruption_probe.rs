//! Probes a partition for the first readable offset behind corrupt data.
//!
//! Sans-IO.

use crate::{
    consumer::{
        fetch::batch_scan::{ScannedEntry, ScannedSlice},
        subscription::{
            corruption_skip::CorruptionSkip, fetch_position::FetchState, partition_context::PartitionContext,
        },
    },
    error::{Error, ErrorCode, ErrorKind, Result},
    log::event,
    wire::fetch::FetchPartitionResponse,
};

/// Skips the corrupt records that the partition's reader has arrived at, and returns a lower bound
/// of the offset at which reading continues.
pub(crate) fn skip_corruption(partition: &mut PartitionContext<'_>) -> Result<i64> {
    let Some(corruption) = partition.state.corruption else {
        let message =
            format!("{}: its reader has not reached corrupt records, so there is nothing to skip", partition.name);
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    };
    let next = corruption.at.saturating_add(1);
    let offset = corruption.end.unwrap_or(next);
    partition.reposition(FetchState::Fetching { offset, epoch: -1 }, false);
    if corruption.end.is_none() {
        partition.state.corruption_skip = Some(CorruptionSkip::new(corruption.at));
        continue_skip(partition);
    }
    Ok(offset)
}

/// Fetches the next offset of the search, or reads on at its result.
fn continue_skip(partition: &mut PartitionContext<'_>) {
    let Some(search) = &mut partition.state.corruption_skip else { return };
    if let Some(end) = partition.state.offsets.end(partition.rules.isolation.level()) {
        search.log_ends_at(end);
    }
    let Some(offset) = search.first_readable() else {
        let offset = search.probe();
        return partition.enter_fetch_state(FetchState::Fetching { offset, epoch: -1 });
    };
    event!(
        DEBUG, partition.rules.origin, partition = %partition.name, offset,
        "found the end of the damaged batches; reading continues here"
    );
    partition.state.corruption_skip = None;
    partition.state.push_skip(offset);
    partition.enter_fetch_state(FetchState::Fetching { offset, epoch: -1 });
    partition.enqueue();
    partition.readers.wake_for(partition.name);
}

/// Handles a response to a probe at offset `at`; returns true if it was one.
pub(crate) fn handle_probe(
    partition: &mut PartitionContext<'_>,
    broker: i32,
    at: i64,
    head: &FetchPartitionResponse,
    scan: &ScannedSlice,
) -> bool {
    let state = &mut *partition.state;
    let Some(search) = state.corruption_skip.as_mut() else { return false };
    // If a preferred read replica fails in any way, its leader is asked first.
    if state.preferred_replica.node() == Some(broker) && !head.error.is_ok() {
        return false;
    }
    let needs_more_bytes = scan.too_small && state.fetch_bytes < i32::MAX;
    match head.error {
        ErrorCode::NONE if head.preferred_read_replica >= 0 || needs_more_bytes => return false,
        ErrorCode::NONE => match (scan.entries.first(), scan.resync_offset) {
            (Some(ScannedEntry::Corrupt { end: Some(end), .. }), _) if *end > at => search.corruption_ends_at(*end),
            (None, Some(end)) if scan.too_small && end > at => search.corruption_ends_at(end),
            (None, _) if scan.too_small => search.corrupt_at(at),
            (Some(ScannedEntry::Corrupt { .. }), _) => search.corrupt_at(at),
            (Some(ScannedEntry::Batch(batch)), _) => search.readable_at(at, batch.header.base_offset),
            (Some(ScannedEntry::Skip(_)) | None, _) => search.readable_at(at, at),
        },
        ErrorCode::CORRUPT_MESSAGE => search.corrupt_at(at),
        // There is no damage beyond the log's end. If the log's start has moved, this leads back to
        // where the search began, and from there the reset policy applies.
        ErrorCode::OFFSET_OUT_OF_RANGE => search.readable_at(at, at),
        // A temporary error.
        _ => return false,
    }
    state.fetch_bytes = partition.rules.partition_bytes;
    continue_skip(partition);
    true
}
