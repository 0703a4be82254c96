//! The partitions that this consumer reads, and all that is known about them. Decides; does no IO.
//!
//! This file holds how partitions come and go; `positioning.rs` where they are read from,
//! `resolve.rs` how that is found out, `search.rs` how it is behind damage, `routes.rs` which
//! broker a partition is read from, `fetcher.rs` what is asked of it, `arrivals.rs` what becomes of
//! the answer, `handout.rs` what the reader takes, `trouble.rs` what it is told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    task::Waker,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use super::{
    OffsetAndMetadata,
    budget::{Budget, Wake},
    fetcher::Farewell,
    group::{CommitNews, Committed},
    journal::Journal,
    lanes::{Lanes, Source},
    partition::{Doubt, Partition},
    position::State,
    queue::Job,
    routes::Node,
    settings::{IsolationLevel, OffsetReset},
    wanted_topics::WantedTopics,
    watch::Watch,
};
use crate::{
    cluster::{Backoff, Metadata, RetryGrid},
    error::{Error, ErrorKind, Result},
    log::Origin,
    record::TopicPartition,
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
    /// Asked for of one partition in one answer, at least.
    pub(super) partition_bytes: i32,
    /// Whether more is asked for of it where a long line would be half empty: the user has not said
    /// how much.
    pub(super) partition_grows: bool,
    pub(super) queued_bytes: usize,
    /// Connections to a broker that are fetched over, at most.
    pub(super) connections: u8,
    pub(super) rack: Option<String>,
    pub(super) backoff: Backoff,
    /// How long a preferred replica is believed in (`metadata.max.age.ms`).
    pub(super) replica_age: Duration,
    /// After how long without a leader the reader is told.
    pub(super) patience: Duration,
    /// Batches that are opened ahead at a time.
    pub(super) jobs: usize,
    /// How long a topic may be missing before the reader is told
    /// (`topic.metadata.propagation.max.ms`).
    pub(super) propagation: Duration,
    /// The consumer, as log lines name it.
    pub(super) origin: Origin,
}

/// A partition in the group's gift, from when it came to when it goes: who takes one back takes
/// back no later one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tenure {
    pub(super) partition: TopicPartition,
    number: u64,
}

/// Whom to wake after a change.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// Brokers, and connections to them, from which something else is to be fetched.
    pub(super) nodes: BTreeSet<Source>,
    /// The consumer's own task: questions to ask, brokers to begin with.
    pub(super) driver: bool,
    /// Those who wait for a position.
    pub(super) moved: bool,
    pub(super) reader: Option<Waker>,
    /// Readers of partitions that are split off.
    pub(super) readers: Vec<Waker>,
    pub(super) jobs: Vec<Job>,
}

pub(super) struct Assignment {
    pub(super) rules: Rules,
    pub(super) partitions: HashMap<TopicPartition, Partition>,
    /// What the group gave, the user has put something else in the place of, and the rebalance
    /// listener was not told of: the group has still to take it back.
    parted: BTreeMap<TopicPartition, u64>,
    /// Each with a task and a session of its own.
    pub(super) nodes: HashMap<Source, Node>,
    /// Over how many connections each broker is read.
    pub(super) lanes: HashMap<i32, Lanes>,
    /// Of sessions that are over.
    pub(super) farewells: Vec<Farewell>,
    /// All that are known.
    pub(super) brokers: BTreeSet<i32>,
    pub(super) budget: Budget,
    pub(super) wake_for: Box<dyn Fn(i32) -> Wake + Send>,
    pub(super) rotation: VecDeque<TopicPartition>,
    pub(super) running_jobs: usize,
    /// Whether there may be something to open ahead.
    pub(super) has_heavy: bool,
    pub(super) errors: VecDeque<Error>,
    pub(super) ended: bool,
    pub(super) rng: StdRng,
    pub(super) generation: u64,
    pub(super) reader: Option<Waker>,
    /// How many partitions were ever split off.
    pub(super) splits: u64,
    /// About when the reader of all that is not split off last asked.
    pub(super) asked: Option<Instant>,
    /// Some partition's unread batches were dropped.
    pub(super) evicted: bool,
    /// About now: when a fetch was last planned.
    pub(super) clock: Option<Instant>,
    /// When partitions that fail are tried again.
    pub(super) grid: RetryGrid,
    /// When the reader was last told that positions are reset in vain: once for all that is read
    /// together.
    pub(super) vain_reset_told: Option<Instant>,
    pub(super) signals: Signals,
    /// What is counted and watched.
    pub(super) watch: Watch,
    /// The topics that are asked for, and whether they are there.
    pub(super) topics: WantedTopics,
    /// What is to be written in few lines.
    pub(super) journal: Journal,
    /// The trouble of the whole cluster was told to the reader.
    pub(super) unreachable_reported: bool,
    /// Whether the reader was told that the bootstrap servers are not resolved in time.
    pub(super) unresolved_reported: bool,
    /// Since when the group is waited for without anything known of the cluster.
    pub(super) blind_since: Option<Instant>,
    pub(super) has_metadata: bool,
}

