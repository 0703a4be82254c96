//! The connections: one for each broker and lane, made when they are needed.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{rngs::StdRng, seq::SliceRandom};
use tokio::time::sleep_until;

use super::{
    ClientSettings, ConnectionKind, Metadata,
    address::Address,
    connection::{Connection, now},
    core::Core,
    counters::{BrokerMetrics, NodeCounters},
    handshake::{Established, Expected, establish},
    reconnect::Reconnect,
};
use crate::cluster::single_flight::{Promise, SingleFlight, closed};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    log::{Lasting, event},
};

/// Bootstrap addresses have node ids from here downwards, as in Kafka's own clients: no broker has
/// a negative one.
const FIRST_BOOTSTRAP: i32 = -1;

/// More nodes than this are not counted for ever: what was counted of those that left the cluster
/// is forgotten then.
const COUNTED: usize = 256;

#[derive(Debug)]
pub(super) struct Pool {
    bootstrap: Vec<Address>,
    state: Mutex<PoolState>,
}

#[derive(Debug)]
struct PoolState {
    closed: bool,
    rng: StdRng,
    slots: HashMap<(i32, ConnectionKind), Slot>,
    nodes: HashMap<i32, Reconnect>,
    counters: BTreeMap<i32, Arc<NodeCounters>>,
}

#[derive(Debug)]
enum Slot {
    Connecting(SingleFlight<Arc<Connection>>),
    Open(Arc<Connection>, Address),
}

/// A connection that is there, or that is being made.
pub(super) enum ConnectionLookup {
    Open(Arc<Connection>),
    Connecting(SingleFlight<Arc<Connection>>),
}

