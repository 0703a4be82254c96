//! The partitions that this consumer reads, and all that is known about them. Decides; does no IO.
//!
//! This file holds what the user and the group do with partitions; `resolve.rs` how positions are found out, `routes.rs`
//! which broker a partition is read from, `fetcher.rs` what is asked of it, `arrivals.rs` what becomes of the answer,
//! `handout.rs` what the reader takes.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    task::Waker,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;
use uuid::Uuid;

use super::{
    OffsetAndMetadata,
    budget::{Budget, Wake},
    lease::Lease,
    nearby::Nearby,
    position::{Position, Start, State},
    queue::{Job, Queue},
    routes::Node,
    settings::{IsolationLevel, OffsetReset},
    split::Split,
    watch::{Seen, Watch},
};
use crate::{
    cluster::{Backoff, Metadata},
    error::{Error, ErrorKind, Result},
    record::{Offset, TopicPartition},
};

/// What decides has to know of the settings.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) reset: OffsetReset,
    pub(super) isolation: IsolationLevel,
    /// Whether the reader is told of the end of a partition.
    pub(super) partition_eof: bool,
    pub(super) min_bytes: i32,
    pub(super) max_bytes: i32,
    pub(super) max_wait: Duration,
    pub(super) partition_bytes: i32,
    pub(super) queued_bytes: usize,
    pub(super) rack: Option<String>,
    pub(super) backoff: Backoff,
    /// How long a preferred replica is believed in (`metadata.max.age.ms`).
    pub(super) replica_age: Duration,
    /// After how long without a leader the reader is told.
    pub(super) patience: Duration,
    /// Batches that are opened ahead at a time.
    pub(super) jobs: usize,
}

/// Whom to wake after a change.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Brokers from which something else is to be fetched.
    pub(super) nodes: BTreeSet<i32>,
    /// The consumer's own task: questions to ask, brokers to begin with.
    pub(super) driver: bool,
    /// Those who wait for a position.
    pub(super) moved: bool,
    pub(super) reader: Option<Waker>,
    /// Readers of partitions that are split off.
    pub(super) readers: Vec<Waker>,
    pub(super) jobs: Vec<Job>,
}

/// A partition and all that is known about it.
#[derive(Debug)]
pub(super) struct Partition {
    pub(super) position: Position,
    /// There once the position is known.
    pub(super) lease: Option<Arc<Lease>>,
    /// What was unfinished when the partition had to be positioned anew: not to be committed past.
    pub(super) unfinished: Option<i64>,
    pub(super) queue: Queue,
    pub(super) paused: bool,
    /// To be given up as soon as the reader is done with what it holds.
    pub(super) revoking: bool,
    /// Not read before the rebalance listener has said from where.
    pub(super) held: bool,
    /// The rebalance listener was told that it goes.
    pub(super) told: bool,
    /// Its reader came to what cannot be read, which ends there as far as is known.
    pub(super) damage: Option<i64>,
    /// What brokers last said of it.
    pub(super) seen: Seen,
    /// Has a reader of its own.
    pub(super) split: Option<Split>,
    /// What was fetched ahead was dropped: nothing is fetched until its reader asks again.
    pub(super) evicted: bool,
    pub(super) in_rotation: bool,
    /// Has its fill, and is fetched again once half of it is read.
    pub(super) full: bool,
    pub(super) topic_id: Uuid,
    /// The leader and its epoch.
    pub(super) leader: Option<(i32, i32)>,
    /// A replica nearer than the leader (KIP-392).
    pub(super) nearby: Nearby,
    /// The broker that it is fetched from.
    pub(super) node: Option<i32>,
    /// Asked for in one fetch; grows for a batch that does not fit.
    pub(super) fetch_bytes: i32,
    pub(super) committed: Option<i64>,
    pub(super) retries: Backoff,
    /// Without a leader since then.
    pub(super) leaderless_since: Option<Instant>,
    /// Its present trouble was told to the reader.
    pub(super) reported: bool,
}

