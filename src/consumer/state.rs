//! The partitions that this consumer reads, and all that is known about them.
//!
//! This file holds how partitions come and go; `positioning.rs` where they are read from,
//! `resolve.rs` how that is found out, `search.rs` how it is behind damage, `routes.rs` which
//! broker a partition is read from, `fetcher.rs` what is asked of it, `arrivals.rs` what becomes of
//! the answer, `handout.rs` what the reader takes, `trouble.rs` what it is told.
//!
//! Sans-IO.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    task::Waker,
    time::Instant,
};

use rand::rngs::StdRng;

use crate::consumer::buffer::wakeups::Wakeups;
use crate::consumer::subscription::ownership::Ownership;
use crate::consumer::subscription::rules::ConsumerRules;
use crate::consumer::{
    OffsetAndMetadata,
    fetch::{
        connection::FetchConnection,
        connection_id::FetchConnectionId,
        connection_scaling::ConnectionScaling,
        memory_budget::{MemoryBudget, QuotaWaker},
        plan::SessionClose,
    },
    group::{CommitEvent, CommittedOffset},
    observability::{fetch_stats::FetchStats, log_digest::LogDigest},
    subscription::{
        fetch_position::FetchState,
        partition_state::{CommitCertainty, PartitionState},
        wanted_topics::WantedTopics,
    },
};
use crate::{
    cluster::{Metadata, RetryGrid},
    error::{Error, ErrorKind, Result},
    record::TopicPartition,
};

pub(crate) struct ConsumerState {
    pub(crate) rules: ConsumerRules,
    pub(crate) partitions: HashMap<TopicPartition, PartitionState>,
    /// What the group gave, the user has put something else in the place of, and the rebalance
    /// listener was not told of: the group has still to take it back.
    replaced: BTreeMap<TopicPartition, u64>,
    /// Each with a task and a session of its own.
    pub(crate) connections: HashMap<FetchConnectionId, FetchConnection>,
    /// Over how many connections each broker is read.
    pub(crate) scaling: HashMap<i32, ConnectionScaling>,
    /// Of sessions that are over.
    pub(crate) session_closes: Vec<SessionClose>,
    /// All that are known.
    pub(crate) brokers: BTreeSet<i32>,
    pub(crate) budget: MemoryBudget,
    pub(crate) wake_for: Box<dyn Fn(i32) -> QuotaWaker + Send>,
    pub(crate) rotation: VecDeque<TopicPartition>,
    pub(crate) running_jobs: usize,
    /// Whether there may be something to open ahead.
    pub(crate) has_compressed: bool,
    pub(crate) errors: VecDeque<Error>,
    pub(crate) ended: bool,
    pub(crate) rng: StdRng,
    pub(crate) seek_epoch: u64,
    pub(crate) reader: Option<Waker>,
    /// How many partitions were ever split off.
    pub(crate) splits: u64,
    /// About when the reader of all that is not split off last asked.
    pub(crate) last_asked_at: Option<Instant>,
    /// Some partition's unread batches were dropped.
    pub(crate) evicted: bool,
    /// About now: when a fetch was last planned.
    pub(crate) clock: Option<Instant>,
    /// When partitions that fail are tried again.
    pub(crate) retry_grid: RetryGrid,
    /// When the reader was last told that positions are reset in vain: once for all that is read
    /// together.
    pub(crate) failing_resets_reported_at: Option<Instant>,
    pub(crate) signals: Wakeups,
    /// What is counted and watched.
    pub(crate) stats: FetchStats,
    /// The topics that are asked for, and whether they are there.
    pub(crate) wanted_topics: WantedTopics,
    /// What is to be written in few lines.
    pub(crate) journal: LogDigest,
    /// The trouble of the whole cluster was told to the reader.
    pub(crate) unreachable_reported: bool,
    /// Whether the reader was told that the bootstrap servers are not resolved in time.
    pub(crate) unresolved_reported: bool,
    /// Since when the group is waited for without anything known of the cluster.
    pub(crate) without_metadata_since: Option<Instant>,
    pub(crate) has_metadata: bool,
}

