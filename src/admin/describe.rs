use super::{Admin, TopicId, TopicResult, TopicResults};
use crate::{
    cluster::{ConnectionKind, Route},
    error::{Error, ErrorCode, ErrorKind, Result},
    record::check_topic_name,
    wire::{
        byte_string::ByteString,
        messages::{
            MetadataRequest, MetadataResponse,
            metadata_request::MetadataRequestTopic,
            metadata_response::{MetadataResponsePartition, MetadataResponseTopic},
        },
    },
};

/// One entry of the list of all topics.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicListing {
    /// Its name.
    pub name: String,
    /// Its id, if the broker knows ids (2.8 and newer).
    pub id: Option<TopicId>,
    /// Its number of partitions.
    pub partitions: usize,
    /// True for a topic of the cluster itself, such as `__consumer_offsets`.
    pub internal: bool,
}

/// A topic with all its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id, if the broker knows ids (2.8 and newer).
    pub id: Option<TopicId>,
    /// True for a topic of the cluster itself, such as `__consumer_offsets`.
    pub internal: bool,
    /// Its partitions in the order of their numbers.
    pub partitions: Vec<PartitionDescription>,
}

/// A partition with its leader and its replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionDescription {
    /// Its number, from 0.
    pub partition: i32,
    /// The broker that leads the partition; `None` while there is no leader.
    pub leader: Option<i32>,
    /// The leader's epoch, if the broker knows it.
    pub leader_epoch: Option<i32>,
    /// The brokers that have a replica, the preferred leader first.
    pub replicas: Vec<i32>,
    /// The replicas that are in sync.
    pub isr: Vec<i32>,
    /// The replicas that are offline, if the broker sends them.
    pub offline: Vec<i32>,
}

impl Admin {
    /// Returns all topics that this client may describe, by name, including those of the cluster
    /// itself.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let admin = cluster.admin().build().await?;
    /// # cluster.create_topic("orders", 6)?;
    /// for topic in admin.list_topics().await?.iter().filter(|topic| !topic.internal) {
    ///     println!("{} has {} partitions", topic.name, topic.partitions);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The last error if no broker answers within `default.api.timeout.ms`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn list_topics(&self) -> Result<Vec<TopicListing>> {
        let response = self.metadata(None).await.map_err(|error| error.context("list topics"))?;
        let mut topics: Vec<TopicListing> = response
            .topics
            .into_iter()
            .map(|topic| TopicListing {
                name: topic.name.map(|name| name.to_string()).unwrap_or_default(),
                id: TopicId::new(topic.topic_id),
                partitions: topic.partitions.len(),
                internal: topic.is_internal,
            })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Returns the partitions of topics: their leaders, their replicas, and the replicas that are
    /// in sync.
    ///
    /// ```
    /// # use ottla::testkit::{Cluster, Options};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # let admin = cluster.admin().build().await?;
    /// # cluster.create_topic("orders", 6)?;
    /// for topic in admin.describe_topics(["orders"]).await?.into_result()? {
    ///     for partition in &topic.partitions {
    ///         println!("{}[{}]: leader {:?}", topic.name, partition.partition, partition.leader);
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The call returns [`ErrorKind::InvalidArgument`] for a name that Kafka forbids, or the last
    /// error if no broker answers within `default.api.timeout.ms`. A topic has
    /// `UNKNOWN_TOPIC_OR_PARTITION` at once, even if it was created a moment ago and the broker
    /// that answers does not know it yet.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn describe_topics(
        &self,
        topics: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<TopicResults<TopicDescription>> {
        let names: Vec<String> = topics.into_iter().map(|name| name.as_ref().to_owned()).collect();
        for name in &names {
            check_topic_name(name)?;
        }
        let response = self.metadata(Some(&names)).await.map_err(|error| error.context("describe topics"))?;
        // A name that is given twice has one result.
        let described = |name: &String| {
            let found = response
                .topics
                .iter()
                .find(|topic| topic.name.as_ref().is_some_and(|found| found.as_str() == name))
                .ok_or_else(|| {
                    let message = format!("describe topic {name}: the broker's response does not contain the topic");
                    Error::new(ErrorKind::Protocol, message)
                })?;
            describe(name, found.clone())
        };
        Ok(names.iter().map(|name| TopicResult { topic: name.clone(), result: described(name) }).collect())
    }

    /// Returns the metadata of these topics, or of all, and of the brokers. The request creates no
    /// topic.
    pub(super) async fn metadata(&self, topics: Option<&[String]>) -> Result<MetadataResponse> {
        let build = |version: i16| {
            let topics = topics.map(|names| {
                let named = |name: &String| MetadataRequestTopic {
                    name: Some(ByteString::from(name.clone())),
                    ..Default::default()
                };
                names.iter().map(named).collect()
            });
            // Version 0 has no null; an empty list stands for all topics.
            MetadataRequest {
                topics: if version == 0 { topics.or_else(|| Some(Vec::new())) } else { topics },
                allow_auto_topic_creation: version < AUTO_CREATION_CAN_BE_REFUSED,
                ..Default::default()
            }
        };
        let check = |response: &MetadataResponse| ErrorCode::new(response.error_code);
        self.client.call(Route::Any, ConnectionKind::Main, self.deadline(), build, check).await
    }
}

/// First version in which a request can refuse the automatic creation of topics.
const AUTO_CREATION_CAN_BE_REFUSED: i16 = 4;

fn describe(name: &str, topic: MetadataResponseTopic) -> Result<TopicDescription> {
    ErrorCode::new(topic.error_code).ok().map_err(|code| Error::broker(code, format_args!("describe topic {name}")))?;
    let mut partitions: Vec<PartitionDescription> = topic.partitions.into_iter().map(partition).collect();
    partitions.sort_by_key(|partition| partition.partition);
    Ok(TopicDescription {
        name: name.to_owned(),
        id: TopicId::new(topic.topic_id),
        internal: topic.is_internal,
        partitions,
    })
}

fn partition(partition: MetadataResponsePartition) -> PartitionDescription {
    let ids = |brokers: Vec<i32>| brokers.into_iter().collect();
    PartitionDescription {
        partition: partition.partition_index,
        leader: Some(partition.leader_id).filter(|leader| *leader >= 0),
        leader_epoch: Some(partition.leader_epoch).filter(|epoch| *epoch >= 0),
        replicas: ids(partition.replica_nodes),
        isr: ids(partition.isr_nodes),
        offline: ids(partition.offline_replicas),
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn unknown_id_and_leader_become_none() {
        let raw = |index: i32, leader: i32| MetadataResponsePartition {
            partition_index: index,
            leader_id: leader,
            leader_epoch: leader,
            replica_nodes: vec![2, 1],
            ..Default::default()
        };
        let topic = MetadataResponseTopic { partitions: vec![raw(1, 2), raw(0, -1)], ..Default::default() };
        let described = describe("orders", topic).unwrap();
        assert_eq!(described.id, None);
        let numbers: Vec<i32> = described.partitions.iter().map(|partition| partition.partition).collect();
        assert_eq!(numbers, [0, 1]);
        assert_eq!((described.partitions[0].leader, described.partitions[0].leader_epoch), (None, None));
        assert_eq!((described.partitions[1].leader, described.partitions[1].leader_epoch), (Some(2), Some(2)));
        assert_eq!(described.partitions[0].replicas, [2, 1]);
    }

    #[test]
    fn error_names_described_topic_and_code() {
        let topic =
            MetadataResponseTopic { error_code: ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code(), ..Default::default() };
        let error = describe("orders", topic).unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        assert!(error.to_string().starts_with("describe topic orders: "), "{error}");
    }
}
