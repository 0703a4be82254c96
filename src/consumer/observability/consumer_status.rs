//! A consumer's status, as its user sees it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::consumer::{
    Consumer,
    observability::wait_reason::PartitionStatus,
    subscription::wanted_topics::{Presence, TopicStatus},
};
use crate::{error::Error, record::TopicPartition};

/// What a consumer does and waits for, from [`Consumer::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// The partitions that are assigned.
    pub partitions: BTreeMap<TopicPartition, PartitionStatus>,
    /// The topics that are subscribed to by name, and those whose partitions are assigned.
    pub topics: BTreeMap<Arc<str>, TopicStatus>,
    /// The regular expressions that are subscribed to and match no topic.
    pub unmatched_patterns: Vec<String>,
    /// The consumer's place in its group; `None` where it has none.
    pub group: Option<GroupStatus>,
    /// Why the last look at the cluster failed, if it did.
    pub metadata_failure: Option<Error>,
    /// How old the picture of the cluster is; `None` before the first.
    pub metadata_age: Option<Duration>,
    /// Whether the consumer has ended: was closed, or failed for good.
    pub ended: bool,
}

/// A consumer's place in its group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The group's name.
    pub group_id: Arc<str>,
    /// What it is in.
    pub state: GroupState,
    /// For how long.
    pub for_how_long: Duration,
}

/// What a consumer's membership is in.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupState {
    /// Not subscribed: no member of the group.
    Unsubscribed,
    /// Not a member yet, or not any more: finding the coordinator and joining.
    Joining,
    /// A member whose group shares the partitions out anew: giving partitions up, waiting for the
    /// others, joining again.
    Rebalancing,
    /// Out of the group, because nobody asked for records within `max.poll.interval.ms`; joins
    /// again when somebody does.
    WaitingForReader,
    /// A member without partitions, though topics that it subscribes to exist: the group has more
    /// members than partitions, or the others have not given any up yet. The member takes over when
    /// one of them goes.
    Standby {
        /// The member's id.
        member_id: Arc<str>,
        /// The group's generation; in the consumer protocol the member's epoch.
        generation: i32,
    },
    /// A member without partitions, because no topic that it subscribes to exists or may be seen:
    /// [`ConsumerStatus::topics`] and [`ConsumerStatus::unmatched_patterns`] say which. It joins in
    /// as soon as one does.
    NoTopics {
        /// The member's id.
        member_id: Arc<str>,
        /// The group's generation; in the consumer protocol the member's epoch.
        generation: i32,
    },
    /// A member, with its partitions.
    Stable {
        /// Its id.
        member_id: Arc<str>,
        /// The group's generation; in the consumer protocol the member's epoch.
        generation: i32,
    },
    /// Ended for good by this error.
    Ended(Error),
}

impl Consumer {
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
            (assignment.status(STALLED, now), topics, unmatched, assignment.has_ended())
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
            let rebalances = &mut assignment.stats.rebalances;
            if matches!(status.state, GroupState::Unsubscribed | GroupState::WaitingForReader) {
                rebalances.left();
            }
            (rebalances.member, assignment.wanted_topics.presence())
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

/// After so long without progress there is a warning.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
