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
    accumulator::{Appended, Entry, Held, News, Partition, Payment, Waited},
    batch::{Ledger, Run},
    cell::{Cell, Outcome},
    credits::Charge,
    partitioner::{Sticky, partition_of_key},
    purge::Purge,
    reports::{Note, ReportRun},
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
    admitted: Admitted,
    deadline: Instant,
    place: Option<Waited>,
    ledger: Arc<Ledger>,
    reported: bool,
}

/// What is known of a record once it was looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    /// An upper bound of its bytes in a batch: what it is charged.
    pub(crate) bound: u32,
    pub(crate) timestamp: i64,
}

/// What putting a record down needs besides the record. `tell` gets what the sender has to know.
pub(crate) struct Hand<'a, C, T> {
    pub(crate) ledger: &'a Arc<Ledger>,
    pub(crate) clock: C,
    pub(crate) tell: T,
}

/// Why a record was not put down.
#[derive(Debug)]
pub(crate) enum Refused {
    /// There are no bytes left to pay with.
    Full,
    For(Error),
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

    /// Puts a record into a batch or into its topic's queue. `paid` says that its bytes were taken from the credits; they
    /// are the caller's again if it is refused.
    pub(crate) fn place<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, News)>(
        &self,
        record: &Record<'_>,
        admitted: Admitted,
        paid: bool,
        hand: &mut Hand<'_, C, T>,
    ) -> Result<Placed, Refused> {
        if let Some(placed) = self.table.with(|table| self.place_known(table, record, admitted, paid, hand))? {
            return Ok(placed);
        }
        check_topic_name(record.topic()).map_err(Refused::For)?;
        let mut waiting = self.lock();
        if let Some(error) = &waiting.closed {
            return Err(Refused::For(error.clone()));
        }
        // Once more under the lock: the table is published under it.
        let table = self.table.newest();
        if let Some(placed) = self.place_known(&table, record, admitted, paid, hand)? {
            return Ok(placed);
        }
        let ledger = hand.ledger;
        if !paid && !ledger.credits.try_take(admitted.bound) {
            return Err(Refused::Full);
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
            admitted,
            deadline: (hand.clock)() + self.placement.max_block,
            place: Some(Waited {
                run: Run { cell: cell.clone(), first: index, count: 1 },
                charge: Charge::of(&ledger.credits, admitted.bound),
                group: ledger.flushes.join(),
            }),
            ledger: ledger.clone(),
            reported: ledger.reports.is_on(),
        });
        Ok(Placed { cell, index, look_for_topic: first })
    }

    fn place_known<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, News)>(
        &self,
        table: &Table,
        record: &Record<'_>,
        admitted: Admitted,
        paid: bool,
        hand: &mut Hand<'_, C, T>,
    ) -> Result<Option<Placed>, Refused> {
        let Some(topic) = table.get(record.topic()) else { return Ok(None) };
        let payment = if paid { Payment::Paid } else { Payment::Due };
        let take = |cell: &Arc<Cell>, index| Placed { cell: cell.clone(), index, look_for_topic: false };
        match topic.append(&mut None, record, admitted, payment, &self.placement, hand, take) {
            TopicAppend::Done(placed) => Ok(Some(placed)),
            TopicAppend::NoPartition(_) => Ok(None),
            TopicAppend::Full(_) => Err(Refused::Full),
            TopicAppend::Closed { error, .. } => Err(Refused::For(error)),
        }
    }

    /// Puts records down that come one behind the other, as long as each can be put down at once: a run of records of one
    /// partition costs its lock once. Gives how many were; `took` hears where the result of each will be.
    pub(crate) fn place_run<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, News)>(
        &self,
        records: &[(Record<'_>, Admitted)],
        hand: &mut Hand<'_, C, T>,
        mut took: impl FnMut(&Arc<Cell>, u32, i64),
    ) -> usize {
        self.table.with(|table| {
            let mut held = None;
            let mut last: Option<&Arc<Topic>> = None;
            for (at, (record, admitted)) in records.iter().enumerate() {
                let known = last.filter(|topic| *topic.name == *record.topic());
                let Some(topic) = known.or_else(|| table.get(record.topic())) else { return at };
                last = Some(topic);
                let take = |cell: &Arc<Cell>, index| took(cell, index, admitted.timestamp);
                match topic.append(&mut held, record, *admitted, Payment::Due, &self.placement, hand, take) {
                    TopicAppend::Done(()) => {}
                    _ => return at,
                }
            }
            records.len()
        })
    }

    /// Takes over what metadata says of a topic: new partitions, another id, other leaders. Records that waited for what
    /// is there now go into its batches.
    pub(crate) fn update<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, News)>(
        &self,
        metadata: &TopicMetadata,
        hand: &mut Hand<'_, C, T>,
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
                stay.extend(record.move_to(&topic, &self.placement, hand));
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

    /// Fails all records that wait for a topic, because the user does not want them any more. Gives how many these were.
    pub(crate) fn purge(&self) -> usize {
        let left = std::mem::take(&mut self.lock().topics);
        let mut records = 0;
        for (topic, queue) in left {
            for mut record in queue {
                record.fail(Purge::error(&topic).with_status(DeliveryStatus::NotPersisted));
                records += 1;
            }
        }
        records
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

/// What became of a record; unless it is done, its payment comes back.
enum TopicAppend<R> {
    Done(R),
    /// The record names a partition that is not there.
    NoPartition(Payment),
    Full(Payment),
    Closed {
        error: Error,
        payment: Payment,
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

    /// Appends a record to its partition, which is left in `held` for the next one. `take` hears where its result will be.
    #[allow(clippy::too_many_arguments, reason = "the one place where a record and its producer meet")]
    #[inline]
    fn append<'t, R, C: Fn() -> Instant, T: FnMut(&Arc<Partition>, News)>(
        &'t self,
        held: &mut Option<Held<'t>>,
        record: &Record<'_>,
        admitted: Admitted,
        mut payment: Payment,
        placement: &Placement,
        hand: &mut Hand<'_, C, T>,
        mut take: impl FnMut(&Arc<Cell>, u32) -> R,
    ) -> TopicAppend<R> {
        let fixed = self.fixed_partition(record, placement);
        let Admitted { bound, timestamp } = admitted;
        let mut entry = Entry { parts: parts_of(record), bound, timestamp, sticky: None };
        // A turn can end under us, and again under the next choice; after some rounds any partition will do.
        for round in 0..8 {
            let index = fixed.unwrap_or_else(|| self.sticky.current() as usize);
            entry.sticky = (fixed.is_none() && round < 7).then_some(&self.sticky);
            let Some(partition) = self.partitions.get(index) else { break };
            // Whatever is held is let go of before another lock is taken.
            let mut here = match held.take_if(|held| std::ptr::eq(held.partition(), &**partition)) {
                Some(here) => here,
                None => {
                    *held = None;
                    partition.hold()
                }
            };
            match here.append(&entry, payment, placement.batch_size, hand.ledger, &hand.clock, &mut take) {
                Appended::Done { taken, news } => {
                    if news == News::None {
                        *held = Some(here);
                    } else {
                        drop(here);
                        (hand.tell)(partition, news);
                    }
                    return TopicAppend::Done(taken);
                }
                Appended::TurnOver { news, payment: back } => {
                    drop(here);
                    (hand.tell)(partition, news);
                    payment = back;
                }
                Appended::Full { news, payment } => {
                    drop(here);
                    (hand.tell)(partition, news);
                    return TopicAppend::Full(payment);
                }
                Appended::Closed { error, payment } => return TopicAppend::Closed { error, payment },
            }
        }
        TopicAppend::NoPartition(payment)
    }

    /// The partition that a record has to go to, if it is not free to go to any.
    #[inline]
    fn fixed_partition(&self, record: &Record<'_>, placement: &Placement) -> Option<usize> {
        match (record.partition, &record.key) {
            (Some(partition), _) => Some(usize::try_from(partition).unwrap_or(usize::MAX)),
            (None, Some(key)) if !placement.ignore_keys => {
                Some(partition_of_key(key.as_slice(), self.partitions.len()))
            }
            _ => None,
        }
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
    fn move_to<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, News)>(
        mut self,
        topic: &Topic,
        placement: &Placement,
        hand: &mut Hand<'_, C, T>,
    ) -> Option<Self> {
        let payment = Payment::Waited(self.place.take()?);
        match topic.append(&mut None, &self.record, self.admitted, payment, placement, hand, |_, _| ()) {
            TopicAppend::Done(()) => None,
            // What was paid is never refused for want of bytes.
            TopicAppend::NoPartition(payment) | TopicAppend::Full(payment) => {
                self.place = payment.waited();
                Some(self)
            }
            TopicAppend::Closed { error, payment } => {
                self.place = payment.waited();
                self.fail(error.with_status(DeliveryStatus::NotPersisted));
                None
            }
        }
    }

    fn fail(&mut self, error: Error) {
        let Some(Waited { run, charge, .. }) = self.place.take() else { return };
        let status = error.delivery_status().unwrap_or(DeliveryStatus::PossiblyPersisted);
        self.ledger.counters.settled(Some(status), run.count);
        let outcome = Outcome::Failed(error);
        if self.reported {
            self.ledger.reports.push(ReportRun {
                cell: run.cell.id(),
                first: run.first,
                topic: self.record.topic().into(),
                partition: self.record.partition,
                outcome: outcome.clone(),
                notes: vec![Note { timestamp: self.admitted.timestamp, tag: self.record.tag }],
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
