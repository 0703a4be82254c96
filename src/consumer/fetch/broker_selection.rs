//! Selects the broker that each partition is read from, when the metadata changes.
//!
//! Sans-IO.

use std::{collections::BTreeSet, sync::Weak, time::Instant};

use crate::consumer::fetch::connection::FetchConnection;
use crate::consumer::{
    fetch::{
        connection_id::FetchConnectionId, empty_responses::EmptyResponses, fetch_size::FetchSize, session::FetchSession,
    },
    state::ConsumerState,
    subscription::{fetch_position::ResetTarget, partition_state::PartitionState},
};
use crate::{cluster::Metadata, error::ErrorCode, record::TopicPartition};

impl ConsumerState {
    /// Applies new metadata to all assigned partitions.
    pub(crate) fn metadata_changed(&mut self, metadata: &Metadata, now: Instant) {
        self.has_metadata = true;
        self.unreachable_reported = false;
        self.unresolved_reported = false;
        self.brokers = metadata.brokers.keys().copied().collect();
        for partition in self.assigned() {
            self.update_from_metadata(&partition, metadata, now);
        }
        self.update_wanted_topics(metadata, now);
        self.release_unused_quotas();
    }

    /// Updates the state of the topics that the consumer asks for.
    pub(crate) fn update_wanted_topics(&mut self, metadata: &Metadata, now: Instant) {
        let assigned = self.partitions.keys().map(|partition| partition.topic.clone()).collect();
        self.wanted_topics.update(metadata, assigned, now);
    }

    /// Updates one partition from the metadata.
    pub(crate) fn update_from_metadata(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        let Some(topic) = metadata.topic(&partition.topic) else { return };
        let id = topic.id;
        found.topic_missing = topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
        let leader = metadata.leader(&partition.topic, partition.partition);
        let before = found.leader;
        let made_anew = !found.topic_id.is_nil() && !id.is_nil() && found.topic_id != id;
        if !id.is_nil() {
            found.topic_id = id;
        }
        found.leader = leader;
        if leader.is_some_and(|(_, epoch)| epoch < found.validated_epoch) {
            // The epochs began again without a topic id that tells the old topic from the new one,
            // so the validated epoch does not apply to the new epochs.
            found.validated_epoch = -1;
        }
        found.leaderless_since = if leader.is_some() { None } else { found.leaderless_since.or(Some(now)) };
        if leader.is_some() {
            found.reported &= leader == before;
        }
        if leader != before {
            found.position.retry_now();
            if let Some((_, epoch)) = leader {
                found.position.leader_changed(epoch);
            }
            self.signals.task = true;
        }
        if made_anew {
            // Incomplete records and committed offsets of the old topic do not apply to the new
            // one.
            found.incomplete_from = None;
            found.committed = None;
            found.validated_epoch = -1;
            if let Some(progress) = found.progress.take() {
                progress.supersede();
            }
            // Every record of the new topic is new to its reader, whatever `auto.offset.reset`
            // says.
            let start = ResetTarget::of(self.rules.reset).map(|_| ResetTarget::Earliest);
            self.reset(partition, start, "its topic was deleted and created again", None);
        } else {
            let state = found.position.state();
            if found.validated_first(state) != state {
                self.enter_fetch_state(partition, state);
            }
        }
        self.choose_broker(partition, metadata, now);
        self.mark_changed(partition);
    }

    /// Decides which broker the partition is fetched from.
    fn choose_broker(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let leader = state.leader.map(|(node, _)| node);
        let gone = |node| !metadata.brokers.contains_key(&node) || leader == Some(node);
        if state.preferred_replica.node().is_some_and(gone) || state.preferred_replica.expire(now) {
            state.preferred_replica.abandon();
        }
        self.choose_broker_again(partition);
    }