impl Assignment {
    /// Nothing assigned yet. `wake_for` makes what wakes the task of a broker when its account has
    /// room again.
    pub(super) fn new(rules: Rules, rng: StdRng, wake_for: Box<dyn Fn(i32) -> Wake + Send>) -> Self {
        Self {
            budget: Budget::new(rules.queued_bytes),
            topics: WantedTopics::new(rules.propagation, rules.origin.clone()),
            journal: Journal::default(),
            rules,
            partitions: HashMap::new(),
            parted: BTreeMap::new(),
            nodes: HashMap::new(),
            lanes: HashMap::new(),
            farewells: Vec::new(),
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
            grid: RetryGrid::default(),
            vain_reset_told: None,
            signals: Signals::default(),
            watch: Watch::default(),
            unreachable_reported: false,
            unresolved_reported: false,
            blind_since: None,
            has_metadata: false,
        }
    }

    /// What came of the last changes.
    pub(super) fn take_signals(&mut self) -> Signals {
        std::mem::take(&mut self.signals)
    }

    // ---- partitions come and go

    /// Reads a partition from now on, from that place; whatever it was read from before is
    /// withheld.
    pub(super) fn assign(&mut self, partition: TopicPartition, state: State, metadata: &Metadata, now: Instant) {
        if self.brokers.is_empty() {
            self.brokers = metadata.brokers.keys().copied().collect();
        }
        self.remove(&partition);
        self.generation += 1;
        let found = Partition::new(&self.rules, self.generation, now);
        self.partitions.insert(partition.clone(), found);
        self.begin(&partition, state, true);
        self.update(&partition, metadata, now);
        self.signals.moved = true;
        self.signals.driver = true;
    }

