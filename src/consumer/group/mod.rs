//! Membership in a consumer group: the partitions that the group assigns, until they are revoked,
//! and their committed offsets.

mod actions;
pub(crate) mod assignor;
pub(super) mod classic;
pub(super) mod command;
mod consumer_protocol;
mod coordinator;
pub(super) mod failed_memberships;
mod group_task;
mod handle;
mod heartbeat_failures;
mod join_retries;
mod member_log;
mod member_snapshot;
mod membership;
pub(super) mod offsets;
pub(super) mod pending_leaves;
pub(super) mod poll_activity;
mod poll_timer;
mod protocol_driver;
pub(super) mod retry_wait;
mod shared;
pub(super) mod status;
#[cfg(all(test, feature = "testkit"))]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::sync::oneshot;

use crate::{error::Error, log::Origin, record::TopicPartition};

pub(crate) use crate::consumer::group::offsets::commit::{CommittedOffset, RetryPolicy};
pub(crate) use crate::consumer::group::offsets::commit_order::CommitOrigin;
pub(crate) use crate::consumer::group::offsets::commit_task::{CommitEvent, RequestedCommit};
pub(crate) use crate::consumer::group::offsets::committed::CommittedOffsets;
use assignor::Assignor;
pub(crate) use handle::{GroupHandle, OwnedPollGuard, PollGuard, PollRecorder};

/// The settings of a group member. They are checked before: the heartbeat interval is shorter than
/// the session timeout.
#[derive(Clone, Debug)]
pub(crate) struct GroupSettings {
    /// `group.id`.
    pub(crate) group_id: Arc<str>,
    /// `group.instance.id`: makes the member static (KIP-345).
    pub(crate) group_instance_id: Option<Arc<str>>,
    /// `session.timeout.ms`.
    pub(crate) session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub(crate) heartbeat_interval: Duration,
    /// `max.poll.interval.ms`; also the rebalance timeout.
    pub(crate) max_poll_interval: Duration,
    /// `partition.assignment.strategy`, in the order of preference; at least one.
    pub(crate) assignors: Vec<Arc<dyn Assignor>>,
    /// `client.rack`.
    pub(crate) client_rack: Option<String>,
    /// `exclude.internal.topics`: if true, expressions do not match internal topics.
    pub(crate) exclude_internal_topics: bool,
    /// The consumer's name in log lines.
    pub(crate) origin: Origin,
}

/// Events of the membership for the consumer, in the order in which they happened.
#[derive(Debug)]
pub(crate) enum GroupEvent {
    /// The group assigned these partitions in addition to those that are owned already. Follows
    /// each completed rebalance, with an empty list if there are no new partitions.
    Assigned { partitions: Vec<TopicPartition> },
    /// These partitions have to be given up: stop delivering, wait until the reader has completed
    /// the delivered records, commit ([`GroupHandle::run_commit`]), then answer `done` (dropping it
    /// answers too). The member keeps sending heartbeats meanwhile; if the rebalance timeout passes
    /// first, [`Lost`](Self::Lost) follows and the answer is no longer awaited.
    Revoking { partitions: Vec<TopicPartition>, done: oneshot::Sender<()> },
    /// These partitions are already lost, perhaps to other members: drop the buffered data, commit
    /// nothing.
    Lost { partitions: Vec<TopicPartition> },
    /// An error for the reader. After a `fatal` one the membership has ended for good. After any
    /// other the member tries again; after an error that only the user can correct, not before the
    /// reader polls again.
    Error { error: Error, fatal: bool },
}
