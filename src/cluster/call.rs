//! Requests that may be repeated word for word.

use std::sync::Arc;

use kafka_protocol::protocol::Request;
use tokio::time::{Instant, sleep_until};

use super::{
    CoordinatorKind, Lane, Route, any,
    connection::{Connection, now},
    coordinators::Coordinators,
    core::{Core, api_key},
    flight::closed,
    later::{later, later_tokio},
};
use crate::error::{Error, ErrorCode, ErrorKind, Remedy, Result};

/// See [`Client::call`](super::Client::call).
pub(super) async fn call<R: Request>(
    core: &Arc<Core>,
    route: &Route,
    lane: Lane,
    deadline: Instant,
    build: impl Fn(i16) -> R + Send + Sync,
    check: impl Fn(&R::Response) -> ErrorCode + Send + Sync,
) -> Result<R::Response> {
    let key = api_key::<R>()?;
    let mut backoff = core.retry_backoff();
    let mut last: Option<Error> = None;
    while !core.is_closed() {
        if Instant::now() >= deadline {
            return Err(gave_up(key, last));
        }
        let until = deadline.into_std().min(later(now(), core.settings.request_timeout));
        let mut node = None;
        let attempt = async {
            let (at, connection) = find(core, route, lane, deadline, until).await?;
            node = Some(at);
            core.send_on(&connection, until, None, &build).await
        };
        let error = match attempt.await {
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
        tracing::debug!(%key, %error, "trying again");
        last = Some(error);
        sleep_until(deadline.min(later_tokio(Instant::now(), core.pause(&mut backoff)))).await;
    }
    Err(closed())
}

/// What has to be looked up anew before the next attempt.
fn prepare(core: &Core, route: &Route, node: Option<i32>, remedy: Remedy) {
    match (route, node, remedy) {
        (Route::Coordinator(kind, key), Some(node), Remedy::FindCoordinator) => {
            Coordinators::lost(core, *kind, key, node);
        }
        (Route::Controller, ..) | (_, _, Remedy::RefreshMetadata) => core.metadata.refresh(),
        _ => {}
    }
}

async fn find(
    core: &Arc<Core>,
    route: &Route,
    lane: Lane,
    deadline: Instant,
    until: std::time::Instant,
) -> Result<(i32, Arc<Connection>)> {
    let node = match route {
        Route::Broker(node) => *node,
        Route::Any => {
            let may_bootstrap = core.metadata.plan().may_rebootstrap();
            return any::any(core, lane, may_bootstrap, until).await;
        }
        Route::Controller => core.metadata.picture_ref().controller.ok_or_else(|| {
            core.metadata.refresh();
            let cause = core.metadata.failure();
            let cause = cause.map_or_else(|| "no metadata yet".to_owned(), |error| error.to_string());
            Error::new(ErrorKind::Network, format!("the cluster's controller is not known: {cause}"))
        })?,
        Route::Coordinator(kind, key) => coordinator(core, *kind, key, deadline).await?,
    };
    Ok((node, core.connection(node, lane, until).await?))
}

async fn coordinator(core: &Arc<Core>, kind: CoordinatorKind, key: &str, deadline: Instant) -> Result<i32> {
    Coordinators::get(core, kind, key, deadline).await
}

fn gave_up(key: crate::wire::ApiKey, last: Option<Error>) -> Error {
    match last {
        // The broker's own word stays what it is.
        Some(last) if last.code().is_some() => last.context("tried again until the deadline"),
        Some(last) => {
            let error = Error::new(ErrorKind::Timeout, format!("{key}: no answer before the deadline: {last}"));
            error.with_source(last)
        }
        None => Error::new(ErrorKind::Timeout, format!("{key}: the deadline had passed before it began")),
    }
}
