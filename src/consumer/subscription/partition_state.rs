//! A partition that is read, and its state.
//!
//! Sans-IO.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use uuid::Uuid;

use crate::consumer::{
    buffer::partition_buffer::PartitionBuffer,
    config::settings::IsolationLevel,
    fetch::{connection_id::FetchConnectionId, preferred_replica::PreferredReplica},
    observability::partition_offsets::PartitionOffsets,
    subscription::{
        corruption_skip::CorruptionSkip,
        delivery_progress::DeliveryProgress,
        fetch_position::{FetchPosition, FetchState},
        partition_commits::PartitionCommits,
        reset_backoff::Resets,
        rules::ConsumerRules,
    },
};
use crate::{cluster::Backoff, error::Error, record::TopicPartition};

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
    pub(crate) commits: PartitionCommits,
    pub(crate) retries: Backoff,
    /// Resets to an offset that was refused again.
    pub(crate) resets: Resets,
    /// Time since which it has no leader.
    pub(crate) leaderless_since: Option<Instant>,
    /// True if its present error was reported to the reader.
    pub(crate) reported: bool,
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
            commits: PartitionCommits::default(),
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

    /// Returns true if the partition has enough buffered data no longer, and may be fetched again:
    /// half of the data was read.
    pub(crate) fn has_room_again(&self) -> bool {
        self.full && self.queue.bytes() <= self.queue_bound() / 2
    }

    /// Returns true if its records may be delivered now.
    pub(crate) fn is_deliverable(&self) -> bool {
        !self.paused && !self.revoking
    }

    /// Returns true if the records of that progress are those of the present positioning.
    pub(crate) fn is_under(&self, progress: &Arc<DeliveryProgress>) -> bool {
        self.progress.as_ref().is_some_and(|current| Arc::ptr_eq(current, progress))
    }

    /// Returns the offset of the next record to deliver; `None` if it is not known yet.
    pub(crate) fn next_offset(&self) -> Option<i64> {
        self.progress.as_ref().map(|progress| progress.delivered())
    }

    /// Returns the number of offsets between the delivered position and the end.
    pub(crate) fn lag(&self, isolation: IsolationLevel) -> Option<u64> {
        let lag = self.offsets.end(isolation)?.saturating_sub(self.next_offset()?);
        Some(u64::try_from(lag).unwrap_or(0))
    }

    /// Positions the partition again, without a position yet. If the user asked for it
    /// (`asked_for`), everything before counts as completed.
    pub(crate) fn clear_position(&mut self, rules: &ConsumerRules, seek_epoch: u64, asked_for: bool) {
        if let Some(progress) = self.progress.take() {
            progress.supersede();
            let (completed, delivered) = (progress.completed(), progress.delivered());
            self.incomplete_from = self.incomplete_from.or((completed < delivered).then_some(completed));
        }
        if asked_for {
            self.incomplete_from = None;
            self.resets.clear();
        }
        self.queue.clear();
        self.commits.repositioned();
        self.full = false;
        self.awaits_listener = false;
        self.corruption = None;
        self.corruption_skip = None;
        self.offsets.reset();
        self.reported = false;
        self.fetch_bytes = rules.partition_bytes;
        self.retries = rules.backoff.clone();
        self.position = FetchPosition::new(FetchState::Stopped, seek_epoch);
    }

    /// Enters another state of the same positioning. Before fetching, the position is validated if
    /// the leader's log is not known to have everything before it. Returns true if the state needs
    /// an offset request.
    pub(crate) fn enter_fetch_state(&mut self, partition: &TopicPartition, state: FetchState) -> bool {
        let state = self.validated_first(state);
        self.position.enter(state);
        self.offsets.error = None;
        if let FetchState::Fetching { offset, .. } = state {
            self.offsets.fetched_from(offset);
        }
        match state {
            FetchState::Fetching { offset, epoch } if self.progress.is_none() => {
                let completed = self.incomplete_from.take().map_or(offset, |completed| completed.min(offset));
                let seek_epoch = self.position.seek_epoch();
                let progress = DeliveryProgress::new(partition.clone(), seek_epoch, offset, completed, epoch);
                self.progress = Some(Arc::new(progress.counting_into(&self.delivered)));
                false
            }
            FetchState::Fetching { .. } | FetchState::Stopped => false,
            FetchState::Initializing | FetchState::AwaitReset(_) | FetchState::AwaitValidation { .. } => true,
        }
    }

    // ---- entries for the reader behind the buffered batches; a partition without a position has
    // no reader

    /// Adds that the broker has no record at that offset.
    pub(crate) fn push_out_of_range(&mut self, at: i64) {
        self.progress.iter().for_each(|progress| self.queue.push_out_of_range(progress, at));
    }

    /// Adds that the log ends at that offset.
    pub(crate) fn push_log_end(&mut self, at: i64) {
        self.progress.iter().for_each(|progress| self.queue.push_log_end(progress, at));
    }

    /// Adds that there are no records to deliver before that offset.
    pub(crate) fn push_skip(&mut self, to: i64) {
        self.progress.iter().for_each(|progress| self.queue.push_skip(progress, to));
    }

    /// Adds damaged bytes at `at`; they end before `end`, if that is known.
    pub(crate) fn push_corrupt(&mut self, error: Error, at: i64, end: Option<i64>) {
        if let Some(progress) = &self.progress {
            self.queue.push_corrupt(progress, error, at, end);
        }
    }
}