impl ConsumerState {
    /// Nothing assigned yet. `wake_for` makes what wakes the task of a broker when its account has
    /// room again.
    pub(crate) fn new(rules: ConsumerRules, rng: StdRng, wake_for: Box<dyn Fn(i32) -> QuotaWaker + Send>) -> Self {
        Self {
            budget: MemoryBudget::new(rules.queued_bytes),
            wanted_topics: WantedTopics::new(rules.topic_propagation, rules.origin.clone()),
            journal: LogDigest::default(),
            rules,
            partitions: HashMap::new(),
            replaced: BTreeMap::new(),
            connections: HashMap::new(),
            scaling: HashMap::new(),
            session_closes: Vec::new(),
            brokers: BTreeSet::new(),
            wake_for,
            rotation: VecDeque::new(),
            running_jobs: 0,
            has_compressed: false,
            errors: VecDeque::new(),
            ended: false,
            rng,
            seek_epoch: 0,
            reader: None,
            splits: 0,
            last_asked_at: None,
            evicted: false,
            clock: None,
            retry_grid: RetryGrid::default(),
            failing_resets_reported_at: None,
            signals: Wakeups::default(),
            stats: FetchStats::default(),
            unreachable_reported: false,
            unresolved_reported: false,
            without_metadata_since: None,
            has_metadata: false,
        }
    }

    /// What came of the last changes.
    pub(crate) fn take_signals(&mut self) -> Wakeups {
        std::mem::take(&mut self.signals)
    }

    // ---- partitions come and go

    /// Reads a partition from now on, from that place; whatever it was read from before is
    /// withheld.
    pub(crate) fn assign(&mut self, partition: TopicPartition, state: FetchState, metadata: &Metadata, now: Instant) {
        if self.brokers.is_empty() {
            self.brokers = metadata.brokers.keys().copied().collect();
        }
        self.remove(&partition);
        self.seek_epoch += 1;
        let found = PartitionState::new(&self.rules, self.seek_epoch, now);
        self.partitions.insert(partition.clone(), found);
        self.reposition(&partition, state, true);
        self.update_from_metadata(&partition, metadata, now);
        self.signals.position_waiters = true;
        self.signals.task = true;
    }

    /// The same of one that the group gives.
    pub(crate) fn assign_by_group(
        &mut self,
        partition: &TopicPartition,
        state: FetchState,
        metadata: &Metadata,
        now: Instant,
    ) {
        self.assign(partition.clone(), state, metadata, now);
        if let Some(found) = self.partitions.get_mut(partition) {
            found.of_group = true;
        }
    }

    /// Reads nothing any more, since the user wants something else. What the group gave it will
    /// take back: of that the rebalance listener has still to be told.
    pub(crate) fn clear(&mut self) {
        for partition in self.assigned() {
            let untold = self.partitions.get(&partition).filter(|state| state.of_group && !state.revocation_announced);
            if let Some(number) = untold.map(|state| state.ownership) {
                self.replaced.insert(partition.clone(), number);
            }
            self.remove(&partition);
        }
    }

    /// Reads a partition no longer; what is left of it is withheld.
    pub(crate) fn remove(&mut self, partition: &TopicPartition) {
        self.wake_split(partition);
        let Some(gone) = self.partitions.remove(partition) else { return };
        let connection = gone.connection_id();
        if let Some(progress) = gone.progress {
            progress.supersede();
        }
        // Only the common reader takes turns, and with all partitions split off it never comes.
        if gone.in_rotation
            && let Some(at) = self.rotation.iter().position(|other| other == partition)
        {
            self.rotation.remove(at);
        }
        self.leave_connection(connection, partition);
        self.signals.position_waiters = true;
        self.signals.task = true;
    }

    /// As [`assign_by_group`](Self::assign_by_group), but nothing is read of it before the
    /// rebalance listener has said from where. The number of the positioning.
    pub(crate) fn assign_held(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) -> u64 {
        self.assign_by_group(partition, FetchState::Stopped, metadata, now);
        if let Some(state) = self.partitions.get_mut(partition) {
            state.awaits_listener = true;
        }
        self.seek_epoch
    }

