//! Metrics, status and log lines of a consumer.

pub(super) mod consumer_status;
pub(super) mod fetch_stats;
pub(super) mod group_stats;
pub(super) mod log_digest;
pub(super) mod metrics;
pub(super) mod partition_offsets;
pub(super) mod partition_status;
pub(super) mod stalls;
pub(super) mod wait_reason;
