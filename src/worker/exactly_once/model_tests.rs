//! The schedule and the cycle against a model of brokers, a consumer and another member, in random
//! interleavings.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::Waker,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    cycle::{Cycle, CycleRules, RewindTo, Step},
    recoveries::Recoveries,
};
use crate::{
    cluster::Backoff,
    error::{Error, ErrorCode, ErrorKind},
    record::{ConsumerRecord, TimestampType, TopicPartition},
    worker::{
        Failed,
        schedule::{CompletionTarget, Job, Outcome, Schedule, Task, ToCommit, rules::Rules},
    },
};

const LANES: usize = 4;
const RECORDS: i64 = 60;

/// One positioning of a partition.
#[derive(Clone, Debug)]
struct Mark(Arc<AtomicBool>);

impl CompletionTarget for Mark {
    fn finish_to(&self, _: i64) {
        assert!(!self.is_over(), "a partition that is gone has no progress");
    }

    fn is_over(&self) -> bool {
        self.0.load(SeqCst)
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Worker,
    /// The group waits for the worker to give it up.
    Revoking,
    /// It was lost; jobs of it may still run.
    Lost,
    Other,
}

#[derive(Debug)]
struct Partition {
    id: usize,
    owner: Owner,
    mark: Mark,
    /// The offset of the next record that the consumer delivers.
    position: i64,
    /// The group's committed offset.
    committed: i64,
}

#[derive(Clone, Debug)]
enum Event {
    Feed {
        partition: usize,
        records: i64,
    },
    Next(usize),
    Finish {
        lane: usize,
        how: u8,
    },
    Wait(u16),
    Step(u8),
    Revoke(usize),
    RevokeTimeout(usize),
    Lose(usize),
    /// The other member handles records, and gives the partition back.
    Return {
        partition: usize,
        handles: i64,
    },
    /// The outputs have reached their limit.
    Full,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..3_usize, 1..6_i64).prop_map(|(partition, records)| Event::Feed { partition, records }),
        8 => (0..LANES).prop_map(Event::Next),
        8 => (0..LANES, 0..20_u8).prop_map(|(lane, how)| Event::Finish { lane, how }),
        3 => (0..400_u16).prop_map(Event::Wait),
        8 => (0..30_u8).prop_map(Event::Step),
        1 => (0..3_usize).prop_map(Event::Revoke),
        1 => (0..3_usize).prop_map(Event::RevokeTimeout),
        1 => (0..3_usize).prop_map(Event::Lose),
        2 => (0..3_usize, 0..3_i64).prop_map(|(partition, handles)| Event::Return { partition, handles }),
        1 => Just(Event::Full),
    ]
}

struct World {
    schedule: Schedule<Mark>,
    partitions: Vec<Partition>,
    lanes: [Option<(Job, u64)>; LANES],
    /// Number of handler tasks that were started.
    started: usize,
    /// Number of the open transaction, and what it holds.
    transaction: u64,
    is_open: bool,
    sent: Vec<(usize, i64)>,
    /// The committed results of each record.
    results: BTreeMap<(usize, i64), u32>,
    now: Instant,
}

fn error(kind: ErrorKind, retriable: bool) -> Error {
    Error::new(kind, "model").with_retriable(retriable)
}

fn record(partition: usize, offset: i64) -> ConsumerRecord {
    ConsumerRecord {
        topic: "t".into(),
        partition: i32::try_from(partition).unwrap(),
        offset,
        leader_epoch: None,
        timestamp_millis: -1,
        timestamp_type: TimestampType::CreateTime,
        key: Some(bytes::Bytes::copy_from_slice(&[u8::try_from(offset % 5).unwrap()])),
        value: None,
        headers: Vec::new(),
    }
}

fn name(partition: usize) -> TopicPartition {
    TopicPartition::new("t", i32::try_from(partition).unwrap())
}

