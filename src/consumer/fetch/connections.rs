//! The fetch connections to all brokers, the memory that their responses may use, and the fetch
//! sessions that have to be closed.
//!
//! Sans-IO.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Weak},
    time::Instant,
};

use crate::consumer::{
    fetch::{
        connection::FetchConnection,
        connection_id::FetchConnectionId,
        connection_scaling::ConnectionScaling,
        empty_responses::EmptyResponses,
        fetch_size::FetchSize,
        memory_budget::{MemoryBudget, QuotaWaker},
        plan::SessionClose,
        session::FetchSession,
    },
    subscription::{partition_state::PartitionState, rules::ConsumerRules},
};
use crate::{cluster::Metadata, record::TopicPartition};

pub(crate) struct FetchConnections {
    /// Fetch connections; each has a task and a fetch session of its own.
    by_id: HashMap<FetchConnectionId, FetchConnection>,
    /// Number of fetch connections to each broker.
    pub(crate) scaling: HashMap<i32, ConnectionScaling>,
    /// Fetch sessions that have ended and must be closed at their brokers.
    session_closes: Vec<SessionClose>,
    /// All known brokers.
    brokers: BTreeSet<i32>,
    budget: MemoryBudget,
    quota_waker: Box<dyn Fn(i32) -> QuotaWaker + Send>,
    pub(super) rules: Arc<ConsumerRules>,
    /// Connections to wake: their next fetch may have changed, or may find room.
    woken: BTreeSet<FetchConnectionId>,
    /// True if the consumer's own task has to be woken: it starts the tasks of new connections, and
    /// closes sessions.
    wakes_task: bool,
}

impl FetchConnections {
    /// Creates the connections of a consumer: none yet. `quota_waker` returns, for a broker's id,
    /// the waker of its fetch tasks that is called when its quota has room again.
    pub(crate) fn new(rules: Arc<ConsumerRules>, quota_waker: Box<dyn Fn(i32) -> QuotaWaker + Send>) -> Self {
        Self {
            by_id: HashMap::new(),
            scaling: HashMap::new(),
            session_closes: Vec::new(),
            brokers: BTreeSet::new(),
            budget: MemoryBudget::new(rules.queued_bytes),
            quota_waker,
            rules,
            woken: BTreeSet::new(),
            wakes_task: false,
        }
    }

    // ---- access

    pub(crate) fn get(&self, id: &FetchConnectionId) -> Option<&FetchConnection> {
        self.by_id.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &FetchConnectionId) -> Option<&mut FetchConnection> {
        self.by_id.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&FetchConnectionId, &FetchConnection)> {
        self.by_id.iter()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = FetchConnectionId> {
        self.by_id.keys().copied()
    }

    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }

    /// Returns the number of open connections to a broker.
    pub(crate) fn open_to(&self, broker: i32) -> u8 {
        self.scaling.get(&broker).map_or(1, ConnectionScaling::open)
    }

    // ---- brokers

    pub(crate) fn knows_broker(&self, broker: i32) -> bool {
        self.brokers.contains(&broker)
    }

    pub(crate) fn knows_brokers(&self) -> bool {
        !self.brokers.is_empty()
    }

    /// Sets the known brokers.
    pub(crate) fn set_brokers(&mut self, metadata: &Metadata) {
        self.brokers = metadata.brokers.keys().copied().collect();
    }

    #[cfg(test)]
    pub(crate) fn forget_broker(&mut self, broker: i32) {
        self.brokers.remove(&broker);
    }

    // ---- partitions

