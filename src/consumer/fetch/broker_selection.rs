//! Selects the broker that a partition is read from: when the metadata changes, and when a
//! preferred read replica is named, fails or expires (KIP-392).
//!
//! Sans-IO.

use std::time::Instant;

use crate::consumer::{
    fetch::{connection_id::FetchConnectionId, connections::FetchConnections, preferred_replica::SHUNNED},
    subscription::{fetch_position::ResetTarget, partition_context::PartitionContext, partitions::Partitions},
};
use crate::{cluster::Metadata, error::ErrorCode, log::event};

impl PartitionContext<'_> {
    /// Updates the partition from the metadata.
    pub(crate) fn update_from_metadata(&mut self, metadata: &Metadata, now: Instant) {
        let Some(topic) = metadata.topic(&self.name.topic) else { return };
        self.state.topic_missing = topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let was_replaced = !self.state.topic_id.is_nil() && !topic.id.is_nil() && self.state.topic_id != topic.id;
        if !topic.id.is_nil() {
            self.state.topic_id = topic.id;
        }
        self.update_leader(metadata.leader(&self.name.topic, self.name.partition), now);
        if was_replaced {
            self.restart_in_new_topic();
        } else {
            let state = self.state.position.state();
            if self.state.validated_first(state) != state {
                self.enter_fetch_state(state);
            }
        }
        self.leave_lost_replica(metadata, now);
        self.select_broker();
        self.mark_changed();
    }

    /// Sets the leader and its epoch.
    fn update_leader(&mut self, leader: Option<(i32, i32)>, now: Instant) {
        let state = &mut *self.state;
        let is_new = leader != state.leader;
        state.leader = leader;
        if leader.is_some_and(|(_, epoch)| epoch < state.validated_epoch) {
            // The epochs began again without a topic id that tells the old topic from the new one,
            // so the validated epoch does not apply to the new epochs.
            state.validated_epoch = -1;
        }
        if leader.is_some() {
            state.leaderless_since = None;
            state.reported &= !is_new;
        } else {
            state.leaderless_since.get_or_insert(now);
        }
        if is_new {
            state.position.retry_now();
            if let Some((_, epoch)) = leader {
                state.position.leader_changed(epoch);
            }
            *self.wakes_task = true;
        }
    }

    /// Reads the partition from the start of the topic that replaced the one read before.
    /// Incomplete records and committed offsets of the old topic do not apply to the new one.
    fn restart_in_new_topic(&mut self) {
        self.state.incomplete_from = None;
        self.state.commits.topic_replaced();
        self.state.validated_epoch = -1;
        if let Some(progress) = self.state.progress.take() {
            progress.supersede();
        }
        // Every record of the new topic is new to its reader, whatever `auto.offset.reset` says.
        let start = ResetTarget::of(self.rules.reset).map(|_| ResetTarget::Earliest);
        self.reset(start, "its topic was deleted and created again", None);
    }

    /// Returns to the leader if the preferred read replica has expired or is not in the cluster any
    /// more.
    fn leave_lost_replica(&mut self, metadata: &Metadata, now: Instant) {
        let leader = self.state.leader.map(|(node, _)| node);
        let is_lost = |node| !metadata.brokers.contains_key(&node) || leader == Some(node);
        let replica = &mut self.state.preferred_replica;
        if replica.node().is_some_and(is_lost) || replica.expire(now) {
            replica.abandon();
        }
    }

    /// Fetches the partition from its preferred read replica or its leader from now on.
    fn select_broker(&mut self) {
        self.connections.select_broker(self.name, self.state);
    }

    /// Handles a broker's recommendation of another replica; returns true if the metadata has to be
    /// refreshed.
    pub(crate) fn redirect_to_replica(&mut self, from: i32, to: i32, now: Instant) -> bool {
        event!(
            DEBUG, self.rules.origin, partition = %self.name, node = from, to,
            "the broker recommends another replica"
        );
        if self.state.leader.is_none_or(|(leader, _)| leader != from) {
            // Only a leader may recommend a replica.
            self.leave_preferred_replica(false, now);
            return true;
        }
        if !self.connections.knows_broker(to) {
            self.fetch_later(now);
            self.connections.hide_rack(from, now + SHUNNED);
            self.mark_changed();
            return true;
        }
        let until = now + self.rules.replica_age;
        if let Some(again) = self.state.preferred_replica.recommend(to, until, now) {
            // The leader recommends the replica although it was not told the rack, so there is no
            // other broker to read from.
            let at = now + self.retries.wait(&mut self.state.retries);
            self.state.position.retry_at(again.min(at));
        }
        self.select_broker();
        false
    }

    /// Leaves a preferred read replica that failed: the partition is read from its leader, which is
    /// not told our rack for a while, otherwise it would redirect to the replica again at once.
    pub(crate) fn leave_preferred_replica(&mut self, dead: bool, now: Instant) {
        let again = self.state.preferred_replica.fail(dead, now, &mut self.retries.rng);
        if let Some((leader, _)) = self.state.leader {
            self.connections.hide_rack(leader, again);
        }
        self.select_broker();
    }
}

/// Moves partitions back to their leaders if their preferred read replica has expired, so that the
/// leader recommends a replica again.
pub(super) fn expire_preferred_replicas(
    id: FetchConnectionId,
    partitions: &mut Partitions,
    connections: &mut FetchConnections,
    now: Instant,
) {
    match connections.get_mut(&id) {
        Some(connection) if connection.replica_expiry.is_some_and(|at| at <= now) => connection.replica_expiry = None,
        _ => return,
    }
    for (partition, state) in partitions.iter_mut().filter(|(_, state)| state.connection_id() == Some(id)) {
        if state.preferred_replica.expire(now) {
            connections.select_broker(partition, state);
        } else if let Some(until) = state.preferred_replica.until()
            && let Some(connection) = connections.get_mut(&id)
        {
            connection.expire_at(until);
        }
    }
}
