//! The topics that the producer knows, and the records that wait for one it does not know yet.
//!
//! `send` looks a topic up in an immutable table, without a lock. A record whose topic or partition
//! is not in the table waits in a queue of the topic. When the partition appears, the queue's
//! records are appended before the new table is published, and the queue is seen empty under its
//! lock in the moment of publishing: so no later record overtakes them.
//!
//! Sans-IO.

mod waiting;

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use uuid::Uuid;

pub(crate) use self::waiting::TopicTimeout;
use self::waiting::{WaitingRecord, WaitingRecords};
use super::{
    accumulator::{Appended, LockedPartition, Partition, SenderEvent},
    partitioner::{Choice, Chooser, Leader, Partitioning},
    purge::PurgeScope,
    sizes::Sizes,
};
use crate::producer::{
    batch_results::BatchResults,
    buffer_pool::BufferReservation,
    compression_ratio::{BatchGrowth, CompressionRatio},
    topic_table::{Table, Tables},
};
use crate::producer::{
    batch_results::ResultRun,
    batch_shared::BatchShared,
    record_entry::{RecordEntry, RecordReservation, WaitedRecord},
};
use crate::{
    cluster::Metadata,
    error::{Error, ErrorCode},
    record::{Record, check_topic_name},
    wire::batch::RecordParts,
};

/// How records are put into partitions; from the producer's settings.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) sizes: Sizes,
    /// How far a batch may grow beyond that if it is compressed.
    pub(crate) growth: Arc<BatchGrowth>,
    pub(crate) partitioning: Partitioning,
    /// `client.rack`.
    pub(crate) rack: Option<String>,
    pub(crate) seed: u64,
    /// How long a record waits for its topic.
    pub(crate) topic_timeout: TopicTimeout,
}

/// A topic with its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// Partitions with higher numbers that a topic of the name had before. They keep their records
    /// and their sequences, and come back if the topic gets as many again: a second one of the same
    /// number would number its batches anew, and the broker would take them for repetitions.
    gone: Vec<Arc<Partition>>,
    /// How well its batches are compressed.
    compression_ratio: Arc<CompressionRatio>,
    chooser: Chooser,
}

/// All topics of a producer.
#[derive(Debug)]
pub(crate) struct Topics {
    table: Tables,
    waiting: Mutex<WaitingRecords>,
    placement: Placement,
}

/// What is known of a record once it was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmittedRecord {
    /// An upper bound of its bytes in a batch: what it is charged.
    pub(crate) bound: u32,
    pub(crate) timestamp: i64,
}

/// What putting a record down needs besides the record. `tell` gets what the sender has to know.
pub(crate) struct AppendContext<'a, C, T> {
    pub(crate) shared: &'a Arc<BatchShared>,
    pub(crate) clock: C,
    pub(crate) notify: T,
}

/// Why a record was not put down.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There are no bytes left to pay with.
    Full,
    For(Error),
}

/// Where a record is, and where its result will be.
pub(crate) struct PlacedRecord {
    pub(crate) results: Arc<BatchResults>,
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

