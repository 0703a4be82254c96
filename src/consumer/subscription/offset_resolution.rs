//! Finds positions: the offset requests that are due, and the handling of their responses.
//!
//! Sans-IO.

use std::{collections::BTreeMap, time::Instant};

use crate::consumer::subscription::{
    fetch_position::{FetchState, LogValidation, ResetTarget},
    offset_query::{OffsetQuery, OffsetRequest},
    partition_context::PartitionContext,
    partition_state::PartitionState,
    partitions::Partitions,
    reset_backoff::{HUMAN, Pause},
};
use crate::{
    consumer::OffsetAndMetadata,
    error::{Error, ErrorCode, ErrorKind, Result},
    log::event,
};

/// Returns all offset requests that can be sent now; each is sent once until it is answered.
pub(crate) fn due_offset_requests(partitions: &mut Partitions, now: Instant) -> Vec<OffsetRequest> {
    let mut committed = Vec::new();
    let mut offsets: BTreeMap<i32, Vec<OffsetQuery<ResetTarget>>> = BTreeMap::new();
    let mut epochs: BTreeMap<i32, Vec<OffsetQuery<(i64, i32)>>> = BTreeMap::new();
    for (partition, state) in partitions.iter_mut().filter(|(_, state)| state.position.is_due(now)) {
        let leader_epoch = state.leader.map_or(-1, |(_, epoch)| epoch);
        let query = OffsetQuery {
            partition: partition.clone(),
            seek_epoch: state.position.seek_epoch(),
            leader_epoch,
            query: (),
        };
        match (state.position.state(), state.leader) {
            (FetchState::Initializing, _) => committed.push(query),
            (FetchState::AwaitReset(target), Some((leader, _))) => {
                offsets.entry(leader).or_default().push(query.with(target));
            }
            (FetchState::AwaitValidation { offset, epoch }, Some((leader, _))) => {
                epochs.entry(leader).or_default().push(query.with((offset, epoch)));
            }
            // A new leader makes the request due.
            _ => continue,
        }
        state.position.mark_asked(leader_epoch);
    }
    let committed = (!committed.is_empty()).then_some(OffsetRequest::Committed(committed));
    let offsets = offsets.into_iter().map(|(leader, queries)| OffsetRequest::Offsets(leader, queries));
    let epochs = epochs.into_iter().map(|(leader, queries)| OffsetRequest::Epochs(leader, queries));
    committed.into_iter().chain(offsets).chain(epochs).collect()
}

/// Returns the time at which the next waiting offset request is due.
pub(crate) fn next_offset_request_at(partitions: &Partitions) -> Option<Instant> {
    let waiting = partitions.states().filter(|state| {
        matches!(
            state.position.state(),
            FetchState::Initializing | FetchState::AwaitReset(_) | FetchState::AwaitValidation { .. }
        )
    });
    waiting.filter_map(|state| state.position.not_before()).min()
}

/// Returns true if the partition still waits for the committed offset that was requested for that
/// seek epoch, and its reader can get records of it afterwards.
///
/// # Errors
/// The error of the last request, if further ones are not likely to succeed.
pub(crate) fn awaits_committed_offset(state: &PartitionState, seek_epoch: u64) -> Result<bool> {
    let position = &state.position;
    let waits = position.seek_epoch() == seek_epoch && position.state() == FetchState::Initializing && !state.revoking;
    match &state.offsets.error {
        Some(error) if waits && !may_pass(error) => Err(error.clone()),
        _ => Ok(waits),
    }
}

/// Handles the group's committed offset of a partition; `None` if it has committed none.
pub(crate) fn handle_committed_offset(partition: &mut PartitionContext<'_>, committed: Option<&OffsetAndMetadata>) {
    let committed = committed.filter(|committed| committed.offset >= 0);
    partition.state.commits.fetched(committed.map(|committed| committed.offset));
    partition.readers.wake_position_waiters();
    match committed {
        Some(committed) => {
            partition.state.reported = false;
            partition.enter_fetch_state(FetchState::resume(committed.offset, committed.leader_epoch));
        }
        None => {
            let start = ResetTarget::of(partition.rules.reset);
            partition.reset(start, "its group has committed no offset", None);
        }
    }
}

