//! Who coordinates which group or transaction.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::time::{Instant as Deadline, sleep_until, timeout_at};

use super::{Backoff, ConnectionKind, CoordinatorKind, connection::now, core::Core};
use crate::cluster::{
    deadline::saturating_deadline,
    least_loaded_node,
    single_flight::{Promise, SingleFlight, closed},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Remedy, Result, clean, is_clean},
    wire::{
        ApiKey,
        byte_string::ByteString,
        fetch::NodeEndpoint,
        messages::{FindCoordinatorRequest, FindCoordinatorResponse},
    },
};

type Key = (CoordinatorKind, Arc<str>);

#[derive(Debug)]
pub(super) struct Coordinators(Mutex<HashMap<Key, Entry>>);

#[derive(Debug)]
struct Entry {
    state: LookupState,
    backoff: Backoff,
    found_at: Option<Instant>,
    not_before: Option<Instant>,
}

#[derive(Debug)]
enum LookupState {
    Unknown,
    Known(i32),
    LookingUp(SingleFlight<i32>),
}

enum CoordinatorLookup {
    Known(i32),
    Shared(SingleFlight<i32>),
    Begin { landing: Promise<i32>, flight: SingleFlight<i32>, not_before: Option<Instant> },
}

impl Coordinators {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known, or the look-up that is under way, or a new one that the caller has to start.
    fn look_up(&self, key: &Key, backoff: impl FnOnce() -> Backoff) -> CoordinatorLookup {
        let mut entries = self.lock();
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
            state: LookupState::Unknown,
            backoff: backoff(),
            found_at: None,
            not_before: None,
        });
        match &entry.state {
            LookupState::Known(node) => return CoordinatorLookup::Known(*node),
            LookupState::LookingUp(flight) if !flight.is_over() => return CoordinatorLookup::Shared(flight.clone()),
            _ => {}
        }
        let (landing, flight) = SingleFlight::new();
        entry.state = LookupState::LookingUp(flight.clone());
        CoordinatorLookup::Begin { landing, flight, not_before: entry.not_before }
    }

    fn found(&self, key: &Key, node: i32, now: Instant) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.state = LookupState::Known(node);
            entry.found_at = Some(now);
            entry.not_before = None;
        }
    }

    fn failed(&self, key: &Key, now: Instant, pause: impl FnOnce(&mut Backoff) -> Duration) {
        if let Some(entry) = self.lock().get_mut(key) {
            entry.state = LookupState::Unknown;
            entry.not_before = Some(saturating_deadline(now, pause(&mut entry.backoff)));
        }
    }

    /// That node said that it is not the coordinator, or cannot be reached; another one that is
    /// known by now stays. The next look-up is at once, unless the last one is only just over:
    /// brokers go on naming a node for a while that has lost the role, or does not have it yet.
    fn forget(
        &self,
        key: &Key,
        node: i32,
        now: Instant,
        settled: Duration,
        pause: impl FnOnce(&mut Backoff) -> Duration,
    ) {
        if let Some(entry) = self.lock().get_mut(key)
            && matches!(entry.state, LookupState::Known(known) if known == node)
        {
            entry.state = LookupState::Unknown;
            if entry.found_at.is_some_and(|at| now < saturating_deadline(at, settled)) {
                entry.not_before = Some(saturating_deadline(now, pause(&mut entry.backoff)));
            } else {
                entry.backoff.reset();
            }
        }
    }

    /// See [`Client::forget_coordinator`](super::Client::forget_coordinator).
    pub(super) fn forget_coordinator(core: &Core, kind: CoordinatorKind, key: &str, node: i32) {
        let settled = core.settings.retry_backoff_max;
        core.coordinators.forget(&(kind, Arc::from(key)), node, now(), settled, |backoff| core.pause(backoff));
    }

    /// The coordinator's node, looked up again with backoff until the deadline while errors are of
    /// the kind that passes.
    pub(super) async fn get(core: &Arc<Core>, kind: CoordinatorKind, key: &str, deadline: Deadline) -> Result<i32> {
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
}

fn describe((kind, key): &Key) -> String {
    match kind {
        CoordinatorKind::Group => format!("coordinator of group \"{key}\""),
        CoordinatorKind::Transaction => format!("coordinator of transactional id \"{key}\""),
    }
}

/// One look-up, in a task of its own so that no caller's end is another's.
async fn find(core: Arc<Core>, key: Key, not_before: Option<Instant>, landing: Promise<i32>) {
    let mut closing = core.closing.subscribe();
    let attempt = async {
        if let Some(not_before) = not_before {
            sleep_until(not_before.into()).await;
        }
        ask(&core, &key).await
    };
    let result = tokio::select! {
        biased;
        // The landing is dropped, which tells its callers.
        _ = closing.wait_for(|closing| *closing) => return,
        result = attempt => result,
    };
    match &result {
        Ok(node) => core.coordinators.found(&key, *node, now()),
        Err(_) => core.coordinators.failed(&key, now(), |backoff| core.pause(backoff)),
    }
    landing.complete(result.map_err(|error| error.context(describe(&key))));
}

async fn ask(core: &Arc<Core>, key: &Key) -> Result<i32> {
    let deadline = saturating_deadline(now(), core.settings.request_timeout);
    let may_bootstrap = core.metadata.plan().may_rebootstrap();
    let (_, connection) =
        least_loaded_node::least_loaded_node(core, ConnectionKind::Main, may_bootstrap, deadline).await?;
    let version = connection.versions().pick(ApiKey::FindCoordinator, None)?;
    if version == 0 && key.0 == CoordinatorKind::Transaction {
        let message = "the broker is older than 0.11, which has no transactions";
        return Err(Error::new(ErrorKind::UnsupportedVersion, message));
    }
    let response = core.send_on(&connection, deadline, Some(version), |version| request(key, version)).await?;
    let (node, endpoint) = answer(response, &key.1)?;
    core.metadata.learn_brokers(&[endpoint]);
    Ok(node)
}

fn request((kind, key): &Key, version: i16) -> FindCoordinatorRequest {
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

/// The answer of either form: one coordinator, or (from version 4 on) a list of those that were
/// asked for.
fn answer(response: FindCoordinatorResponse, key: &str) -> Result<(i32, NodeEndpoint)> {
    let listed = response.coordinators.into_iter().find(|found| *found.key == *key);
    let (code, message, node, host, port) = match listed {
        Some(found) => (found.error_code, found.error_message, found.node_id, found.host, found.port),
        None => (response.error_code, response.error_message, response.node_id, response.host, response.port),
    };
    let code = ErrorCode::new(code);
    if !code.is_ok() {
        let context = message.filter(|message| !message.is_empty());
        let error = Error::broker(code, context.as_deref().map_or("FindCoordinator".into(), clean));
        // Whatever has to be looked up anew for the code, this was the look-up.
        return Err(error.with_retriable(code.remedy() != Remedy::None));
    }
    if node < 0 || host.is_empty() || !is_clean(&host) {
        let message = format!("the broker named no usable node: {node} at {:?}", clean(&host));
        return Err(Error::new(ErrorKind::Protocol, message).with_retriable(true));
    }
    Ok((node, NodeEndpoint { node, host: host.to_string(), port, rack: None }))
}