    /// Puts a record into a batch or into its topic's queue. `paid` says that its bytes were taken
    /// from the credits; they are the caller's again if it is refused.
    pub(crate) fn place<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        &self,
        record: &Record<'_>,
        admitted: AdmittedRecord,
        paid: bool,
        context: &mut AppendContext<'_, C, T>,
    ) -> Result<PlacedRecord, Refused> {
        if let Some(placed) = self.table.with(|table| self.place_known(table, record, admitted, paid, context))? {
            return Ok(placed);
        }
        check_topic_name(record.topic()).map_err(Refused::For)?;
        // Once more, until it is sure that the record is not in the newest table: that one is
        // published under the lock. The look itself is not, because the user's partitioner may be
        // asked.
        let (mut waiting, table) = loop {
            let edition = self.table.edition();
            let table = self.table.newest();
            if let Some(placed) = self.place_known(&table, record, admitted, paid, context)? {
                return Ok(placed);
            }
            let waiting = self.lock();
            if let Some(error) = &waiting.closed {
                return Err(Refused::For(error.clone()));
            }
            if self.table.edition() == edition {
                break (waiting, table);
            }
        };
        let batch_shared = context.shared;
        if !paid && !batch_shared.buffer.try_take(admitted.bound) {
            return Err(Refused::Full);
        }
        let (results, index) = waiting.next_place(batch_shared);
        let name: Arc<str> = match table.get(record.topic()) {
            Some(topic) => topic.name.clone(),
            None => record.topic().into(),
        };
        let queue = waiting.topics.entry(name.clone()).or_default();
        let first = queue.is_empty();
        queue.push_back(WaitingRecord {
            record: record.clone().into_owned(),
            admitted,
            since: (context.clock)(),
            place: Some(Box::new(WaitedRecord {
                run: ResultRun { results: results.clone(), first: index, count: 1 },
                reserved: BufferReservation::of(&batch_shared.buffer, admitted.bound),
                group: batch_shared.flushes.join(),
            })),
            batch_shared: batch_shared.clone(),
            reported: batch_shared.reports.is_on(),
        });
        if first {
            waiting.unseen.push(name);
        }
        Ok(PlacedRecord { results, index, look_for_topic: first })
    }

    fn place_known<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        &self,
        table: &Table,
        record: &Record<'_>,
        admitted: AdmittedRecord,
        paid: bool,
        context: &mut AppendContext<'_, C, T>,
    ) -> Result<Option<PlacedRecord>, Refused> {
        let Some(topic) = table.get(record.topic()) else { return Ok(None) };
        let mut reservation = if paid { RecordReservation::Reserved } else { RecordReservation::FromPool };
        let take = |results: &Arc<BatchResults>, index| PlacedRecord {
            results: results.clone(),
            index,
            look_for_topic: false,
        };
        match topic.append(&mut None, record, admitted, &mut reservation, &self.placement, context, take) {
            TopicAppend::Done(placed) => Ok(Some(placed)),
            TopicAppend::NoPartition => Ok(None),
            TopicAppend::Full => Err(Refused::Full),
            TopicAppend::Refused(error) => Err(Refused::For(error)),
        }
    }

    /// Puts records down that come one behind the other, as long as each can be put down at once: a
    /// run of records of one partition costs its lock once. Gives how many were; `took` hears where
    /// the result of each will be.
    pub(crate) fn place_run<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        &self,
        records: &[(Record<'_>, AdmittedRecord)],
        context: &mut AppendContext<'_, C, T>,
        mut took: impl FnMut(&Arc<BatchResults>, u32, i64),
    ) -> usize {
        self.table.with(|table| {
            let mut held = None;
            let mut last: Option<&Arc<Topic>> = None;
            for (at, (record, admitted)) in records.iter().enumerate() {
                let known = last.filter(|topic| *topic.name == *record.topic());
                let Some(topic) = known.or_else(|| table.get(record.topic())) else { return at };
                last = Some(topic);
                let take = |results: &Arc<BatchResults>, index| took(results, index, admitted.timestamp);
                match topic.append(
                    &mut held,
                    record,
                    *admitted,
                    &mut RecordReservation::FromPool,
                    &self.placement,
                    context,
                    take,
                ) {
                    TopicAppend::Done(()) => {}
                    _ => return at,
                }
            }
            records.len()
        })
    }

    /// Takes over what metadata says of topics: new partitions, another id, other leaders. Records
    /// that waited for what is there now go into its batches. The table is made anew once, however
    /// many topics there are.
    pub(crate) fn update<'m, C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        &self,
        names: impl IntoIterator<Item = &'m str>,
        metadata: &Metadata,
        context: &mut AppendContext<'_, C, T>,
    ) {
        let known = self.table.newest();
        // A topic that is named twice is made once: its waiting records are in one place only.
        let mut seen = HashSet::new();
        let mut made: Vec<(Arc<Topic>, VecDeque<WaitingRecord>)> = Vec::new();
        for name in names {
            if !seen.contains(name)
                && let Some(topic) = self.changed(known.get(name), name, metadata)
            {
                seen.insert(topic.name.clone());
                made.push((topic, VecDeque::new()));
            }
        }
        if made.is_empty() {
            return;
        }
        loop {
            let mut waiting = self.lock();
            if waiting.closed.is_some() {
                return;
            }
            let mut queues = Vec::new();
            for (at, (topic, _)) in made.iter().enumerate() {
                if let Some(queue) = waiting.topics.get_mut(&topic.name).filter(|queue| !queue.is_empty()) {
                    queues.push((at, std::mem::take(queue)));
                }
            }
            if queues.is_empty() {
                let mut table = Table::clone(&self.table.newest());
                for (topic, stay) in made {
                    if stay.is_empty() {
                        waiting.topics.remove(&topic.name);
                    } else {
                        waiting.topics.insert(topic.name.clone(), stay);
                    }
                    table.insert(topic.name.clone(), topic);
                }
                self.table.publish(table);
                return;
            }
            drop(waiting);
            for (at, queue) in queues {
                let Some((topic, stay)) = made.get_mut(at) else { continue };
                for record in queue {
                    stay.extend(record.move_to(topic, &self.placement, context));
                }
            }
        }
    }

    /// The topic as metadata says it is, unless it is known like that, or better.
    fn changed(&self, known: Option<&Arc<Topic>>, name: &str, metadata: &Metadata) -> Option<Arc<Topic>> {
        let said = metadata.topic(name)?;
        let count = said.partitions.len();
        if count == 0 || said.error != ErrorCode::NONE {
            return None;
        }
        let rack = |node| metadata.brokers.get(&node).and_then(|broker| broker.rack.clone());
        let leaders = said.partitions.iter().map(|partition| partition.leader);
        let leaders: Vec<Leader> = leaders.map(|node| Leader { node, rack: node.and_then(rack) }).collect();
        let Placement { growth, partitioning, rack, seed, .. } = &self.placement;
        if let Some(known) = known {
            let recreated = known.id != said.id && !said.id.is_nil();
            // An older picture may lack partitions that are there; only another topic of the name
            // has fewer.
            if count < known.partitions.len() && !recreated {
                return None;
            }
            if !recreated && known.chooser.suits(&leaders, partitioning.heeds_leaders()) {
                return None;
            }
        }
        let mut waiting = self.lock();
        let name = known.map_or_else(|| said.name.clone(), |known| known.name.clone());
        let mut partitions: Vec<_> = known.iter().flat_map(|known| known.ever()).cloned().collect();
        let compression_ratio = known.map(|known| known.compression_ratio.clone());
        let compression_ratio = compression_ratio.unwrap_or_else(|| Arc::new(CompressionRatio::new(growth.clone())));
        for index in partitions.len()..count {
            let slot = waiting.slots;
            waiting.slots += 1;
            let index = i32::try_from(index).unwrap_or(i32::MAX);
            partitions.push(Arc::new(Partition::new(slot, name.clone(), index, compression_ratio.clone())));
        }
        growth.set_partitions(waiting.slots);
        let gone = partitions.split_off(count);
        let load = |index: usize| partitions.get(index).map(|there| there.load.clone()).unwrap_or_default();
        let seed = seed ^ waiting.slots as u64;
        let clogged = |node| waiting.clogged.entry(node).or_default().clone();
        let before = known.map(|known| &known.chooser);
        let chooser = Chooser::new(seed, leaders, partitioning, rack.as_deref(), load, clogged, before);
        Some(Arc::new(Topic { name, id: said.id, partitions, gone, compression_ratio: compression_ratio, chooser }))
    }

    /// Fails the records that wait for this topic longer than they may (all of them, if `all`) with
    /// what `error` makes of the topic's name. Gives the deadline of the next.
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
            let deadline = |record: &WaitingRecord| self.topic_timeout().after(record.since);
            while queue.front().is_some_and(|record| all || deadline(record) <= now) {
                late.extend(queue.pop_front());
            }
            let next = queue.front().map(deadline);
            if next.is_none() {
                waiting.topics.remove(name);
            }
            next
        };
        for mut record in late {
            record.fail(error(name));
        }
        next
    }

    /// Fails all records that wait for a topic, because the user does not want them any more. Gives
    /// how many these were.
    pub(crate) fn purge(&self) -> usize {
        let left = std::mem::take(&mut self.lock().topics);
        let mut records = 0;
        for (topic, queue) in left {
            for mut record in queue {
                record.fail(PurgeScope::error(&topic));
                records += 1;
            }
        }
        records
    }

    /// The topics that records wait for, and the deadline of the first of each.
    pub(crate) fn waited_for(&self) -> Vec<(Arc<str>, Instant)> {
        let waiting = self.lock();
        let deadline = |record: &WaitingRecord| self.topic_timeout().after(record.since);
        waiting.topics.iter().filter_map(|(name, queue)| Some((name.clone(), deadline(queue.front()?)))).collect()
    }

    /// The deadline of the first record that waits for a topic.
    pub(crate) fn first_deadline(&self, name: &str) -> Option<Instant> {
        Some(self.topic_timeout().after(self.lock().topics.get(name)?.front()?.since))
    }

    /// How long a record waits for its topic.
    pub(crate) fn topic_timeout(&self) -> TopicTimeout {
        self.placement.topic_timeout
    }

    /// The topics that records have begun to wait for since the last call, each once for every time
    /// that it began.
    pub(crate) fn take_unseen(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.lock().unseen)
    }

    /// Whether a broker takes no data at the moment.
    pub(crate) fn set_unavailable(&self, node: i32, clogged: bool) {
        self.lock().clogged.entry(node).or_default().set(clogged);
    }

    /// All topics in the table.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.table.newest().values().cloned().collect()
    }

    /// How many tables were published.
    #[cfg(test)]
    pub(crate) fn editions(&self) -> u64 {
        self.table.published.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Records that came in and have no result yet, as far as `settled` counts those of batches.
    pub(crate) fn outstanding(&self, settled: impl Fn() -> u64) -> u64 {
        // Settled first: then what comes in meanwhile counts as outstanding, not the other way
        // round.
        let settled = settled();
        let waiting = self.lock();
        let queued: u64 = waiting.topics.values().map(|queue| queue.len() as u64).sum();
        let appended: u64 = self.table.newest().values().flat_map(|topic| topic.ever()).map(|p| p.appended()).sum();
        (queued + appended).saturating_sub(settled)
    }

    /// Refuses all further records and fails those that have not left yet.
    pub(crate) fn close(&self, error: &Error) {
        let (left, table) = {
            let mut waiting = self.lock();
            waiting.closed.get_or_insert_with(|| error.clone());
            (std::mem::take(&mut waiting.topics), self.table.newest())
        };
        for mut record in left.into_values().flatten() {
            record.fail(error.clone());
        }
        for partition in table.values().flat_map(|topic| topic.ever()) {
            for mut batch in partition.close(error.clone()) {
                let status = batch.status();
                batch.complete(super::batch::BatchOutcome::Failed(error.clone().with_status(status)));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingRecords> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a record; unless it is done, its payment is still the caller's.
enum TopicAppend<R> {
    Done(R),
    /// The record names a partition that is not there.
    NoPartition,
    Full,
    /// The producer has ended, or there is no partition for this record.
    Refused(Error),
}

impl Topic {
    #[cfg(test)]
    pub(super) fn for_tests(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            id: Uuid::nil(),
            partitions: Vec::new(),
            gone: Vec::new(),
            compression_ratio: Arc::default(),
            chooser: Chooser::new(
                0,
                Vec::new(),
                &Partitioning::default(),
                None,
                |_| Arc::default(),
                |_| crate::producer::partitioner::BrokerUnavailable::default(),
                None,
            ),
        })
    }

    /// All partitions that it has, and those that a topic of the name had before.
    pub(crate) fn ever(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().chain(&self.gone)
    }

    /// Appends a record to its partition, which is left in `held` for the next one. `take` hears
    /// where its result will be.
    #[allow(clippy::too_many_arguments, reason = "the one place where a record and its producer meet")]
    #[inline]
    fn append<'t, R, C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        &'t self,
        held: &mut Option<LockedPartition<'t>>,
        record: &Record<'_>,
        admitted: AdmittedRecord,
        reservation: &mut RecordReservation,
        placement: &Placement,
        context: &mut AppendContext<'_, C, T>,
        mut take: impl FnMut(&Arc<BatchResults>, u32) -> R,
    ) -> TopicAppend<R> {
        // The user's code may send records itself, so nothing is held meanwhile.
        let fixed = match self.chooser.choose(record, &self.name, &placement.partitioning, || *held = None) {
            Choice::Partition(index) => Some(index),
            Choice::Any => None,
            Choice::Refused(error) => return TopicAppend::Refused(error),
        };
        let sticky = &self.chooser.sticky;
        let AdmittedRecord { bound, timestamp } = admitted;
        let mut entry = RecordEntry { parts: parts_of(record), bound, timestamp, sticky: None };
        // A turn can end under us, and again under the next choice; after some rounds any partition
        // will do.
        for round in 0..8 {
            let index = fixed.unwrap_or_else(|| sticky.current() as usize);
            entry.sticky = (fixed.is_none() && round < 7).then_some(sticky);
            let Some(partition) = self.partitions.get(index) else { break };
            // Whatever is held is let go of before another lock is taken.
            let mut here = match held.take_if(|held| std::ptr::eq(held.partition(), &**partition)) {
                Some(here) => here,
                None => {
                    *held = None;
                    partition.lock_to_append()
                }
            };
            match here.append(&entry, reservation, placement.sizes, context.shared, &context.clock, &mut take) {
                Appended::Done { taken, event } => {
                    if event == SenderEvent::None {
                        *held = Some(here);
                    } else {
                        drop(here);
                        (context.notify)(partition, event);
                    }
                    return TopicAppend::Done(taken);
                }
                Appended::StickyTurnOver(event) => {
                    drop(here);
                    (context.notify)(partition, event);
                }
                Appended::BufferFull(event) => {
                    drop(here);
                    (context.notify)(partition, event);
                    return TopicAppend::Full;
                }
                Appended::Closed(error) => return TopicAppend::Refused(error),
            }
        }
        TopicAppend::NoPartition
    }
}

/// What is written of a record.
pub(crate) fn parts_of<'a>(record: &'a Record<'a>) -> RecordParts<'a> {
    RecordParts { key: record.key(), value: record.value(), record: Some(record) }
}
