//! The settings that the consumer's state decides by.

use crate::{
    cluster::Backoff,
    consumer::config::{isolation::Isolation, settings::OffsetReset},
    log::Origin,
};
use std::time::Duration;

/// The settings that the consumer's state needs for its decisions.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerRules {
    pub(crate) reset: OffsetReset,
    pub(crate) isolation: Isolation,
    /// True if the reader is told of the end of a partition.
    pub(crate) partition_eof: bool,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) max_wait: Duration,
    /// Smallest `max_bytes` of one partition in one fetch.
    pub(crate) partition_bytes: i32,
    /// True if a partition's `max_bytes` may grow to fill a connection with a high latency, because
    /// the user has not set it.
    pub(crate) partition_grows: bool,
    pub(crate) queued_bytes: usize,
    /// Largest number of connections to a broker for fetches.
    pub(crate) connections: u8,
    pub(crate) rack: Option<String>,
    pub(crate) backoff: Backoff,
    /// Time for which a preferred read replica is used (`metadata.max.age.ms`).
    pub(crate) replica_age: Duration,
    /// Time without a leader after which the reader is told.
    pub(crate) grace_period: Duration,
    /// Largest number of batches that are decompressed ahead at a time.
    pub(crate) max_decompressions: usize,
    /// Time for which a topic may be missing before the reader is told
    /// (`topic.metadata.propagation.max.ms`).
    pub(crate) topic_propagation: Duration,
    /// The consumer's name in log lines.
    pub(crate) origin: Origin,
}
