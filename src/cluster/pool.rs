//! The connections: one for each broker and lane, made when they are needed.

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

    /// Returns the connection to a node, or the attempt that is under way. If there is neither, the
    /// caller has to carry out a new attempt, whose result goes to the promise. Callers share one
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
    pub(crate) fn counters(&self, node: i32) -> Arc<NodeCounters> {
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

    /// Lets all nodes be tried again that refused the client's credentials.
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
