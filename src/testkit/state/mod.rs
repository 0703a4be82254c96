//! The cluster's state, without IO: every method is passed the time, and none waits.

pub(crate) mod consumer_group;
pub(crate) mod group;
pub(crate) mod log;
pub(crate) mod markers;
pub(crate) mod producers;
pub(crate) mod sessions;
pub(crate) mod sink;
pub(crate) mod topics;
pub(crate) mod transaction_coordinator;
pub(crate) mod transactions;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use uuid::Uuid;

use self::{
    consumer_group::{ConsumerGroup, ConsumerGroupSettings, Picture},
    group::{Group, GroupSettings},
    sessions::Sessions,
    sink::Sink,
    topics::{NO_LEADER, Partition, Topic, Topics},
    transaction_coordinator::TransactionCoordinator,
};
use super::{fault::Faults, journal::Journal, options::Options};
use crate::{error::ErrorCode, record::check_topic_name};

/// The epoch of the finalized features of a new cluster.
pub(crate) const FIRST_EPOCH: i64 = 1;

/// One broker, as the other brokers and the clients see it.
#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
    pub(crate) up: bool,
    pub(crate) sessions: Sessions,
}

/// The whole cluster.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) options: Options,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) topics: Topics,
    pub(crate) groups: BTreeMap<String, Group>,
    pub(crate) transactions: TransactionCoordinator,
    /// The epoch of the finalized features; it rises with every change of them (KIP-584).
    pub(crate) features_epoch: i64,
    /// Groups with a coordinator that a test chose.
    coordinators: HashMap<String, i32>,
    pub(crate) faults: Faults,
    pub(crate) journal: Journal,
    pub(crate) sink: Option<Sink>,
    next_producer_id: i64,
    rng: StdRng,
    /// The origin of the cluster's wall clock: milliseconds since the Unix epoch at an instant.
    epoch: (i64, Instant),
}

impl State {
    pub(crate) fn new(options: Options, brokers: Vec<Broker>, wall_millis: i64, now: Instant) -> Self {
        let mut state = Self {
            rng: StdRng::seed_from_u64(options.seed),
            sink: options.sink.then(Sink::default),
            options,
            brokers,
            topics: Topics::default(),
            groups: BTreeMap::new(),
            transactions: TransactionCoordinator::default(),
            features_epoch: FIRST_EPOCH,
            coordinators: HashMap::new(),
            faults: Faults::default(),
            journal: Journal::default(),
            next_producer_id: 1000,
            epoch: (wall_millis, now),
        };
        for (topic, batches) in std::mem::take(&mut state.options.prepared) {
            state.prepare(topic, batches);
        }
        state
    }

    /// Returns the wall-clock time, in milliseconds. It follows tokio's clock, so that it stands
    /// still when that is paused.
    pub(crate) fn millis(&self, now: Instant) -> i64 {
        let (millis, at) = self.epoch;
        millis.saturating_add(i64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(i64::MAX))
    }

    pub(crate) fn broker(&self, id: i32) -> Option<&Broker> {
        self.brokers.iter().find(|broker| broker.id == id)
    }

    pub(crate) fn broker_mut(&mut self, id: i32) -> Option<&mut Broker> {
        self.brokers.iter_mut().find(|broker| broker.id == id)
    }

    pub(crate) fn is_up(&self, id: i32) -> bool {
        self.broker(id).is_some_and(|broker| broker.up)
    }

    /// Returns the first broker that is up; −1 if none is.
    pub(crate) fn controller(&self) -> i32 {
        self.brokers.iter().find(|broker| broker.up).map_or(NO_LEADER, |broker| broker.id)
    }

    /// Returns the replication factor of topics that are created without one.
    pub(crate) fn default_replication(&self) -> usize {
        self.options.replication_factor.unwrap_or(3).clamp(1, self.brokers.len().max(1))
    }

    pub(crate) fn group_settings(&self) -> GroupSettings {
        self.options.groups
    }

    /// Returns the group of that name, created if necessary, after applying everything that was due
    /// by now.
    pub(crate) fn group_mut(&mut self, name: &str, now: Instant) -> &mut Group {
        let settings = self.options.groups;
        let group = self.groups.entry(name.to_owned()).or_default();
        group.advance(now, &settings);
        let moves_back = group.consumer().is_some_and(|consumer| consumer.is_classic());
        // Collects the topics only if they are needed, because that walks all of them.
        let metadata = (moves_back && self.options.consumer_groups.migrates).then(|| self.metadata_with());
        let group = self.groups.entry(name.to_owned()).or_default();
        if let Some(metadata) = metadata {
            group.downgrade(now, &metadata, &settings);
        }
        group
    }

