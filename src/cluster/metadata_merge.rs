//! Makes the next metadata out of the last and a broker's response.
//!
//! Sans-IO.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use super::{Broker, Metadata, PartitionMetadata, TopicMetadata};
use crate::{
    error::{ErrorCode, clean, is_clean},
    wire::{
        fetch::NodeEndpoint,
        messages::{
            MetadataResponse,
            metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        },
    },
};

/// The topics that a Metadata request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MetadataScope {
    /// All topics of the cluster.
    All,
    /// Topics by name; an empty list asks for the brokers only.
    Topics(Vec<Arc<str>>),
    /// Topics by id, because their names are not known (KIP-516).
    Ids(Vec<Uuid>),
}

impl Metadata {
    /// Returns the metadata after a response. Topics that were not asked for stay as long as they
    /// are `wanted`.
    pub(super) fn merged(
        &self,
        response: MetadataResponse,
        asked: &MetadataScope,
        wanted: impl Fn(&str) -> bool,
    ) -> Self {
        let cluster_id = response.cluster_id.map(|id| id.to_string());
        // Epochs and ids of another cluster are not comparable with this cluster's.
        let same_cluster = self.cluster_id.is_none() || cluster_id.is_none() || self.cluster_id == cluster_id;
        let mut ignored = Vec::new();
        let mut next = Self {
            version: self.version + 1,
            cluster_id: cluster_id.or_else(|| self.cluster_id.clone()),
            controller: Some(response.controller_id).filter(|id| *id >= 0),
            brokers: {
                let brokers = response.brokers.into_iter().filter_map(|said| broker(said, &mut ignored));
                brokers.map(|broker| (broker.id, broker)).collect()
            },
            ..Self::default()
        };
        let known = |name: &str| {
            let known = self.topics.get(name).filter(|topic| topic.error.is_ok());
            known.or_else(|| self.history.before.get(name)).filter(|_| same_cluster)
        };
        for topic in response.topics {
            let Some(name) = topic.name.as_ref().filter(|name| is_usable_name(name, &mut ignored)) else { continue };
            let old = known(name);
            next.take(self.topic_from(topic, old, &mut ignored), old);
        }
        let missing = |name: &Arc<str>| {
            Arc::new(TopicMetadata {
                name: Arc::clone(name),
                error: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                ..TopicMetadata::default()
            })
        };
        if let MetadataScope::Topics(names) = asked {
            for name in names {
                if wanted(name) && !next.topics.contains_key(name) {
                    next.take(missing(name), known(name));
                }
            }
        }
        for (name, topic) in &self.topics {
            if next.topics.contains_key(name) || !wanted(name) || !same_cluster {
                continue;
            }
            if *asked == MetadataScope::All {
                next.take(missing(name), known(name));
                continue;
            }
            next.topics.insert(Arc::clone(name), Arc::clone(topic));
            if let Some(before) = self.history.before.get(name) {
                next.history.before.insert(Arc::clone(name), Arc::clone(before));
            }
            if let Some(version) = self.history.refused.get(name) {
                next.history.refused.insert(Arc::clone(name), *version);
            }
        }
        let named = next.topics.values().filter(|topic| !topic.id.is_nil());
        next.names = named.map(|topic| (topic.id, Arc::clone(&topic.name))).collect();
        next.history.ignored = ignored;
        next
    }

    /// Adds a topic from the response, with its earlier state `old`.
    fn take(&mut self, topic: Arc<TopicMetadata>, old: Option<&Arc<TopicMetadata>>) {
        if !topic.error.is_ok() {
            self.history.refused.insert(Arc::clone(&topic.name), self.version);
            // Without an id, a topic that returns may be another one with epochs that start again.
            if let Some(old) = old.filter(|old| !old.id.is_nil()) {
                self.history.before.insert(Arc::clone(&topic.name), Arc::clone(old));
            }
        }
        self.topics.insert(Arc::clone(&topic.name), topic);
    }

    fn topic_from(
        &self,
        said: MetadataResponseTopic,
        old: Option<&Arc<TopicMetadata>>,
        ignored: &mut Vec<String>,
    ) -> Arc<TopicMetadata> {
        let name = said.name.unwrap_or_default();
        let name = match self.topics.get_key_value(&*name) {
            Some((name, _)) => Arc::clone(name),
            None => Arc::from(&*name),
        };
        let error = ErrorCode::new(said.error_code);
        // As long as a topic's id stays, partitions are only added and leader epochs only grow.
        let fewer = |old: &TopicMetadata| said.partitions.len() < old.partitions.len();
        let same = old.filter(|old| old.id == said.topic_id && !(old.id.is_nil() && fewer(old)));
        let partitions = if error.is_ok() { partitions(&name, said.partitions, same, ignored) } else { Vec::new() };
        let topic = TopicMetadata { name, id: said.topic_id, internal: said.is_internal, error, partitions };
        match same {
            // Reuses the object, so that comparing pointers shows that nothing changed.
            Some(old) if old.error == error && old.partitions == topic.partitions => Arc::clone(old),
            _ => Arc::new(topic),
        }
    }

