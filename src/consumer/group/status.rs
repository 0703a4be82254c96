//! A member's place in its group, as the status shows it.

use crate::error::Error;
use std::{sync::Arc, time::Duration};

/// A consumer's place in its group.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupStatus {
    /// The group's name.
    pub group_id: Arc<str>,
    /// State of the membership.
    pub state: GroupState,
    /// Time for which the state has lasted.
    pub for_how_long: Duration,
}

/// State of a consumer's membership, from [`GroupStatus`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum GroupState {
    /// Not subscribed, and not a member of the group.
    Unsubscribed,
    /// Not a member yet, or not any more: finding the coordinator and joining.
    Joining,
    /// A member of a group that rebalances: it gives up partitions, waits for other members or
    /// joins again.
    Rebalancing,
    /// Out of the group, because the program did not poll within `max.poll.interval.ms`; joins
    /// again on the next poll.
    WaitingForReader,
    /// A member without partitions, though topics that it subscribes to exist: the group has more
    /// members than partitions, or the others have not given any up yet. The member takes over
    /// partitions when another one leaves.
    Standby {
        /// The member's id.
        member_id: Arc<str>,
        /// The group's generation; in the consumer protocol the member's epoch.
        generation: i32,
    },
    /// A member without partitions, because no topic that it subscribes to exists or is visible:
    /// [`ConsumerStatus::topics`](crate::consumer::ConsumerStatus::topics) and
    /// [`unmatched_patterns`](crate::consumer::ConsumerStatus::unmatched_patterns) say which. It is
    /// assigned partitions as soon as one is.
    NoTopics {
        /// The member's id.
        member_id: Arc<str>,
        /// The group's generation; in the consumer protocol the member's epoch.
        generation: i32,
    },
    /// A member, with its partitions.
    Stable {
        /// The member's id.
        member_id: Arc<str>,
        /// The group's generation; in the consumer protocol the member's epoch.
        generation: i32,
    },
    /// Ended for good by this error.
    Ended(Error),
}

impl GroupState {
    /// Returns true if the consumer is no member and does not try to become one.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self, Self::Unsubscribed | Self::WaitingForReader)
    }
}
