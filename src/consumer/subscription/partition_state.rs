//! A partition that is read, and its state.
//!
//! Sans-IO.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use uuid::Uuid;

use crate::cluster::Backoff;
use crate::consumer::{
    buffer::{partition_buffer::PartitionBuffer, split::SplitReader},
    fetch::{connection_id::FetchConnectionId, preferred_replica::PreferredReplica},
    observability::fetch_stats::PartitionOffsets,
    subscription::{
        corruption_skip::CorruptionSkip,
        delivery_progress::DeliveryProgress,
        fetch_position::{FetchPosition, FetchState},
        reset_backoff::Resets,
        rules::ConsumerRules,
    },
};

/// A range of offsets that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// Offset at which reading stopped.
    pub(crate) at: i64,
    /// First offset after the damage, if it is known.
    pub(crate) end: Option<i64>,
}

/// One partition's position, buffered records and errors.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) position: FetchPosition,
    /// Present once the position is known.
    pub(crate) progress: Option<Arc<DeliveryProgress>>,
    /// First incomplete record when the partition was positioned again; commits must not go beyond
    /// it.
    pub(crate) incomplete_from: Option<i64>,
    pub(crate) queue: PartitionBuffer,
    /// Number of records delivered to readers.
    pub(crate) delivered: Arc<AtomicU64>,
    pub(crate) paused: bool,
    /// Number of the ownership period: a partition that was lost and assigned again has another
    /// one.
    pub(crate) ownership: u64,
    /// True if the group assigned it, and may revoke it.
    pub(crate) of_group: bool,
    /// True if it is released as soon as the reader has completed the delivered records.
    pub(crate) revoking: bool,
    /// Not read until the rebalance listener has returned, which may set its position.
    pub(crate) awaits_listener: bool,
    /// True if the rebalance listener was told of the revocation.
    pub(crate) revocation_announced: bool,
    /// The damage that its reader has arrived at.
    pub(crate) corruption: Option<Corruption>,
    /// The search for the next readable offset.
    pub(crate) corruption_skip: Option<CorruptionSkip>,
    /// Offsets that brokers last reported.
    pub(crate) offsets: PartitionOffsets,
    /// The reader of a partition with a stream of its own.
    pub(crate) split: Option<SplitReader>,
    /// True if its buffered records were evicted: nothing is fetched until its reader polls again.
    pub(crate) evicted: bool,
    pub(crate) in_rotation: bool,
    /// True if it has enough buffered data; it is fetched again once half of that is read.
    pub(crate) full: bool,
    pub(crate) topic_id: Uuid,
    /// The leader and its epoch.
    pub(crate) leader: Option<(i32, i32)>,
    /// Newest leader epoch for which the log is known to have everything before the position; −1 if
    /// there is none.
    pub(crate) validated_epoch: i32,
    /// True if the metadata says that its topic does not exist: one that appears may be another
    /// topic of the same name.
    pub(crate) topic_missing: bool,
    /// Preferred read replica, if the leader named one (KIP-392).
    pub(crate) preferred_replica: PreferredReplica,
    /// The broker that it is fetched from.
    pub(crate) broker: Option<i32>,
    /// The connection to that broker.
    pub(crate) connection: u8,
    /// Time at which its last data arrived.
    pub(crate) last_data_at: Option<Instant>,
    /// Bytes asked for in one fetch; more if batches are larger, or if a connection with a high
    /// latency has to be filled (`fetch_size`).
    pub(crate) fetch_bytes: i32,
    pub(crate) committed: Option<i64>,
    pub(crate) commit_certainty: CommitCertainty,
    /// The user's last commit since it was positioned; auto-commits do not go below it.
    pub(crate) committed_by_user: Option<i64>,
    pub(crate) retries: Backoff,
    /// Resets to an offset that was refused again.
    pub(crate) resets: Resets,
    /// Time since which it has no leader.
    pub(crate) leaderless_since: Option<Instant>,
    /// True if its present error was reported to the reader.
    pub(crate) reported: bool,
}

/// Certainty of the group's committed offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitCertainty {
    Certain,
    /// A commit of another offset is outstanding.
    InFlight,
    /// An earlier commit got no response, and may have succeeded.
    Unknown,
}

impl PartitionState {
    /// Creates the state of a partition that was just assigned and is not positioned yet.
    pub(crate) fn new(rules: &ConsumerRules, generation: u64, now: Instant) -> Self {
        Self {
            position: FetchPosition::new(FetchState::Stopped, generation),
            progress: None,
            incomplete_from: None,
            queue: PartitionBuffer::default(),
            delivered: Arc::default(),
            paused: false,
            ownership: generation,
            of_group: false,
            revoking: false,
            awaits_listener: false,
            revocation_announced: false,
            corruption: None,
            corruption_skip: None,
            offsets: PartitionOffsets::default(),
            split: None,
            evicted: false,
            in_rotation: false,
            full: false,
            topic_id: Uuid::nil(),
            leader: None,
            validated_epoch: -1,
            topic_missing: false,
            preferred_replica: PreferredReplica::new(rules.backoff.first()),
            broker: None,
            connection: 0,
            last_data_at: None,
            fetch_bytes: rules.partition_bytes,
            committed: None,
            commit_certainty: CommitCertainty::Certain,
            committed_by_user: None,
            retries: rules.backoff.clone(),
            resets: Resets::new(rules.backoff.first()),
            leaderless_since: Some(now),
            reported: false,
        }
    }

    /// Returns the connection that it is fetched over.
    pub(crate) fn connection_id(&self) -> Option<FetchConnectionId> {
        self.broker.map(|broker| FetchConnectionId { broker, connection: self.connection })
    }

    /// Records that the log of the leader of that epoch has everything before the position.
    pub(crate) fn validated_under(&mut self, leader_epoch: i32) {
        self.validated_epoch = self.validated_epoch.max(leader_epoch);
    }

    /// Returns the state to enter for this one. Logs can be truncated between leaders (KIP-320), so
    /// nothing is fetched from a newer leader epoch than the last one validated for this position,
    /// even if there was no leader in between or buffered data was evicted.
    pub(crate) fn validated_first(&self, state: FetchState) -> FetchState {
        match (state, self.leader) {
            (FetchState::Fetching { offset, epoch }, Some((_, leader_epoch)))
                if (0..leader_epoch).contains(&epoch) && self.validated_epoch < leader_epoch =>
            {
                FetchState::AwaitValidation { offset, epoch }
            }
            (state, _) => state,
        }
    }

    /// Returns the buffered bytes at which the partition is no longer fetched.
    pub(crate) fn queue_bound(&self) -> usize {
        usize::try_from(self.fetch_bytes).unwrap_or(0).saturating_mul(2)
    }
}
