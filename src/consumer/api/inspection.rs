//! Metrics and status of a consumer.

use tokio::time::Instant;

use crate::consumer::{
    Consumer,
    group::status::{GroupState, GroupStatus},
    lock::lock,
    observability::{consumer_status::ConsumerStatus, metrics::ConsumerMetrics},
    subscription::wanted_topics::Presence,
};

impl Consumer {
    /// Returns a snapshot of the counters. Takes the consumer's lock for as long as copying takes,
    /// some microseconds: calling it every second is fine, calling it for every record is not.
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
    /// consumer.recv().await.transpose()?;
    /// let metrics = consumer.metrics();
    /// println!("{} records read, {} to read", metrics.records_consumed, metrics.total_lag());
    /// # assert_eq!(metrics.records_consumed, 1);
    /// # Ok(()) }
    /// ```
    pub fn metrics(&self) -> ConsumerMetrics {
        let buffer = &self.shared.buffer;
        let records_consumed = buffer.delivered_records();
        let now = Instant::now().into_std();
        let mut metrics = buffer.with_state(|state| state.metrics(now));
        lock(&self.shared.poll_stats).write_to(now, &mut metrics);
        metrics.records_consumed = records_consumed;
        metrics.brokers = self.shared.client.metrics();
        metrics.metadata_age = self.shared.client.metadata_age();
        metrics
    }

    /// Returns the reason for which each partition waits, with its duration, and the state of the
    /// membership. It costs no request and is cheap enough for a health check: call it when no
    /// records arrive.
    ///
    /// `tracing` gets the same information, under the target `ottla::consumer`: at DEBUG the reason
    /// for which a partition waits, whenever it changes; at WARN the partitions that have made no
    /// progress for 30 s for a reason that is not the user's, in one line for each cause, repeated
    /// every minute while it lasts; at INFO when they make progress again.
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
    /// let status = consumer.status();
    /// for (partition, state) in &status.partitions {
    ///     println!("{partition}: {} for {:?}", state.waiting.name(), state.waiting_for);
    /// }
    /// # assert_eq!(status.partitions.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn status(&self) -> ConsumerStatus {
        let shared = &self.shared;
        let now = Instant::now().into_std();
        let (partitions, topics, unmatched_patterns, ended) = shared.buffer.with_state(|state| {
            let topics = state.wanted_topics.status(now);
            let unmatched = state.wanted_topics.unmatched();
            (state.status(now), topics, unmatched, state.readers.has_ended())
        });
        let group = shared.group.as_ref().map(|group| self.refine_group_state(group.status()));
        ConsumerStatus {
            partitions: partitions.into_iter().collect(),
            topics,
            unmatched_patterns,
            group,
            metadata_failure: shared.client.metadata_failure(),
            metadata_age: shared.client.metadata_age(),
            ended,
        }
    }

    /// Distinguishes joining from rebalancing (a member that received partitions since it joined is
    /// rebalancing), and the members without partitions by the existence of their topics.
    fn refine_group_state(&self, status: GroupStatus) -> GroupStatus {
        let (was_member, presence) = self.shared.buffer.with_state(|state| {
            (state.stats.rebalances.member && !status.state.is_out(), state.wanted_topics.presence())
        });
        let state = match (status.state, presence) {
            (GroupState::Rebalancing, _) if !was_member => GroupState::Joining,
            (GroupState::Standby { member_id, generation }, Presence::None) => {
                GroupState::NoTopics { member_id, generation }
            }
            (GroupState::Standby { member_id, generation }, Presence::Unknown) => {
                GroupState::Stable { member_id, generation }
            }
            (state, _) => state,
        };
        GroupStatus { state, ..status }
    }
}