    /// Returns the metadata with the leader that an error response named (KIP-951), if its epoch is
    /// newer.
    pub(super) fn with_leader(
        &self,
        topic: &str,
        partition: i32,
        leader: i32,
        epoch: i32,
        endpoints: &[NodeEndpoint],
    ) -> Option<Self> {
        let (name, known) = self.topics.get_key_value(topic)?;
        let index = usize::try_from(partition).ok()?;
        if leader < 0 || known.partitions.get(index)?.leader_epoch >= epoch {
            return None;
        }
        let mut next =
            self.with_brokers(endpoints).unwrap_or_else(|| Self { version: self.version + 1, ..self.clone() });
        if !next.brokers.contains_key(&leader) {
            return None;
        }
        let mut changed = TopicMetadata::clone(known);
        let found = changed.partitions.get_mut(index)?;
        found.leader = Some(leader);
        found.leader_epoch = epoch;
        found.error = ErrorCode::NONE;
        next.topics.insert(Arc::clone(name), Arc::new(changed));
        Some(next)
    }

    /// Returns the metadata with the brokers that a response named beside its result, if any of
    /// them is new or changed.
    pub(super) fn with_brokers(&self, endpoints: &[NodeEndpoint]) -> Option<Self> {
        let mut brokers: HashMap<i32, Broker> = self.brokers.clone();
        for endpoint in endpoints {
            let (node, rack) = (endpoint.node, endpoint.rack.as_deref());
            // An unusable broker is not reported here, because the next metadata contains it, too,
            // and reports it.
            if let Some(broker) = checked_broker(node, &endpoint.host, endpoint.port, rack, &mut Vec::new()) {
                brokers.insert(broker.id, broker);
            }
        }
        if brokers == self.brokers {
            return None;
        }
        Some(Self { version: self.version + 1, brokers, ..self.clone() })
    }

    /// Returns true if brokers, topics or controller differ from `last`.
    pub(super) fn differs_from(&self, last: &Self) -> bool {
        self.brokers != last.brokers || self.topics != last.topics || self.controller != last.controller
    }
}

impl TopicMetadata {
    /// Returns true if asking again would not bring anything new soon: the topic has all its
    /// leaders, or an error that stays.
    pub(super) fn is_settled(&self) -> bool {
        if !self.error.is_ok() {
            return !self.error.is_retriable();
        }
        let led = |partition: &PartitionMetadata| partition.leader.is_some() && !partition.error.is_retriable();
        !self.partitions.is_empty() && self.partitions.iter().all(led)
    }
}

/// Returns true if a topic can have that name. A name with control characters, which Kafka forbids,
/// would reach logs.
fn is_usable_name(name: &str, ignored: &mut Vec<String>) -> bool {
    if !is_clean(name) {
        ignored.push(format!("topic {}, because its name has control characters", clean(name)));
    }
    !name.is_empty() && is_clean(name)
}

fn broker(said: MetadataResponseBroker, ignored: &mut Vec<String>) -> Option<Broker> {
    checked_broker(said.node_id, &said.host, said.port, said.rack.as_deref(), ignored)
}

fn checked_broker(id: i32, host: &str, port: i32, rack: Option<&str>, ignored: &mut Vec<String>) -> Option<Broker> {
    match u16::try_from(port) {
        Ok(port @ 1..) if id >= 0 && !host.is_empty() && is_clean(host) => {
            Some(Broker { id, host: host.to_owned(), port, rack: rack.map(Arc::from) })
        }
        _ => {
            ignored.push(format!("broker {id} at {}, port {port}", clean(host)));
            None
        }
    }
}

fn partitions(
    topic: &str,
    said: Vec<MetadataResponsePartition>,
    old: Option<&Arc<TopicMetadata>>,
    ignored: &mut Vec<String>,
) -> Vec<PartitionMetadata> {
    let old = old.map_or(&[][..], |old| &old.partitions);
    // Partition numbers are contiguous from 0. A number far above the count must not reserve
    // memory.
    let end = said.len().max(old.len());
    let mut partitions = (0..end)
        .map(|i| old.get(i).cloned().unwrap_or_else(|| missing(i32::try_from(i).unwrap_or(i32::MAX))))
        .collect::<Vec<_>>();
    for said in said {
        let found = usize::try_from(said.partition_index).ok().and_then(|index| partitions.get_mut(index));
        let Some(place) = found else {
            ignored.push(format!("partition {} of {topic}, which has {end} partitions", said.partition_index));
            continue;
        };
        // A broker that lags behind reports an older leader; the known one is newer.
        if said.leader_epoch < 0 || said.leader_epoch >= place.leader_epoch {
            *place = partition(said, place.leader_epoch);
        }
    }
    partitions
}

fn partition(said: MetadataResponsePartition, known_epoch: i32) -> PartitionMetadata {
    PartitionMetadata {
        partition: said.partition_index,
        leader: Some(said.leader_id).filter(|leader| *leader >= 0),
        leader_epoch: if said.leader_id >= 0 { said.leader_epoch } else { said.leader_epoch.max(known_epoch) },
        replicas: said.replica_nodes,
        isr: said.isr_nodes,
        error: ErrorCode::new(said.error_code),
    }
}

fn missing(partition: i32) -> PartitionMetadata {
    PartitionMetadata {
        partition,
        leader: None,
        leader_epoch: -1,
        replicas: Vec::new(),
        isr: Vec::new(),
        error: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    }
}