impl Pool {
    pub(super) fn new(bootstrap: Vec<Address>, rng: StdRng) -> Self {
        let state =
            PoolState { closed: false, rng, slots: HashMap::new(), nodes: HashMap::new(), counters: BTreeMap::new() };
        Self { bootstrap, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to a node, which is begun if there is none. Single-flight: callers share one
    /// attempt.
    pub(super) fn connection(&self, core: &Arc<Core>, node: i32, kind: ConnectionKind) -> ConnectionLookup {
        let mut state = self.lock();
        match state.slots.get(&(node, kind)) {
            Some(Slot::Open(connection, _)) if connection.is_usable() => {
                return ConnectionLookup::Open(Arc::clone(connection));
            }
            Some(Slot::Connecting(flight)) if !flight.is_over() => return ConnectionLookup::Connecting(flight.clone()),
            _ => {}
        }
        let (landing, flight) = SingleFlight::new();
        if state.closed {
            landing.complete(Err(closed()));
            return ConnectionLookup::Connecting(flight);
        }
        state.slots.insert((node, kind), Slot::Connecting(flight.clone()));
        drop(state);
        let (origin, life) = (core.settings.origin.clone(), live(Arc::clone(core), node, kind, landing));
        core.runtime.spawn(async move { origin.scope(life).await });
        ConnectionLookup::Connecting(flight)
    }

    /// The open connection with the least to do, of those on one lane whose broker answers; rather
    /// to a broker of the cluster than to a bootstrap address.
    pub(super) fn least_loaded(&self, kind: ConnectionKind) -> Option<(i32, Arc<Connection>)> {
        let state = self.lock();
        let open = state.slots.iter().filter_map(|((node, on), slot)| match slot {
            Slot::Open(connection, _) if *on == kind && connection.is_usable() && !connection.is_stalled() => {
                Some((*node, connection))
            }
            _ => None,
        });
        let (node, connection) = open.min_by_key(|(node, connection)| (*node < 0, connection.load(), *node))?;
        Some((node, Arc::clone(connection)))
    }

    /// Nodes in the order in which to try them: at random, but those last that have to wait after a
    /// failure, or that are connected and do not answer.
    pub(super) fn order(&self, mut nodes: Vec<i32>, kind: ConnectionKind) -> Vec<i32> {
        let mut state = self.lock();
        // Hash maps give them in an order that no seed repeats.
        nodes.sort_unstable();
        nodes.shuffle(&mut state.rng);
        nodes.sort_by_key(|node| {
            let open = matches!(state.slots.get(&(*node, kind)), Some(Slot::Open(there, _)) if there.is_usable());
            (open, state.nodes.get(node).and_then(Reconnect::not_before))
        });
        nodes
    }

    /// The nodes that stand for the bootstrap addresses.
    pub(super) fn bootstrap_nodes(&self) -> Vec<i32> {
        (0..self.bootstrap.len()).map(bootstrap_node).collect()
    }

    /// Where a node is.
    pub(super) fn address(&self, metadata: &Metadata, node: i32) -> Option<Address> {
        match usize::try_from(i64::from(FIRST_BOOTSTRAP) - i64::from(node)) {
            Ok(index) => self.bootstrap.get(index).cloned(),
            Err(_) => {
                let broker = metadata.brokers.get(&node)?;
                Some(Address { host: broker.host.clone(), port: broker.port })
            }
        }
    }

    /// Why a node could not be reached the last time.
    pub(super) fn last_failure(&self, node: i32) -> Option<Error> {
        self.lock().nodes.get(&node)?.last_failure().cloned()
    }

    pub(super) fn mute(&self, node: i32, kind: ConnectionKind, throttle_time_ms: i32) {
        if let Some(Slot::Open(connection, _)) = self.lock().slots.get(&(node, kind)) {
            connection.mute_for(throttle_time_ms);
        }
    }

    /// A new picture of the cluster is there: connections to where no broker is any more end once
    /// they are done, and those to the bootstrap addresses, since brokers are known by their own.
    /// Where the picture is of another cluster than before, all connections end: its brokers may
    /// have the ids and addresses of the former ones.
    pub(super) fn metadata_changed(&self, metadata: &Metadata, another_cluster: bool) {
        if metadata.brokers.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.slots.retain(|(node, _), slot| match slot {
            Slot::Connecting(flight) => !flight.is_over(),
            Slot::Open(connection, address) => {
                let stays = *node >= 0 && !another_cluster && self.address(metadata, *node).as_ref() == Some(address);
                if !stays {
                    connection.retire();
                }
                stays && connection.is_usable()
            }
        });
        state.nodes.retain(|node, _| *node < 0 || metadata.brokers.contains_key(node));
        // What was counted of a broker that restarts goes on; ids are few, unless they are never
        // used again.
        if state.counters.len() > COUNTED {
            state.counters.retain(|node, _| *node < 0 || metadata.brokers.contains_key(node));
        }
    }

    /// Where what happens at a node is counted.
    fn counters(&self, node: i32) -> Arc<NodeCounters> {
        Arc::clone(self.lock().counters.entry(node).or_default())
    }

    /// What was counted of each node.
    pub(super) fn metrics(&self) -> BTreeMap<i32, BrokerMetrics> {
        self.lock().counters.iter().map(|(node, counters)| (*node, counters.snapshot())).collect()
    }

    /// Closes all connections, and makes no more.
    pub(super) fn close(&self) {
        let slots = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.slots)
        };
        for slot in slots.into_values() {
            if let Slot::Open(connection, _) = slot {
                connection.close(&closed());
            }
        }
    }

    fn node<T>(
        &self,
        settings: &ClientSettings,
        node: i32,
        change: impl FnOnce(&mut Reconnect, &mut StdRng) -> T,
    ) -> T {
        let mut state = self.lock();
        let state = &mut *state;
        let reconnect = state.nodes.entry(node).or_insert_with(|| {
            Reconnect::new(
                (settings.reconnect_backoff, settings.reconnect_backoff_max),
                (settings.connection_setup_timeout, settings.connection_setup_timeout_max),
                &mut state.rng,
            )
        });
        change(reconnect, &mut state.rng)
    }

