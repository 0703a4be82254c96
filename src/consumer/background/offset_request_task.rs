//! Sends the requests that resolve positions: committed offsets, the starts and ends of logs,
//! leader epochs.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::consumer::{
    background::{
        list_offsets::{EARLIEST, LATEST, ended_epochs, epoch_ends, list_offsets, listed_offsets},
        shared::Shared,
    },
    subscription::{
        fetch_position::ResetTarget,
        offset_query::{OffsetQuery, OffsetRequest},
    },
};
use crate::{
    cluster::{Attempt, ConnectionKind, VersionBounds},
    error::{ErrorCode, ErrorKind},
    record::to_millis,
};

/// Time for which the look-up of committed offsets is retried before its error is shown in the
/// status and the look-up starts again.
const SHOWN_AFTER: Duration = Duration::from_secs(10);

/// Sends one offset request, and passes its response to the state. Returns true if the metadata
/// must be refreshed.
pub(crate) async fn send_offset_request(shared: &Shared, question: OffsetRequest) -> bool {
    match question {
        OffsetRequest::Committed(asked) => fetch_committed(shared, asked).await,
        OffsetRequest::Offsets(node, asked) => look_up_offsets(shared, node, asked).await,
        OffsetRequest::Epochs(node, asked) => fetch_epoch_ends(shared, node, asked).await,
    }
}

async fn fetch_committed(shared: &Shared, asked: Vec<OffsetQuery<()>>) -> bool {
    let partitions = asked.iter().map(|asked| asked.partition.clone()).collect();
    let answer = match &shared.group {
        // The call retries silently, so it is ended early: an error that lasts must be shown.
        Some(group) => {
            let soon = Instant::now() + SHOWN_AFTER;
            group.committed_each(partitions, shared.deadline().min(soon)).await
        }
        None => Ok(HashMap::new()),
    };
    let now = Instant::now().into_std();
    shared.buffer.with_state(|state| state.handle_committed_offsets(&asked, answer, now));
    false
}

fn attempt(shared: &Shared, node: i32) -> Attempt {
    Attempt {
        node,
        kind: ConnectionKind::Main,
        timeout: shared.client.settings().request_timeout,
        versions: VersionBounds::ANY,
    }
}

/// Returns the timestamp to request for a start. Durations count back from the wall clock, because
/// it sets the records' timestamps.
fn timestamp(start: ResetTarget) -> i64 {
    match start {
        ResetTarget::Earliest => EARLIEST,
        ResetTarget::Latest => LATEST,
        // Negative timestamps have special meanings in ListOffsets, such as the earliest or latest
        // offset.
        ResetTarget::At(millis) => millis.max(0),
        ResetTarget::Since(duration) => {
            let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            to_millis(SystemTime::now()).saturating_sub(millis).max(0)
        }
    }
}

async fn look_up_offsets(shared: &Shared, node: i32, asked: Vec<OffsetQuery<ResetTarget>>) -> bool {
    let rows: Vec<_> =
        asked.iter().map(|asked| (asked.partition.clone(), asked.leader_epoch, timestamp(asked.query))).collect();
    let read_committed = shared.isolation.is_read_committed();
    let request = list_offsets(&rows, read_committed, shared.client.settings().request_timeout);
    let answer = shared.client.send(attempt(shared, node), |_| request).await;
    let now = Instant::now().into_std();
    shared.buffer.with_state_and_readers(|state| match answer {
        Ok(response) => {
            let offsets = listed_offsets(&response);
            let mut refresh = false;
            for asked in &asked {
                let answer = offsets.get(&asked.partition).copied().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR));
                let answer = answer.map(|listed| (listed.offset, listed.leader_epoch));
                refresh |= state.handle_listed_offset(asked, answer, now);
            }
            refresh
        }
        Err(error) => {
            state.handle_offset_failure(&asked, error, now);
            true
        }
    })
}

async fn fetch_epoch_ends(shared: &Shared, node: i32, asked: Vec<OffsetQuery<(i64, i32)>>) -> bool {
    let rows: Vec<_> = asked.iter().map(|asked| (asked.partition.clone(), asked.leader_epoch, asked.query.1)).collect();
    let request = epoch_ends(&rows);
    let answer = shared.client.send(attempt(shared, node), |_| request).await;
    let now = Instant::now().into_std();
    // If the log was truncated, batches that wait for the reader are withdrawn.
    shared.buffer.with_state_and_readers(|state| match answer {
        Ok(response) => {
            let ends = ended_epochs(&response);
            let mut refresh = false;
            for asked in &asked {
                let answer = ends.get(&asked.partition).copied().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR));
                refresh |= state.handle_epoch_end(asked, answer, now);
            }
            refresh
        }
        Err(error) if error.kind() == ErrorKind::UnsupportedVersion => {
            for asked in &asked {
                state.handle_epoch_end(asked, Err(ErrorCode::UNSUPPORTED_VERSION), now);
            }
            false
        }
        Err(error) => {
            state.handle_offset_failure(&asked, error, now);
            true
        }
    })
}