    /// Fetches a partition over that connection from now on.
    pub(crate) fn join(&mut self, state: &mut PartitionState, to: FetchConnectionId) {
        let quota = self.budget.quota(to.broker, || (self.quota_waker)(to.broker));
        let rackless_until = self.by_id.get(&to.broker.into()).and_then(|first| first.rackless_until);
        let connection = self.by_id.entry(to).or_insert_with(|| {
            self.wakes_task = true;
            FetchConnection {
                session: FetchSession::default(),
                changed: BTreeSet::new(),
                waiting: Vec::new(),
                quota: quota.clone(),
                partitions: 0,
                fetch_size: FetchSize::default(),
                empty_responses: EmptyResponses::default(),
                in_flight: 0,
                last_response: Weak::new(),
                largest_batch: 0,
                not_before: None,
                replica_expiry: None,
                rackless_until,
                retries: self.rules.backoff.clone(),
                reported: false,
            }
        });
        connection.quota = quota;
        connection.partitions += 1;
        state.connection = to.connection;
        if let Some(until) = state.preferred_replica.until() {
            connection.expire_at(until);
        }
    }

    /// Stops fetching a partition over that connection.
    pub(crate) fn leave(&mut self, id: Option<FetchConnectionId>, partition: &TopicPartition) {
        let Some(id) = id else { return };
        if let Some(connection) = self.by_id.get_mut(&id) {
            connection.partitions = connection.partitions.saturating_sub(1);
            if connection.partitions == 0 {
                self.woken.insert(id);
            }
            connection.changed.insert(partition.clone());
        }
        self.release_unused_quotas();
    }

    /// Fetches a partition from its preferred read replica or its leader from now on.
    pub(crate) fn select_broker(&mut self, partition: &TopicPartition, state: &mut PartitionState) {
        let broker = state.leader.map(|(leader, _)| state.preferred_replica.node().unwrap_or(leader));
        let before = state.connection_id();
        state.broker = broker;
        if broker != before.map(|connection| connection.broker) {
            self.leave(before, partition);
            if let Some(broker) = broker {
                let to = self.with_fewest_partitions(broker);
                self.join(state, to);
            }
            self.mark_changed(state.connection_id(), partition);
        }
        if let (Some(until), Some(id)) = (state.preferred_replica.until(), state.connection_id())
            && let Some(connection) = self.by_id.get_mut(&id)
        {
            connection.expire_at(until);
        }
    }

    /// Marks a partition of that connection for which the next fetch may differ from the last one.
    pub(crate) fn mark_changed(&mut self, id: Option<FetchConnectionId>, partition: &TopicPartition) {
        if let Some(id) = id
            && let Some(connection) = self.by_id.get_mut(&id)
        {
            connection.changed.insert(partition.clone());
            self.woken.insert(id);
        }
    }

    /// Returns the shares of brokers that no partition is fetched from, once their data was read,
    /// and ends the tasks of those that are no longer in the cluster.
    pub(crate) fn release_unused_quotas(&mut self) {
        let read = self.by_id.iter().filter(|(_, connection)| connection.partitions > 0);
        let read: BTreeSet<i32> = read.map(|(id, _)| id.broker).collect();
        for id in self.by_id.keys().filter(|id| !read.contains(&id.broker)) {
            self.budget.close_quota(id.broker);
            if !self.brokers.contains(&id.broker) {
                self.woken.insert(*id);
            }
        }
    }

    /// Leaves the rack out of fetches to a leader until `until`, so that it serves a partition
    /// itself.
    pub(crate) fn hide_rack(&mut self, leader: i32, until: Instant) {
        for (_, connection) in self.by_id.iter_mut().filter(|(id, _)| id.broker == leader) {
            connection.rackless_until = Some(connection.rackless_until.map_or(until, |known| known.max(until)));
        }
    }

    // ---- sessions

    /// Removes and returns the requests that close ended sessions.
    pub(crate) fn take_session_closes(&mut self) -> Vec<SessionClose> {
        std::mem::take(&mut self.session_closes)
    }

    /// Returns the requests that close all sessions that brokers have for this consumer. A broker
    /// that did not answer the last fetch is left out.
    pub(crate) fn end_sessions(&mut self) -> Vec<SessionClose> {
        let mut closes = self.take_session_closes();
        for (id, connection) in self.by_id.iter_mut().filter(|(_, connection)| connection.session.is_established()) {
            closes.extend(connection.close_session(id.broker));
        }
        closes
    }