    /// The rebalance listener is done with a partition: it is read from there, or waits for a seek.
    /// Unless it was sought or went away meanwhile.
    pub(crate) fn release_held(&mut self, partition: &TopicPartition, generation: u64, state: Option<FetchState>) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        if !found.awaits_listener || found.position.seek_epoch() != generation {
            return;
        }
        found.awaits_listener = false;
        if let Some(state) = state {
            self.reposition(partition, state, true);
        }
    }

    /// Of these partitions (of all that the group gave, without a list) those of whose going the
    /// rebalance listener was not told; from now on it was.
    pub(crate) fn announce_revocation(&mut self, only: Option<&[Ownership]>) -> Vec<TopicPartition> {
        let wanted = |partition: &TopicPartition, number: u64| {
            only.is_none_or(|only| only.iter().any(|one| one.number == number && one.partition == *partition))
        };
        let had = self.partitions.iter_mut().filter(|(_, state)| state.of_group && !state.revocation_announced);
        let going = had.filter(|(partition, state)| wanted(partition, state.ownership));
        let going = going.map(|(partition, state)| {
            state.revocation_announced = true;
            partition.clone()
        });
        let mut going: Vec<TopicPartition> = going.collect();
        self.replaced.retain(|partition, number| {
            let goes = wanted(partition, *number);
            if goes {
                going.push(partition.clone());
            }
            !goes
        });
        going.sort_unstable();
        going
    }

    /// Whether the rebalance listener was told that any of these goes; of all together it is not
    /// known, so they count as told.
    pub(crate) fn any_revocation_announced(&self, only: Option<&[Ownership]>) -> bool {
        let told =
            |one: &Ownership| self.partitions.get(&one.partition).is_some_and(|state| state.revocation_announced);
        only.is_none_or(|only| only.iter().any(told))
    }

    /// What the group takes back now, by these names: what it gave last, whether or not it is read
    /// any more.
    pub(crate) fn ownerships(&self, partitions: &[TopicPartition]) -> Vec<Ownership> {
        let number = |partition: &TopicPartition| {
            let read = self.partitions.get(partition).filter(|state| state.of_group).map(|state| state.ownership);
            read.or_else(|| self.replaced.get(partition).copied())
        };
        let known = partitions.iter().filter_map(|partition| Some((partition, number(partition)?)));
        known.map(|(partition, number)| Ownership { partition: partition.clone(), number }).collect()
    }

    /// Those of them that are read still.
    pub(crate) fn still_owned(&self, ownerships: &[Ownership]) -> Vec<TopicPartition> {
        let read =
            |one: &&Ownership| self.partitions.get(&one.partition).is_some_and(|state| state.ownership == one.number);
        ownerships.iter().filter(read).map(|one| one.partition.clone()).collect()
    }

    /// Whether the partition is ours, and not to be given up.
    pub(crate) fn is_owned(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_some_and(|state| !state.revoking)
    }

    /// Reads these no longer. What came by the same names since is another matter.
    pub(crate) fn remove_all(&mut self, ownerships: &[Ownership]) {
        for partition in self.still_owned(ownerships) {
            self.remove(&partition);
        }
    }

    /// Hands out no more of these partitions, and fetches nothing more of them.
    pub(crate) fn revoke(&mut self, ownerships: &[Ownership]) {
        for partition in &self.still_owned(ownerships) {
            if let Some(state) = self.partitions.get_mut(partition) {
                state.revoking = true;
                self.signals.position_waiters = true;
                self.mark_changed(partition);
                self.wake_split(partition);
            }
        }
    }

    pub(crate) fn assigned(&self) -> Vec<TopicPartition> {
        let mut assigned: Vec<_> = self.partitions.keys().cloned().collect();
        assigned.sort_unstable();
        assigned
    }

    /// The partition, or an error that says that it is not assigned.
    pub(crate) fn get(&self, partition: &TopicPartition) -> Result<&PartitionState> {
        self.partitions
            .get(partition)
            .ok_or_else(|| Error::new(ErrorKind::NotAssigned, format!("{partition} is not assigned to this consumer")))
    }

    // ---- commits

    /// What is done of these partitions (of all, without a list), where that differs from what is
    /// known to be committed. Not where the user has committed as much, or had the last word on the
    /// partition: in `on_revoked`.
    pub(crate) fn completed_offsets(
        &self,
        only: Option<&[TopicPartition]>,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let mut offsets = self.offsets(only, false);
        offsets.retain(|(partition, done)| {
            let state = self.partitions.get(partition);
            let is_the_users = state.is_some_and(|state| {
                state.revocation_announced || state.committed_by_user.is_some_and(|by| by >= done.offset)
            });
            !is_the_users && !self.is_committed(partition, done)
        });
        offsets
    }

    /// What was handed out of them, whatever is committed.
    pub(crate) fn delivered_offsets(
        &self,
        only: Option<&[TopicPartition]>,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        self.offsets(only, true)
    }

    /// Of all, what the readers of partitions that are split off have in hand is not among it: only
    /// they know whether they are done. Of topics that do not exist (any more) nothing is: it would
    /// be taken for what was read of the next topic of that name, whose records would be passed
    /// over.
    fn offsets(&self, only: Option<&[TopicPartition]>, handed_out: bool) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let wanted = |partition: &TopicPartition| only.is_none_or(|only| only.contains(partition));
        let mut offsets = Vec::new();
        for (partition, state) in self.partitions.iter().filter(|(partition, _)| wanted(partition)) {
            // What the user commits is bound to the topic's id, if it has one, and may wait for the
            // topic.
            let passed_over = state.topic_missing && (!handed_out || state.topic_id.is_nil());
            let Some(progress) = state.progress.as_ref().filter(|_| !passed_over) else { continue };
            let offset = if handed_out && (only.is_some() || state.split.is_none()) {
                progress.delivered()
            } else {
                progress.completed()
            };
            offsets.push((partition.clone(), progress.to_commit(offset)));
        }
        offsets.sort_by(|(one, _), (other, _)| one.cmp(other));
        offsets
    }

    pub(crate) fn is_committed(&self, partition: &TopicPartition, offset: &OffsetAndMetadata) -> bool {
        let state = self.partitions.get(partition);
        state.is_some_and(|state| {
            state.committed == Some(offset.offset) && state.commit_certainty == CommitCertainty::Certain
        })
    }

    /// What is heard of a commit.
    pub(crate) fn handle_commit_event(&mut self, news: CommitEvent) {
        match news {
            CommitEvent::Sent(partitions) => {
                for partition in partitions {
                    if let Some(state) = self.partitions.get_mut(&partition) {
                        state.commit_certainty = if state.commit_certainty == CommitCertainty::Certain {
                            CommitCertainty::InFlight
                        } else {
                            CommitCertainty::Unknown
                        };
                    }
                }
            }
            CommitEvent::Refused(partitions) => {
                for partition in partitions {
                    let state = self
                        .partitions
                        .get_mut(&partition)
                        .filter(|state| state.commit_certainty == CommitCertainty::InFlight);
                    state.into_iter().for_each(|state| state.commit_certainty = CommitCertainty::Certain);
                }
            }
            CommitEvent::Committed(committed) => self.committed(committed),
        }
    }

    /// The group has these offsets now, of topics with these ids.
    fn committed(&mut self, committed: Vec<CommittedOffset>) {
        for CommittedOffset { partition, offset, topic_id, origin: asker } in committed {
            if let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.topic_id == topic_id) {
                state.committed = Some(offset);
                state.commit_certainty = CommitCertainty::Certain;
                // What was asked for before it was positioned says nothing of what is read since.
                if asker.by_user && asker.seek_epoch >= state.position.seek_epoch() {
                    state.committed_by_user = Some(offset);
                }
            }
        }
    }
}