    /// Returns the topics in the form that a coordinator of the consumer protocol uses.
    pub(crate) fn metadata_with(&self) -> Picture {
        let count = |topic: &Topic| i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        self.topics.iter().map(|topic| (topic.name.clone(), (topic.id, count(topic)))).collect()
    }

    /// Returns the group of that name if it is one of the consumer protocol, with the topics and
    /// settings that its methods need.
    pub(crate) fn consumer_group(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Option<(&mut ConsumerGroup, Picture, ConsumerGroupSettings)> {
        if !self.groups.contains_key(name) {
            return None;
        }
        let (metadata, settings) = (self.metadata_with(), self.options.consumer_groups);
        Some((self.group_mut(name, now).consumer()?, metadata, settings))
    }

    /// Returns the consumer protocol's group that a member of the classic protocol joins, like
    /// [`consumer_group`](Self::consumer_group); a group without members becomes a classic one
    /// first.
    pub(crate) fn consumer_group_to_join(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Option<(&mut ConsumerGroup, Picture, ConsumerGroupSettings)> {
        let (metadata, settings) = (self.metadata_with(), self.options.groups);
        let group = self.group_mut(name, now);
        if group.is_empty() {
            group.downgrade(now, &metadata, &settings);
        }
        self.consumer_group(name, now)
    }

    /// Returns the group that a member of the consumer protocol joins, converted to that protocol
    /// if it is a classic one.
    pub(crate) fn upgraded_group(
        &mut self,
        name: &str,
        now: Instant,
    ) -> Result<(&mut ConsumerGroup, Picture, ConsumerGroupSettings), ErrorCode> {
        let (metadata, settings) = (self.metadata_with(), self.options.consumer_groups);
        let group = self.group_mut(name, now).upgrade(&metadata, &settings)?;
        Ok((group, metadata, settings))
    }

    pub(crate) fn next_producer_id(&mut self) -> i64 {
        self.next_producer_id += 1;
        self.next_producer_id
    }

    /// Returns an id from the cluster's own seed.
    pub(crate) fn new_uuid(&mut self) -> Uuid {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }

    /// Returns a member id in Kafka's form: the client's id (or instance) and a random part.
    pub(crate) fn new_member_id(&mut self, prefix: &str) -> String {
        format!("{prefix}-{:032x}", self.rng.random::<u128>())
    }

    /// Shuffles a list.
    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        list.shuffle(&mut self.rng);
    }

    /// Creates a topic. Partition `p` is led by broker `1 + p mod brokers`, or the next one that is
    /// up.
    pub(crate) fn create_topic(
        &mut self,
        name: &str,
        partitions: i32,
        replication: Option<i16>,
        configs: BTreeMap<String, String>,
    ) -> Result<&Topic, ErrorCode> {
        self.check_new_topic(name, partitions, replication)?;
        let replication = replication.map_or(self.default_replication(), |factor| usize::try_from(factor).unwrap_or(1));
        let name: Arc<str> = name.into();
        let partitions = (0..partitions).map(|p| self.new_partition(p, replication)).collect();
        let id = self.new_uuid();
        self.topics.insert(Topic { name: name.clone(), id, partitions, configs });
        self.topics.get(&name).ok_or(ErrorCode::UNKNOWN_SERVER_ERROR)
    }

    /// Checks whether a topic can be created.
    pub(crate) fn check_new_topic(&self, name: &str, partitions: i32, factor: Option<i16>) -> Result<(), ErrorCode> {
        if check_topic_name(name).is_err() {
            Err(ErrorCode::INVALID_TOPIC_EXCEPTION)
        } else if self.topics.get(name).is_some() {
            Err(ErrorCode::TOPIC_ALREADY_EXISTS)
        } else if !(1..=100_000).contains(&partitions) {
            Err(ErrorCode::INVALID_PARTITIONS)
        } else if factor
            .is_some_and(|factor| usize::try_from(factor).is_ok_and(|f| f > self.brokers.len()) || factor < 1)
        {
            Err(ErrorCode::INVALID_REPLICATION_FACTOR)
        } else {
            Ok(())
        }
    }

    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<Topic, ErrorCode> {
        let topic = self.topics.remove(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        for group in self.groups.values_mut() {
            group.offsets.forget_topic(name);
        }
        Ok(topic)
    }

    /// Grows a topic to `total` partitions.
    pub(crate) fn grow_topic(&mut self, name: &str, total: i32) -> Result<(), ErrorCode> {
        let topic = self.topics.get(name).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let replication = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
        let present = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        if total <= present || total > 100_000 {
            return Err(ErrorCode::INVALID_PARTITIONS);
        }
        let more: Vec<Partition> = (present..total).map(|p| self.new_partition(p, replication)).collect();
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions.extend(more);
        }
        Ok(())
    }

    fn new_partition(&self, partition: i32, replication: usize) -> Partition {
        let first = usize::try_from(partition).unwrap_or(0);
        let count = self.brokers.len();
        let replicas: Vec<i32> =
            self.brokers.iter().cycle().skip(first % count.max(1)).take(replication.min(count)).map(|b| b.id).collect();
        let leader = replicas.iter().copied().find(|&id| self.is_up(id)).unwrap_or(NO_LEADER);
        Partition::new(replicas, leader)
    }

    /// Makes another broker the leader of a partition; it becomes a replica if it was none.
    pub(crate) fn move_leader(&mut self, topic: &str, partition: i32, broker: i32) -> Result<(), ErrorCode> {
        if !self.is_up(broker) {
            return Err(ErrorCode::BROKER_NOT_AVAILABLE);
        }
        let partition = self.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        if !partition.replicas.contains(&broker) {
            partition.replicas.push(broker);
        }
        partition.lead(broker);
        Ok(())
    }

    /// Marks a broker as dead: its partitions move to other replicas, its sessions are lost.
    pub(crate) fn broker_down(&mut self, id: i32) {
        if let Some(broker) = self.broker_mut(id) {
            broker.up = false;
            broker.sessions.clear();
        }
        let moved: Vec<String> = self.groups.keys().filter(|name| self.coordinated_by(name, id)).cloned().collect();
        for name in moved {
            if let Some(group) = self.groups.get_mut(&name) {
                group.coordinator_moved();
            }
        }
        let up: Vec<i32> = self.brokers.iter().filter(|broker| broker.up).map(|broker| broker.id).collect();
        for partition in self.topics.partitions_mut().filter(|partition| partition.leader == id) {
            let next = partition.replicas.iter().copied().find(|replica| up.contains(replica));
            partition.lead(next.unwrap_or(NO_LEADER));
        }
    }

    /// Marks a broker as up again: it leads those of its partitions that have no leader.
    pub(crate) fn broker_up(&mut self, id: i32) {
        if let Some(broker) = self.broker_mut(id) {
            broker.up = true;
        }
        for partition in self.topics.partitions_mut() {
            if partition.leader == NO_LEADER && partition.replicas.contains(&id) {
                partition.lead(id);
            }
        }
    }

    /// Returns the broker that coordinates a group or transactional id; `None` if no broker is up.
    pub(crate) fn coordinator(&self, key: &str) -> Option<i32> {
        if let Some(&chosen) = self.coordinators.get(key)
            && self.is_up(chosen)
        {
            return Some(chosen);
        }
        let hash = key.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(usize::from(byte)));
        let count = self.brokers.len();
        let from_there = self.brokers.iter().cycle().skip(hash % count.max(1)).take(count);
        from_there.into_iter().find(|broker| broker.up).map(|broker| broker.id)
    }

