//! The states of a classic member.
//!
//! Sans-IO.

use std::{collections::BTreeSet, sync::Arc, time::Instant};

use crate::{
    consumer::group::{actions::AttemptId, classic::leader::PendingAssignment},
    error::Error,
    record::TopicPartition,
};

#[derive(Debug)]
pub(super) enum MemberState {
    Unsubscribed,
    Backoff { until: Instant },
    AwaitPoll { not_before: Instant },
    Joining { attempt: AttemptId, sent: Instant },
    CountingPartitions { attempt: AttemptId, assignment: PendingAssignment },
    Syncing { attempt: AttemptId, sent: Instant, protocol: Arc<str> },
    Stable,
    Revoking { attempt: AttemptId, partitions: BTreeSet<TopicPartition>, deadline: Instant, then: AfterRevocation },
    Ended(Error),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AfterRevocation {
    Join,
    Leave,
}

impl MemberState {
    /// Returns true if the coordinator counts the member in a generation, so that heartbeats are
    /// due.
    pub(super) fn in_generation(&self) -> bool {
        matches!(self, Self::CountingPartitions { .. } | Self::Syncing { .. } | Self::Stable | Self::Revoking { .. })
    }

    /// Returns true if the member has its assignment, so that the reader has to poll.
    pub(super) fn is_assigned(&self) -> bool {
        matches!(self, Self::Stable | Self::Revoking { .. })
    }

    /// Returns true if the member leaves once its partitions are given up.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self, Self::Revoking { then: AfterRevocation::Leave, .. })
    }
}
