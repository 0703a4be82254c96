//! The tasks behind a consumer, and the state that they share with its handles.
//!
//! `consumer_task` is the root: it starts the fetch tasks, sends offset requests, follows the
//! group, and commits.

pub(super) mod commit_queue;
pub(super) mod consumer_task;
pub(super) mod leave_on_drop;
pub(super) mod list_offsets;
pub(super) mod offset_request_task;
pub(super) mod queued_commits;
pub(super) mod rebalance_call;
pub(super) mod rebalance_listener_task;
pub(super) mod revocation_task;
pub(super) mod shared;
