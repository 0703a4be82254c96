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
            connections::FetchConnections,
            fetch_size::Bottleneck,
        },
        subscription::{partition_state::PartitionState, partitions::Partitions},
    },
    error::{DeliveryStatus, Error},
    log::event,
    record::TopicPartition,
};
use std::time::Instant;

impl FetchConnections {
    /// Returns the connection for a partition that moves to this broker: the one with the fewest
    /// partitions.
    pub(super) fn with_fewest_partitions(&mut self, broker: i32) -> FetchConnectionId {
        let most = self.rules.connections;
        let open = self.scaling.entry(broker).or_insert_with(|| ConnectionScaling::new(most)).open();
        let ids = (0..open).map(|connection| FetchConnectionId { broker, connection });
        let fewest = ids.min_by_key(|id| self.get(id).map_or(0, |connection| connection.partitions));
        fewest.unwrap_or(broker.into())
    }

    // ---- decisions

    /// Passes on the bottleneck that a response showed. No request is outstanding on this
    /// connection now.
    pub(crate) fn record_bottleneck(
        &mut self,
        id: FetchConnectionId,
        bottleneck: Bottleneck,
        partitions: &mut Partitions,
        now: Instant,
    ) {
        let is_idle = |connection: &FetchConnection| {
            connection.in_flight == 0 && connection.session.len() == 0 && connection.changed.is_empty()
        };
        let others = (1..self.open_to(id.broker)).rev().filter(|number| *number != id.connection);
        let mut others = others.map(|connection| FetchConnectionId { connection, ..id });
        let idle = others.find(|other| self.get(other).is_none_or(is_idle)).map(|other| other.connection);
        let Some(scaling) = self.scaling.get_mut(&id.broker) else { return };
        let decision = scaling.response_received(id.connection, bottleneck, idle, now);
        self.apply(decision, id, idle, partitions);
    }

    /// Records that the quota has no room for the next fetch over this connection.
    pub(crate) fn record_exhausted_quota(&mut self, id: FetchConnectionId, partitions: &mut Partitions) {
        let Some(scaling) = self.scaling.get_mut(&id.broker) else { return };
        let decision = scaling.quota_exhausted();
        self.apply(decision, id, None, partitions);
    }

    /// Handles a broker that has no room for a fetch session: without one every request names all
    /// partitions, so more connections do not help.
    pub(crate) fn record_refused_session(&mut self, id: FetchConnectionId, partitions: &mut Partitions, now: Instant) {
        if let Some(scaling) = self.scaling.get_mut(&id.broker) {
            scaling.session_refused(now);
        }
        if id.connection > 0 {
            self.keep(id.broker, id.connection, partitions);
        }
    }

    /// Handles a failed fetch over a connection other than the first: its partitions move to the
    /// remaining ones. If the broker itself is gone, their fetches report it.
    pub(crate) fn record_failure(
        &mut self,
        id: FetchConnectionId,
        error: &Error,
        partitions: &mut Partitions,
        now: Instant,
    ) {
        let unsent = error.delivery_status() == Some(DeliveryStatus::NotPersisted);
        if let Some(scaling) = self.scaling.get_mut(&id.broker).filter(|_| unsent) {
            scaling.connect_failed(now);
        }
        self.keep(id.broker, id.connection, partitions);
    }

    /// Handles the end of a connection without partitions. When the last connection ends, those
    /// before it that had already ended are closed with it.
    pub(super) fn record_end(&mut self, broker: i32) {
        let last = self.ids().filter(|id| id.broker == broker).map(|id| id.connection).max();
        if let Some(scaling) = self.scaling.get_mut(&broker) {
            scaling.connections_ended(last.map_or(1, |last| last.saturating_add(1)));
        }
        // The first connection may have waited for the end of this one.
        self.wake(broker.into());
    }

    // ---- changes

