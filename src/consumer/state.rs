//! All state of a consumer under one lock: the partitions that it reads, the fetch connections, the
//! memory budget and the statistics.
//!
//! This file adds, removes and revokes partitions and computes the offsets to commit. Other files
//! add their part: `subscription/reposition` sets positions, `subscription/offset_resolution`
//! resolves them, `subscription/corruption_skip` skips damaged batches, `fetch/broker_selection`
//! selects the broker to fetch from, `fetch/planner` plans fetch requests, `fetch/response_handler`
//! handles their responses, `buffer/fetch_collector` collects batches for the reader, and
//! `subscription/error_queue` reports errors to it.
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
    /// Partitions that the group assigned, that a call of the user replaced, and for which the
    /// rebalance listener was not told of the revocation; the group has yet to revoke them. Maps to
    /// the number of the ownership.
    replaced: BTreeMap<TopicPartition, u64>,
    /// Fetch connections; each has a task and a fetch session of its own.
    pub(crate) connections: HashMap<FetchConnectionId, FetchConnection>,
    /// Number of fetch connections to each broker.
    pub(crate) scaling: HashMap<i32, ConnectionScaling>,
    /// Fetch sessions that have ended and must be closed at their brokers.
    pub(crate) session_closes: Vec<SessionClose>,
    /// All known brokers.
    pub(crate) brokers: BTreeSet<i32>,
    pub(crate) budget: MemoryBudget,
    pub(crate) wake_for: Box<dyn Fn(i32) -> QuotaWaker + Send>,
    pub(crate) rotation: VecDeque<TopicPartition>,
    pub(crate) running_jobs: usize,
    /// True if there may be compressed batches to decompress ahead.
    pub(crate) has_compressed: bool,
    pub(crate) errors: VecDeque<Error>,
    pub(crate) ended: bool,
    pub(crate) rng: StdRng,
    pub(crate) seek_epoch: u64,
    pub(crate) reader: Option<Waker>,
    /// Number of times that a partition was split off.
    pub(crate) splits: u64,
    /// Approximate time of the last request for records by the common reader, which reads all
    /// partitions that are not split off.
    pub(crate) last_asked_at: Option<Instant>,
    /// True if unread batches of a partition were evicted.
    pub(crate) evicted: bool,
    /// Approximate current time: the time at which a fetch was last planned.
    pub(crate) clock: Option<Instant>,
    /// Times at which failing partitions are retried.
    pub(crate) retry_grid: RetryGrid,
    /// Time of the last error about position resets that keep failing; one error covers all
    /// partitions.
    pub(crate) failing_resets_reported_at: Option<Instant>,
    pub(crate) signals: Wakeups,
    /// Fetch statistics.
    pub(crate) stats: FetchStats,
    /// Topics that the consumer wants to read, and the presence of each.
    pub(crate) wanted_topics: WantedTopics,
    /// Events that are logged in summary, in few lines.
    pub(crate) journal: LogDigest,
    /// True if the reader was told that no broker can be reached.
    pub(crate) unreachable_reported: bool,
    /// True if the reader was told that the bootstrap servers are not resolved in time.
    pub(crate) unresolved_reported: bool,
    /// Time since which the group is awaited without any metadata.
    pub(crate) without_metadata_since: Option<Instant>,
    pub(crate) has_metadata: bool,
}

impl ConsumerState {
    /// Creates a state without partitions. `wake_for` returns, for a broker's id, the waker of its
    /// fetch tasks that is called when its quota has room again.
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

    /// Takes the wake-ups that the last changes require.
    pub(crate) fn take_signals(&mut self) -> Wakeups {
        std::mem::take(&mut self.signals)
    }

    // ---- assigning and removing partitions

    /// Reads a partition from now on, at this position. Records that are left from an earlier
    /// assignment of the partition are withheld.
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

    /// Like [`assign`](Self::assign), for a partition that the group assigns.
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

    /// Stops reading all partitions, because the user's subscription or assignment has changed. The
    /// group will revoke the partitions that it assigned, and the rebalance listener has yet to be
    /// told, so these are kept in `replaced`.
    pub(crate) fn clear(&mut self) {
        for partition in self.assigned() {
            let untold = self.partitions.get(&partition).filter(|state| state.of_group && !state.revocation_announced);
            if let Some(number) = untold.map(|state| state.ownership) {
                self.replaced.insert(partition.clone(), number);
            }
            self.remove(&partition);
        }
    }

    /// Stops reading a partition; its remaining records are withheld.
    pub(crate) fn remove(&mut self, partition: &TopicPartition) {
        self.wake_split(partition);
        let Some(gone) = self.partitions.remove(partition) else { return };
        let connection = gone.connection_id();
        if let Some(progress) = gone.progress {
            progress.supersede();
        }
        // The entry is removed here, because only the common reader drops stale entries of the
        // rotation, and it never runs if all partitions are split off.
        if gone.in_rotation
            && let Some(at) = self.rotation.iter().position(|other| other == partition)
        {
            self.rotation.remove(at);
        }
        self.leave_connection(connection, partition);
        self.signals.position_waiters = true;
        self.signals.task = true;
    }

