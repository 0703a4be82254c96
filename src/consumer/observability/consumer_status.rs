//! A consumer's status, as returned to the user.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::consumer::group::status::GroupStatus;
use crate::consumer::{observability::wait_reason::PartitionStatus, subscription::wanted_topics::TopicStatus};
use crate::{error::Error, record::TopicPartition};

/// Activity and wait reasons of a consumer, from
/// [`Consumer::status`](crate::Consumer::status).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConsumerStatus {
    /// The assigned partitions.
    pub partitions: BTreeMap<TopicPartition, PartitionStatus>,
    /// The topics that are subscribed to by name, and those of assigned partitions.
    pub topics: BTreeMap<Arc<str>, TopicStatus>,
    /// The subscribed regular expressions that match no topic.
    pub unmatched_patterns: Vec<String>,
    /// The consumer's place in its group; `None` if it has no group.
    pub group: Option<GroupStatus>,
    /// The error of the last metadata refresh, if it failed.
    pub metadata_failure: Option<Error>,
    /// Age of the cluster metadata; `None` before the first refresh.
    pub metadata_age: Option<Duration>,
    /// True if the consumer has ended: it was closed, or failed with a fatal error.
    pub ended: bool,
}

/// Time without progress after which there is a warning.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
