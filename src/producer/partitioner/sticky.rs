//! The current partition for records that may go to any, and the choice of the next one.
//!
//! Sans-IO.

use std::sync::{
    Arc, Mutex, TryLockError,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use super::{
    load::{BrokerUnavailable, PartitionLoad},
    weights::{QueueLength, Weights},
};

/// A partition that may get a turn.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(crate) partition: u32,
    /// True if its leader is in the producer's own rack.
    pub(crate) local: bool,
    pub(crate) load: Arc<PartitionLoad>,
    /// Availability of its leader.
    pub(crate) clogged: BrokerUnavailable,
}

/// The preferences among the candidates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Preference {
    /// Partitions with fewer waiting batches come more often
    /// (`partitioner.adaptive.partitioning.enable`).
    pub(crate) adaptive: bool,
    /// Partitions with batches that wait for an unavailable broker are left out
    /// (`partitioner.availability.timeout.ms`).
    pub(crate) available: bool,
    /// Partitions that are not local are left out if any is local (`partitioner.rack.aware`).
    pub(crate) local: bool,
}

/// The current partition for a topic's records that may go to any, until it has had its share
/// (KIP-480, KIP-794).
///
/// Every partition gets the same number of bytes in the long run, however large its batches are,
/// because a turn ends by bytes: see [`turn_is_over`]. For each record only the number of the
/// current partition is read. At the end of a turn the next partition is drawn from a table. The
/// table is built again after a number of turns that is a sixteenth of the number of candidates: so
/// a turn looks at sixteen queues on average, even with thousands of partitions, and at all queues
/// if there are few.
#[derive(Debug)]
pub(crate) struct Sticky {
    current: AtomicU32,
    random: AtomicU64,
    preference: Preference,
    /// Candidates; all of the topic's partitions if none has a leader.
    candidates: Vec<Candidate>,
    /// Partitions that are preferred regardless of their load.
    near: Vec<u32>,
    table: Mutex<Drawing>,
}

/// Queues that a turn looks at on average.
const LOOKS: usize = 16;

#[derive(Debug, Default)]
struct Drawing {
    weights: Weights,
    /// Number of turns that are still drawn from the weights.
    turns: usize,
    /// Memory for the next queue lengths.
    queues: Vec<QueueLength>,
}

impl Sticky {
    /// Creates the state. `candidates` are the partitions with a leader, or all if none has one, in
    /// ascending order.
    pub(super) fn new(seed: u64, candidates: Vec<Candidate>, preference: Preference) -> Self {
        let any_local = preference.local && candidates.iter().any(|candidate| candidate.local);
        let near = candidates.iter().filter(|candidate| candidate.local || !any_local);
        let sticky = Self {
            near: near.map(|candidate| candidate.partition).collect(),
            current: AtomicU32::new(u32::MAX),
            random: AtomicU64::new(seed),
            preference,
            candidates,
            table: Mutex::default(),
        };
        sticky.leave(u32::MAX);
        sticky
    }

    #[inline]
    pub(crate) fn current(&self) -> u32 {
        self.current.load(Ordering::Relaxed)
    }

    /// Ends the turn of `partition`, unless another thread has ended it already. Never blocks.
    pub(crate) fn leave(&self, partition: u32) {
        if self.current() != partition {
            return;
        }
        let mut drawing = match self.table.try_lock() {
            Ok(drawing) => drawing,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // Another thread is ending this turn.
            Err(TryLockError::WouldBlock) => return,
        };
        let next = drawing.next(self, partition);
        // A failure means that another thread was faster, and its choice is as good.
        let _ = self.current.compare_exchange(partition, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Returns true if there is more than one candidate.
    #[inline]
    pub(crate) fn has_choice(&self) -> bool {
        self.candidates.len() > 1
    }

    /// Returns the candidates.
    pub(super) fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Returns a candidate for one record alone: a local one if these are preferred.
    pub(super) fn random(&self) -> u32 {
        let at = self.draw().checked_rem(self.near.len() as u64).unwrap_or(0);
        self.near.get(at as usize).copied().unwrap_or(0)
    }

    fn draw(&self) -> u64 {
        mix(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }
}

impl Drawing {
    fn next(&mut self, sticky: &Sticky, over: u32) -> u32 {
        match self.turns.checked_sub(1) {
            Some(left) => self.turns = left,
            None => self.look(sticky),
        }
        self.weights.draw(sticky.draw(), over).unwrap_or(0)
    }

    /// Looks at all queues, and builds the table again.
    fn look(&mut self, Sticky { candidates, preference, .. }: &Sticky) {
        let changes = preference.adaptive || preference.available;
        self.turns = if changes { candidates.len() / LOOKS } else { usize::MAX };
        let Preference { adaptive, available, local } = *preference;
        let take = |queues: &mut Vec<QueueLength>, wanted: &dyn Fn(&Candidate, u32) -> bool| {
            queues.clear();
            for candidate in candidates {
                let waiting = if changes { candidate.load.batches() } else { 0 };
                if wanted(candidate, waiting) {
                    queues.push((candidate.partition, if adaptive { waiting } else { 0 }));
                }
            }
            !queues.is_empty()
        };
        // A partition without waiting batches is tried even at an unavailable broker, because
        // otherwise the producer would not find out that the broker takes data again.
        let is_open = |candidate: &Candidate, waiting| !available || waiting == 0 || !candidate.clogged.get();
        let queues = &mut self.queues;
        let found = (local && take(queues, &|candidate, waiting| candidate.local && is_open(candidate, waiting)))
            || take(queues, &|candidate, waiting| is_open(candidate, waiting))
            || (local && take(queues, &|candidate, _| candidate.local))
            || take(queues, &|_, _| true);
        debug_assert!(found || candidates.is_empty());
        self.weights.fill(queues);
    }
}

/// Returns true if a partition's turn ends before the next record: it has had its share of bytes
/// and its batch is closed or full (or may stay open), or it has had twice its share regardless of
/// its batch.
#[inline]
pub(crate) fn turn_is_over(bytes: usize, share: usize, batch_may_be_left: bool) -> bool {
    (batch_may_be_left && bytes >= share) || bytes >= share.saturating_mul(2)
}

/// SplitMix64's output function: spreads a counter over all bits.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
