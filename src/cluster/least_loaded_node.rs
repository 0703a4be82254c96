//! Connections to any broker: an open one, otherwise the first that can be made.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout_at};

use crate::cluster::{ConnectionKind, connection::Connection, core::Core};
use crate::error::{Error, ErrorKind, Result};

/// Time after which the next address is tried as well; otherwise an address that swallows packets
/// would cost every client its whole setup timeout.
const HEAD_START: Duration = Duration::from_millis(1000);

type NodeConnection = (i32, Arc<Connection>);
type Connecting = Pin<Box<dyn Future<Output = (i32, Result<Arc<Connection>>)> + Send>>;

/// Returns the open connection with the fewest unanswered requests, or a new one to a known broker,
/// or, when none of them can be reached and `may_bootstrap` (or none is known), to a bootstrap
/// address.
///
/// # Errors
/// The brokers could not be reached; the message names all addresses, each with its cause.
pub(super) async fn least_loaded_node(
    core: &Arc<Core>,
    kind: ConnectionKind,
    may_bootstrap: bool,
    deadline: Instant,
) -> Result<NodeConnection> {
    if let Some(made) = core.pool.least_loaded(kind) {
        return Ok(made);
    }
    let known = core.pool.order(core.metadata.current().brokers.keys().copied().collect(), kind);
    if known.is_empty() {
        return first_reachable(core, core.pool.order(core.pool.bootstrap_nodes(), kind), kind, deadline).await;
    }
    match first_reachable(core, known, kind, deadline).await {
        Err(_) if may_bootstrap => bootstrap(core, deadline).await,
        made => made,
    }
}

/// Returns a connection to a bootstrap address.
pub(super) async fn bootstrap(core: &Arc<Core>, deadline: Instant) -> Result<NodeConnection> {
    first_reachable(
        core,
        core.pool.order(core.pool.bootstrap_nodes(), ConnectionKind::Main),
        ConnectionKind::Main,
        deadline,
    )
    .await
}

/// Returns a connection to the first node that can be connected to; each node gets a head start on
/// the next.
async fn first_reachable(
    core: &Arc<Core>,
    nodes: Vec<i32>,
    kind: ConnectionKind,
    deadline: Instant,
) -> Result<NodeConnection> {
    let mut failures = Vec::new();
    let made = timeout_at(deadline.into(), connect_race(core, &nodes, kind, &mut failures)).await;
    if let Ok(Some(made)) = made {
        return Ok(made);
    }
    let metadata = core.metadata.current_ref();
    for node in nodes {
        if failures.iter().all(|(failed, _)| *failed != node) {
            let address = core.pool.address(&metadata, node);
            let address = address.map_or_else(|| format!("broker {node}"), |address| address.to_string());
            let unheard = || Error::new(ErrorKind::Network, format!("{address}: no connection yet"));
            let why = core.pool.last_failure(node).unwrap_or_else(unheard);
            failures.push((node, why));
        }
    }
    // An error that will not pass by itself is the one that the user has to know.
    let lasting = failures.iter().map(|(_, error)| error).find(|error| {
        matches!(
            error.kind(),
            ErrorKind::Closed | ErrorKind::Configuration | ErrorKind::Authentication | ErrorKind::UnsupportedVersion
        )
    });
    let kind = lasting.map_or(ErrorKind::Network, Error::kind);
    let causes = failures.iter().map(|(_, error)| error.to_string()).collect::<Vec<_>>().join("; ");
    let error = Error::new(kind, format!("no broker could be reached: {causes}"));
    Err(match failures.pop() {
        Some((_, last)) => error.with_source(last),
        None => error,
    })
}

async fn connect_race(
    core: &Arc<Core>,
    nodes: &[i32],
    kind: ConnectionKind,
    failures: &mut Vec<(i32, Error)>,
) -> Option<NodeConnection> {
    let mut nodes = nodes.iter().copied();
    let mut making: Vec<Connecting> = Vec::new();
    loop {
        match nodes.next() {
            Some(node) => making.push(Box::pin(make(Arc::clone(core), node, kind))),
            None if making.is_empty() => return None,
            None => {}
        }
        let waits = nodes.len() > 0;
        let next = async { if waits { sleep(HEAD_START).await } else { std::future::pending().await } };
        tokio::select! {
            biased;
            (node, made) = any_of(&mut making) => match made {
                Ok(connection) => return Some((node, connection)),
                Err(error) => failures.push((node, error)),
            },
            () = next => {}
        }
    }
}

async fn make(core: Arc<Core>, node: i32, kind: ConnectionKind) -> (i32, Result<Arc<Connection>>) {
    (node, core.connect(node, kind).await)
}

/// Returns the result of the first future that is ready, and removes the future from the list.
async fn any_of(making: &mut Vec<Connecting>) -> (i32, Result<Arc<Connection>>) {
    poll_fn(|cx| {
        for i in 0..making.len() {
            if let Some(Poll::Ready(made)) = making.get_mut(i).map(|one| one.as_mut().poll(cx)) {
                drop(making.swap_remove(i));
                return Poll::Ready(made);
            }
        }
        Poll::Pending
    })
    .await
}
