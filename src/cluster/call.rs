//! Requests that may be repeated unchanged.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};

use super::{ConnectionKind, Route, VersionBounds, coordinator_lookup, core::Core};
use crate::cluster::deadline::now;
use crate::cluster::{
    deadline::{saturating_deadline, saturating_tokio_deadline},
    least_loaded_node,
    single_flight::closed,
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy, Result},
    log::event,
    wire::{ApiKey, protocol::Request},
};

/// See [`Client::call`](super::Client::call).
pub(super) async fn call<R: Request>(
    core: &Arc<Core>,
    route: &Route,
    kind: ConnectionKind,
    deadline: Instant,
    versions: VersionBounds,
    build: impl Fn(i16) -> R + Send + Sync,
    check: impl Fn(&R::Response) -> ErrorCode + Send + Sync,
) -> Result<R::Response> {
    let key = R::API;
    let mut backoff = core.retry_backoff();
    let mut last: Option<Error> = None;
    while !core.is_closed() {
        if Instant::now() >= deadline {
            return Err(gave_up(key, last));
        }
        let until = deadline.into_std().min(saturating_deadline(now(), core.settings.request_timeout));
        let mut node = None;
        let attempt = async {
            let connection = match locate(core, route, deadline).await? {
                Some(at) => {
                    // Set before connecting, because a coordinator that cannot be reached has to be
                    // looked up again, too.
                    node = Some(at);
                    core.connection(at, kind, until).await?
                }
                None => {
                    let may_bootstrap = core.metadata.plan().may_rebootstrap();
                    least_loaded_node::least_loaded_node(core, kind, may_bootstrap, until).await?.1
                }
            };
            core.send_on(&connection, until, versions, &build).await
        };
        let attempt = tokio::select! {
            biased;
            attempt = attempt => attempt,
            error = core.overdue() => return Err(error),
        };
        let error = match attempt {
            Ok(response) => {
                let code = check(&response);
                if !code.is_retriable() {
                    return Ok(response);
                }
                prepare(core, route, node, code.remedy());
                Error::broker(code, key)
            }
            Err(error) if matches!(error.kind(), ErrorKind::Network | ErrorKind::Timeout) || error.is_retriable() => {
                prepare(core, route, node, Remedy::FindCoordinator);
                error
            }
            Err(error) => return Err(error),
        };
        event!(DEBUG, core.settings.origin, %key, %error, "a request failed; it is tried again");
        last = Some(error);
        sleep_until(deadline.min(saturating_tokio_deadline(Instant::now(), core.pause(&mut backoff)))).await;
    }
    Err(closed())
}

/// Invalidates the metadata or the coordinator that has to be looked up again before the next
/// attempt.
fn prepare(core: &Core, route: &Route, node: Option<i32>, remedy: Remedy) {
    match (route, node, remedy) {
        (Route::Coordinator(kind, key), Some(node), Remedy::FindCoordinator) => {
            coordinator_lookup::forget_coordinator(core, *kind, key, node);
        }
        (Route::Controller, ..) | (_, _, Remedy::RefreshMetadata) => core.metadata.refresh(),
        _ => {}
    }
}

/// Returns the node to ask; `None` if it may be any.
async fn locate(core: &Arc<Core>, route: &Route, deadline: Instant) -> Result<Option<i32>> {
    match route {
        Route::Broker(node) => Ok(Some(*node)),
        Route::Any => Ok(None),
        Route::Controller => {
            let controller = core.metadata.current_ref().controller;
            controller.map(Some).ok_or_else(|| {
                core.metadata.refresh();
                let cause = core.metadata.failure();
                let cause = cause.map_or_else(|| "no metadata yet".to_owned(), |error| error.to_string());
                Error::new(ErrorKind::Network, format!("the cluster's controller is not known: {cause}"))
            })
        }
        Route::Coordinator(kind, key) => coordinator_lookup::get(core, *kind, key, deadline).await.map(Some),
    }
}

fn gave_up(key: ApiKey, last: Option<Error>) -> Error {
    match last {
        // The broker's error code is kept.
        Some(last) if last.code().is_some() => last.context("retried until the deadline"),
        Some(last) => {
            let error = Error::new(ErrorKind::Timeout, format!("{key}: no answer before the deadline: {last}"));
            error.with_source(last)
        }
        None => Error::new(ErrorKind::Timeout, format!("{key}: the deadline had passed before the first attempt")),
    }
}