    /// The same of one that the group gives.
    pub(super) fn assign_by_group(
        &mut self,
        partition: &TopicPartition,
        state: State,
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
    pub(super) fn part_from_all(&mut self) {
        for partition in self.assigned() {
            let untold = self.partitions.get(&partition).filter(|found| found.of_group && !found.told);
            if let Some(number) = untold.map(|found| found.tenure) {
                self.parted.insert(partition.clone(), number);
            }
            self.remove(&partition);
        }
    }

    /// Reads a partition no longer; what is left of it is withheld.
    pub(super) fn remove(&mut self, partition: &TopicPartition) {
        self.wake_split(partition);
        let Some(gone) = self.partitions.remove(partition) else { return };
        let source = gone.source();
        if let Some(lease) = gone.lease {
            lease.replace();
        }
        // Only the common reader takes turns, and with all partitions split off it never comes.
        if gone.in_rotation
            && let Some(at) = self.rotation.iter().position(|other| other == partition)
        {
            self.rotation.remove(at);
        }
        self.leave_source(source, partition);
        self.signals.moved = true;
        self.signals.driver = true;
    }

    /// As [`assign_by_group`](Self::assign_by_group), but nothing is read of it before the
    /// rebalance listener has said from where. The number of the positioning.
    pub(super) fn hold(&mut self, partition: &TopicPartition, metadata: &Metadata, now: Instant) -> u64 {
        self.assign_by_group(partition, State::Stopped, metadata, now);
        if let Some(found) = self.partitions.get_mut(partition) {
            found.held = true;
        }
        self.generation
    }

    /// The rebalance listener is done with a partition: it is read from there, or waits for a seek.
    /// Unless it was sought or went away meanwhile.
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

    /// Of these partitions (of all that the group gave, without a list) those of whose going the
    /// rebalance listener was not told; from now on it was.
    pub(super) fn take_leave(&mut self, only: Option<&[Tenure]>) -> Vec<TopicPartition> {
        let wanted = |partition: &TopicPartition, number: u64| {
            only.is_none_or(|only| only.iter().any(|one| one.number == number && one.partition == *partition))
        };
        let had = self.partitions.iter_mut().filter(|(_, found)| found.of_group && !found.told);
        let going = had.filter(|(partition, found)| wanted(partition, found.tenure));
        let going = going.map(|(partition, found)| {
            found.told = true;
            partition.clone()
        });
        let mut going: Vec<TopicPartition> = going.collect();
        self.parted.retain(|partition, number| {
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
    pub(super) fn any_told(&self, only: Option<&[Tenure]>) -> bool {
        let told = |one: &Tenure| self.partitions.get(&one.partition).is_some_and(|found| found.told);
        only.is_none_or(|only| only.iter().any(told))
    }

    /// What the group takes back now, by these names: what it gave last, whether or not it is read
    /// any more.
    pub(super) fn tenures(&self, partitions: &[TopicPartition]) -> Vec<Tenure> {
        let number = |partition: &TopicPartition| {
            let read = self.partitions.get(partition).filter(|found| found.of_group).map(|found| found.tenure);
            read.or_else(|| self.parted.get(partition).copied())
        };
        let known = partitions.iter().filter_map(|partition| Some((partition, number(partition)?)));
        known.map(|(partition, number)| Tenure { partition: partition.clone(), number }).collect()
    }

    /// Those of them that are read still.
    pub(super) fn still_read(&self, tenures: &[Tenure]) -> Vec<TopicPartition> {
        let read = |one: &&Tenure| self.partitions.get(&one.partition).is_some_and(|found| found.tenure == one.number);
        tenures.iter().filter(read).map(|one| one.partition.clone()).collect()
    }

    /// Whether the partition is ours, and not to be given up.
    pub(super) fn keeps(&self, partition: &TopicPartition) -> bool {
        self.partitions.get(partition).is_some_and(|found| !found.revoking)
    }

    /// Reads these no longer. What came by the same names since is another matter.
    pub(super) fn remove_all(&mut self, tenures: &[Tenure]) {
        for partition in self.still_read(tenures) {
            self.remove(&partition);
        }
    }

    /// Hands out no more of these partitions, and fetches nothing more of them.
    pub(super) fn revoke(&mut self, tenures: &[Tenure]) {
        for partition in &self.still_read(tenures) {
            if let Some(found) = self.partitions.get_mut(partition) {
                found.revoking = true;
                self.signals.moved = true;
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

    // ---- commits

    /// What is done of these partitions (of all, without a list), where that differs from what is
    /// known to be committed. Not where the user has committed as much, or had the last word on the
    /// partition: in `on_revoked`.
    pub(super) fn done_to_commit(&self, only: Option<&[TopicPartition]>) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let mut offsets = self.offsets(only, false);
        offsets.retain(|(partition, done)| {
            let found = self.partitions.get(partition);
            let is_the_users =
                found.is_some_and(|found| found.told || found.committed_by_user.is_some_and(|by| by >= done.offset));
            !is_the_users && !self.is_committed(partition, done)
        });
        offsets
    }

    /// What was handed out of them, whatever is committed.
    pub(super) fn handed_to_commit(&self, only: Option<&[TopicPartition]>) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        self.offsets(only, true)
    }

    /// Of all, what the readers of partitions that are split off have in hand is not among it: only
    /// they know whether they are done. Of topics that do not exist (any more) nothing is: it would
    /// be taken for what was read of the next topic of that name, whose records would be passed
    /// over.
    fn offsets(&self, only: Option<&[TopicPartition]>, handed_out: bool) -> Vec<(TopicPartition, OffsetAndMetadata)> {
        let wanted = |partition: &TopicPartition| only.is_none_or(|only| only.contains(partition));
        let mut offsets = Vec::new();
        for (partition, found) in self.partitions.iter().filter(|(partition, _)| wanted(partition)) {
            // What the user commits is bound to the topic's id, if it has one, and may wait for the
            // topic.
            let passed_over = found.vanished && (!handed_out || found.topic_id.is_nil());
            let Some(lease) = found.lease.as_ref().filter(|_| !passed_over) else { continue };
            let offset =
                if handed_out && (only.is_some() || found.split.is_none()) { lease.handed() } else { lease.done() };
            offsets.push((partition.clone(), lease.to_commit(offset)));
        }
        offsets.sort_by(|(one, _), (other, _)| one.cmp(other));
        offsets
    }

    pub(super) fn is_committed(&self, partition: &TopicPartition, offset: &OffsetAndMetadata) -> bool {
        let found = self.partitions.get(partition);
        found.is_some_and(|found| found.committed == Some(offset.offset) && found.doubt == Doubt::None)
    }

    /// What is heard of a commit.
    pub(super) fn hear_of_commit(&mut self, news: CommitNews) {
        match news {
            CommitNews::Leaves(partitions) => {
                for partition in partitions {
                    if let Some(found) = self.partitions.get_mut(&partition) {
                        found.doubt = if found.doubt == Doubt::None { Doubt::UnderWay } else { Doubt::Lasting };
                    }
                }
            }
            CommitNews::Refused(partitions) => {
                for partition in partitions {
                    let found = self.partitions.get_mut(&partition).filter(|found| found.doubt == Doubt::UnderWay);
                    found.into_iter().for_each(|found| found.doubt = Doubt::None);
                }
            }
            CommitNews::Through(committed) => self.committed(committed),
        }
    }

    /// The group has these offsets now, of topics with these ids.
    fn committed(&mut self, committed: Vec<Committed>) {
        for Committed { partition, offset, topic_id, asker } in committed {
            if let Some(found) = self.partitions.get_mut(&partition).filter(|found| found.topic_id == topic_id) {
                found.committed = Some(offset);
                found.doubt = Doubt::None;
                // What was asked for before it was positioned says nothing of what is read since.
                if asker.by_user && asker.positioned >= found.position.generation() {
                    found.committed_by_user = Some(offset);
                }
            }
        }
    }
}
