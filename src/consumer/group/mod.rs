//! Membership in a consumer group: which partitions are ours, until when, and what was committed
//! for them.

pub(crate) mod assignor;
pub(super) mod classic;
pub(super) mod command;
mod consumer_protocol;
mod coordinator;
pub(super) mod failed_memberships;
mod handle;
pub(super) mod offsets;
pub(super) mod pending_leaves;
pub(super) mod poll_activity;
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

/// What a member of a group has to know. The settings are checked before they come here: the
/// heartbeat interval is shorter than the session timeout.
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
    /// `exclude.internal.topics`: whether expressions pass over the broker's own topics.
    pub(crate) exclude_internal_topics: bool,
    /// The consumer, as log lines name it.
    pub(crate) origin: Origin,
}

/// What membership tells the consumer, in the order in which it happened.
#[derive(Debug)]
pub(crate) enum GroupEvent {
    /// These partitions are ours from now on, beside those that are owned already. Comes after each
    /// completed rebalance, with an empty list where it gave us nothing more.
    Assigned { partitions: Vec<TopicPartition> },
    /// These must be given up: stop handing out, wait until the reader is done with what it holds,
    /// commit ([`GroupHandle::carry_out`]), then answer `done` (dropping it answers too). The
    /// member heartbeats meanwhile; when the rebalance timeout passes first, [`Lost`](Self::Lost)
    /// follows and the answer is no longer awaited.
    Revoking { partitions: Vec<TopicPartition>, done: oneshot::Sender<()> },
    /// These are already gone, perhaps to others: drop what is buffered, commit nothing.
    Lost { partitions: Vec<TopicPartition> },
    /// To be shown to the reader. After a `fatal` one the membership has ended for good; after any
    /// other the member tries again, for errors that only the user can mend not before the reader
    /// asks for records again.
    Error { error: Error, fatal: bool },
}
