//! The topics that the producer knows, and the records that wait for one it does not know yet.
//!
//! `send` looks a topic up in an immutable table, without a lock. A record whose topic or partition is not in the table
//! waits in a queue of the topic. When the partition appears, the queue's records are appended before the new table is
//! published, and the queue is seen empty under its lock in the moment of publishing: so no later record overtakes them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    accumulator::{Appended, Entry, News, Partition, Waited},
    batch::{Ledger, Run},
    cell::{Cell, Outcome},
    credits::Charge,
    partitioner::{Sticky, partition_of_key},
    reports::ReportRun,
    table::{Table, Tables},
};
use crate::{
    cluster::TopicMetadata,
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind},
    record::{Record, check_topic_name},
    wire::batch::RecordParts,
};

/// Records that share a cell while they wait, so that each completion looks at few of them.
const CELL_RECORDS: u32 = 256;

/// How records are put into partitions; from the producer's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    pub(crate) batch_size: usize,
    pub(crate) ignore_keys: bool,
    pub(crate) seed: u64,
    /// How long a record waits for its topic.
    pub(crate) max_block: Duration,
}

/// A topic with its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Arc<Partition>>,
    sticky: Sticky,
}

/// All topics of a producer.
#[derive(Debug)]
pub(crate) struct Topics {
    table: Tables,
    waiting: Mutex<Waiting>,
    placement: Placement,
}

#[derive(Debug, Default)]
struct Waiting {
    topics: HashMap<Arc<str>, VecDeque<WaitingRecord>>,
    /// The cell that the next record gets its place in, and how many have one there.
    cell: Option<(Arc<Cell>, u32)>,
    closed: Option<Error>,
    /// Slots given out to partitions.
    slots: usize,
    /// Records of partitions that are no longer in the table.
    retired: u64,
}

/// A record that waits for its topic or partition. Dropping it gives it a result.
#[derive(Debug)]
struct WaitingRecord {
    record: Record<'static>,
    timestamp: i64,
    bound: u32,
    deadline: Instant,
    place: Option<Waited>,
    ledger: Arc<Ledger>,
    reported: bool,
}

/// Where a record is, and where its result will be.
pub(crate) struct Placed {
    pub(crate) cell: Arc<Cell>,
    pub(crate) index: u32,
    /// It is the first that waits for its topic, which has to be looked for.
    pub(crate) look_for_topic: bool,
}

impl Topics {
    pub(crate) fn new(placement: Placement) -> Self {
        Self { table: Tables::new(), waiting: Mutex::default(), placement }
    }

