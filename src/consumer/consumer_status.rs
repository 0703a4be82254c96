//! A consumer's status, as its user sees it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Consumer, status::PartitionStatus};
use crate::{error::Error, record::TopicPartition};

/// What a consumer does and waits for, from [`Consumer::status`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// The partitions that are assigned.
    pub partitions: BTreeMap<TopicPartition, PartitionStatus>,
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
    /// A member whose group shares the partitions out anew: giving partitions up, waiting for the others, joining again.
    Rebalancing,
    /// Out of the group, because nobody asked for records within `max.poll.interval.ms`; joins again when somebody does.
    WaitingForReader,
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
    /// What each partition waits for and since when, and where the membership stands. It costs no request, and is cheap
    /// enough for a health check: call it when nothing comes.
    ///
    /// The same is told to `tracing`, under the target `ottla::consumer`: at DEBUG what a partition waits for, whenever
    /// that changes; at WARN, once, when one has got no further for 30 s for a reason that is not the user's.
    pub fn status(&self) -> ConsumerStatus {
        let shared = &self.shared;
        let now = Instant::now().into_std();
        let (partitions, ended) =
            shared.inbox.with(|assignment| (assignment.status(STALLED, now), assignment.has_ended()));
        let group = shared.group.as_ref().map(|group| self.standing(group.status()));
        ConsumerStatus {
            partitions: partitions.into_iter().collect(),
            group,
            metadata_failure: shared.client.metadata_failure(),
            metadata_age: shared.client.metadata_age(),
            ended,
        }
    }

    /// Tells joining from rebalancing: only who was given partitions since it came has been a member.
    fn standing(&self, status: GroupStatus) -> GroupStatus {
        let was_member = self.shared.inbox.with(|assignment| {
            let rebalances = &mut assignment.watch.rebalances;
            if matches!(status.state, GroupState::Unsubscribed | GroupState::WaitingForReader) {
                rebalances.left();
            }
            rebalances.member
        });
        match status.state {
            GroupState::Rebalancing if !was_member => GroupStatus { state: GroupState::Joining, ..status },
            _ => status,
        }
    }
}

/// After so long without progress there is a warning.
pub(super) const STALLED: Duration = Duration::from_secs(30);
