//! Asks what positions hang on: committed offsets, the starts and ends of logs, leader epochs.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use super::{
    offset_lookup::{EARLIEST, LATEST, ended_epochs, epoch_ends, list_offsets, listed_offsets},
    position::Start,
    resolve::{Asked, Question},
    settings::IsolationLevel,
    shared::Shared,
};
use crate::{
    cluster::{Attempt, Lane},
    error::{ErrorCode, ErrorKind},
    record::to_millis,
};

/// For how long the look-up of committed offsets is tried before its error is shown in the status.
/// It is asked again then.
const SHOWN_AFTER: Duration = Duration::from_secs(10);

/// Asks one question, and takes its answer to the assignment. Whether a new look at the metadata is
/// needed.
pub(super) async fn ask(shared: &Shared, question: Question) -> bool {
    match question {
        Question::Committed(asked) => ask_committed(shared, asked).await,
        Question::Offsets(node, asked) => ask_offsets(shared, node, asked).await,
        Question::Epochs(node, asked) => ask_epochs(shared, node, asked).await,
    }
}

async fn ask_committed(shared: &Shared, asked: Vec<Asked<()>>) -> bool {
    let partitions = asked.iter().map(|asked| asked.partition.clone()).collect();
    let answer = match &shared.group {
        // A call tries again silently: what does not pass has to come back and be shown.
        Some(group) => {
            let soon = Instant::now() + SHOWN_AFTER;
            group.committed_each(partitions, shared.deadline().min(soon)).await
        }
        None => Ok(HashMap::new()),
    };
    let now = Instant::now().into_std();
    shared.inbox.with(|assignment| assignment.committed_answer(&asked, answer, now));
    false
}

fn attempt(shared: &Shared, node: i32) -> Attempt {
    Attempt { node, lane: Lane::Main, timeout: shared.client.settings().request_timeout, max_version: None }
}

/// The timestamp that asks for a start; of the wall clock, which records are stamped by.
fn timestamp(start: Start) -> i64 {
    match start {
        Start::Earliest => EARLIEST,
        Start::Latest => LATEST,
        // Negative timestamps mean other questions.
        Start::At(millis) => millis.max(0),
        Start::Since(duration) => {
            let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
            to_millis(SystemTime::now()).saturating_sub(millis).max(0)
        }
    }
}

async fn ask_offsets(shared: &Shared, node: i32, asked: Vec<Asked<Start>>) -> bool {
    let rows: Vec<_> =
        asked.iter().map(|asked| (asked.partition.clone(), asked.leader_epoch, timestamp(asked.what))).collect();
    let read_committed = shared.settings.isolation_level == IsolationLevel::ReadCommitted;
    let request = list_offsets(&rows, read_committed, shared.client.settings().request_timeout);
    let answer = shared.client.send(attempt(shared, node), |_| request).await;
    let now = Instant::now().into_std();
    shared.inbox.control(|assignment| match answer {
        Ok(response) => {
            let found = listed_offsets(&response);
            let mut refresh = false;
            for asked in &asked {
                let answer = found.get(&asked.partition).copied().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR));
                let answer = answer.map(|found| (found.offset, found.leader_epoch));
                refresh |= assignment.offset_answer(asked, answer, now);
            }
            refresh
        }
        Err(error) => {
            assignment.unanswered(&asked, error, now);
            true
        }
    })
}

async fn ask_epochs(shared: &Shared, node: i32, asked: Vec<Asked<(i64, i32)>>) -> bool {
    let rows: Vec<_> = asked.iter().map(|asked| (asked.partition.clone(), asked.leader_epoch, asked.what.1)).collect();
    let request = epoch_ends(&rows);
    let answer = shared.client.send(attempt(shared, node), |_| request).await;
    let now = Instant::now().into_std();
    // A truncated log takes back what waits for the reader.
    shared.inbox.control(|assignment| match answer {
        Ok(response) => {
            let found = ended_epochs(&response);
            let mut refresh = false;
            for asked in &asked {
                let answer = found.get(&asked.partition).copied().unwrap_or(Err(ErrorCode::UNKNOWN_SERVER_ERROR));
                refresh |= assignment.epoch_answer(asked, answer, now);
            }
            refresh
        }
        Err(error) if error.kind() == ErrorKind::UnsupportedVersion => {
            for asked in &asked {
                assignment.epoch_answer(asked, Err(ErrorCode::UNSUPPORTED_VERSION), now);
            }
            false
        }
        Err(error) => {
            assignment.unanswered(&asked, error, now);
            true
        }
    })
}
