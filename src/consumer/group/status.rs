//! A member's place in its group, as the status shows it.

use crate::error::Error;
use std::{sync::Arc, time::Duration};

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
