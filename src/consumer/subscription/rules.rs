//! The settings that the consumer's state decides by.

use crate::{
    cluster::Backoff,
    consumer::config::settings::{IsolationLevel, OffsetReset},
    log::Origin,
};
use std::time::Duration;

/// What decides has to know of the settings.
#[derive(Clone, Debug)]
pub(crate) struct ConsumerRules {
    pub(crate) reset: OffsetReset,
    pub(crate) isolation: IsolationLevel,
    /// Whether the reader is told of the end of a partition.
    pub(crate) partition_eof: bool,
    pub(crate) min_bytes: i32,
    pub(crate) max_bytes: i32,
    pub(crate) max_wait: Duration,
    /// Asked for of one partition in one answer, at least.
    pub(crate) partition_bytes: i32,
    /// Whether more is asked for of it where a long line would be half empty: the user has not said
    /// how much.
    pub(crate) partition_grows: bool,
    pub(crate) queued_bytes: usize,
    /// Connections to a broker that are fetched over, at most.
    pub(crate) connections: u8,
    pub(crate) rack: Option<String>,
    pub(crate) backoff: Backoff,
    /// How long a preferred replica is believed in (`metadata.max.age.ms`).
    pub(crate) replica_age: Duration,
    /// After how long without a leader the reader is told.
    pub(crate) grace_period: Duration,
    /// Batches that are opened ahead at a time.
    pub(crate) max_decompressions: usize,
    /// How long a topic may be missing before the reader is told
    /// (`topic.metadata.propagation.max.ms`).
    pub(crate) topic_propagation: Duration,
    /// The consumer, as log lines name it.
    pub(crate) origin: Origin,
}
