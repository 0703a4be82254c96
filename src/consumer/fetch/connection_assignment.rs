//! Assigns partitions to the connections of a broker, and carries out what `connection_scaling`
//! decides.
//!
//! Sans-IO.

use crate::{
    consumer::{
        fetch::{
            connection::FetchConnection,
            connection_id::FetchConnectionId,
            connection_scaling::{ConnectionScaling, ScalingDecision},
            fetch_size::Bottleneck,
        },
        state::ConsumerState,
        subscription::partition_state::PartitionState,
    },
    error::{DeliveryStatus, Error},
    log::event,
    record::TopicPartition,
};
use std::time::Instant;

impl ConsumerState {
    /// Returns the connection for a partition that moves to this broker: the one with the fewest
    /// partitions.
    pub(crate) fn connection_for(&mut self, broker: i32) -> FetchConnectionId {
        let most = self.rules.connections;
        let open = self.scaling.entry(broker).or_insert_with(|| ConnectionScaling::new(most)).open();
        let connections = (0..open).map(|connection| FetchConnectionId { broker, connection });
        let fewest = connections.min_by_key(|source| self.connections.get(source).map_or(0, |node| node.partitions));
        fewest.unwrap_or(broker.into())
    }

    /// Passes on the bottleneck that a response showed. No request is outstanding on this
    /// connection now.
    pub(crate) fn record_bottleneck(&mut self, source: FetchConnectionId, pace: Bottleneck, now: Instant) {
        let Some(connections) = self.scaling.get_mut(&source.broker) else { return };
        let idles = |node: &FetchConnection| node.in_flight == 0 && node.session.len() == 0 && node.changed.is_empty();
        let others = (1..connections.open()).rev().filter(|number| *number != source.connection);
        let mut others = others.map(|connection| FetchConnectionId { connection, ..source });
        let idle = others.find(|other| self.connections.get(other).is_none_or(idles)).map(|other| other.connection);
        let change = connections.response_received(source.connection, pace, idle, now);
        self.apply_scaling(source, change, idle);
    }

    /// Records that the quota has no room for the next fetch over this connection.
    pub(crate) fn quota_exhausted(&mut self, connection: FetchConnectionId) {
        let Some(connections) = self.scaling.get_mut(&connection.broker) else { return };
        let change = connections.quota_exhausted();
        self.apply_scaling(connection, change, None);
    }

    fn apply_scaling(&mut self, connection: FetchConnectionId, change: ScalingDecision, idle: Option<u8>) {
        let open = self.scaling.get(&connection.broker).map_or(1, ConnectionScaling::open);
        match change {
            ScalingDecision::Keep => {}
            ScalingDecision::Add(since) => self.add_connection(connection, since, idle),
            ScalingDecision::RemoveLast => self.keep_connections(connection.broker, open.saturating_sub(1)),
            ScalingDecision::RemoveIdle => self.close_connections(connection.broker, open.saturating_sub(1)),
        }
    }

    /// Returns true if a broker is read over more than one connection.
    pub(crate) fn has_several_connections(&self, broker: i32) -> bool {
        self.scaling.get(&broker).is_some_and(|connections| connections.open() > 1)
    }

    /// Handles a broker that has no room for a fetch session: without one every request names all
    /// partitions, so more connections do not help.
    pub(crate) fn session_refused(&mut self, connection: FetchConnectionId, now: Instant) {
        if let Some(connections) = self.scaling.get_mut(&connection.broker) {
            connections.session_refused(now);
        }
        if connection.connection > 0 {
            self.keep_connections(connection.broker, connection.connection);
        }
    }

    /// Handles the end of a connection without partitions. When the last connection ends, those
    /// before it that had already ended are closed with it.
    pub(crate) fn connection_ended(&mut self, broker: i32) {
        let left = self
            .connections
            .keys()
            .filter(|connection| connection.broker == broker)
            .map(|connection| connection.connection)
            .max();
        if let Some(connections) = self.scaling.get_mut(&broker) {
            connections.connections_ended(left.map_or(1, |last| last.saturating_add(1)));
        }
        // The first connection may have waited for the end of this one.
        self.signals.connections.insert(broker.into());
    }

    /// Handles a failed fetch over a connection other than the first: its partitions move to the
    /// remaining ones. If the broker itself is gone, their fetches report it.
    pub(crate) fn connection_failed(&mut self, connection: FetchConnectionId, error: &Error, now: Instant) {
        let unsent = error.delivery_status() == Some(DeliveryStatus::NotPersisted);
        if let Some(connections) = self.scaling.get_mut(&connection.broker).filter(|_| unsent) {
            connections.connect_failed(now);
        }
        self.keep_connections(connection.broker, connection.connection);
    }