    /// Like [`assign_by_group`](Self::assign_by_group), but the partition is not read before the
    /// rebalance listener has returned its offset. Returns the seek epoch.
    pub(crate) fn assign_held(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) -> u64 {
        self.assign_by_group(partition, FetchState::Stopped, metadata, now);
        if let Some(state) = self.partitions.get_mut(partition) {
            state.awaits_listener = true;
        }
        self.seek_epoch
    }

    /// The rebalance listener is done with a partition: reads it at the new position, or leaves it
    /// waiting for a seek. Does nothing if the partition was sought or removed meanwhile.
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

    /// Returns those of these partitions (without a list, of all that the group assigned) that the
    /// rebalance listener does not yet know to be revoked, and marks them as announced.
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

    /// Returns true if the rebalance listener was told of the revocation of any of these. Without a
    /// list it returns true, because for all partitions together this is not known.
    pub(crate) fn any_revocation_announced(&self, only: Option<&[Ownership]>) -> bool {
        let told =
            |one: &Ownership| self.partitions.get(&one.partition).is_some_and(|state| state.revocation_announced);
        only.is_none_or(|only| only.iter().any(told))
    }

    /// Returns the ownerships that the group revokes now, given the partitions' names: the latest
    /// that it assigned, even if they are no longer read.
    pub(crate) fn ownerships(&self, partitions: &[TopicPartition]) -> Vec<Ownership> {
        let number = |partition: &TopicPartition| {
            let read = self.partitions.get(partition).filter(|state| state.of_group).map(|state| state.ownership);
            read.or_else(|| self.replaced.get(partition).copied())
        };
        let known = partitions.iter().filter_map(|partition| Some((partition, number(partition)?)));
        known.map(|(partition, number)| Ownership { partition: partition.clone(), number }).collect()
    }

    /// Returns the partitions of those ownerships that are still read.
    pub(crate) fn still_owned(&self, ownerships: &[Ownership]) -> Vec<TopicPartition> {
        let read =
            |one: &&Ownership| self.partitions.get(&one.partition).is_some_and(|state| state.ownership == one.number);
        ownerships.iter().filter(read).map(|one| one.partition.clone()).collect()
    }

    /// Returns true if the partition is assigned and not being revoked.
    pub(crate) fn is_owned(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_some_and(|state| !state.revoking)
    }

    /// Stops reading these. Later assignments of partitions with the same names are unaffected.
    pub(crate) fn remove_all(&mut self, ownerships: &[Ownership]) {
        for partition in self.still_owned(ownerships) {
            self.remove(&partition);
        }
    }

    /// Stops delivering records of these partitions and fetching them.
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

    /// Returns the partition's state, or an error that says that it is not assigned.
    pub(crate) fn get(&self, partition: &TopicPartition) -> Result<&PartitionState> {
        self.partitions
            .get(partition)
            .ok_or_else(|| Error::new(ErrorKind::NotAssigned, format!("{partition} is not assigned to this consumer")))
    }

    // ---- commits

    /// Returns the completed offsets of these partitions (of all, without a list) that differ from
    /// the known committed offsets. Omits a partition if the user has committed as much, or if
    /// `on_revoked` was called for it, because the user has the last word on its offset there.
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

    /// Returns the delivered offsets of these partitions (of all, without a list), whatever is
    /// committed.
    pub(crate) fn delivered_offsets(
        &self,
        only: Option<&[TopicPartition]>,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        self.offsets(only, true)
    }

    /// Returns delivered or completed offsets. Without a list, records that the readers of
    /// split-off partitions hold do not count as delivered: only these readers know when they are
    /// done. Topics that do not exist (any more) are omitted: their offsets would be taken for
    /// offsets of the next topic with that name, and records of that topic would be skipped.
    fn offsets(&self, only: Option<&[TopicPartition]>, handed_out: bool) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let wanted = |partition: &TopicPartition| only.is_none_or(|only| only.contains(partition));
        let mut offsets = Vec::new();
        for (partition, state) in self.partitions.iter().filter(|(partition, _)| wanted(partition)) {
            // A commit of the user is bound to the topic's id, if it has one, and may wait for the
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

    /// Handles the progress of a commit.
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

    /// Records that the group has these offsets now, for topics with these ids.
    fn committed(&mut self, committed: Vec<CommittedOffset>) {
        for CommittedOffset { partition, offset, topic_id, origin: asker } in committed {
            if let Some(state) = self.partitions.get_mut(&partition).filter(|state| state.topic_id == topic_id) {
                state.committed = Some(offset);
                state.commit_certainty = CommitCertainty::Certain;
                // A commit that was requested before the last reposition says nothing about the
                // records that were read since.
                if asker.by_user && asker.seek_epoch >= state.position.seek_epoch() {
                    state.committed_by_user = Some(offset);
                }
            }
        }
    }
}