pub(super) struct Assignment {
    pub(super) rules: Rules,
    pub(super) partitions: HashMap<TopicPartition, Partition>,
    pub(super) nodes: HashMap<i32, Node>,
    /// All that are known.
    pub(super) brokers: BTreeSet<i32>,
    pub(super) budget: Budget,
    pub(super) wake_for: Box<dyn Fn(i32) -> Wake + Send>,
    pub(super) rotation: VecDeque<TopicPartition>,
    pub(super) running_jobs: usize,
    /// Whether there may be something to open ahead.
    pub(super) has_heavy: bool,
    errors: VecDeque<Error>,
    ended: bool,
    pub(super) rng: StdRng,
    generation: u64,
    reader: Option<Waker>,
    /// How many partitions were ever split off.
    pub(super) splits: u64,
    /// About when the reader of all that is not split off last asked.
    pub(super) asked: Option<Instant>,
    /// Some partition's unread batches were dropped.
    pub(super) evicted: bool,
    /// About now: when a fetch was last planned.
    pub(super) clock: Option<Instant>,
    pub(super) signals: Signals,
    /// What is counted and watched.
    pub(super) watch: Watch,
    /// The trouble of the whole cluster was told to the reader.
    pub(super) unreachable_reported: bool,
    /// Since when the group is waited for without anything known of the cluster.
    blind_since: Option<Instant>,
    pub(super) has_metadata: bool,
}

impl Assignment {
    /// Nothing assigned yet. `wake_for` makes what wakes the task of a broker when its account has room again.
    pub(super) fn new(rules: Rules, rng: StdRng, wake_for: Box<dyn Fn(i32) -> Wake + Send>) -> Self {
        Self {
            budget: Budget::new(rules.queued_bytes),
            rules,
            partitions: HashMap::new(),
            nodes: HashMap::new(),
            brokers: BTreeSet::new(),
            wake_for,
            rotation: VecDeque::new(),
            running_jobs: 0,
            has_heavy: false,
            errors: VecDeque::new(),
            ended: false,
            rng,
            generation: 0,
            reader: None,
            splits: 0,
            asked: None,
            evicted: false,
            clock: None,
            signals: Signals::default(),
            watch: Watch::default(),
            unreachable_reported: false,
            blind_since: None,
            has_metadata: false,
        }
    }

    /// What came of the last changes.
    pub(super) fn take_signals(&mut self) -> Signals {
        std::mem::take(&mut self.signals)
    }

    // ---- partitions come and go

    /// Reads a partition from now on, from that place; whatever it was read from before is withheld.
    pub(super) fn assign(&mut self, partition: TopicPartition, state: State, metadata: &Metadata, now: Instant) {
        if self.brokers.is_empty() {
            self.brokers = metadata.brokers.keys().copied().collect();
        }
        self.remove(&partition);
        self.generation += 1;
        let retries = self.rules.backoff.clone();
        let nearby = Nearby::new(self.rules.backoff.first());
        self.partitions.insert(
            partition.clone(),
            Partition {
                position: Position::new(State::Stopped, self.generation),
                lease: None,
                unfinished: None,
                queue: Queue::default(),
                paused: false,
                revoking: false,
                held: false,
                told: false,
                damage: None,
                seen: Seen::default(),
                split: None,
                evicted: false,
                in_rotation: false,
                full: false,
                topic_id: Uuid::nil(),
                leader: None,
                nearby,
                node: None,
                fetch_bytes: self.rules.partition_bytes,
                committed: None,
                retries,
                leaderless_since: Some(now),
                reported: false,
            },
        );
        self.begin(&partition, state, true);
        self.update(&partition, metadata, now);
        self.signals.driver = true;
    }

