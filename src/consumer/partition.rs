//! A partition that is read, and all that is known about it. Decides; does no IO.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Instant,
};

use uuid::Uuid;

use super::{
    assignment::ConsumerRules,
    lanes::FetchConnectionId,
    lease::DeliveryProgress,
    nearby::PreferredReplica,
    position::{FetchPosition, FetchState},
    queue::PartitionBuffer,
    resets::Resets,
    search::CorruptionSkip,
    split::SplitReader,
    watch::PartitionOffsets,
};
use crate::cluster::Backoff;

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Corruption {
    /// Where reading stopped.
    pub(super) at: i64,
    /// Behind it, where that is known.
    pub(super) end: Option<i64>,
}

/// A partition and all that is known about it.
#[derive(Debug)]
pub(super) struct PartitionState {
    pub(super) position: FetchPosition,
    /// There once the position is known.
    pub(super) progress: Option<Arc<DeliveryProgress>>,
    /// What was unfinished when the partition had to be positioned anew: not to be committed past.
    pub(super) incomplete_from: Option<i64>,
    pub(super) queue: PartitionBuffer,
    /// Records that readers were given.
    pub(super) delivered: Arc<AtomicU64>,
    pub(super) paused: bool,
    /// Which of the partitions that ever came it is: one that went and came back is another one.
    pub(super) ownership: u64,
    /// The group gave it, and may take it back.
    pub(super) of_group: bool,
    /// To be given up as soon as the reader is done with what it holds.
    pub(super) revoking: bool,
    /// Not read before the rebalance listener has said from where.
    pub(super) awaits_listener: bool,
    /// The rebalance listener was told that it goes.
    pub(super) revocation_announced: bool,
    /// Its reader came to what cannot be read.
    pub(super) corruption: Option<Corruption>,
    /// Where it can be read again is being looked for.
    pub(super) corruption_skip: Option<CorruptionSkip>,
    /// What brokers last said of it.
    pub(super) offsets: PartitionOffsets,
    /// Has a reader of its own.
    pub(super) split: Option<SplitReader>,
    /// What was fetched ahead was dropped: nothing is fetched until its reader asks again.
    pub(super) evicted: bool,
    pub(super) in_rotation: bool,
    /// Has its fill, and is fetched again once half of it is read.
    pub(super) full: bool,
    pub(super) topic_id: Uuid,
    /// The leader and its epoch.
    pub(super) leader: Option<(i32, i32)>,
    /// The newest leader epoch under which what lies before the position is known to be in the log;
    /// −1 where none is.
    pub(super) validated_epoch: i32,
    /// The cluster says that its topic does not exist: one that comes may be another one of the
    /// same name.
    pub(super) topic_missing: bool,
    /// A replica nearer than the leader (KIP-392).
    pub(super) preferred_replica: PreferredReplica,
    /// The broker that it is fetched from.
    pub(super) broker: Option<i32>,
    /// Over which of the connections to it.
    pub(super) connection: u8,
    /// When something of it came last.
    pub(super) last_data_at: Option<Instant>,
    /// Asked for in one fetch; more where batches are larger, and where a long line is to be filled
    /// (`answer_size`).
    pub(super) fetch_bytes: i32,
    pub(super) committed: Option<i64>,
    pub(super) commit_certainty: CommitCertainty,
    /// What the user committed last since it was positioned: what is committed by itself does not
    /// go back behind that.
    pub(super) committed_by_user: Option<i64>,
    pub(super) retries: Backoff,
    /// Resets whose new offset was refused again.
    pub(super) resets: Resets,
    /// Without a leader since then.
    pub(super) leaderless_since: Option<Instant>,
    /// Its present trouble was told to the reader.
    pub(super) reported: bool,
}

/// Whether it is known what the group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitCertainty {
    Certain,
    /// Another offset is on its way.
    InFlight,
    /// One before had no answer, and may have been committed.
    Unknown,
}

impl PartitionState {
    /// One that was just assigned, and is not positioned yet.
    pub(super) fn new(rules: &ConsumerRules, generation: u64, now: Instant) -> Self {
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

    /// Where it is fetched from.
    pub(super) fn connection_id(&self) -> Option<FetchConnectionId> {
        self.broker.map(|broker| FetchConnectionId { broker, connection: self.connection })
    }

    /// What lies before the position is in the log of the leader of that epoch.
    pub(super) fn validated_under(&mut self, leader_epoch: i32) {
        self.validated_epoch = self.validated_epoch.max(leader_epoch);
    }

    /// The state to enter for this one. Between leaders a log may lose its end (KIP-320), so
    /// nothing is fetched from a newer leader than the last that is known to have what was read,
    /// whatever came between the two: nobody who led, or bytes that were dropped to be fetched
    /// anew.
    pub(super) fn validated_first(&self, state: FetchState) -> FetchState {
        match (state, self.leader) {
            (FetchState::Fetching { offset, epoch }, Some((_, leader_epoch)))
                if (0..leader_epoch).contains(&epoch) && self.validated_epoch < leader_epoch =>
            {
                FetchState::AwaitValidation { offset, epoch }
            }
            (state, _) => state,
        }
    }

    /// How much of it waits for its reader at most before it is fetched no further.
    pub(super) fn queue_bound(&self) -> usize {
        usize::try_from(self.fetch_bytes).unwrap_or(0).saturating_mul(2)
    }
}