    /// Lets all nodes be tried again that refused the client's credentials.
    fn forgive(&self) {
        self.lock().nodes.values_mut().for_each(Reconnect::forgive);
    }

    fn opened(&self, node: i32, kind: ConnectionKind, connection: &Arc<Connection>, address: Address) {
        let mut state = self.lock();
        if state.closed {
            connection.close(&closed());
        } else {
            state.slots.insert((node, kind), Slot::Open(Arc::clone(connection), address));
        }
    }

    fn gone(&self, node: i32, kind: ConnectionKind, connection: &Arc<Connection>) {
        if let Entry::Occupied(slot) = self.lock().slots.entry((node, kind))
            && matches!(slot.get(), Slot::Open(there, _) if Arc::ptr_eq(there, connection))
        {
            slot.remove();
        }
    }
}

fn bootstrap_node(index: usize) -> i32 {
    i32::try_from(index).map_or(i32::MIN, |index| FIRST_BOOTSTRAP - index)
}

/// The life of one connection: made after its backoff, driven until it closes.
async fn live(core: Arc<Core>, node: i32, kind: ConnectionKind, landing: Promise<Arc<Connection>>) {
    let mut closing = core.closing.subscribe();
    let counters = core.pool.counters(node);
    let attempt = attempt(&core, node);
    let made = tokio::select! {
        biased;
        // The landing is dropped, which tells its callers.
        _ = closing.wait_for(|closing| *closing) => return,
        made = attempt => made,
    };
    let (established, address) = match made {
        Ok(made) => made,
        Err(ConnectFailure::NotTried(error)) => return landing.complete(Err(error)),
        Err(ConnectFailure::Failed(error)) => {
            counters.not_connected();
            if error.code() == Some(ErrorCode::REBOOTSTRAP_REQUIRED) {
                core.metadata.require_rebootstrap();
            }
            let due = core.pool.node(&core.settings, node, |known, rng| known.failed(error.clone(), now(), rng));
            log_outage(&core, node, due, &error);
            return landing.complete(Err(error));
        }
    };
    if core.logins.take_reopened() {
        core.pool.forgive();
    }
    let Established { connection, driver, api_versions } = established;
    core.features().learn(&api_versions);
    // A connection may live for months.
    drop(api_versions);
    counters.connected();
    connection.count_into(Arc::clone(&counters));
    let connection = Arc::new(connection);
    let outage = core.pool.node(&core.settings, node, |known, rng| known.connected(now(), rng));
    if let Some(Lasting { duration, attempts }) = outage {
        let outage_ms = millis(duration);
        event!(INFO, core.settings.origin, %address, node, outage_ms, attempts, "the broker can be connected to again");
    }
    core.pool.opened(node, kind, &connection, address.clone());
    landing.complete(Ok(Arc::clone(&connection)));
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

/// A broker that cannot be connected to, or hangs up at once, for longer than a restart takes.
fn log_outage(core: &Core, node: i32, due: Option<Lasting>, error: &Error) {
    let Some(Lasting { duration, attempts }) = due.filter(|_| !core.is_closed()) else { return };
    let outage_ms = millis(duration);
    event!(
        WARN, core.settings.origin, node, %error, outage_ms, attempts,
        "no connection to a broker lasts; it is tried again, after reconnect.backoff.max.ms at the latest"
    );
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Why there is no connection.
enum ConnectFailure {
    Failed(Error),
    /// The peer or the client's credentials were refused a short while ago.
    NotTried(Error),
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

/// What a broker hears of where the connection is meant to go; `None` unless both the cluster and
/// the node are known.
fn expected(core: &Core, metadata: &Metadata, node: i32) -> Option<Expected> {
    let checks = core.settings.metadata_cluster_check && core.settings.metadata_rebootstrap_trigger.is_some();
    let cluster_id = metadata.cluster_id.clone().filter(|_| checks && node >= 0)?;
    Some(Expected { cluster_id, node })
}
