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
    /// A snapshot of what was counted. Takes the consumer's lock for as long as copying takes, some
    /// microseconds; call it every second if you like, not for every record.
    pub fn metrics(&self) -> ConsumerMetrics {
        let buffer = &self.shared.buffer;
        let records_consumed = buffer.delivered_records();
        let now = Instant::now().into_std();
        let mut metrics = buffer.with_state(|assignment| assignment.metrics(now));
        lock(&self.shared.poll_stats).write_to(now, &mut metrics);
        metrics.records_consumed = records_consumed;
        metrics.brokers = self.shared.client.metrics();
        metrics.metadata_age = self.shared.client.metadata_age();
        metrics
    }

    /// What each partition waits for and since when, and where the membership stands. It costs no
    /// request, and is cheap enough for a health check: call it when nothing comes.
    ///
    /// `tracing` gets the same, under the target `ottla::consumer`: at DEBUG what a partition waits
    /// for, whenever that changes; at WARN partitions that have got no further for 30 s for a
    /// reason that is not the user's, in one line for each cause, repeated every minute while it
    /// lasts; at INFO when they go on.
    pub fn status(&self) -> ConsumerStatus {
        let shared = &self.shared;
        let now = Instant::now().into_std();
        let (partitions, topics, unmatched_patterns, ended) = shared.buffer.with_state(|assignment| {
            let topics = assignment.wanted_topics.status(now);
            let unmatched = assignment.wanted_topics.unmatched();
            (assignment.status(now), topics, unmatched, assignment.has_ended())
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

    /// Tells joining from rebalancing (a member was given partitions since it joined), and the
    /// members without partitions apart, by whether there are topics.
    fn refine_group_state(&self, status: GroupStatus) -> GroupStatus {
        let (was_member, presence) = self.shared.buffer.with_state(|assignment| {
            let is_out = matches!(status.state, GroupState::Unsubscribed | GroupState::WaitingForReader);
            (assignment.stats.rebalances.member && !is_out, assignment.wanted_topics.presence())
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
