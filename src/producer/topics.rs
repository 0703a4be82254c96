//! The topics that the producer knows, and the records that wait for a topic that it does not know
//! yet.
//!
//! `send` looks up a topic in an immutable table, without a lock. If the table lacks a record's
//! topic or partition, the record waits in a queue of the topic. When the partition appears, the
//! queue's records are appended before the new table is published, and the queue is found empty
//! under its lock at the moment of publishing, so that no later record overtakes them.
//!
//! Sans-IO.

mod waiting;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use uuid::Uuid;

pub(crate) use self::waiting::TopicTimeout;
use self::waiting::{ChangedTopic, WaitingRecord, WaitingRecords};
use super::{
    accumulator::{Appended, LockedPartition, Partition, SenderEvent},
    partitioner::{Choice, Chooser, Leader, Partitioning},
    sizes::Sizes,
};
use crate::producer::{
    batch_results::BatchResults,
    compression_ratio::{BatchGrowth, CompressionRatio},
    topic_table::{Table, Tables},
};
use crate::producer::{
    batch_shared::BatchShared,
    record_entry::{RecordEntry, RecordReservation},
};
use crate::{
    cluster::Metadata,
    error::{Error, ErrorCode},
    record::{Record, check_topic_name},
    wire::batch::RecordParts,
};

/// The rules for placing records into partitions, from the producer's settings.
#[derive(Clone, Debug)]
pub(crate) struct Placement {
    pub(crate) sizes: Sizes,
    /// Growth of batches beyond that size if they are compressed.
    pub(crate) growth: Arc<BatchGrowth>,
    pub(crate) partitioning: Partitioning,
    /// `client.rack`.
    pub(crate) rack: Option<String>,
    pub(crate) seed: u64,
    /// Time for which a record waits for its topic.
    pub(crate) topic_timeout: TopicTimeout,
}

/// A topic with its partitions.
#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    pub(crate) partitions: Vec<Arc<Partition>>,
    /// Partitions with higher numbers of an earlier topic with this name. They keep their records
    /// and their sequences, and are used again if the topic gets that many partitions: a second
    /// partition object with the same number would start its sequence numbers again, and the broker
    /// would treat its batches as duplicates.
    gone: Vec<Arc<Partition>>,
    /// Compression ratio of its batches.
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

/// The properties of a record that was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmittedRecord {
    /// An upper bound of its bytes in a batch, which is the number of bytes that it reserves.
    pub(crate) bound: u32,
    pub(crate) timestamp: i64,
}

/// The context for placing a record. `notify` gets the events for the sender.
pub(crate) struct AppendContext<'a, C, T> {
    pub(crate) shared: &'a Arc<BatchShared>,
    pub(crate) clock: C,
    pub(crate) notify: T,
}

/// The reason why a record was not placed.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The buffer has no bytes left for the record.
    Full,
    For(Error),
}

/// The place of a record's result.
pub(crate) struct PlacedRecord {
    pub(crate) results: Arc<BatchResults>,
    pub(crate) index: u32,
    /// True if it is the first that waits for its topic, which has to be looked for.
    pub(crate) look_for_topic: bool,
}

impl Topics {
    pub(crate) fn new(placement: Placement) -> Self {
        Self { table: Tables::new(), waiting: Mutex::default(), placement }
    }

