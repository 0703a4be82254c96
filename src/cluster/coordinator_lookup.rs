//! Looks up coordinators, and drops those that have moved.

use crate::{
    cluster::{
        ConnectionKind, CoordinatorKind, VersionBounds,
        coordinators::{CoordinatorLookup, Key},
        core::Core,
        deadline::{now, saturating_deadline},
        least_loaded_node,
        single_flight::{Promise, closed},
    },
    error::{Error, ErrorCode, ErrorKind, Remedy, Result, clean, is_clean},
    wire::{
        ApiKey,
        byte_string::ByteString,
        fetch::NodeEndpoint,
        messages::{FindCoordinatorRequest, FindCoordinatorResponse},
    },
};
use std::{sync::Arc, time::Instant};
use tokio::time::{sleep_until, timeout_at};

/// See [`Client::forget_coordinator`](crate::cluster::Client::forget_coordinator).
pub(crate) fn forget_coordinator(core: &Core, kind: CoordinatorKind, key: &str, node: i32) {
    let settled = core.settings.retry_backoff_max;
    core.coordinators.forget(&(kind, Arc::from(key)), node, now(), settled, |backoff| core.pause(backoff));
}

/// Returns the coordinator's node; repeats the look-up with backoff until the deadline while its
/// errors are retriable.
pub(crate) async fn get(
    core: &Arc<Core>,
    kind: CoordinatorKind,
    key: &str,
    deadline: tokio::time::Instant,
) -> Result<i32> {
    let key = (kind, Arc::from(key));
    let mut last: Option<Error> = None;
    loop {
        if core.is_closed() {
            return Err(closed());
        }
        let flight = match core.coordinators.look_up(&key, || core.retry_backoff()) {
            CoordinatorLookup::Known(node) => return Ok(node),
            CoordinatorLookup::Shared(flight) => flight,
            CoordinatorLookup::Begin { landing, flight, not_before } => {
                core.runtime.spawn(find(Arc::clone(core), key.clone(), not_before, landing));
                flight
            }
        };
        let found = async {
            tokio::select! {
                biased;
                found = flight.wait() => found,
                error = core.overdue() => Err(error),
            }
        };
        match timeout_at(deadline, found).await {
            Ok(Ok(node)) => return Ok(node),
            Ok(Err(error)) if error.kind() == ErrorKind::Resolution => return Err(error),
            Ok(Err(error)) if error.is_retriable() => last = Some(error),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let cause = last.map_or_else(|| "no answer yet".to_owned(), |error| error.to_string());
                let message = format!("{}: not found before the deadline: {cause}", describe(&key));
                return Err(Error::new(ErrorKind::Timeout, message));
            }
        }
    }
}

pub(crate) fn describe((kind, key): &Key) -> String {
    match kind {
        CoordinatorKind::Group => format!("coordinator of group \"{key}\""),
        CoordinatorKind::Transaction => format!("coordinator of transactional id \"{key}\""),
    }
}

/// Looks up a coordinator once, in a task of its own, so that the end of one caller does not cancel
/// the look-up of another.
pub(crate) async fn find(core: Arc<Core>, key: Key, not_before: Option<Instant>, landing: Promise<i32>) {
    let mut closing = core.closing.subscribe();
    let attempt = async {
        if let Some(not_before) = not_before {
            sleep_until(not_before.into()).await;
        }
        ask(&core, &key).await
    };
    let result = tokio::select! {
        biased;
        // Dropping the promise wakes its callers with `Closed`.
        _ = closing.wait_for(|closing| *closing) => return,
        result = attempt => result,
    };
    match &result {
        Ok(node) => core.coordinators.found(&key, *node, now()),
        Err(_) => core.coordinators.failed(&key, now(), |backoff| core.pause(backoff)),
    }
    landing.complete(result.map_err(|error| error.context(describe(&key))));
}

pub(crate) async fn ask(core: &Arc<Core>, key: &Key) -> Result<i32> {
    let deadline = saturating_deadline(now(), core.settings.request_timeout);
    let may_bootstrap = core.metadata.plan().may_rebootstrap();
    let (_, connection) =
        least_loaded_node::least_loaded_node(core, ConnectionKind::Main, may_bootstrap, deadline).await?;
    let version = connection.versions().pick(ApiKey::FindCoordinator, VersionBounds::ANY)?;
    if version == 0 && key.0 == CoordinatorKind::Transaction {
        let message = "the broker is older than 0.11, which has no transactions";
        return Err(Error::new(ErrorKind::UnsupportedVersion, message));
    }
    let response =
        core.send_on(&connection, deadline, VersionBounds::exactly(version), |version| request(key, version)).await?;
    let (node, endpoint) = answer(response, &key.1)?;
    core.metadata.learn_brokers(&[endpoint]);
    Ok(node)
}

pub(crate) fn request((kind, key): &Key, version: i16) -> FindCoordinatorRequest {
    let key = ByteString::from(key.to_string());
    let key_type = match kind {
        CoordinatorKind::Group => 0,
        CoordinatorKind::Transaction => 1,
    };
    let request = FindCoordinatorRequest { key_type, ..Default::default() };
    if version >= 4 {
        FindCoordinatorRequest { coordinator_keys: vec![key], ..request }
    } else {
        FindCoordinatorRequest { key, ..request }
    }
}

/// Reads a response of either form: one coordinator, or (from version 4 on) a list of the requested
/// ones.
pub(crate) fn answer(response: FindCoordinatorResponse, key: &str) -> Result<(i32, NodeEndpoint)> {
    let listed = response.coordinators.into_iter().find(|found| *found.key == *key);
    let (code, message, node, host, port) = match listed {
        Some(found) => (found.error_code, found.error_message, found.node_id, found.host, found.port),
        None => (response.error_code, response.error_message, response.node_id, response.host, response.port),
    };
    let code = ErrorCode::new(code);
    if !code.is_ok() {
        let context = message.filter(|message| !message.is_empty());
        let error = Error::broker(code, context.as_deref().map_or("FindCoordinator".into(), clean));
        // Retriable for every remedy of the code, because this was the look-up.
        return Err(error.with_retriable(code.remedy() != Remedy::None));
    }
    if node < 0 || host.is_empty() || !is_clean(&host) {
        let message = format!("the broker named no usable node: {node} at {:?}", clean(&host));
        return Err(Error::new(ErrorKind::Protocol, message).with_retriable(true));
    }
    Ok((node, NodeEndpoint { node, host: host.to_string(), port, rack: None }))
}
