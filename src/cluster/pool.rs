//! The connections: one for each broker and [`ConnectionKind`], made when they are needed.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::{rngs::StdRng, seq::SliceRandom};

use super::{
    ClientSettings, ConnectionKind, Metadata,
    address::Address,
    connection::Connection,
    counters::{BrokerMetrics, NodeCounters},
    reconnect::Reconnect,
};
use crate::cluster::single_flight::{Promise, SingleFlight, closed};
use crate::error::Error;

/// The node id of the first bootstrap address; further ones count down from it, as in Kafka's own
/// clients, because no broker has a negative id.
const FIRST_BOOTSTRAP: i32 = -1;

/// Most nodes with counters that are kept for ever; above it, the counters of nodes that left the
/// cluster are dropped.
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

/// An open connection, or one that is being made.
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

    /// Returns the connection to a node, or the attempt that is under way. If there is neither, the
    /// caller carries out a new attempt and gives its result to the promise. Callers share one
    /// attempt.
    pub(super) fn connection(
        &self,
        node: i32,
        kind: ConnectionKind,
    ) -> (ConnectionLookup, Option<Promise<Arc<Connection>>>) {
        let mut state = self.lock();
        match state.slots.get(&(node, kind)) {
            Some(Slot::Open(connection, _)) if connection.is_usable() => {
                return (ConnectionLookup::Open(Arc::clone(connection)), None);
            }
            Some(Slot::Connecting(attempt)) if !attempt.is_over() => {
                return (ConnectionLookup::Connecting(attempt.clone()), None);
            }
            _ => {}
        }
        let (promise, attempt) = SingleFlight::new();
        if state.closed {
            promise.complete(Err(closed()));
            return (ConnectionLookup::Connecting(attempt), None);
        }
        state.slots.insert((node, kind), Slot::Connecting(attempt.clone()));
        (ConnectionLookup::Connecting(attempt), Some(promise))
    }

    /// Returns the open connection with the fewest unanswered requests, among those of one kind
    /// that are not stalled; prefers brokers of the cluster to bootstrap addresses.
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

    /// Returns nodes in the order in which to try them: at random, then those in backoff, and last
    /// those that are connected, because a connected node here is one that does not answer.
    pub(super) fn order(&self, mut nodes: Vec<i32>, kind: ConnectionKind) -> Vec<i32> {
        let mut state = self.lock();
        // Hash maps iterate in an order that a seed does not reproduce.
        nodes.sort_unstable();
        nodes.shuffle(&mut state.rng);
        nodes.sort_by_key(|node| {
            let open = matches!(state.slots.get(&(*node, kind)), Some(Slot::Open(there, _)) if there.is_usable());
            (open, state.nodes.get(node).and_then(Reconnect::not_before))
        });
        nodes
    }

    /// Returns the node ids of the bootstrap addresses.
    pub(super) fn bootstrap_nodes(&self) -> Vec<i32> {
        (0..self.bootstrap.len()).map(bootstrap_node).collect()
    }

    /// Returns the address of a node.
    pub(super) fn address(&self, metadata: &Metadata, node: i32) -> Option<Address> {
        match usize::try_from(i64::from(FIRST_BOOTSTRAP) - i64::from(node)) {
            Ok(index) => self.bootstrap.get(index).cloned(),
            Err(_) => {
                let broker = metadata.brokers.get(&node)?;
                Some(Address { host: broker.host.clone(), port: broker.port })
            }
        }
    }

    /// Returns the error of the last failed attempt at a node, unless it was connected to since.
    pub(super) fn last_failure(&self, node: i32) -> Option<Error> {
        self.lock().nodes.get(&node)?.last_failure().cloned()
    }

    pub(super) fn mute(&self, node: i32, kind: ConnectionKind, throttle_time_ms: i32) {
        if let Some(Slot::Open(connection, _)) = self.lock().slots.get(&(node, kind)) {
            connection.mute_for(throttle_time_ms);
        }
    }

    /// Applies new metadata. Connections to addresses that no longer belong to a broker close once
    /// their requests are answered, and so do those to bootstrap addresses, because brokers are
    /// known by their own addresses now. If the metadata is of another cluster, all connections
    /// close: its brokers may have the ids and addresses of the former ones.
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
        // Counters continue when a broker restarts. There are few ids, unless each is used only
        // once.
        if state.counters.len() > COUNTED {
            state.counters.retain(|node, _| *node < 0 || metadata.brokers.contains_key(node));
        }
    }

    /// Returns the counters of a node.
    pub(crate) fn counters(&self, node: i32) -> Arc<NodeCounters> {
        Arc::clone(self.lock().counters.entry(node).or_default())
    }

    /// Returns the counters of each node.
    pub(super) fn metrics(&self) -> BTreeMap<i32, BrokerMetrics> {
        self.lock().counters.iter().map(|(node, counters)| (*node, counters.snapshot())).collect()
    }

    /// Closes all connections and makes no further ones.
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

    pub(crate) fn node<T>(
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

    /// Lets nodes that refused the client's credentials be tried again at once.
    pub(crate) fn forgive(&self) {
        self.lock().nodes.values_mut().for_each(Reconnect::forgive);
    }

    pub(crate) fn opened(&self, node: i32, kind: ConnectionKind, connection: &Arc<Connection>, address: Address) {
        let mut state = self.lock();
        if state.closed {
            connection.close(&closed());
        } else {
            state.slots.insert((node, kind), Slot::Open(Arc::clone(connection), address));
        }
    }

    pub(crate) fn gone(&self, node: i32, kind: ConnectionKind, connection: &Arc<Connection>) {
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