    /// Returns true if any reader waits for records now.
    pub(crate) fn any_reader_waits(&self) -> bool {
        self.reader_waits()
            || self.partitions.values().any(|state| state.split.as_ref().is_some_and(|split| split.is_waiting()))
    }

    /// Moves every second partition of a connection to a new or idle one if at least two of them
    /// received data since then; partitions with the latest data come first.
    fn add_connection(&mut self, from: FetchConnectionId, since: Instant, idle: Option<u8>) {
        let here = self.partitions.iter().filter(|(_, state)| state.connection_id() == Some(from));
        let mut here: Vec<_> = here.map(|(partition, state)| (state.last_data_at, partition.clone())).collect();
        here.sort_unstable_by(|one, other| other.cmp(one));
        let Some(connections) = self.scaling.get_mut(&from.broker) else { return };
        if here.iter().filter(|(fed, _)| fed.is_some_and(|at| at >= since)).count() < 2 {
            // Counts from zero, so that this is checked again after the same number of responses.
            return connections.reset_counts();
        }
        let number = match idle {
            Some(number) => {
                connections.reset_counts();
                number
            }
            None => connections.add(),
        };
        let to = FetchConnectionId { broker: from.broker, connection: number };
        event!(
            DEBUG,
            self.rules.origin,
            broker = to.broker,
            connection = to.connection,
            "fetching over another connection"
        );
        let size = self.connections.get(&from).map(|node| node.fetch_size.clone());
        for (_, partition) in here.into_iter().skip(1).step_by(2) {
            self.move_to_connection(&partition, to);
        }
        if let (Some(size), Some(node)) = (size, self.connections.get_mut(&to)) {
            node.fetch_size = size;
        }
    }

    /// Keeps only the first `keep` connections of a broker, and raises the threshold for the next
    /// one.
    pub(crate) fn keep_connections(&mut self, broker: i32, keep: u8) {
        if let Some(connections) = self.scaling.get_mut(&broker).filter(|connections| keep < connections.open()) {
            connections.keep(keep);
            self.redistribute_partitions(broker);
        }
    }

    /// Keeps only the first `keep` connections without raising the threshold, because the others
    /// are merely idle.
    fn close_connections(&mut self, broker: i32, keep: u8) {
        if let Some(connections) = self.scaling.get_mut(&broker).filter(|connections| keep < connections.open()) {
            connections.connections_ended(keep);
            self.redistribute_partitions(broker);
        }
    }

    /// Moves the partitions of closed connections to the remaining ones. Responses that are still
    /// outstanding there are used.
    fn redistribute_partitions(&mut self, broker: i32) {
        let open = self.scaling.get(&broker).map_or(1, ConnectionScaling::open);
        event!(DEBUG, self.rules.origin, broker, open, "fetching over fewer connections");
        let gone = |connection: FetchConnectionId| connection.broker == broker && connection.connection >= open;
        let here = self.partitions.iter().filter(|(_, state)| state.connection_id().is_some_and(gone));
        for partition in here.map(|(partition, _)| partition.clone()).collect::<Vec<_>>() {
            let to = self.connection_for(broker);
            self.move_to_connection(&partition, to);
        }
    }

    fn move_to_connection(&mut self, partition: &TopicPartition, to: FetchConnectionId) {
        let before = self.partitions.get(partition).and_then(PartitionState::connection_id);
        // Joins first and leaves second, so that the broker's share is not released in between.
        self.join_connection(partition, to);
        self.leave_connection(before, partition);
        self.mark_changed(partition);
    }

    /// Returns the bytes reserved for outstanding responses on the broker's other connections.
    pub(crate) fn in_flight_on_siblings(&self, connection: FetchConnectionId) -> usize {
        let others =
            self.connections.iter().filter(|(other, _)| other.broker == connection.broker && **other != connection);
        others.map(|(_, node)| node.in_flight).sum()
    }

    /// Wakes the broker's other connections after a fetch ended. If the broker's share is full,
    /// they have waited for this, because one of them may now go beyond the share.
    pub(crate) fn wake_siblings(&mut self, connection: FetchConnectionId) {
        if self.connections.get(&connection).is_some_and(|node| node.quota.is_starved()) {
            self.recheck_siblings(connection);
        }
    }

    /// Lets the broker's other connections without an outstanding request plan again.
    pub(crate) fn recheck_siblings(&mut self, connection: FetchConnectionId) {
        let beside = |other: &FetchConnectionId| other.broker == connection.broker && *other != connection;
        let idle = self.connections.iter().filter(|(other, node)| beside(other) && node.in_flight == 0);
        self.signals.connections.extend(idle.map(|(other, _)| *other));
    }
}
