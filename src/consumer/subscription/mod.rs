//! The partitions that are read: their positions, the requests that find positions, and the
//! subscribed topics.

pub(super) mod cluster_health;
pub(super) mod corruption_probe;
pub(super) mod corruption_skip;
pub(super) mod delivery_progress;
pub(super) mod fetch_position;
pub(super) mod offset_query;
pub(super) mod offset_resolution;
pub(super) mod offsets_to_commit;
pub(super) mod ownership;
pub(super) mod partition_commits;
pub(super) mod partition_context;
pub(super) mod partition_retries;
pub(super) mod partition_state;
pub(super) mod partitions;
pub(super) mod reset_backoff;
pub(super) mod rules;
pub(crate) mod topics;
pub(super) mod wanted_topics;
