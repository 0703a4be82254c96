//! A consumer's status, as its user sees it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::consumer::group::status::GroupStatus;
use crate::consumer::{observability::wait_reason::PartitionStatus, subscription::wanted_topics::TopicStatus};
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

/// After so long without progress there is a warning.
pub(crate) const STALLED: Duration = Duration::from_secs(30);