    /// Returns the topic, if it is known.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.table.newest().get(name).cloned()
    }

    /// Puts a record into a batch or into its topic's queue. `paid` is true if its bytes are
    /// already taken from the buffer pool; if the record is refused, they belong to the caller
    /// again.
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
        // Repeated until the record is certainly not in the newest table, which is published under
        // the lock. The lookup itself is not under the lock, because it may call a custom
        // partitioner.
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
        if !paid && !context.shared.buffer.try_take(admitted.bound) {
            return Err(Refused::Full);
        }
        let name = match table.get(record.topic()) {
            Some(topic) => topic.name.clone(),
            None => record.topic().into(),
        };
        Ok(waiting.push(name, record, admitted, (context.clock)(), context.shared))
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

    /// Places consecutive records, as long as each can be placed at once: a run of records of one
    /// partition takes its lock once. Returns the number of placed records; `took` gets the place
    /// of each result.
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

    /// Updates topics from the metadata: new partitions, another id, other leaders. Records that
    /// waited for partitions that now exist go into their batches. The table is built once,
    /// regardless of the number of topics.
    pub(crate) fn update<'m, C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        &self,
        names: impl IntoIterator<Item = &'m str>,
        metadata: &Metadata,
        context: &mut AppendContext<'_, C, T>,
    ) {
        let mut changed = self.changed_topics(names, metadata);
        if changed.is_empty() {
            return;
        }
        // Further records wait until the table is published, so the queues are emptied until none
        // has come meanwhile. That ends at the latest when the buffer is full: records keep their
        // memory, and the sender task, which calls this function, completes no batch meanwhile.
        // Only a record that a custom partitioner refuses releases its memory here: a partitioner
        // that refuses everything keeps this loop running as long as callers send faster.
        loop {
            let mut waiting = self.lock();
            if waiting.closed.is_some() {
                return;
            }
            for topic in &mut changed {
                topic.take_waiting(&mut waiting);
            }
            if changed.iter().all(|topic| topic.arriving.is_empty()) {
                self.publish(changed, &mut waiting);
                return;
            }
            // The lock is not held while records are appended, because that may call a custom
            // partitioner.
            drop(waiting);
            for topic in &mut changed {
                topic.append_arriving(&self.placement, context);
            }
        }
    }

    /// Returns the topics that differ from those in the table.
    fn changed_topics<'m>(&self, names: impl IntoIterator<Item = &'m str>, metadata: &Metadata) -> Vec<ChangedTopic> {
        let known = self.table.newest();
        // A topic that is named twice is built once, because its waiting records are in one place
        // only.
        let mut seen = HashSet::new();
        let mut changed = Vec::new();
        for name in names {
            if !seen.contains(name)
                && let Some(topic) = self.changed(known.get(name), name, metadata)
            {
                seen.insert(topic.name.clone());
                changed.push(ChangedTopic::new(topic));
            }
        }
        changed
    }

    /// Publishes the table with the changed topics. The caller holds the lock of the waiting
    /// records and has found none for these topics, so that no later record overtakes them.
    fn publish(&self, changed: Vec<ChangedTopic>, waiting: &mut WaitingRecords) {
        let mut table = Table::clone(&self.table.newest());
        for ChangedTopic { topic, staying, .. } in changed {
            if staying.is_empty() {
                waiting.topics.remove(&topic.name);
            } else {
                waiting.topics.insert(topic.name.clone(), staying);
            }
            table.insert(topic.name.clone(), topic);
        }
        self.table.publish(table);
    }

    /// Returns the topic according to the metadata, unless the known one is equal or newer.
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
            // Older metadata may lack existing partitions; only another topic with this name has
            // fewer.
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
        Some(Arc::new(Topic { name, id: said.id, partitions, gone, compression_ratio, chooser }))
    }

    /// Fails the records that have waited too long for this topic (all of them, if `all`) with the
    /// error that `error` makes of the topic's name. Returns the deadline of the next.
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

    /// Fails all records that wait for a topic with the error that `error` makes of the topic's
    /// name. Returns their number.
    pub(crate) fn fail_all_waiting(&self, error: impl Fn(&str) -> Error) -> usize {
        let left = std::mem::take(&mut self.lock().topics);
        let mut records = 0;
        for (topic, queue) in left {
            for mut record in queue {
                record.fail(error(&topic));
                records += 1;
            }
        }
        records
    }

    /// Returns the topics that records wait for, and the deadline of the first record of each.
    pub(crate) fn waited_for(&self) -> Vec<(Arc<str>, Instant)> {
        let waiting = self.lock();
        let deadline = |record: &WaitingRecord| self.topic_timeout().after(record.since);
        waiting.topics.iter().filter_map(|(name, queue)| Some((name.clone(), deadline(queue.front()?)))).collect()
    }

    /// Returns the deadline of the first record that waits for a topic.
    pub(crate) fn first_deadline(&self, name: &str) -> Option<Instant> {
        Some(self.topic_timeout().after(self.lock().topics.get(name)?.front()?.since))
    }

    /// Returns the time for which a record waits for its topic.
    pub(crate) fn topic_timeout(&self) -> TopicTimeout {
        self.placement.topic_timeout
    }

    /// Returns the topics that records have begun to wait for since the last call; a topic is
    /// listed each time that this happened.
    pub(crate) fn take_unseen(&self) -> Vec<Arc<str>> {
        std::mem::take(&mut self.lock().unseen)
    }

    /// Sets whether a broker is unavailable at the moment.
    pub(crate) fn set_unavailable(&self, node: i32, clogged: bool) {
        self.lock().clogged.entry(node).or_default().set(clogged);
    }

    /// Returns all topics in the table.
    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.table.newest().values().cloned().collect()
    }

    /// Returns the number of published tables.
    #[cfg(test)]
    pub(crate) fn editions(&self) -> u64 {
        self.table.published.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Returns the number of records without a result; `settled` returns the number of records of
    /// batches with results.
    pub(crate) fn outstanding(&self, settled: impl Fn() -> u64) -> u64 {
        // `settled` is read first, so that records that come in meanwhile count as outstanding, not
        // as settled.
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

/// Number of partitions that a record is offered to that may go to any. A turn can end
/// concurrently, and again after the next choice, so the last of these partitions takes the record
/// although its turn is over.
const ROUNDS: usize = 8;

/// The result of appending a record; unless it is `Done`, the reservation still belongs to the
/// caller.
enum TopicAppend<R> {
    Done(R),
    /// The record names a partition that does not exist.
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

    /// Returns all its partitions, and those of earlier topics with this name.
    pub(crate) fn ever(&self) -> impl Iterator<Item = &Arc<Partition>> {
        self.partitions.iter().chain(&self.gone)
    }

    /// Appends a record to its partition, which stays locked in `held` for the next one. `take`
    /// gets the place of its result.
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
        // A custom partitioner may send records itself, so no lock is held meanwhile.
        let fixed = match self.chooser.choose(record, &self.name, &placement.partitioning, || *held = None) {
            Choice::Partition(index) => Some(index),
            Choice::Any => None,
            Choice::Refused(error) => return TopicAppend::Refused(error),
        };
        let sticky = &self.chooser.sticky;
        let AdmittedRecord { bound, timestamp } = admitted;
        let mut entry = RecordEntry { parts: parts_of(record), bound, timestamp, sticky: None };
        for round in 1..=ROUNDS {
            let index = fixed.unwrap_or_else(|| sticky.current() as usize);
            entry.sticky = (fixed.is_none() && round < ROUNDS).then_some(sticky);
            let Some(partition) = self.partitions.get(index) else { break };
            // A held lock is released before another one is taken.
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

/// Returns the parts of a record that are written.
pub(crate) fn parts_of<'a>(record: &'a Record<'a>) -> RecordParts<'a> {
    RecordParts { key: record.key(), value: record.value(), record: Some(record) }
}
