//! A partition that is read, and all that is known about it.
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

/// What cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Corruption {
    /// Where reading stopped.
    pub(crate) at: i64,
    /// Behind it, where that is known.
    pub(crate) end: Option<i64>,
}

/// A partition and all that is known about it.
#[derive(Debug)]
pub(crate) struct PartitionState {
    pub(crate) position: FetchPosition,
    /// There once the position is known.
    pub(crate) progress: Option<Arc<DeliveryProgress>>,
    /// What was unfinished when the partition had to be positioned anew: not to be committed past.
    pub(crate) incomplete_from: Option<i64>,
    pub(crate) queue: PartitionBuffer,
    /// Records that readers were given.
    pub(crate) delivered: Arc<AtomicU64>,
    pub(crate) paused: bool,
    /// Which of the partitions that ever came it is: one that went and came back is another one.
    pub(crate) ownership: u64,
    /// The group gave it, and may take it back.
    pub(crate) of_group: bool,
    /// To be given up as soon as the reader is done with what it holds.
    pub(crate) revoking: bool,
    /// Not read before the rebalance listener has said from where.
    pub(crate) awaits_listener: bool,
    /// The rebalance listener was told that it goes.
    pub(crate) revocation_announced: bool,
    /// Its reader came to what cannot be read.
    pub(crate) corruption: Option<Corruption>,
    /// Where it can be read again is being looked for.
    pub(crate) corruption_skip: Option<CorruptionSkip>,
    /// What brokers last said of it.
    pub(crate) offsets: PartitionOffsets,
    /// Has a reader of its own.
    pub(crate) split: Option<SplitReader>,
    /// What was fetched ahead was dropped: nothing is fetched until its reader asks again.
    pub(crate) evicted: bool,
    pub(crate) in_rotation: bool,
    /// Has its fill, and is fetched again once half of it is read.
    pub(crate) full: bool,
    pub(crate) topic_id: Uuid,
    /// The leader and its epoch.
    pub(crate) leader: Option<(i32, i32)>,
    /// The newest leader epoch under which what lies before the position is known to be in the log;
    /// −1 where none is.
    pub(crate) validated_epoch: i32,
    /// The cluster says that its topic does not exist: one that comes may be another one of the
    /// same name.
    pub(crate) topic_missing: bool,
    /// A replica nearer than the leader (KIP-392).
    pub(crate) preferred_replica: PreferredReplica,
    /// The broker that it is fetched from.
    pub(crate) broker: Option<i32>,
    /// Over which of the connections to it.
    pub(crate) connection: u8,
    /// When something of it came last.
    pub(crate) last_data_at: Option<Instant>,
    /// Asked for in one fetch; more where batches are larger, and where a long line is to be filled
    /// (`answer_size`).
    pub(crate) fetch_bytes: i32,
    pub(crate) committed: Option<i64>,
    pub(crate) commit_certainty: CommitCertainty,
    /// What the user committed last since it was positioned: what is committed by itself does not
    /// go back behind that.
    pub(crate) committed_by_user: Option<i64>,
    pub(crate) retries: Backoff,
    /// Resets whose new offset was refused again.
    pub(crate) resets: Resets,
    /// Without a leader since then.
    pub(crate) leaderless_since: Option<Instant>,
    /// Its present trouble was told to the reader.
    pub(crate) reported: bool,
}

/// Whether it is known what the group has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitCertainty {
    Certain,
    /// Another offset is on its way.
    InFlight,
    /// One before had no answer, and may have been committed.
    Unknown,
}

impl PartitionState {
    /// One that was just assigned, and is not positioned yet.
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

    /// Where it is fetched from.
    pub(crate) fn connection_id(&self) -> Option<FetchConnectionId> {
        self.broker.map(|broker| FetchConnectionId { broker, connection: self.connection })
    }

    /// What lies before the position is in the log of the leader of that epoch.
    pub(crate) fn validated_under(&mut self, leader_epoch: i32) {
        self.validated_epoch = self.validated_epoch.max(leader_epoch);
    }

    /// The state to enter for this one. Between leaders a log may lose its end (KIP-320), so
    /// nothing is fetched from a newer leader than the last that is known to have what was read,
    /// whatever came between the two: nobody who led, or bytes that were dropped to be fetched
    /// anew.
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

    /// How much of it waits for its reader at most before it is fetched no further.
    pub(crate) fn queue_bound(&self) -> usize {
        usize::try_from(self.fetch_bytes).unwrap_or(0).saturating_mul(2)
    }
}
