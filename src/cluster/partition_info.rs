//! The partitions of one topic, in the form that every client returns.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Client, PartitionMetadata};
use crate::{
    error::{Error, ErrorKind, Result},
    record::check_topic_name,
};

/// A partition, as the cluster's metadata describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: i32,
    /// The id of the leader, if there is one.
    pub leader: Option<i32>,
    /// The ids of the brokers that hold a replica.
    pub replicas: Vec<i32>,
    /// The ids of the brokers with a replica that is in sync.
    pub isr: Vec<i32>,
}

impl Client {
    /// Returns the partitions of a topic in the order of their numbers; waits until the deadline
    /// for a topic that does not exist.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that Kafka forbids; otherwise those of [`topic`](Self::topic).
    ///
    /// # Cancel safety
    /// Safe.
    pub(crate) async fn partitions_for(&self, topic: &str, deadline: Instant) -> Result<Vec<PartitionInfo>> {
        check_topic_name(topic)?;
        let metadata = self.topic(topic, deadline).await?;
        let found = metadata.topic(topic).ok_or_else(|| {
            let message = format!("topic \"{topic}\" was deleted while its metadata was read");
            Error::new(ErrorKind::UnknownTopicOrPartition, message)
        })?;
        let info = |partition: &PartitionMetadata| PartitionInfo {
            topic: found.name.clone(),
            partition: partition.partition,
            leader: partition.leader,
            replicas: partition.replicas.clone(),
            isr: partition.isr.clone(),
        };
        Ok(found.partitions.iter().map(info).collect())
    }
}