impl World {
    fn new(by_key: bool, batch: Option<usize>, failed: Failed) -> Self {
        let rules = Rules {
            concurrency: LANES,
            queues: if by_key { 16 } else { 1 },
            batch,
            linger: Duration::ZERO,
            buffer_records: 20,
            buffer_bytes: 1 << 20,
            retries: 1,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(1)),
            failed,
            patience: Some(Duration::from_secs(300)),
        };
        let cycle = CycleRules {
            records: 7,
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(2),
            transactional_id: "model".into(),
        };
        let rng = || StdRng::seed_from_u64(1);
        let cycle = Cycle::new(cycle, Recoveries::new(1000, Duration::from_secs(300)), rng());
        let mut schedule = Schedule::new(rules, rng()).with_transactions(cycle);
        let partitions = (0..3).map(|partition| Partition {
            id: schedule.add(name(partition)),
            owner: Owner::Worker,
            mark: Mark(Arc::default()),
            position: 0,
            committed: 0,
        });
        let partitions = partitions.collect();
        Self {
            schedule,
            partitions,
            lanes: [const { None }; LANES],
            started: 0,
            transaction: 0,
            is_open: false,
            sent: Vec::new(),
            results: BTreeMap::new(),
            now: Instant::now(),
        }
    }

    fn feed(&mut self, at: usize, records: i64) {
        let of = &mut self.partitions[at];
        if of.owner != Owner::Worker {
            return;
        }
        let end = (of.position + records).min(RECORDS);
        let records: Vec<_> = (of.position..end).map(|offset| record(at, offset)).collect();
        of.position = end;
        self.schedule.offer(of.id, of.mark.clone(), records, self.now);
    }

    fn next(&mut self, lane: usize) {
        self.started = self.schedule.new_lanes().end;
        if self.lanes[lane].is_some() || lane >= self.started {
            return;
        }
        let Some(job) = self.schedule.next(lane, self.now) else { return };
        assert!(self.is_open, "a record was begun without a transaction");
        for record in job.load.records() {
            let of = &self.partitions[record.partition as usize];
            assert!(matches!(of.owner, Owner::Worker | Owner::Revoking), "the partition is gone: {of:?}");
            assert!(record.offset >= of.committed, "it is committed already");
            let at = (record.partition as usize, record.offset);
            assert!(!self.sent.contains(&at), "it has a result in this transaction already");
            let other = self.lanes.iter().flatten().any(|(job, _)| {
                job.load
                    .records()
                    .iter()
                    .any(|other| (other.partition, other.offset) == (record.partition, record.offset))
            });
            assert!(!other, "two handlers have it");
        }
        self.lanes[lane] = Some((job, self.transaction));
    }

    fn finish(&mut self, lane: usize, how: u8) {
        let Some((job, transaction)) = self.lanes[lane].take() else { return };
        let takes_sends = self.is_open && transaction == self.transaction;
        let is_cancelled = self.schedule.running(self.now).iter().any(|running| {
            running.cancelled
                && running.offset == job.load.records()[0].offset
                && running.partition.partition == job.load.records()[0].partition
        });
        let succeeds = how < 16;
        let outcome = match (&job.task, how) {
            _ if is_cancelled && how.is_multiple_of(2) => Outcome::Cancelled,
            (Task::Skip, _) => Outcome::Skipped,
            (Task::Handle, _) if succeeds => Outcome::Handled,
            (Task::DeadLetter(_), _) if succeeds => Outcome::Buried,
            (Task::Handle, _) => Outcome::Failed { error: error(ErrorKind::Handler, false), again: how < 19 },
            (Task::DeadLetter(_), _) => Outcome::BuryingFailed(error(ErrorKind::Network, true)),
        };
        // A failed handler may have sent its outputs before.
        let sends = !matches!(outcome, Outcome::Cancelled) && (succeeds || how.is_multiple_of(2));
        if takes_sends && sends {
            self.sent.extend(job.load.records().iter().map(|record| (record.partition as usize, record.offset)));
        }
        self.schedule.finished(lane, job, outcome, self.now);
        self.give_up();
    }

    fn step(&mut self, how: u8) {
        let now = self.now;
        let Some(Some(step)) = self.schedule.cycle(Cycle::take_step) else { return };
        let retriable = || error(ErrorKind::Timeout, true);
        let fenced = || error(ErrorKind::Fenced, false);
        match step {
            Step::Prepare(_) => {
                let result = if how < 25 { Ok(()) } else { Err(retriable()) };
                self.schedule.cycle(|cycle| cycle.prepared(result, now));
            }
            Step::Begin => {
                let result = match how {
                    0..25 => Ok(()),
                    25..28 => Err(retriable()),
                    _ => Err(fenced()),
                };
                if result.is_ok() {
                    assert!(!self.is_open, "two transactions at once");
                    self.transaction += 1;
                    self.is_open = true;
                    self.sent.clear();
                }
                self.schedule.transaction_begun(result, now);
            }
            Step::Commit => self.commit(how),
            Step::Abort => {
                self.is_open = false;
                let result = if how < 25 { Ok(()) } else { Err(retriable()) };
                self.schedule.cycle(|cycle| cycle.aborted(result, now));
            }
            Step::Rewind(to) => {
                assert!(!self.is_open, "the transaction is not over");
                self.rewind(to, how);
            }
            Step::Fail(error) => panic!("the worker ends: {error}"),
        }
        self.give_up();
    }

    fn commit(&mut self, how: u8) {
        let now = self.now;
        assert!(self.lanes.iter().all(Option::is_none), "records of the transaction run");
        let Some(offsets) = self.schedule.offsets_to_commit(now) else { return };
        self.is_open = false;
        match how {
            0..20 => {
                self.apply(&offsets);
                self.schedule.transaction_committed(now);
            }
            20..24 => {
                let rebalanced = Error::broker(ErrorCode::ILLEGAL_GENERATION, "model");
                self.schedule.cycle(|cycle| cycle.commit_aborted(rebalanced, now));
            }
            24..26 => {
                self.schedule.cycle(|cycle| cycle.commit_aborted(error(ErrorKind::Fenced, false), now));
            }
            _ => {
                if how.is_multiple_of(2) {
                    self.apply(&offsets);
                }
                self.schedule.cycle(|cycle| cycle.commit_unknown(error(ErrorKind::Timeout, true), now));
            }
        }
    }

    /// Commits at the brokers: the results are those of the records before the offsets, and no
    /// others.
    fn apply(&mut self, offsets: &[ToCommit<Mark>]) {
        let mut sent = std::mem::take(&mut self.sent);
        sent.sort_unstable();
        let mut expected = Vec::new();
        for ToCommit { partition, next, .. } in offsets {
            let at = partition.partition as usize;
            let of = &mut self.partitions[at];
            assert!(matches!(of.owner, Owner::Worker | Owner::Revoking), "the partition is gone");
            expected.extend((of.committed..*next).map(|offset| (at, offset)));
            of.committed = *next;
        }
        expected.sort_unstable();
        // Skipped records have no result of their own.
        let results: Vec<_> = expected.iter().filter(|at| !sent.contains(at)).copied().chain(sent.clone()).collect();
        let mut all = results.clone();
        all.sort_unstable();
        assert_eq!(all, expected, "offsets and results differ");
        results.into_iter().for_each(|at| *self.results.entry(at).or_default() += 1);
    }

    fn rewind(&mut self, to: RewindTo, how: u8) {
        let now = self.now;
        let starts = self.schedule.rewind_transaction();
        for (partition, start) in starts {
            let of = &mut self.partitions[partition.partition as usize];
            assert_eq!(of.owner, Owner::Worker);
            let position = match to {
                RewindTo::Start => start,
                RewindTo::Committed => of.committed,
            };
            assert_eq!(position, of.committed, "records are lost or repeated");
            // Records that were delivered just before come under the old mark.
            if how.is_multiple_of(3) && of.position < RECORDS {
                let late = record(partition.partition as usize, of.position);
                self.schedule.offer(of.id, of.mark.clone(), [late], now);
            }
            of.mark.0.store(true, SeqCst);
            of.mark = Mark(Arc::default());
            of.position = position;
        }
        self.schedule.transaction_rewound(Ok(()), now);
    }

    fn revoke(&mut self, at: usize) {
        let of = &mut self.partitions[at];
        if of.owner == Owner::Worker {
            of.owner = Owner::Revoking;
            self.schedule.drain(of.id);
            self.give_up();
        }
    }

    /// Ends a partition at once: it was lost, or the group does not wait any longer.
    fn end(&mut self, at: usize, only: &[Owner]) {
        let of = &mut self.partitions[at];
        if only.contains(&of.owner) {
            of.owner = Owner::Lost;
            of.mark.0.store(true, SeqCst);
            self.schedule.end(of.id);
            self.schedule.cancel(Some(of.id));
            self.give_up();
        }
    }

    /// Lets go of partitions that are drained.
    fn give_up(&mut self) {
        for of in &mut self.partitions {
            if matches!(of.owner, Owner::Revoking | Owner::Lost) && self.schedule.is_drained(of.id, Waker::noop()) {
                self.schedule.remove(of.id);
                of.mark.0.store(true, SeqCst);
                of.owner = Owner::Other;
            }
        }
    }

    fn come_back(&mut self, at: usize, handles: i64) {
        let of = &mut self.partitions[at];
        if of.owner == Owner::Other {
            let end = (of.committed + handles).min(RECORDS);
            for offset in of.committed..end {
                *self.results.entry((at, offset)).or_default() += 1;
            }
            of.committed = end;
            of.id = self.schedule.add(name(at));
            of.owner = Owner::Worker;
            of.mark = Mark(Arc::default());
            of.position = of.committed;
        }
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.schedule.tick(self.now);
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Feed { partition, records } => self.feed(partition, records),
            Event::Next(lane) => self.next(lane),
            Event::Finish { lane, how } => self.finish(lane, how),
            Event::Wait(millis) => self.wait(Duration::from_millis(millis.into())),
            Event::Step(how) => self.step(how),
            Event::Revoke(partition) => self.revoke(partition),
            Event::RevokeTimeout(partition) => self.end(partition, &[Owner::Revoking]),
            Event::Lose(partition) => self.end(partition, &[Owner::Worker, Owner::Revoking]),
            Event::Return { partition, handles } => self.come_back(partition, handles),
            Event::Full => drop(self.schedule.cycle(Cycle::close)),
        }
    }

    /// Runs without failures until all records are committed.
    fn settle(&mut self) {
        for _ in 0..2_000 {
            (0..3).for_each(|partition| self.come_back(partition, 0));
            (0..3).for_each(|partition| self.feed(partition, 5));
            (0..LANES).for_each(|lane| self.next(lane));
            (0..LANES).for_each(|lane| self.finish(lane, 0));
            self.step(1);
            self.wait(Duration::from_millis(40));
            if self.partitions.iter().all(|of| of.committed == RECORDS) {
                return;
            }
        }
        panic!("it does not make progress: {:?}", self.partitions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// Each record has one committed result, whatever fails and whichever partitions move.
    #[test]
    fn each_record_has_one_committed_result(
        events in prop::collection::vec(event(), 1..300),
        by_key in any::<bool>(),
        batch in prop::option::of(1..4_usize),
        failed in prop_oneof![Just(Failed::Skip), Just(Failed::DeadLetter)],
    ) {
        let mut world = World::new(by_key, batch.filter(|_| !by_key), failed);
        for event in events {
            world.handle(event);
        }
        world.settle();
        for partition in 0..3 {
            for offset in 0..RECORDS {
                let results = world.results.get(&(partition, offset)).copied();
                prop_assert_eq!(results, Some(1), "offset {} of partition {}", offset, partition);
            }
        }
        prop_assert_eq!(world.schedule.metrics().buffered_bytes, 0);
    }

    /// A close lets running records finish, commits them, and leaves nothing open.
    #[test]
    fn close_ends_transaction_with_its_records(
        events in prop::collection::vec(event(), 1..120),
        by_key in any::<bool>(),
    ) {
        let mut world = World::new(by_key, None, Failed::Skip);
        for event in events {
            world.handle(event);
        }
        world.schedule.close();
        let mut rounds = 0;
        while !world.schedule.is_idle(Waker::noop()) {
            (0..LANES).for_each(|lane| world.next(lane));
            (0..LANES).for_each(|lane| world.finish(lane, 0));
            world.step(1);
            world.wait(Duration::from_millis(40));
            rounds += 1;
            prop_assert!(rounds < 500, "it does not end");
        }
        prop_assert!(world.lanes.iter().all(Option::is_none));
        prop_assert!(world.results.values().all(|results| *results == 1));
    }
}