    fn apply(
        &mut self,
        decision: ScalingDecision,
        id: FetchConnectionId,
        idle: Option<u8>,
        partitions: &mut Partitions,
    ) {
        let fewer = self.open_to(id.broker).saturating_sub(1);
        match decision {
            ScalingDecision::Keep => {}
            ScalingDecision::Add(since) => self.add(id, since, idle, partitions),
            ScalingDecision::RemoveLast => self.keep(id.broker, fewer, partitions),
            ScalingDecision::RemoveIdle => self.close_idle(id.broker, fewer, partitions),
        }
    }

    /// Moves every second partition of a connection to a new or idle one if at least two of them
    /// received data since then; partitions with the latest data come first.
    fn add(&mut self, from: FetchConnectionId, since: Instant, idle: Option<u8>, partitions: &mut Partitions) {
        let mut here = names_by_last_data(partitions, |id| id == from);
        let Some(scaling) = self.scaling.get_mut(&from.broker) else { return };
        if here.iter().filter(|(last_data, _)| last_data.is_some_and(|at| at >= since)).count() < 2 {
            // Counts from zero, so that this is checked again after the same number of responses.
            return scaling.reset_counts();
        }
        let connection = match idle {
            Some(number) => {
                scaling.reset_counts();
                number
            }
            None => scaling.add(),
        };
        let to = FetchConnectionId { broker: from.broker, connection };
        event!(DEBUG, self.rules.origin, broker = to.broker, connection, "fetching over another connection");
        here.sort_unstable_by(|one, other| other.cmp(one));
        let size = self.get(&from).map(|connection| connection.fetch_size.clone());
        for (_, partition) in here.into_iter().skip(1).step_by(2) {
            self.move_to(&partition, to, partitions);
        }
        if let (Some(size), Some(connection)) = (size, self.get_mut(&to)) {
            connection.fetch_size = size;
        }
    }

    /// Keeps only the first `keep` connections of a broker, and raises the threshold for the next
    /// one.
    pub(crate) fn keep(&mut self, broker: i32, keep: u8, partitions: &mut Partitions) {
        if let Some(scaling) = self.scaling.get_mut(&broker).filter(|scaling| keep < scaling.open()) {
            scaling.keep(keep);
            self.redistribute(broker, partitions);
        }
    }

    /// Keeps only the first `keep` connections without raising the threshold, because the others
    /// are merely idle.
    fn close_idle(&mut self, broker: i32, keep: u8, partitions: &mut Partitions) {
        if let Some(scaling) = self.scaling.get_mut(&broker).filter(|scaling| keep < scaling.open()) {
            scaling.connections_ended(keep);
            self.redistribute(broker, partitions);
        }
    }

    /// Moves the partitions of closed connections to the remaining ones. Responses that are still
    /// outstanding there are used.
    fn redistribute(&mut self, broker: i32, partitions: &mut Partitions) {
        let open = self.open_to(broker);
        event!(DEBUG, self.rules.origin, broker, open, "fetching over fewer connections");
        for (_, partition) in names_by_last_data(partitions, |id| id.broker == broker && id.connection >= open) {
            let to = self.with_fewest_partitions(broker);
            self.move_to(&partition, to, partitions);
        }
    }

    /// Fetches a partition over another connection from now on.
    pub(crate) fn move_to(&mut self, partition: &TopicPartition, to: FetchConnectionId, partitions: &mut Partitions) {
        let Some(state) = partitions.get_mut(partition) else { return };
        let before = state.connection_id();
        // Joins first and leaves second, so that the broker's share is not released in between.
        self.join(state, to);
        self.leave(before, partition);
        self.mark_changed(state.connection_id(), partition);
    }
}

/// Returns the partitions that are fetched over these connections, each with the time of its last
/// data.
fn names_by_last_data(
    partitions: &Partitions,
    of: impl Fn(FetchConnectionId) -> bool,
) -> Vec<(Option<Instant>, TopicPartition)> {
    let here = |state: &PartitionState| state.connection_id().is_some_and(&of);
    let here = partitions.iter().filter(|(_, state)| here(state));
    here.map(|(partition, state)| (state.last_data_at, partition.clone())).collect()
}