    /// Reads a partition no longer; what is left of it is withheld.
    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        self.wake_split(partition);
        let Some(gone) = self.partitions.remove(partition) else { return };
        if let Some(lease) = gone.lease {
            lease.withhold();
        }
        self.leave_node(gone.node, partition);
        self.signals.moved = true;
        self.signals.driver = true;
    }

    /// As [`assign`](Self::assign), but nothing is read of it before the rebalance listener has said from where. The number
    /// of the positioning.
    pub(super) fn hold(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) -> u64 {
        self.assign(partition.clone(), State::Stopped, metadata, now);
        if let Some(found) = self.partitions.get_mut(partition) {
            found.held = true;
        }
        self.generation
    }

    /// The rebalance listener is done with a partition: it is read from there, or waits for a seek. Unless it was sought or
    /// went away meanwhile.
    pub(super) fn release(&mut self, partition: &TopicPartition, generation: u64, state: Option<State>) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        if !found.held || found.position.generation() != generation {
            return;
        }
        found.held = false;
        if let Some(state) = state {
            self.begin(partition, state, true);
        }
    }

    /// Of these partitions (of all, without a list) those that we have and of whose going the rebalance listener was not
    /// told; from now on it was.
    pub(super) fn take_leave(&mut self, only: Option<&[TopicPartition]>) -> Vec<TopicPartition> {
        let wanted = |partition: &TopicPartition| only.is_none_or(|only| only.contains(partition));
        let going = self.partitions.iter_mut().filter(|(partition, found)| wanted(partition) && !found.told);
        let mut going: Vec<TopicPartition> = going
            .map(|(partition, found)| {
                found.told = true;
                partition.clone()
            })
            .collect();
        going.sort_unstable();
        going
    }

    /// Whether the partition is ours, and not to be given up.
    pub(super) fn keeps(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_some_and(|found| !found.revoking)
    }

    /// Reads a partition no longer that was to be given up (and was not assigned anew meanwhile).
    pub(super) fn remove_revoked(&mut self, partition: &TopicPartition) {
        if !self.keeps(partition) {
            self.remove(partition);
        }
    }

    /// Hands out no more of these partitions, and fetches nothing more of them.
    pub(super) fn revoke(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(found) = self.partitions.get_mut(partition) {
                found.revoking = true;
                self.touch(partition);
                self.wake_split(partition);
            }
        }
    }

    pub(super) fn assigned(&self) -> Vec<TopicPartition> {
        let mut assigned: Vec<_> = self.partitions.keys().cloned().collect();
        assigned.sort_unstable();
        assigned
    }

    /// The partition, or an error that says that it is not assigned.
    pub(super) fn get(&self, partition: &TopicPartition) -> Result<&Partition> {
        self.partitions
            .get(partition)
            .ok_or_else(|| Error::new(ErrorKind::NotAssigned, format!("{partition} is not assigned to this consumer")))
    }

    // ---- positions

    /// Positions a partition anew. `asked_for` by the user: what lies before is then done with, whatever it was.
    pub(super) fn begin(&mut self, partition: &TopicPartition, state: State, asked_for: bool) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        self.generation += 1;
        if let Some(lease) = found.lease.take() {
            lease.withhold();
            let (done, handed) = (lease.done(), lease.handed());
            found.unfinished = found.unfinished.or((done < handed).then_some(done));
        }
        if asked_for {
            found.unfinished = None;
        }
        found.queue.clear();
        found.full = false;
        found.held = false;
        found.damage = None;
        found.seen.begin();
        found.reported = false;
        found.fetch_bytes = self.rules.partition_bytes;
        found.retries = self.rules.backoff.clone();
        found.position = Position::new(State::Stopped, self.generation);
        self.enter(partition, state);
    }

    /// Goes on to another state of the same positioning.
    pub(super) fn enter(&mut self, partition: &TopicPartition, state: State) {
        let Some(found) = self.partitions.get_mut(partition) else { return };
        found.position.enter(state);
        found.seen.trouble = None;
        if let State::Fetch { offset, .. } = state {
            found.seen.fetched_from(offset);
        }
        match state {
            State::Fetch { offset, epoch } if found.lease.is_none() => {
                let done = found.unfinished.take().map_or(offset, |done| done.min(offset));
                let lease = Lease::new(partition.clone(), found.position.generation(), offset, done, epoch);
                found.lease = Some(Arc::new(lease));
                self.signals.moved = true;
            }
            State::Committed | State::Reset(_) | State::Validate { .. } => self.signals.driver = true,
            State::Fetch { .. } | State::Stopped => self.signals.moved = true,
        }
        self.touch(partition);
    }

    /// The user wants to read from there.
    pub(super) fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.get(partition)?;
        self.begin(partition, State::at(offset), true);
        Ok(())
    }

    /// Starts anew as `auto.offset.reset` says, or tells the reader why not.
    pub(super) fn reset(&mut self, partition: &TopicPartition, start: Option<Start>, why: &str) {
        match start {
            Some(start) => {
                tracing::debug!(%partition, ?start, why, "the position is reset");
                self.begin(partition, State::Reset(start), false);
            }
            None => {
                self.stop(partition);
                let offset = self.position(partition).ok().flatten().unwrap_or(-1);
                let error = Error::new(
                    ErrorKind::NoOffset,
                    format!("{partition} has no position to read from: {why}, and auto.offset.reset is none"),
                );
                self.tell(partition, error.at(partition.topic.clone(), partition.partition, offset));
            }
        }
    }

    /// Reads a partition no further until the user seeks. What was handed out stays handed out.
    pub(super) fn stop(&mut self, partition: &TopicPartition) {
        if let Some(found) = self.partitions.get_mut(partition) {
            found.queue.clear();
            found.full = false;
            self.enter(partition, State::Stopped);
        }
    }

    /// The next offset to be handed out; `None` where it is not known yet.
    pub(super) fn position(&self, partition: &TopicPartition) -> Result<Option<i64>> {
        Ok(self.get(partition)?.lease.as_ref().map(|lease| lease.handed()))
    }

    /// Stops fetching and handing out a partition, or goes on with it.
    pub(super) fn pause(&mut self, partition: &TopicPartition, paused: bool) -> Result<()> {
        self.get(partition)?;
        if let Some(found) = self.partitions.get_mut(partition) {
            found.paused = paused;
        }
        self.touch(partition);
        self.queue_up(partition);
        Ok(())
    }

    pub(super) fn paused(&self) -> Vec<TopicPartition> {
        let paused = self.partitions.iter().filter(|(_, found)| found.paused);
        let mut paused: Vec<_> = paused.map(|(partition, _)| partition.clone()).collect();
        paused.sort_unstable();
        paused
    }

    // ---- commits

    /// What can be committed of these partitions (of all, without a list): up to what is done, or to what was handed out,
    /// where that differs from what is known to be committed. Of all, what the readers of partitions that are split off have
    /// in hand is not among it: only they know whether they are done.
    pub(super) fn to_commit(
        &self,
        only: Option<&[TopicPartition]>,
        handed_out: bool,
    ) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let wanted = |partition: &TopicPartition| only.is_none_or(|only| only.contains(partition));
        let mut offsets = Vec::new();
        for (partition, found) in self.partitions.iter().filter(|(partition, _)| wanted(partition)) {
            let Some(lease) = &found.lease else { continue };
            let offset =
                if handed_out && (only.is_some() || found.split.is_none()) { lease.handed() } else { lease.done() };
            if found.committed != Some(offset) {
                offsets.push((partition.clone(), lease.to_commit(offset)));
            }
        }
        offsets.sort_by(|(one, _), (other, _)| one.cmp(other));
        offsets
    }

    /// The group has these offsets now.
    pub(super) fn committed(&mut self, offsets: &[(TopicPartition, OffsetAndMetadata)]) {
        for (partition, committed) in offsets {
            if let Some(found) = self.partitions.get_mut(partition) {
                found.committed = Some(committed.offset);
            }
        }
    }

    // ---- the reader

    /// An error for the reader.
    pub(super) fn push_error(&mut self, error: Error) {
        self.errors.push_back(error);
        self.wake_reader();
    }

    pub(super) fn pop_error(&mut self) -> Option<Error> {
        self.errors.pop_front()
    }

    /// Nothing more is handed out; what was handed out can still be committed.
    pub(super) fn close_reading(&mut self) {
        self.ended = true;
        for lease in self.partitions.values().filter_map(|found| found.lease.as_ref()) {
            lease.withhold();
        }
        self.wake_reader();
        self.wake_splits();
        self.signals.moved = true;
    }

    /// The last error: after it there is nothing more to read.
    pub(super) fn end(&mut self, error: Option<Error>) {
        if let Some(error) = &error {
            self.tell_splits(error);
        }
        self.errors.extend(error);
        self.close_reading();
        for partition in self.assigned() {
            self.remove(&partition);
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// The reader waits for whatever comes.
    pub(super) fn wait(&mut self, waker: &Waker) {
        match &mut self.reader {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        // Who has no room for a fetch gets it now, if nothing else helps the reader.
        let starved = self.nodes.iter().filter(|(_, node)| node.account.is_starved());
        self.signals.nodes.extend(starved.map(|(id, _)| *id));
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.reader.is_some()
    }

    /// Whether the reader of all that is not split off waits right now.
    pub(super) fn reader_waits(&self) -> bool {
        self.reader.is_some()
    }

    pub(super) fn wake_reader(&mut self) {
        self.signals.reader = self.reader.take().or(self.signals.reader.take());
    }

    /// Tells the reader, once, what has been in the way for long: `failure` is why the last look at the cluster failed,
    /// `subscribed` whether a group is to give us partitions, which needs a cluster as well.
    pub(super) fn check_trouble(&mut self, failure: Option<Error>, subscribed: bool, now: Instant) {
        self.settle_accounts();
        let patience = self.rules.patience;
        let (mut errors, mut of_partitions) = (Vec::new(), Vec::new());
        if !(subscribed && self.is_blind()) {
            self.blind_since = None;
        } else if now.saturating_duration_since(*self.blind_since.get_or_insert(now)) >= patience
            && let Some(failure) = &failure
            && !std::mem::replace(&mut self.unreachable_reported, true)
        {
            errors.push(failure.clone());
        }
        for (partition, found) in &mut self.partitions {
            let long = found.leaderless_since.is_some_and(|since| now.saturating_duration_since(since) >= patience);
            if !long || found.reported {
                continue;
            }
            match &failure {
                Some(failure) if !self.has_metadata => {
                    if !std::mem::replace(&mut self.unreachable_reported, true) {
                        errors.push(failure.clone());
                    }
                }
                // The first look is still under way: it is not the partition that is missing.
                None if !self.has_metadata => {}
                _ => {
                    found.reported = true;
                    of_partitions.push((partition.clone(), Error::new(
                        ErrorKind::UnknownTopicOrPartition,
                        format!(
                            "{partition} has had no leader for {} s, or does not exist; it is read as soon as it has one",
                            patience.as_secs()
                        ),
                    )));
                }
            }
        }
        for error in errors {
            self.push_error(error);
        }
        for (partition, error) in of_partitions {
            self.tell(&partition, error);
        }
    }

    /// Whether nothing has been heard of the cluster yet.
    pub(super) fn is_blind(&self) -> bool {
        !self.has_metadata
    }

    /// Whether some partition has no leader that is known.
    pub(super) fn lacks_leaders(&self) -> bool {
        self.partitions.values().any(|found| found.leader.is_none())
    }
}
