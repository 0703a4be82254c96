//! Runs one connection: makes it after its backoff, and drives it until it closes.

use crate::{
    cluster::{
        ConnectionKind, Metadata,
        address::Address,
        connection::Connection,
        core::Core,
        deadline::{millis, now},
        handshake::{Established, Expected, establish},
        pool::ConnectionLookup,
        single_flight::Promise,
    },
    error::{Error, ErrorCode, ErrorKind, Result},
    log::{Lasting, event},
};
use std::sync::Arc;
use tokio::time::sleep_until;

/// Returns the connection to a node, or the attempt at one; starts the attempt if there is none.
pub(crate) fn lookup(core: &Arc<Core>, node: i32, kind: ConnectionKind) -> ConnectionLookup {
    let (lookup, begun) = core.pool.connection(node, kind);
    if let Some(promise) = begun {
        let (origin, life) = (core.settings.origin.clone(), live(Arc::clone(core), node, kind, promise));
        core.runtime.spawn(async move { origin.scope(life).await });
    }
    lookup
}

/// Runs one connection: makes it after its backoff, and drives it until it closes.
async fn live(core: Arc<Core>, node: i32, kind: ConnectionKind, promise: Promise<Arc<Connection>>) {
    let mut closing = core.closing.subscribe();
    let counters = core.pool.counters(node);
    let attempt = attempt(&core, node);
    let made = tokio::select! {
        biased;
        // Dropping the promise wakes its callers with `Closed`.
        _ = closing.wait_for(|closing| *closing) => return,
        made = attempt => made,
    };
    let (established, address) = match made {
        Ok(made) => made,
        Err(ConnectFailure::NotTried(error)) => return promise.complete(Err(error)),
        Err(ConnectFailure::Failed(error)) => {
            counters.not_connected();
            if error.code() == Some(ErrorCode::REBOOTSTRAP_REQUIRED) {
                core.metadata.require_rebootstrap();
            }
            let due = core.pool.node(&core.settings, node, |known, rng| known.failed(error.clone(), now(), rng));
            log_outage(&core, node, due, &error);
            return promise.complete(Err(error));
        }
    };
    if core.logins.take_reopened() {
        core.pool.forgive();
    }
    let Established { connection, driver, api_versions } = established;
    core.features().learn(&api_versions);
    // Freed here, because a connection may live for months.
    drop(api_versions);
    counters.connected();
    connection.count_into(Arc::clone(&counters));
    let connection = Arc::new(connection);
    let outage = core.pool.node(&core.settings, node, |known, rng| known.connected(now(), rng));
    if let Some(Lasting { duration, attempts }) = outage {
        let outage_ms = millis(duration);
        event!(INFO, core.settings.origin, %address, node, outage_ms, attempts, "connected to the broker again");
    }
    core.pool.opened(node, kind, &connection, address.clone());
    promise.complete(Ok(Arc::clone(&connection)));
    let began = now();
    event!(DEBUG, core.settings.origin, %address, node, ?kind, "connected");
    let reason = driver.await;
    counters.disconnected();
    event!(DEBUG, core.settings.origin, %address, node, ?kind, %reason, "disconnected");
    core.pool.gone(node, kind, &connection);
    let lived = now().saturating_duration_since(began);
    let due = core.pool.node(&core.settings, node, |known, rng| known.ended(&reason, lived, now(), rng));
    log_outage(&core, node, due, &reason);
}

/// Logs a broker that cannot be connected to, or hangs up at once, for longer than a restart takes.
fn log_outage(core: &Core, node: i32, due: Option<Lasting>, error: &Error) {
    let Some(Lasting { duration, attempts }) = due.filter(|_| !core.is_closed()) else { return };
    let outage_ms = millis(duration);
    event!(
        WARN, core.settings.origin, node, %error, outage_ms, attempts,
        "the client cannot connect to a broker, or its connections break at once; it tries again, after \
         reconnect.backoff.max.ms at the latest: if this goes on, check the broker and its advertised.listeners"
    );
}

async fn attempt(core: &Core, node: i32) -> Result<(Established, Address), ConnectFailure> {
    let (refusal, not_before, setup_timeout) = core.pool.node(&core.settings, node, |known, _| {
        (known.refusal(now()).cloned(), known.not_before(), known.setup_timeout())
    });
    if let Some(refusal) = core.logins.refusal().or(refusal) {
        return Err(ConnectFailure::NotTried(refusal));
    }
    if let Some(not_before) = not_before {
        sleep_until(not_before.into()).await;
    }
    let unknown = || Error::new(ErrorKind::Network, format!("broker {node} is not in the cluster's metadata"));
    let metadata = core.metadata.current();
    let address = core.pool.address(&metadata, node).ok_or_else(|| ConnectFailure::Failed(unknown()))?;
    let expected = expected(core, &metadata, node);
    let (resolution, logins, to) = (&core.resolution, &core.logins, (&address, expected.as_ref()));
    let established = establish(&core.settings, &core.guard, resolution, logins, to, setup_timeout).await;
    Ok((established.map_err(ConnectFailure::Failed)?, address))
}

/// Returns the cluster and node that the broker is told the connection is meant for (KIP-1242);
/// `None` unless both are known.
fn expected(core: &Core, metadata: &Metadata, node: i32) -> Option<Expected> {
    let checks = core.settings.metadata_cluster_check && core.settings.metadata_rebootstrap_trigger.is_some();
    let cluster_id = metadata.cluster_id.clone().filter(|_| checks && node >= 0)?;
    Some(Expected { cluster_id, node })
}

/// The reason for a missing connection.
enum ConnectFailure {
    Failed(Error),
    /// Not tried, because the peer or the client's credentials were refused a short while ago.
    NotTried(Error),
}
