//! Sans-IO.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;

use crate::error::ErrorCode;

/// An immutable picture of the cluster; swapped whole. Every lookup is a hash at most.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metadata {
    /// Grows with every picture, so that "newer than what I saw" can be waited for.
    pub(crate) version: u64,
    pub(crate) cluster_id: Option<String>,
    pub(crate) controller: Option<i32>,
    pub(crate) brokers: HashMap<i32, Broker>,
    pub(crate) topics: HashMap<Arc<str>, Arc<TopicMetadata>>,
    /// The name of a topic id.
    pub(crate) names: HashMap<Uuid, Arc<str>>,
    /// What the next picture is made with.
    pub(crate) history: History,
}

/// What pictures before this one said of topics that have an error now.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Such a topic as it was; when it comes back, its leaders' epochs go on from here.
    pub(super) before: HashMap<Arc<str>, Arc<TopicMetadata>>,
    /// The version of the picture in which a broker last answered with the error.
    pub(super) refused: HashMap<Arc<str>, u64>,
    /// Parts of the answer behind this picture that cannot be used, each with the reason.
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
    /// Nil where the broker does not know topic ids.
    pub(crate) id: Uuid,
    pub(crate) internal: bool,
    /// What the broker said of the topic as a whole (e.g. TOPIC_AUTHORIZATION_FAILED); then there
    /// are no partitions.
    pub(crate) error: ErrorCode,
    /// By partition number; a partition whose first metadata had an error is here too, without a
    /// leader.
    pub(crate) partitions: Vec<PartitionMetadata>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PartitionMetadata {
    pub(crate) partition: i32,
    pub(crate) leader: Option<i32>,
    /// −1 where not known.
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

    /// The leader of a partition and its epoch.
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
