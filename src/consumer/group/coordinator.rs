//! Sends one request to the group's current coordinator.

use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::shared::bounded;
use crate::{
    cluster::{Attempt, Client, ConnectionKind, CoordinatorKind, VersionBounds},
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
    wire::protocol::Request,
};

/// Returns the timeout of one request.
pub(super) fn request_timeout(client: &Client) -> Duration {
    bounded(client.settings().request_timeout)
}

/// Sends to the known coordinator, or finds it first. A coordinator that cannot be reached is
/// forgotten, so that the next attempt looks for its successor.
pub(super) async fn ask<R: Request>(
    client: &Client,
    group_id: &str,
    connection: ConnectionKind,
    timeout: Duration,
    build: impl FnOnce(i16) -> R + Send,
) -> Result<(i32, R::Response)> {
    ask_up_to(client, group_id, connection, timeout, None, build).await
}

/// Like [`ask`], but in a version of at most `max_version`.
pub(super) async fn ask_up_to<R: Request>(
    client: &Client,
    group_id: &str,
    connection: ConnectionKind,
    timeout: Duration,
    max_version: Option<i16>,
    build: impl FnOnce(i16) -> R + Send,
) -> Result<(i32, R::Response)> {
    let deadline = Instant::now() + timeout;
    // A join may take as long as a rebalance; finding the coordinator may not.
    let found_by = deadline.min(Instant::now() + request_timeout(client));
    let find = client.coordinator(CoordinatorKind::Group, group_id, found_by);
    let node = timeout_at(found_by, find).await.unwrap_or_else(|_| Err(too_late(group_id)))?;
    let left = deadline.saturating_duration_since(Instant::now());
    let answer = client
        .send(Attempt { node, kind: connection, timeout: left, versions: VersionBounds::up_to(max_version) }, build)
        .await;
    if answer.as_ref().is_err_and(Error::is_retriable) {
        client.forget_coordinator(CoordinatorKind::Group, group_id, node);
    }
    Ok((node, answer?))
}

/// Like [`ask`], and forgets the coordinator if the response has an error code that says that
/// another broker is the coordinator.
pub(super) async fn ask_and_heed<R: Request>(
    client: &Client,
    group_id: &str,
    connection: ConnectionKind,
    timeout: Duration,
    build: impl FnOnce(i16) -> R + Send,
    error_code: fn(&R::Response) -> i16,
) -> Result<(i32, R::Response)> {
    let (node, response) = ask(client, group_id, connection, timeout, build).await?;
    heed(client, group_id, node, Some(error_code(&response).into()));
    Ok((node, response))
}

/// Forgets the coordinator if a response says that it is another broker.
pub(super) fn heed(client: &Client, group_id: &str, node: i32, code: Option<ErrorCode>) {
    if code.is_some_and(|code| code.remedy() == Remedy::FindCoordinator) {
        client.forget_coordinator(CoordinatorKind::Group, group_id, node);
    }
}

fn too_late(group_id: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("the coordinator of group {group_id} was not found in time"))
}