    /// Ends the session of a connection without partitions, and the connection itself unless it is
    /// the first one to a broker that is still used. Returns true if the connection has ended.
    pub(crate) fn end_unused(&mut self, id: FetchConnectionId, has_metadata: bool) -> bool {
        let is_gone = has_metadata && !self.brokers.contains(&id.broker);
        let has_siblings = self.by_id.keys().any(|other| other.broker == id.broker && *other != id);
        let Some(connection) = self.by_id.get_mut(&id) else { return false };
        if !is_gone && let Some(close) = connection.close_session(id.broker) {
            // The task of this connection does not send it: if the broker does not answer,
            // partitions that move here meanwhile would be blocked.
            self.session_closes.push(close);
            self.wakes_task = true;
        }
        let is_first = id.connection == 0;
        if is_first && (!is_gone || has_siblings || connection.quota.used() > 0) {
            return false;
        }
        self.by_id.remove(&id);
        if is_first {
            self.budget.close_quota(id.broker);
            self.scaling.remove(&id.broker);
        } else {
            self.record_end(id.broker);
        }
        true
    }

    // ---- waking

    /// Lets connections without room for a fetch plan again: one of them may exceed its share if
    /// the reader has nothing else.
    pub(crate) fn wake_starved(&mut self) {
        let starved = self.by_id.iter().filter(|(_, connection)| connection.quota.is_starved());
        self.woken.extend(starved.map(|(id, _)| *id));
    }

    /// Lets connections without room for a fetch of that many bytes plan again: they may have to
    /// evict batches for a reader that waits now.
    pub(crate) fn wake_full(&mut self, bytes: usize) {
        let is_full =
            |connection: &FetchConnection| connection.quota.is_starved() || !connection.quota.has_room_to_fetch(bytes);
        let full = self.by_id.iter().filter(|(_, connection)| is_full(connection));
        self.woken.extend(full.map(|(id, _)| *id));
    }

    /// Returns the bytes reserved for outstanding responses on the broker's other connections.
    pub(crate) fn in_flight_on_siblings(&self, id: FetchConnectionId) -> usize {
        self.siblings(id).map(|(_, sibling)| sibling.in_flight).sum()
    }

    /// Wakes the broker's other connections after a fetch ended. If the broker's share is full,
    /// they have waited for this, because one of them may now go beyond the share.
    pub(crate) fn wake_siblings(&mut self, id: FetchConnectionId) {
        if self.by_id.get(&id).is_some_and(|connection| connection.quota.is_starved()) {
            self.recheck_siblings(id);
        }
    }

    /// Lets the broker's other connections without an outstanding request plan again.
    pub(crate) fn recheck_siblings(&mut self, id: FetchConnectionId) {
        let idle = self.siblings(id).filter(|(_, sibling)| sibling.in_flight == 0);
        let idle: Vec<_> = idle.map(|(sibling, _)| *sibling).collect();
        self.woken.extend(idle);
    }

    fn siblings(&self, id: FetchConnectionId) -> impl Iterator<Item = (&FetchConnectionId, &FetchConnection)> {
        self.by_id.iter().filter(move |(other, _)| other.broker == id.broker && **other != id)
    }

    /// Wakes a connection, because its next fetch may have changed.
    pub(super) fn wake(&mut self, id: FetchConnectionId) {
        self.woken.insert(id);
    }

    /// Takes the connections to wake.
    pub(crate) fn take_woken(&mut self) -> BTreeSet<FetchConnectionId> {
        std::mem::take(&mut self.woken)
    }

    /// Returns true once if the consumer's own task has to be woken.
    pub(crate) fn take_task_wakeup(&mut self) -> bool {
        std::mem::take(&mut self.wakes_task)
    }
}