    /// Decides again after the replica or the leader changed.
    pub(crate) fn choose_broker_again(&mut self, partition: &TopicPartition) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let leader = state.leader.map(|(node, _)| node);
        let node = leader.map(|leader| state.preferred_replica.node().unwrap_or(leader));
        let until = state.preferred_replica.until();
        let before = state.connection_id();
        state.broker = node;
        if node != before.map(|connection| connection.broker) {
            self.leave_connection(before, partition);
            if let Some(id) = node {
                let to = self.connection_for(id);
                self.join_connection(partition, to);
            }
            self.mark_changed(partition);
        }
        let connection = self.partitions.get(partition).and_then(PartitionState::connection_id);
        if let (Some(until), Some(node)) =
            (until, connection.and_then(|connection| self.connections.get_mut(&connection)))
        {
            node.expire_at(until);
        }
    }

    /// Moves partitions back to their leaders if their preferred read replica has expired, so that
    /// the leader recommends a replica again (KIP-392).
    pub(crate) fn expire_preferred_replicas(&mut self, id: FetchConnectionId, now: Instant) {
        match self.connections.get_mut(&id) {
            Some(node) if node.replica_expiry.is_some_and(|at| at <= now) => node.replica_expiry = None,
            _ => return,
        }
        let here = self.partitions.iter_mut().filter(|(_, state)| state.connection_id() == Some(id));
        let (mut back, mut next) = (Vec::new(), None::<Instant>);
        for (partition, state) in here {
            if state.preferred_replica.expire(now) {
                back.push(partition.clone());
            } else if let Some(until) = state.preferred_replica.until() {
                next = Some(next.map_or(until, |next| next.min(until)));
            }
        }
        if let Some(node) = self.connections.get_mut(&id) {
            node.replica_expiry = next;
        }
        for partition in back {
            self.choose_broker_again(&partition);
        }
    }

    /// Leaves a preferred read replica that failed: the partition is read from its leader, which is
    /// not told our rack for a while, otherwise it would redirect to the replica again at once.
    pub(crate) fn leave_preferred_replica(&mut self, partition: &TopicPartition, dead: bool, now: Instant) {
        let Some(state) = self.partitions.get_mut(partition) else { return };
        let again = state.preferred_replica.fail(dead, now, &mut self.rng);
        if let Some((leader, _)) = state.leader {
            self.hide_rack(leader, again);
        }
        self.choose_broker_again(partition);
    }

    /// Leaves the rack out of fetches to a leader until `until`, so that it serves the partition
    /// itself.
    pub(crate) fn hide_rack(&mut self, leader: i32, until: Instant) {
        for (_, node) in self.connections.iter_mut().filter(|(connection, _)| connection.broker == leader) {
            node.rackless_until = Some(node.rackless_until.map_or(until, |known| known.max(until)));
        }
    }

    /// Fetches a partition over that connection from now on.
    pub(crate) fn join_connection(&mut self, partition: &TopicPartition, to: FetchConnectionId) {
        let account = self.budget.quota(to.broker, || (self.wake_for)(to.broker));
        let rackless_until = self.connections.get(&to.broker.into()).and_then(|first| first.rackless_until);
        let node = self.connections.entry(to).or_insert_with(|| {
            self.signals.task = true;
            FetchConnection {
                session: FetchSession::default(),
                changed: BTreeSet::new(),
                waiting: Vec::new(),
                quota: account.clone(),
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
        node.quota = account;
        node.partitions += 1;
        if let Some(state) = self.partitions.get_mut(partition) {
            state.connection = to.connection;
            if let Some(until) = state.preferred_replica.until() {
                node.expire_at(until);
            }
        }
    }

    /// Stops fetching a partition over that connection.
    pub(crate) fn leave_connection(&mut self, connection: Option<FetchConnectionId>, partition: &TopicPartition) {
        let Some(id) = connection else { return };
        if let Some(node) = self.connections.get_mut(&id) {
            node.partitions = node.partitions.saturating_sub(1);
            if node.partitions == 0 {
                self.signals.connections.insert(id);
            }
            node.changed.insert(partition.clone());
        }
        self.release_unused_quotas();
    }

    /// Returns the shares of brokers that no partition is fetched from, once their data was read,
    /// and ends the tasks of those that are no longer in the cluster.
    pub(crate) fn release_unused_quotas(&mut self) {
        let read = self.connections.iter().filter(|(_, node)| node.partitions > 0);
        let read: BTreeSet<i32> = read.map(|(connection, _)| connection.broker).collect();
        for connection in self.connections.keys().filter(|connection| !read.contains(&connection.broker)) {
            self.budget.close_quota(connection.broker);
            if !self.brokers.contains(&connection.broker) {
                self.signals.connections.insert(*connection);
            }
        }
    }

    /// Marks a partition for which the next fetch may differ from the last one.
    pub(crate) fn mark_changed(&mut self, partition: &TopicPartition) {
        let connection = self.partitions.get(partition).and_then(PartitionState::connection_id);
        if let Some(id) = connection
            && let Some(node) = self.connections.get_mut(&id)
        {
            node.changed.insert(partition.clone());
            self.signals.connections.insert(id);
        }
    }
}