    /// Returns `Ok` if that broker coordinates that group.
    pub(crate) fn check_coordinator(&self, key: &str, broker: i32) -> Result<(), ErrorCode> {
        if self.coordinator(key) == Some(broker) { Ok(()) } else { Err(ErrorCode::NOT_COORDINATOR) }
    }

    pub(crate) fn move_coordinator(&mut self, key: &str, broker: i32) -> Result<(), ErrorCode> {
        if !self.is_up(broker) {
            return Err(ErrorCode::BROKER_NOT_AVAILABLE);
        }
        let former = self.coordinator(key);
        self.coordinators.insert(key.to_owned(), broker);
        if former != Some(broker)
            && let Some(group) = self.groups.get_mut(key)
        {
            group.coordinator_moved();
        }
        Ok(())
    }

    /// Returns true if the group was coordinated by that broker and needs another one. Called after
    /// the broker was marked down.
    fn coordinated_by(&self, key: &str, broker: i32) -> bool {
        match self.coordinators.get(key) {
            Some(&chosen) => chosen == broker,
            None => true,
        }
    }

    /// Removes the end of a partition, as an unclean election does, under a new leader epoch.
    pub(crate) fn truncate(&mut self, topic: &str, partition: i32, offset: i64) -> Result<i64, ErrorCode> {
        let partition = self.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let end = partition.log.truncate(offset);
        partition.producers.truncated(end);
        partition.lead(partition.leader);
        Ok(end)
    }

    /// Deletes the records before `offset` (−1: all).
    pub(crate) fn delete_records(&mut self, topic: &str, partition: i32, offset: i64) -> Result<i64, ErrorCode> {
        let partition = self.topics.partition_mut(topic, partition).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let offset = if offset == -1 { partition.log.end() } else { offset };
        if offset < 0 || offset > partition.log.end() {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        Ok(partition.log.delete_before(offset))
    }
}
