//! All state of a consumer under one lock, as parts with their own fields and rules: the partitions
//! that it reads, the fetch connections, the turns of the partitions, the readers.
//!
//! A rule lives with the part that it is about, and gets the neighbours that it changes as `&mut`
//! arguments. A change that begins from outside is a method here: this file has those of the user,
//! the group and the readers, and `state/network.rs` those of the brokers. [`PartitionContext`]
//! lends a rule about one partition all parts that it may change.
//!
//! Sans-IO.

mod network;

use std::{
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use crate::consumer::{
    OffsetAndMetadata,
    buffer::{
        delivery_queue::DeliveryQueue, fetched_batch::FetchedBatch, partition_end::PartitionEnd, readers::Readers,
        split::SplitId, wakeups::Wakeups,
    },
    fetch::{connections::FetchConnections, memory_budget::QuotaWaker},
    group::CommitEvent,
    observability::{
        fetch_stats::FetchStats,
        log_digest::LogDigest,
        metrics::ConsumerMetrics,
        partition_status::{self, WaitReasons},
        stalls,
        wait_reason::PartitionStatus,
    },
    subscription::{
        cluster_health::ClusterHealth,
        corruption_probe,
        delivery_progress::DeliveryProgress,
        fetch_position::FetchState,
        offset_resolution, offsets_to_commit,
        ownership::Ownership,
        partition_context::PartitionContext,
        partition_retries::PartitionRetries,
        partition_state::{Corruption, PartitionState},
        partitions::{PartitionEntry, Partitions, not_assigned},
        rules::ConsumerRules,
        wanted_topics::WantedTopics,
    },
};
use crate::{
    cluster::Metadata,
    error::{Error, ErrorKind, Result},
    record::{Offset, TopicPartition},
};

pub(crate) struct ConsumerState {
    rules: Arc<ConsumerRules>,
    /// The assigned partitions.
    pub(crate) partitions: Partitions,
    pub(crate) connections: FetchConnections,
    /// The turns of the partitions that have buffered batches.
    pub(crate) delivery: DeliveryQueue,
    pub(crate) readers: Readers,
    retries: PartitionRetries,
    /// Topics that the consumer wants to read, and the presence of each.
    pub(crate) wanted_topics: WantedTopics,
    pub(crate) health: ClusterHealth,
    pub(crate) stats: FetchStats,
    /// Events that are logged in summary, in few lines.
    journal: LogDigest,
}

impl ConsumerState {
    /// Creates a state without partitions. `quota_waker` returns, for a broker's id, the waker of
    /// its fetch tasks that is called when its quota has room again.
    pub(crate) fn new(rules: ConsumerRules, rng: StdRng, quota_waker: Box<dyn Fn(i32) -> QuotaWaker + Send>) -> Self {
        let rules = Arc::new(rules);
        Self {
            partitions: Partitions::default(),
            connections: FetchConnections::new(rules.clone(), quota_waker),
            delivery: DeliveryQueue::new(rules.max_decompressions),
            readers: Readers::default(),
            retries: PartitionRetries::new(rng),
            wanted_topics: WantedTopics::new(rules.topic_propagation, rules.origin.clone()),
            health: ClusterHealth::default(),
            stats: FetchStats::default(),
            journal: LogDigest::default(),
            rules,
        }
    }

    /// Takes the wake-ups that the last changes require.
    pub(crate) fn take_wakeups(&mut self) -> Wakeups {
        let mut wakeups = Wakeups {
            connections: self.connections.take_woken(),
            task: self.connections.take_task_wakeup() | self.partitions.take_task_wakeup(),
            decompressions: self.delivery.take_started(),
            ..Wakeups::default()
        };
        self.readers.take_wakeups(&mut wakeups);
        wakeups
    }

    /// Returns a partition with the parts that a change of its position concerns.
    pub(crate) fn partition<'a>(&'a mut self, name: &'a TopicPartition) -> Option<PartitionContext<'a>> {
        let Self { rules, partitions, connections, delivery, readers, retries, journal, .. } = self;
        let PartitionEntry { state, seek_epochs, wakes_task } = partitions.entry(name)?;
        Some(PartitionContext {
            name,
            state,
            rules,
            seek_epochs,
            wakes_task,
            connections,
            delivery,
            readers,
            retries,
            journal,
        })
    }

    /// Like [`partition`](Self::partition), with an error for a partition that is not assigned.
    fn assigned_partition<'a>(&'a mut self, name: &'a TopicPartition) -> Result<PartitionContext<'a>> {
        self.partition(name).ok_or_else(|| not_assigned(name))
    }

    // ---- assigning and removing partitions

    /// Reads a partition from now on, at this position. Records that are left from an earlier
    /// assignment of the partition are withheld.
    pub(crate) fn assign(&mut self, partition: TopicPartition, state: FetchState, metadata: &Metadata, now: Instant) {
        if !self.connections.knows_brokers() {
            self.connections.set_brokers(metadata);
        }
        self.remove(&partition);
        let seek_epoch = self.partitions.next_seek_epoch();
        self.partitions.insert(partition.clone(), PartitionState::new(&self.rules, seek_epoch, now));
        if let Some(mut assigned) = self.partition(&partition) {
            assigned.reposition(state, true);
            assigned.update_from_metadata(metadata, now);
        }
        self.readers.wake_position_waiters();
        self.partitions.wake_task();
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
        if let Some(state) = self.partitions.get_mut(partition) {
            state.of_group = true;
        }
    }

    /// Like [`assign_by_group`](Self::assign_by_group), but the partition is not read before the
    /// rebalance listener has returned its offset. Returns the seek epoch.
    pub(crate) fn assign_held(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) -> u64 {
        self.assign_by_group(partition, FetchState::Stopped, metadata, now);
        if let Some(state) = self.partitions.get_mut(partition) {
            state.awaits_listener = true;
        }
        self.partitions.last_seek_epoch()
    }

    /// The rebalance listener is done with a partition: reads it at the new position, or leaves it
    /// waiting for a seek. Does nothing if the partition was sought or removed meanwhile.
    pub(crate) fn release_held(&mut self, partition: &TopicPartition, seek_epoch: u64, state: Option<FetchState>) {
        let Some(mut held) = self.partition(partition) else { return };
        if !held.state.awaits_listener || held.state.position.seek_epoch() != seek_epoch {
            return;
        }
        held.state.awaits_listener = false;
        if let Some(state) = state {
            held.reposition(state, true);
        }
    }

    /// Stops reading all partitions, because the user's subscription or assignment has changed.
    pub(crate) fn clear(&mut self) {
        for partition in self.partitions.names() {
            self.partitions.record_replacement(&partition);
            self.remove(&partition);
        }
    }

    /// Stops reading a partition; its remaining records are withheld.
    pub(crate) fn remove(&mut self, partition: &TopicPartition) {
        self.readers.forget(partition);
        let Some(gone) = self.partitions.remove(partition) else { return };
        self.delivery.remove(partition, &gone);
        self.connections.leave(gone.connection_id(), partition);
        if let Some(progress) = gone.progress {
            progress.supersede();
        }
        self.readers.wake_position_waiters();
        self.partitions.wake_task();
    }

    /// Stops reading these. Later assignments of partitions with the same names are unaffected.
    pub(crate) fn remove_all(&mut self, ownerships: &[Ownership]) {
        for partition in self.partitions.still_owned(ownerships) {
            self.remove(&partition);
        }
    }

    /// Stops delivering records of these partitions and fetching them.
    pub(crate) fn revoke(&mut self, ownerships: &[Ownership]) {
        for partition in &self.partitions.still_owned(ownerships) {
            if let Some(mut revoked) = self.partition(partition) {
                revoked.state.revoking = true;
                revoked.mark_changed();
                revoked.readers.wake_split(partition);
                revoked.readers.wake_position_waiters();
            }
        }
    }

    /// Stops the delivery of records; delivered records can still be committed.
    pub(crate) fn close_reading(&mut self) {
        self.stop_delivery(None);
    }

    /// Queues the last error and ends the reading.
    pub(crate) fn end(&mut self, error: Option<Error>) {
        self.stop_delivery(error);
        for partition in self.partitions.names() {
            self.remove(&partition);
        }
    }

    fn stop_delivery(&mut self, error: Option<Error>) {
        for progress in self.partitions.states().filter_map(|state| state.progress.as_ref()) {
            progress.withhold();
        }
        self.readers.end(error);
    }

    // ---- the user's calls

    /// Positions an assigned partition for the user.
    pub(crate) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.reposition(partition, FetchState::at(offset))
    }

    /// Like [`seek`](Self::seek), to an offset that may still have to be found.
    pub(crate) fn reposition(&mut self, partition: &TopicPartition, state: FetchState) -> Result<()> {
        self.assigned_partition(partition)?.reposition(state, true);
        Ok(())
    }

    /// Reads those of these partitions that are assigned from their committed offsets, which are
    /// requested again. Returns them with their seek epochs.
    pub(crate) fn rewind_to_committed<'a>(
        &mut self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Vec<(TopicPartition, u64)> {
        let mut rewound = Vec::new();
        for name in partitions {
            if let Some(mut partition) = self.partition(name) {
                partition.reposition(FetchState::Initializing, true);
                rewound.push((name.clone(), partition.state.position.seek_epoch()));
            }
        }
        rewound
    }

    /// Leaves out the partitions that no longer wait for their committed offsets: these are known,
    /// or the partition was positioned again or is given up.
    ///
    /// # Errors
    /// The error of a partition for which further requests are not likely to succeed.
    pub(crate) fn retain_rewinding(&self, rewound: &mut Vec<(TopicPartition, u64)>) -> Result<()> {
        let mut failed = Ok(());
        rewound.retain(|(name, seek_epoch)| {
            let waits =
                self.partitions.get(name).map(|state| offset_resolution::awaits_committed_offset(state, *seek_epoch));
            match waits.unwrap_or(Ok(false)) {
                Ok(waits) => waits,
                Err(error) => {
                    failed = Err(error);
                    true
                }
            }
        });
        failed
    }

    /// Pauses the fetching and delivery of a partition, or resumes it.
    pub(crate) fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<()> {
        self.assigned_partition(partition)?.pause(paused);
        Ok(())
    }

    /// Skips damaged records, and returns a lower bound of the offset at which reading continues.
    pub(crate) fn skip_corruption(&mut self, partition: &TopicPartition) -> Result<i64> {
        corruption_probe::skip_corruption(&mut self.assigned_partition(partition)?)
    }

    // ---- offsets to commit

    /// Returns true if the group is known to have that offset.
    pub(crate) fn is_committed(&self, partition: &TopicPartition, offset: &OffsetAndMetadata) -> bool {
        offsets_to_commit::is_committed(&self.partitions, partition, offset)
    }

    /// Handles the progress of a commit.
    pub(crate) fn handle_commit_event(&mut self, event: CommitEvent) {
        offsets_to_commit::handle_commit_event(&mut self.partitions, event);
    }

    /// Returns the completed offsets of these partitions, or of all, that have to be committed.
    pub(crate) fn completed_offsets(
        &self,
        only: Option<&[TopicPartition]>,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        offsets_to_commit::completed_offsets(&self.partitions, only)
    }

    /// Returns the delivered offsets of these partitions, or of all.
    pub(crate) fn delivered_offsets(
        &self,
        only: Option<&[TopicPartition]>,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        offsets_to_commit::delivered_offsets(&self.partitions, only, |partition| self.readers.is_split(partition))
    }

    // ---- readers

    /// Gives a partition a reader of its own. If `holds`, the common reader holds records of the
    /// partition: these count as held by the new reader, which begins after them.
    pub(crate) fn split(&mut self, partition: &TopicPartition, holds: bool) -> Result<SplitId> {
        let mut split = self.assigned_partition(partition)?;
        if split.readers.is_split(partition) {
            let message = format!("{partition} is split off already: drop its stream first");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        if split.state.revoking {
            let message = format!("{partition} is being revoked by the group");
            return Err(Error::new(ErrorKind::NotAssigned, message));
        }
        if holds {
            split.refetch_undelivered();
        }
        split.state.evicted = false;
        split.mark_changed();
        Ok(split.readers.split(partition))
    }

    /// Returns the partition to the common reader. `lent`: records of the split reader's last poll
    /// are still held.
    pub(crate) fn unsplit(&mut self, of: &SplitId, lent: bool) {
        if !self.readers.has_split(of) {
            return;
        }
        self.readers.unsplit(of);
        if let Some(mut joined) = self.partition(&of.partition) {
            joined.state.evicted = false;
            if lent {
                joined.refetch_undelivered();
            }
            joined.mark_changed();
            joined.enqueue();
        }
        self.readers.wake_common();
        self.readers.wake_position_waiters();
    }

    /// Returns a partition that can be split off, the first in order.
    pub(crate) fn unsplit_partition(&self) -> Option<TopicPartition> {
        let free = |(partition, state): &(&TopicPartition, &PartitionState)| {
            !self.readers.is_split(partition) && !state.revoking
        };
        self.partitions.iter().filter(free).map(|(partition, _)| partition).min().cloned()
    }

    /// Returns the reason for which that split must end, or has ended; `None` while it continues.
    pub(crate) fn partition_end(&self, of: &SplitId) -> Option<PartitionEnd> {
        if !self.readers.has_split(of) {
            return Some(PartitionEnd::Gone);
        }
        // A closing consumer also waits for records that the reader holds.
        let ends = self.readers.has_ended() || !self.partitions.is_owned(&of.partition);
        ends.then_some(PartitionEnd::Revoking)
    }

    /// Returns true if a reader gets no more records: the consumer has ended, or its partition was
    /// revoked.
    pub(crate) fn has_ended_for(&self, of: Option<&SplitId>) -> bool {
        let is_gone = |of: &SplitId| !self.readers.has_split(of) || !self.partitions.is_owned(&of.partition);
        self.readers.has_ended() || of.is_some_and(is_gone)
    }

    /// Collects batches for one reader, which asks for `records` records: the common one, or that
    /// of a partition.
    pub(crate) fn collect_for(&mut self, of: Option<&SplitId>, records: usize, out: &mut Vec<FetchedBatch>) {
        let has_ended = self.has_ended_for(of);
        let Self { partitions, connections, delivery, readers, .. } = self;
        if of.is_some() && has_ended {
            return;
        }
        readers.record_request(of);
        match of {
            Some(of) => delivery.collect_split(&of.partition, records, partitions, readers, connections, out),
            None => {
                delivery.refetch_evicted(partitions, readers, connections);
                if !has_ended {
                    delivery.collect(records, partitions, readers, connections, out);
                }
            }
        }
    }

    /// Registers the waker of the common reader, which waits for errors or partitions.
    pub(crate) fn register_waker(&mut self, waker: &Waker) {
        self.readers.register_waker(None, waker);
        self.connections.wake_starved();
    }

    /// Registers the waker of a reader that waits for records or errors.
    pub(crate) fn register_waker_for(&mut self, of: Option<&SplitId>, waker: &Waker) {
        match of {
            None => self.register_waker(waker),
            Some(_) => self.readers.register_waker(of, waker),
        }
        if self.readers.has_splits() {
            // Connections without room may have to evict batches for this reader.
            self.connections.wake_full(usize::try_from(self.rules.partition_bytes).unwrap_or(0));
            // The batch that it waits for may be buffered without room to decompress it.
            self.delivery.start_decompressions(&mut self.partitions, &self.readers);
        }
    }

    /// Returns an undelivered batch to the buffer. Batches must be returned in reverse order.
    pub(crate) fn return_unread(&mut self, batch: FetchedBatch) {
        self.delivery.return_unread(batch, &mut self.partitions, &mut self.readers);
    }

    /// Returns true if that reader may now deliver the records taken under this progress, false if
    /// later or another reader; `None` if no reader may any more.
    pub(crate) fn is_deliverable_by(&self, of: Option<&SplitId>, progress: &Arc<DeliveryProgress>) -> Option<bool> {
        let partition = progress.partition();
        let state = self.partitions.get(partition).filter(|state| state.is_under(progress) && !state.revoking)?;
        let is_its_own = self.readers.split_id(partition) == of.map(|of| of.id);
        Some(!state.paused && is_its_own)
    }

    /// Stops a partition until a seek, because the reader reached bytes that it cannot read.
    pub(crate) fn stop_at_corruption(&mut self, progress: &DeliveryProgress, end: i64) {
        if let Some(mut partition) = self.of_seek_epoch(progress) {
            partition.stop();
            let at = progress.delivered();
            partition.state.corruption = Some(Corruption { at, end: Some(end).filter(|end| *end > at) });
        }
    }

    /// Handles the reader's arrival at an offset that the log does not have (any more).
    pub(crate) fn handle_out_of_range(&mut self, progress: &DeliveryProgress) {
        if let Some(mut partition) = self.of_seek_epoch(progress) {
            offset_resolution::handle_out_of_range(&mut partition);
        }
    }

    /// Returns the progress's partition, if that was not positioned again since.
    fn of_seek_epoch<'a>(&'a mut self, progress: &'a DeliveryProgress) -> Option<PartitionContext<'a>> {
        let partition = self.partition(progress.partition())?;
        (partition.state.position.seek_epoch() == progress.seek_epoch()).then_some(partition)
    }

    /// Handles the result of a decompression.
    pub(crate) fn handle_decompressed(&mut self, batch: FetchedBatch) {
        self.delivery.handle_decompressed(batch, &mut self.partitions, &mut self.readers);
        if self.delivery.running_jobs() == 0 {
            // The batch may no longer be wanted (after a seek or an eviction). A waiting reader
            // then depends on the next fetch, so wake the connections that have no room.
            self.connections.wake_starved();
        }
    }

    // ---- observation

    fn wait_reasons(&self) -> WaitReasons<'_> {
        WaitReasons {
            rules: &self.rules,
            connections: &self.connections,
            readers: &self.readers,
            stats: &self.stats,
            partitions: self.partitions.len(),
        }
    }

    /// Observes the progress of every partition, and logs those that make none for `patience`.
    pub(crate) fn observe(&mut self, patience: Duration, now: Instant) {
        let Self { rules, partitions, connections, readers, stats, wanted_topics, journal, .. } = self;
        let reasons = WaitReasons { rules, connections, readers, stats, partitions: partitions.len() };
        stalls::observe(partitions, &reasons, wanted_topics, journal, patience, now);
    }

    /// Returns the status of every partition.
    pub(crate) fn status(&self, now: Instant) -> Vec<(TopicPartition, PartitionStatus)> {
        partition_status::status(&self.partitions, &self.wait_reasons(), now)
    }

    /// Returns the number of offsets between a partition's delivered position and its end.
    pub(crate) fn lag(&self, partition: &TopicPartition) -> Option<u64> {
        self.partitions.get(partition)?.lag(self.rules.isolation.level())
    }

    /// Returns the metrics that the state counts.
    pub(crate) fn metrics(&self, now: Instant) -> ConsumerMetrics {
        partition_status::metrics(&self.partitions, &self.stats, self.connections.budget(), &self.rules, now)
    }
}