    /// The topic, if it is known.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.table.newest().get(name).cloned()
    }

    /// Puts a record, whose `bound` bytes were taken from the credits, into a batch or into its topic's queue. `tell` gets
    /// what the sender has to know.
    pub(crate) fn place(
        &self,
        record: &Record<'_>,
        bound: u32,
        timestamp: i64,
        ledger: &Arc<Ledger>,
        clock: impl Fn() -> Instant,
        mut tell: impl FnMut(&Arc<Partition>, News),
    ) -> Result<Placed, Error> {
        let placed =
            self.table.with(|table| self.place_known(table, record, bound, timestamp, ledger, &clock, &mut tell))?;
        if let Some(placed) = placed {
            return Ok(placed);
        }
        check_topic_name(record.topic())?;
        let mut waiting = self.lock();
        if let Some(error) = &waiting.closed {
            return Err(error.clone());
        }
        // Once more under the lock: the table is published under it.
        let table = self.table.newest();
        if let Some(placed) = self.place_known(&table, record, bound, timestamp, ledger, &clock, &mut tell)? {
            return Ok(placed);
        }
        let (cell, index) = waiting.next_place(ledger);
        let name: Arc<str> = match table.get(record.topic()) {
            Some(topic) => topic.name.clone(),
            None => record.topic().into(),
        };
        let queue = waiting.topics.entry(name).or_default();
        let first = queue.is_empty();
        queue.push_back(WaitingRecord {
            record: record.clone().into_owned(),
            timestamp,
            bound,
            deadline: clock() + self.placement.max_block,
            place: Some(Waited {
                run: Run { cell: cell.clone(), first: index, count: 1 },
                charge: Charge::of(&ledger.credits, bound),
                group: ledger.flushes.join(),
            }),
            ledger: ledger.clone(),
            reported: ledger.reports.is_on(),
        });
        Ok(Placed { cell, index, look_for_topic: first })
    }

    #[allow(clippy::too_many_arguments, reason = "what `place` was given, passed on twice")]
    fn place_known(
        &self,
        table: &Table,
        record: &Record<'_>,
        bound: u32,
        timestamp: i64,
        ledger: &Arc<Ledger>,
        clock: &impl Fn() -> Instant,
        tell: &mut impl FnMut(&Arc<Partition>, News),
    ) -> Result<Option<Placed>, Error> {
        let Some(topic) = table.get(record.topic()) else { return Ok(None) };
        match topic.append(record, bound, timestamp, None, &self.placement, ledger, clock, tell) {
            TopicAppend::Done(Some((cell, index))) => Ok(Some(Placed { cell, index, look_for_topic: false })),
            TopicAppend::Closed { error, .. } => Err(error),
            TopicAppend::Done(None) | TopicAppend::NoPartition(_) => Ok(None),
        }
    }

    /// Takes over what metadata says of a topic: new partitions, another id, other leaders. Records that waited for what
    /// is there now go into its batches.
    pub(crate) fn update(
        &self,
        metadata: &TopicMetadata,
        ledger: &Arc<Ledger>,
        clock: impl Fn() -> Instant,
        mut tell: impl FnMut(&Arc<Partition>, News),
    ) {
        let known = self.get(&metadata.name);
        let count = metadata.partitions.len();
        if count == 0 || metadata.error != ErrorCode::NONE {
            return;
        }
        let available: Vec<u32> = metadata
            .partitions
            .iter()
            .filter(|partition| partition.leader.is_some())
            .filter_map(|partition| u32::try_from(partition.partition).ok())
            .collect();
        if let Some(known) = &known {
            let recreated = known.id != metadata.id && !metadata.id.is_nil();
            // An older picture may lack partitions that are there; only another topic of the name has fewer.
            if count < known.partitions.len() && !recreated {
                return;
            }
            let same_candidates = available.is_empty() || known.sticky.candidates() == available;
            if count == known.partitions.len() && !recreated && same_candidates {
                return;
            }
        }
        let topic = {
            let mut waiting = self.lock();
            let name = known.as_ref().map_or_else(|| metadata.name.clone(), |known| known.name.clone());
            let old: &[Arc<Partition>] = known.as_ref().map_or(&[], |known| &known.partitions);
            let partitions: Vec<Arc<Partition>> = (0..count)
                .map(|index| match old.get(index) {
                    Some(partition) => partition.clone(),
                    None => {
                        let slot = waiting.slots;
                        waiting.slots += 1;
                        Arc::new(Partition::new(slot, name.clone(), i32::try_from(index).unwrap_or(i32::MAX)))
                    }
                })
                .collect();
            waiting.retired += old.iter().skip(count).map(|partition| partition.appended()).sum::<u64>();
            let sticky = Sticky::new(self.placement.seed ^ waiting.slots as u64, count, available);
            Arc::new(Topic { name, id: metadata.id, partitions, sticky })
        };
        let mut stay = VecDeque::new();
        loop {
            let mut waiting = self.lock();
            if waiting.closed.is_some() {
                return;
            }
            let Some(queue) = waiting.topics.get_mut(&topic.name).filter(|queue| !queue.is_empty()) else {
                let mut table = Table::clone(&self.table.newest());
                table.insert(topic.name.clone(), topic.clone());
                self.table.publish(table);
                if stay.is_empty() {
                    waiting.topics.remove(&topic.name);
                } else {
                    waiting.topics.insert(topic.name.clone(), stay);
                }
                return;
            };
            let queue = std::mem::take(queue);
            drop(waiting);
            for record in queue {
                stay.extend(record.move_to(&topic, &self.placement, ledger, &clock, &mut tell));
            }
        }
    }

    /// Fails the records that wait for this topic longer than they may (all of them, if `all`) with what `error` makes of
    /// the topic's name. Gives the deadline of the next.
    pub(crate) fn fail_waiting(
        &self,
        name: &str,
        now: Instant,
        all: bool,
        error: impl Fn(&str) -> Error,
    ) -> Option<Instant> {
        let mut late = Vec::new();
        let next = {
            let mut waiting = self.lock();
            let queue = waiting.topics.get_mut(name)?;
            while queue.front().is_some_and(|record| all || record.deadline <= now) {
                late.extend(queue.pop_front());
            }
            let next = queue.front().map(|record| record.deadline);
            if next.is_none() {
                waiting.topics.remove(name);
            }
            next
        };
        for mut record in late {
            record.fail(error(name).with_status(DeliveryStatus::NotPersisted));
        }
        next
    }

    /// The topics that records wait for, and the deadline of the first of each.
    pub(crate) fn waited_for(&self) -> Vec<(Arc<str>, Instant)> {
        let waiting = self.lock();
        waiting.topics.iter().filter_map(|(name, queue)| Some((name.clone(), queue.front()?.deadline))).collect()
    }

    /// All topics in the table.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.table.newest().values().cloned().collect()
    }

    /// Records that came in and have no result yet, as far as `settled` counts those of batches.
    pub(crate) fn outstanding(&self, settled: impl Fn() -> u64) -> u64 {
        // Settled first: then what comes in meanwhile counts as outstanding, not the other way round.
        let settled = settled();
        let waiting = self.lock();
        let queued: u64 = waiting.topics.values().map(|queue| queue.len() as u64).sum();
        let appended: u64 =
            self.table.newest().values().flat_map(|topic| &topic.partitions).map(|p| p.appended()).sum();
        (queued + appended + waiting.retired).saturating_sub(settled)
    }

    /// Refuses all further records and fails those that have not left yet.
    pub(crate) fn close(&self, error: &Error) {
        let (left, table) = {
            let mut waiting = self.lock();
            waiting.closed.get_or_insert_with(|| error.clone());
            (std::mem::take(&mut waiting.topics), self.table.newest())
        };
        for mut record in left.into_values().flatten() {
            record.fail(error.clone().with_status(DeliveryStatus::NotPersisted));
        }
        for partition in table.values().flat_map(|topic| &topic.partitions) {
            for mut batch in partition.close(error.clone()) {
                let status = batch.status();
                batch.settle(super::batch::Verdict::Failed(error.clone().with_status(status)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum TopicAppend {
    Done(Option<(Arc<Cell>, u32)>),
    /// The record names a partition that is not there.
    NoPartition(Option<Waited>),
    Closed {
        error: Error,
        waited: Option<Waited>,
    },
}

impl Topic {
    #[cfg(test)]
    pub(super) fn for_tests(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            id: Uuid::nil(),
            partitions: Vec::new(),
            sticky: Sticky::new(0, 0, Vec::new()),
        })
    }

    #[allow(clippy::too_many_arguments, reason = "the one place where a record's parts and its producer's meet")]
    fn append(
        &self,
        record: &Record<'_>,
        bound: u32,
        timestamp: i64,
        mut waited: Option<Waited>,
        placement: &Placement,
        ledger: &Arc<Ledger>,
        clock: &impl Fn() -> Instant,
        tell: &mut impl FnMut(&Arc<Partition>, News),
    ) -> TopicAppend {
        let fixed = match (record.partition, &record.key) {
            (Some(partition), _) => Some(usize::try_from(partition).unwrap_or(usize::MAX)),
            (None, Some(key)) if !placement.ignore_keys => {
                Some(partition_of_key(key.as_slice(), self.partitions.len()))
            }
            _ => None,
        };
        let mut entry = Entry { parts: parts_of(record), bound, timestamp, sticky: None };
        // A turn can end under us, and again under the next choice; after some rounds any partition will do.
        for round in 0..8 {
            let index = fixed.unwrap_or_else(|| self.sticky.current() as usize);
            entry.sticky = (fixed.is_none() && round < 7).then_some(&self.sticky);
            let Some(partition) = self.partitions.get(index) else { break };
            match partition.append(&entry, waited.take(), placement.batch_size, ledger, clock) {
                Appended::Done { place, news } => {
                    tell(partition, news);
                    return TopicAppend::Done(place);
                }
                Appended::Closed { error, waited } => return TopicAppend::Closed { error, waited },
                Appended::TurnOver { news, waited: back } => {
                    tell(partition, news);
                    waited = back;
                }
            }
        }
        TopicAppend::NoPartition(waited)
    }
}

/// What is written of a record.
pub(crate) fn parts_of<'a>(record: &'a Record<'a>) -> RecordParts<'a> {
    RecordParts {
        key: record.key.as_ref().map(|key| key.as_slice()),
        value: record.value.as_ref().map(|value| value.as_slice()),
        record: Some(record),
    }
}

impl Waiting {
    fn next_place(&mut self, ledger: &Ledger) -> (Arc<Cell>, u32) {
        match &mut self.cell {
            Some((cell, used)) if *used < CELL_RECORDS => {
                let index = *used;
                *used += 1;
                (cell.clone(), index)
            }
            place => {
                let cell = ledger.new_cell();
                *place = Some((cell.clone(), 1));
                (cell, 0)
            }
        }
    }
}

impl WaitingRecord {
    /// Appends the record to its partition of the topic; gives it back if the topic has no such partition.
    fn move_to(
        mut self,
        topic: &Topic,
        placement: &Placement,
        ledger: &Arc<Ledger>,
        clock: &impl Fn() -> Instant,
        tell: &mut impl FnMut(&Arc<Partition>, News),
    ) -> Option<Self> {
        let waited = self.place.take();
        match topic.append(&self.record, self.bound, self.timestamp, waited, placement, ledger, clock, tell) {
            TopicAppend::Done(_) => None,
            TopicAppend::NoPartition(waited) => {
                self.place = waited;
                Some(self)
            }
            TopicAppend::Closed { error, waited } => {
                self.place = waited;
                self.fail(error.with_status(DeliveryStatus::NotPersisted));
                None
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let Some(Waited { run, charge, .. }) = self.place.take() else { return };
        let outcome = Outcome::Failed(error);
        if self.reported {
            self.ledger.reports.push(ReportRun {
                cell: run.cell.id(),
                first: run.first,
                topic: self.record.topic().into(),
                partition: self.record.partition,
                outcome: outcome.clone(),
                timestamps: vec![self.timestamp],
                read: 0,
                charge,
            });
        }
        run.cell.complete(run.first, run.count, outcome);
    }
}

impl Drop for WaitingRecord {
    fn drop(&mut self) {
        if self.place.is_some() {
            let error = Error::new(ErrorKind::Closed, "the producer ended before the record's topic was known");
            self.fail(error.with_status(DeliveryStatus::NotPersisted));
        }
    }
}
