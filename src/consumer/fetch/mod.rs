//! Fetching: which broker each partition is read from, what each Fetch request asks for, and how
//! its response is handled.

pub(super) mod batch_scan;
pub(super) mod broker_selection;
pub(super) mod connection;
pub(super) mod connection_assignment;
pub(super) mod connection_id;
pub(super) mod connection_scaling;
pub(super) mod connections;
pub(super) mod empty_responses;
pub(super) mod eviction;
pub(super) mod fetch_size;
pub(super) mod fetch_task;
pub(super) mod memory_budget;
pub(super) mod partition_response;
pub(super) mod plan;
pub(super) mod planner;
pub(super) mod preferred_replica;
pub(super) mod scanned;
pub(super) mod session;
