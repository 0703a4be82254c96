//! Queries that a consumer sends to the cluster: offsets, committed offsets, topics.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::SystemTime,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{task::JoinSet, time::Instant};

use crate::consumer::{
    Consumer, OffsetAndMetadata,
    api::{checks::check_partition, offset_lookup::OffsetLookup},
    background::{
        list_offsets::{EARLIEST, LATEST, ListedOffset, list_offsets, listed_offsets},
        shared::after,
    },
};
use crate::{
    cluster::{Attempt, Backoff, ConnectionKind, PartitionInfo, Route, VersionBounds},
    error::{Error, ErrorCode, ErrorKind, Result},
    record::{TopicPartition, to_millis},
    wire::messages::MetadataRequest,
};

/// An offset that was looked up by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OffsetAndTimestamp {
    /// The offset of the first record at or after the requested time.
    pub offset: i64,
    /// Its timestamp in milliseconds since the Unix epoch.
    pub timestamp_millis: i64,
    /// The leader epoch under which the record was appended, if it is known.
    pub leader_epoch: Option<i32>,
}

impl Consumer {
    /// Returns the first available offsets. Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// `InvalidArgument` for a topic name that Kafka forbids or a negative partition;
    /// `UnknownTopicOrPartition` for a topic or partition that does not exist; `Timeout`, naming
    /// the last cause; others as the broker answers.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn beginning_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<HashMap<TopicPartition, i64>> {
        self.ends(partitions, EARLIEST).await
    }

    /// Returns the offsets after the last records: the high watermark, or with `read_committed` the
    /// last stable offset. Takes at most `default.api.timeout.ms`.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// let first = consumer.beginning_offsets([orders.clone()]).await?;
    /// let end = consumer.end_offsets([orders.clone()]).await?;
    /// println!("{} offsets in the log", end[&orders] - first[&orders]);
    /// # assert_eq!((first[&orders], end[&orders]), (0, 1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`beginning_offsets`](Self::beginning_offsets).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn end_offsets(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<HashMap<TopicPartition, i64>> {
        self.ends(partitions, LATEST).await
    }

    async fn ends(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
        timestamp: i64,
    ) -> Result<HashMap<TopicPartition, i64>> {
        let wanted = partitions.into_iter().map(|partition| (partition, timestamp)).collect();
        let state = self.look_up(wanted).await?;
        Ok(state.into_iter().map(|(partition, state)| (partition, state.offset)).collect())
    }

    /// Returns for each partition the first record with a timestamp at or after the given time;
    /// `None` if there is none. Takes at most `default.api.timeout.ms`.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// use std::time::{Duration, SystemTime};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// let an_hour_ago = SystemTime::now() - Duration::from_secs(60 * 60);
    /// let found = consumer.offsets_for_times([(orders.clone(), an_hour_ago)]).await?;
    /// if let Some(first) = found[&orders] {
    ///     consumer.seek(&orders, first.offset)?;
    /// }
    /// # assert_eq!(found[&orders].map(|first| first.offset), Some(0));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`beginning_offsets`](Self::beginning_offsets).
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn offsets_for_times(
        &self,
        times: impl IntoIterator<Item = (TopicPartition, SystemTime)>,
    ) -> Result<HashMap<TopicPartition, Option<OffsetAndTimestamp>>> {
        // Negative timestamps have special meanings in ListOffsets, such as the earliest or latest
        // offset.
        let wanted = times.into_iter().map(|(partition, time)| (partition, to_millis(time).max(0))).collect();
        let state = self.look_up(wanted).await?;
        let shown = |state: ListedOffset| {
            (state.offset >= 0).then_some(OffsetAndTimestamp {
                offset: state.offset,
                timestamp_millis: state.timestamp,
                leader_epoch: Some(state.leader_epoch).filter(|epoch| *epoch >= 0),
            })
        };
        Ok(state.into_iter().map(|(partition, state)| (partition, shown(state))).collect())
    }

    /// Returns the group's committed offsets of these partitions; `None` for a partition without
    /// one. Takes at most `default.api.timeout.ms`.
    ///
    /// ```
    /// # use ottla::{Offset, Record, TopicPartition, testkit::{Cluster, Options}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// # let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// # cluster.create_topic("orders", 1)?;
    /// # cluster.append("orders", 0, &[Record::to("orders").with_value("shipped")])?;
    /// # let orders = TopicPartition::new("orders", 0);
    /// # let consumer = cluster.consumer().group("billing").auto_commit(false).build().await?;
    /// # consumer.assign([(orders.clone(), Offset::Beginning)])?;
    /// consumer.recv().await.transpose()?;
    /// consumer.commit().await?;
    /// let committed = consumer.committed([orders.clone()]).await?;
    /// println!("{:?}", committed[&orders].as_ref().map(|committed| committed.offset));
    /// # assert_eq!(committed[&orders].as_ref().map(|committed| committed.offset), Some(1));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// `InvalidArgument` without a `group.id`, for a topic name that Kafka forbids or a negative
    /// partition; others as the broker answers.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn committed(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<HashMap<TopicPartition, Option<OffsetAndMetadata>>> {
        let partitions: Vec<_> = partitions.into_iter().collect();
        partitions.iter().try_for_each(check_partition)?;
        let group = self.shared.group("ask for committed offsets")?;
        group.committed(partitions, self.shared.deadline()).await
    }

    /// Returns the partitions of a topic in ascending order. Takes at most
    /// `default.api.timeout.ms`, for a topic that does not exist (yet).
    /// [`Producer::partitions_for`](crate::Producer::partitions_for) and
    /// [`Admin::partitions_for`](crate::Admin::partitions_for) are the same call.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that Kafka forbids; `UnknownTopicOrPartition`; `Authorization`;
    /// `Network` or `Timeout`, naming the last cause; `Closed`.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn partitions_for(&self, topic: &str) -> Result<Vec<PartitionInfo>> {
        self.shared.client.partitions_for(topic, self.shared.deadline()).await
    }

    /// Returns all topics that the consumer may see, Kafka's internal topics included, with their
    /// partitions. Takes at most `default.api.timeout.ms`.
    ///
    /// # Errors
    /// `Network` or `Timeout`, naming the last cause.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn list_topics(&self) -> Result<BTreeMap<Arc<str>, Vec<PartitionInfo>>> {
        // In version 0 an empty list requests all topics; versions before 4 cannot forbid the
        // creation of topics.
        let request = |version| MetadataRequest {
            topics: (version == 0).then(Vec::new),
            allow_auto_topic_creation: version < 4,
            ..Default::default()
        };
        let client = &self.shared.client;
        let response =
            client.call(Route::Any, ConnectionKind::Main, self.shared.deadline(), request, |_| ErrorCode::NONE).await?;
        let mut topics = BTreeMap::new();
        for topic in response.topics.iter().filter(|topic| ErrorCode::new(topic.error_code).is_ok()) {
            let Some(name) = &topic.name else { continue };
            let name: Arc<str> = name.as_str().into();
            let mut partitions: Vec<_> = topic
                .partitions
                .iter()
                .map(|partition| PartitionInfo {
                    topic: name.clone(),
                    partition: partition.partition_index,
                    leader: Some(partition.leader_id).filter(|leader| *leader >= 0),
                    replicas: partition.replica_nodes.clone(),
                    isr: partition.isr_nodes.clone(),
                })
                .collect();
            partitions.sort_by_key(|partition| partition.partition);
            topics.insert(name, partitions);
        }
        Ok(topics)
    }

    /// Requests the first offset at or after each timestamp from the leaders, until all have
    /// answered.
    async fn look_up(&self, wanted: Vec<(TopicPartition, i64)>) -> Result<HashMap<TopicPartition, ListedOffset>> {
        wanted.iter().try_for_each(|(partition, _)| check_partition(partition))?;
        let client = &self.shared.client;
        let settings = client.settings();
        let deadline = self.shared.deadline();
        let seed = settings.seed.unwrap_or_else(|| rand::rng().random());
        let mut rng = StdRng::seed_from_u64(seed);
        let mut backoff = Backoff::new(settings.retry_backoff, settings.retry_backoff_max);
        let mut lookup = OffsetLookup::new(wanted);
        while !lookup.is_complete() {
            for topic in lookup.topics() {
                client.topic(&topic, deadline).await?;
            }
            self.ask_leaders(&mut lookup, deadline).await?;
            if lookup.is_complete() {
                break;
            }
            client.refresh_metadata();
            let next_round = after(backoff.next(&mut rng));
            if next_round >= deadline {
                return Err(lookup.timed_out());
            }
            tokio::time::sleep_until(next_round).await;
        }
        Ok(lookup.into_offsets())
    }

    /// Sends the requests of one round to all leaders at once.
    async fn ask_leaders(&self, lookup: &mut OffsetLookup, deadline: Instant) -> Result<()> {
        let client = &self.shared.client;
        let read_committed = self.shared.isolation.is_read_committed();
        let mut answers = JoinSet::new();
        for (node, rows) in lookup.begin_round(&client.metadata())? {
            let client = client.clone();
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = client.settings().request_timeout.min(left);
            let attempt = Attempt { node, kind: ConnectionKind::Main, timeout, versions: VersionBounds::ANY };
            let request = list_offsets(&rows, read_committed, timeout);
            answers.spawn(async move { client.send(attempt, |_| request).await.map(|it| listed_offsets(&it)) });
        }
        while let Some(answer) = answers.join_next().await {
            let answer = answer.unwrap_or_else(|error| {
                Err(Error::new(ErrorKind::Internal, "a ListOffsets request panicked").with_source(error))
            });
            lookup.answered(answer)?;
        }
        lookup.end_round();
        Ok(())
    }
}
