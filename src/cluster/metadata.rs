//! The metadata of the cluster.
//!
//! Sans-IO.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use crate::error::ErrorCode;

/// The brokers, topics and partitions of the cluster at one time. Immutable; replaced as a whole.
/// Every lookup costs at most one hash.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    /// Version of this metadata; each replacement has a higher one, so that callers can wait for
    /// newer metadata.
    pub(crate) version: u64,
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<i32>,
    pub(crate) brokers: HashMap<i32, Broker>,
    pub(crate) topics: HashMap<Arc<str>, Arc<TopicMetadata>>,
    /// Topic names by topic id.
    pub(crate) names: HashMap<Uuid, Arc<str>>,
    /// Input for the next metadata.
    pub(crate) history: History,
}

/// Earlier metadata of topics that have an error now.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The topics' last metadata without an error; when a topic returns, its leader epochs continue
    /// from here.
    pub(super) before: HashMap<Arc<str>, Arc<TopicMetadata>>,
    /// The version of the metadata in which a broker last reported the error.
    pub(super) refused: HashMap<Arc<str>, u64>,
    /// Unusable parts of the response that this metadata was made from, each with the reason.
    pub(super) ignored: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<Arc<str>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TopicMetadata {
    pub(crate) name: Arc<str>,
    /// Nil if the broker does not support topic ids.
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    /// The broker's error for the topic as a whole (e.g. TOPIC_AUTHORIZATION_FAILED); such a topic
    /// has no partitions.
    pub(crate) error: ErrorCode,
    /// Partitions by number; a partition with an error in its first metadata is included, without a
    /// leader.
    pub(crate) partitions: Vec<PartitionMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionMetadata {
    pub(crate) partition: i32,
    pub(crate) leader: Option<i32>,
    /// −1 if unknown.
    pub(crate) leader_epoch: i32,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
    pub(crate) error: ErrorCode,
}

impl Metadata {
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicMetadata>> {
        self.topics.get(name)
    }

    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<&PartitionMetadata> {
        self.topic(topic)?.partition(partition)
    }

    /// Returns the leader of a partition and the leader's epoch.
    pub(crate) fn leader(&self, topic: &str, partition: i32) -> Option<(i32, i32)> {
        let found = self.partition(topic, partition)?;
        Some((found.leader?, found.leader_epoch))
    }
}

impl TopicMetadata {
    pub(crate) fn partition(&self, partition: i32) -> Option<&PartitionMetadata> {
        self.partitions.get(usize::try_from(partition).ok()?)
    }
}