/// Handles a listed offset (and the epoch of the record before it, or −1), at which the partition
/// starts.
///
/// # Errors
/// The code with which the request has to be retried.
pub(crate) fn handle_listed_offset(
    partition: &mut PartitionContext<'_>,
    asked: &OffsetQuery<ResetTarget>,
    answer: Result<(i64, i32), ErrorCode>,
) -> Result<(), ErrorCode> {
    match answer? {
        (offset, epoch) if offset >= 0 => {
            event!(DEBUG, partition.rules.origin, partition = %partition.name, offset, "found the position");
            partition.state.validated_under(asked.leader_epoch);
            partition.enter_fetch_state(FetchState::Fetching { offset, epoch });
            Ok(())
        }
        // No record is as recent as requested; every record from now on is.
        _ if asked.query != ResetTarget::Latest => {
            partition.enter_fetch_state(FetchState::AwaitReset(ResetTarget::Latest));
            Ok(())
        }
        _ => Err(ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}

/// Handles the end of the epoch of the record before the position.
///
/// # Errors
/// The code with which the request has to be retried.
pub(crate) fn handle_epoch_end(
    partition: &mut PartitionContext<'_>,
    asked: &OffsetQuery<(i64, i32)>,
    answer: Result<(i32, i64), ErrorCode>,
) -> Result<(), ErrorCode> {
    let (offset, epoch) = asked.query;
    let validation = match answer {
        Ok((end_epoch, end_offset)) => LogValidation::of(offset, end_epoch, end_offset),
        // Without a response, nothing shows that records were lost.
        Err(ErrorCode::UNSUPPORTED_VERSION) => LogValidation::Valid,
        Err(code) => return Err(code),
    };
    let start = ResetTarget::of(partition.rules.reset);
    partition.state.validated_under(asked.leader_epoch);
    match validation {
        LogValidation::Valid => partition.enter_fetch_state(FetchState::Fetching { offset, epoch }),
        LogValidation::Truncated { at, epoch } if start.is_some() => {
            partition.journal.truncated(partition.name, offset, at);
            // Buffered records lie on both sides of the truncation, so all of them are fetched
            // again.
            let progress = partition.state.progress.as_ref().filter(|progress| progress.delivered() < at);
            let truncation = FetchState::Fetching { offset: at, epoch };
            let fetching = progress.map_or(truncation, |progress| progress.fetching_from(progress.delivered()));
            partition.reposition(fetching, false);
        }
        LogValidation::Truncated { at, .. } => {
            partition.reset(None, "its log was truncated before the position", Some(at));
        }
        LogValidation::Undefined => {
            partition.reset(start, "its leader no longer knows the epoch of its position", Some(offset));
        }
    }
    Ok(())
}

/// Returns true if an offset request that failed with this error may soon succeed.
fn may_pass(error: &Error) -> bool {
    error.is_retriable() || error.kind() == ErrorKind::Protocol
}

/// Sends an offset request again later: soon if that may help, otherwise seldom, and then the error
/// is reported to the partition's reader; to the common reader only if `may_report`. Returns true
/// if it was reported to the common reader.
pub(crate) fn retry_offset_request(
    partition: &mut PartitionContext<'_>,
    error: &Error,
    may_report: bool,
    now: Instant,
) -> bool {
    let is_retriable = may_pass(error);
    partition.state.offsets.error = Some(error.clone());
    partition.retry_later((!is_retriable).then_some(HUMAN), now);
    *partition.wakes_task = true;
    partition.readers.wake_position_waiters();
    if is_retriable || std::mem::replace(&mut partition.state.reported, true) {
        return false;
    }
    let is_split = partition.readers.is_split(partition.name);
    if is_split || may_report {
        partition.report(error.clone());
    }
    !is_split && may_report
}

/// Handles the reader's arrival at an offset that the log does not have (any more): resets the
/// position, or reports the error.
pub(crate) fn handle_out_of_range(partition: &mut PartitionContext<'_>) {
    let start = ResetTarget::of(partition.rules.reset);
    let offset = partition.state.next_offset().unwrap_or(-1);
    partition.reset(start, "its offset is not in the log (any more): OFFSET_OUT_OF_RANGE", Some(offset));
    if start.is_some() {
        delay_reset(partition, offset);
    }
}

/// Delays a reset if the previous one led to OFFSET_OUT_OF_RANGE again.
fn delay_reset(partition: &mut PartitionContext<'_>, offset: i64) {
    let Some(pause) = partition.state.resets.next(&mut partition.retries.rng) else { return };
    let Pause { since, wait, tell } = pause;
    let what = format!("fetch of {} at offset {offset}, the result of auto.offset.reset", partition.name);
    let error = Error::broker(ErrorCode::OFFSET_OUT_OF_RANGE, what).with_retriable(true);
    partition.state.offsets.error = Some(error.clone());
    partition.state.position.retry_at(partition.retries.common_instant(since, wait));
    let may_report = partition.readers.is_split(partition.name) || partition.retries.may_report_reset(since);
    if !tell || !may_report {
        return;
    }
    partition.retries.record_reset_report(since);
    let error = error.context(format_args!(
        "{} and perhaps other partitions are not read: the leader refuses the offset that it returned for the reset; the \
         position is reset again, eventually every {} s",
        partition.name,
        HUMAN.as_secs()
    ));
    event!(
        WARN, partition.rules.origin, partition = %partition.name, offset, %error,
        "the leader refuses the offset of a reset; the position is reset again after a backoff"
    );
    partition.report(error);
}
