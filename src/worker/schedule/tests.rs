use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering::SeqCst},
    },
    task::Wake,
};

use bytes::Bytes;
use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::cluster::Backoff;
use crate::{
    error::{ErrorCode, ErrorKind},
    record::TimestampType,
};

#[derive(Debug)]
struct Lease {
    done: AtomicI64,
    over: AtomicBool,
}

#[derive(Clone, Debug)]
struct TestMark(Arc<Lease>);

impl TestMark {
    fn new() -> Self {
        Self(Arc::new(Lease { done: AtomicI64::new(-1), over: AtomicBool::new(false) }))
    }

    fn done(&self) -> i64 {
        self.0.done.load(SeqCst)
    }
}

impl CompletionTarget for TestMark {
    fn finish_to(&self, next: i64) {
        assert!(self.0.done.fetch_max(next, SeqCst) < next, "progress only goes forward");
    }

    fn is_over(&self) -> bool {
        self.0.over.load(SeqCst)
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Counts its wake-ups.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn record(partition: i32, offset: i64, key: Option<u8>) -> ConsumerRecord {
    ConsumerRecord {
        topic: "t".into(),
        partition,
        offset,
        leader_epoch: None,
        timestamp_millis: -1,
        timestamp_type: TimestampType::CreateTime,
        key: key.map(|key| Bytes::copy_from_slice(&[key])),
        value: None,
        headers: Vec::new(),
    }
}

fn rules() -> Rules {
    Rules {
        concurrency: 4,
        queues: 1,
        batch: None,
        linger: Duration::ZERO,
        buffer_records: 10,
        buffer_bytes: 1 << 20,
        retries: 2,
        backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(8)),
        failed: Failed::Stop,
        patience: Some(Duration::from_secs(300)),
    }
}

fn schedule(rules: Rules) -> Schedule<TestMark> {
    Schedule::new(rules, StdRng::seed_from_u64(1))
}

fn error() -> Error {
    Error::new(ErrorKind::Handler, "no")
}

fn failed() -> Outcome {
    Outcome::Failed { error: error(), again: true }
}

fn offsets(job: &Job) -> Vec<i64> {
    job.load.records().iter().map(|record| record.offset).collect()
}

/// Returns a schedule with handler tasks, and one partition with these keys at offsets from 0 on.
fn with(rules: Rules, keys: &[Option<u8>]) -> (Schedule<TestMark>, TestMark, Instant) {
    let mut schedule = schedule(rules);
    let (mark, now) = (TestMark::new(), Instant::now());
    let id = schedule.add(TopicPartition::new("t", 0));
    schedule.offer(id, mark.clone(), keys.iter().zip(0..).map(|(key, offset)| record(0, offset, *key)), now);
    schedule.new_lanes();
    (schedule, mark, now)
}

#[test]
fn handles_partition_in_order_and_marks_progress() {
    let (mut schedule, mark, now) = with(rules(), &[None, None, None]);
    for offset in 0..3 {
        let job = schedule.next(0, now).unwrap();
        assert_eq!(offsets(&job), [offset]);
        assert!(schedule.next(0, now).is_none(), "one record runs at a time");
        assert_eq!(schedule.finished(0, job, Outcome::Handled, now), Verdict::Done);
        assert_eq!(mark.done(), offset + 1);
    }
    let metrics = schedule.metrics();
    assert_eq!((metrics.records_processed, metrics.records_waiting, metrics.buffered_bytes), (3, 0, 0));
}

#[test]
fn keys_run_concurrently_and_commit_only_prefix() {
    let rules = Rules { queues: 64, ..rules() };
    let (mut schedule, mark, now) = with(rules, &[Some(1), Some(1), Some(2), Some(3)]);
    schedule.new_lanes();
    let jobs: Vec<_> = (0..3).map(|lane| schedule.next(lane, now).unwrap()).collect();
    assert_eq!(jobs.iter().flat_map(offsets).collect::<Vec<_>>(), [0, 2, 3], "the second of key 1 waits for the first");
    assert!(schedule.next(3, now).is_none());
    let mut jobs = jobs.into_iter();
    let first = jobs.next().unwrap();
    for (lane, job) in (1..).zip(jobs) {
        schedule.finished(lane, job, Outcome::Handled, now);
        assert_eq!(mark.done(), -1);
    }
    schedule.finished(0, first, Outcome::Handled, now);
    assert_eq!(mark.done(), 1);
    let last = schedule.next(0, now).unwrap();
    assert_eq!(offsets(&last), [1]);
    schedule.finished(0, last, Outcome::Handled, now);
    assert_eq!(mark.done(), 4);
}

#[test]
fn failed_record_backs_off_without_blocking_others() {
    let (mut schedule, mark, now) = with(rules(), &[None, None]);
    let other = schedule.add(TopicPartition::new("t", 1));
    schedule.offer(other, TestMark::new(), [record(1, 7, None)], now);
    let job = schedule.next(0, now).unwrap();
    let Verdict::Again(wait) = schedule.finished(0, job, failed(), now) else { panic!("tried again") };
    assert!((800..=1200).contains(&wait.as_millis()), "{wait:?}");
    let beside = schedule.next(0, now).unwrap();
    assert_eq!(offsets(&beside), [7]);
    schedule.finished(0, beside, Outcome::Handled, now);
    assert!(schedule.next(0, now).is_none(), "the record after it waits");
    assert_eq!(schedule.next_due(), Some(now + wait));
    schedule.tick(now);
    assert!(schedule.next(0, now).is_none());
    let later = now + wait;
    schedule.tick(later);
    let again = schedule.next(0, later).unwrap();
    assert_eq!((offsets(&again), again.attempt), (vec![0], 2));
    let Verdict::Again(longer) = schedule.finished(0, again, failed(), later) else { panic!("tried again") };
    assert!((1600..=2400).contains(&longer.as_millis()), "{longer:?}");
    schedule.tick(later + longer);
    let last = schedule.next(0, later).unwrap();
    assert_eq!(last.attempt, 3);
    assert!(schedule.failure().is_none());
    assert_eq!(schedule.finished(0, last, failed(), later), Verdict::Stopped);
    assert!(schedule.failure().is_some() && mark.done() == -1);
    let metrics = schedule.metrics();
    assert_eq!((metrics.attempts_failed, metrics.retries, metrics.records_abandoned), (3, 2, 1));
}

#[test]
fn permanent_error_skips_record_without_retry() {
    let rules = Rules { failed: Failed::Skip, ..rules() };
    let (mut schedule, mark, now) = with(rules, &[None, None]);
    let job = schedule.next(0, now).unwrap();
    let verdict = schedule.finished(0, job, Outcome::Failed { error: error(), again: false }, now);
    assert_eq!((verdict, mark.done()), (Verdict::Skipped, 1));
    assert_eq!(schedule.metrics().records_skipped, 1);
    assert_eq!(offsets(&schedule.next(0, now).unwrap()), [1]);
}

#[test]
fn dead_letter_is_retried_until_delivered() {
    let rules = Rules { failed: Failed::DeadLetter, retries: 0, ..rules() };
    let (mut schedule, mark, mut now) = with(rules, &[None, None]);
    let job = schedule.next(0, now).unwrap();
    assert_eq!(schedule.finished(0, job, failed(), now), Verdict::ToTheDeadLetters);
    for _ in 0..10 {
        let letter = schedule.next(0, now).unwrap();
        assert!(matches!(letter.task, Task::DeadLetter(_)) && offsets(&letter) == [0] && letter.attempt == 1);
        let refusal = Error::broker(ErrorCode::NOT_ENOUGH_REPLICAS, "x");
        assert!(matches!(schedule.finished(0, letter, Outcome::BuryingFailed(refusal), now), Verdict::Again(_)));
        assert_eq!(mark.done(), -1);
        now = schedule.next_due().unwrap();
        schedule.tick(now);
    }
    let letter = schedule.next(0, now).unwrap();
    assert_eq!(schedule.finished(0, letter, Outcome::Buried, now), Verdict::Done);
    assert_eq!(mark.done(), 1);
    // A dead letter that can never be delivered ends the worker, and its record is not done.
    let job = schedule.next(0, now).unwrap();
    schedule.finished(0, job, failed(), now);
    let letter = schedule.next(0, now).unwrap();
    let refusal = Error::broker(ErrorCode::MESSAGE_TOO_LARGE, "x");
    assert_eq!(schedule.finished(0, letter, Outcome::BuryingFailed(refusal), now), Verdict::Stopped);
    assert_eq!(mark.done(), 1);
    let metrics = schedule.metrics();
    assert_eq!((metrics.records_dead_lettered, metrics.dead_letters_retried), (1, 10));
}

#[test]
fn failed_batch_is_retried_as_whole() {
    let rules = Rules { batch: Some(3), ..rules() };
    let (mut schedule, mark, now) = with(rules, &[None; 4]);
    let next = TestMark::new();
    schedule.offer(0, next.clone(), [record(0, 90, None), record(0, 91, None)], now);
    let job = schedule.next(0, now).unwrap();
    assert_eq!(offsets(&job), [0, 1, 2]);
    let Verdict::Again(wait) = schedule.finished(0, job, failed(), now) else { panic!("tried again") };
    let now = now + wait;
    schedule.tick(now);
    let again = schedule.next(0, now).unwrap();
    assert_eq!(offsets(&again), [0, 1, 2]);
    schedule.finished(0, again, Outcome::Handled, now);
    assert_eq!(mark.done(), 3);
    let job = schedule.next(0, now).unwrap();
    assert_eq!(offsets(&job), [3], "records that were read again are another batch");
    schedule.finished(0, job, Outcome::Handled, now);
    assert_eq!((mark.done(), next.done()), (4, -1));
    let job = schedule.next(0, now).unwrap();
    assert_eq!(offsets(&job), [90, 91]);
    schedule.finished(0, job, Outcome::Handled, now);
    assert_eq!((mark.done(), next.done()), (4, 92));
}

/// Returns rules for batches of three that wait ten seconds.
fn lingering() -> Rules {
    Rules { batch: Some(3), linger: Duration::from_secs(10), ..rules() }
}

/// Like [`with`], but with a handler task that waits for batches of which none is ready.
fn with_lingering(rules: Rules, records: usize) -> (Schedule<TestMark>, TestMark, Instant) {
    let (mut schedule, mark, now) = with(rules, &vec![None; records]);
    schedule.handlers.resize_with(1, HandlerSlot::default);
    (schedule, mark, now)
}

#[test]
fn batch_lingers_until_full_or_expired() {
    let (mut schedule, mark, now) = with_lingering(lingering(), 2);
    let second = Duration::from_secs(1);
    assert!(schedule.next(0, now).is_none());
    assert_eq!(schedule.next_due(), Some(now + 10 * second));
    assert!(schedule.take_signals().driver, "the worker's task has to set the timer");
    schedule.offer(0, mark.clone(), (2..4).map(|offset| record(0, offset, None)), now + 4 * second);
    let job = schedule.next(0, now + 4 * second).unwrap();
    assert_eq!(offsets(&job), [0, 1, 2], "full");
    schedule.tick(now + 10 * second);
    schedule.finished(0, job, Outcome::Handled, now + 11 * second);
    assert!(schedule.next(0, now + 11 * second).is_none(), "the linger counts from the batch's own first record");
    assert_eq!(schedule.next_due(), Some(now + 14 * second));
    schedule.tick(now + 14 * second);
    let job = schedule.next(0, now + 14 * second).unwrap();
    assert_eq!(offsets(&job), [3]);
    schedule.offer(0, mark.clone(), [record(0, 4, None)], now + 15 * second);
    schedule.finished(0, job, Outcome::Handled, now + 30 * second);
    let job = schedule.next(0, now + 30 * second).unwrap();
    assert_eq!(offsets(&job), [4], "the batch lingered while the one before it was handled");
    schedule.finished(0, job, Outcome::Handled, now + 30 * second);
    assert_eq!((mark.done(), schedule.next_due()), (5, None));
}

#[test]
fn batch_fills_with_half_of_buffer_occupied() {
    let rules = Rules { batch: Some(10), ..lingering() };
    let (mut schedule, mark, now) = with_lingering(rules, 6);
    let waker = Waker::from(Arc::new(Bell::default()));
    assert_eq!(schedule.room(0, &waker).map(|room| room.records), Some(4));
    schedule.offer(0, mark, (6..10).map(|offset| record(0, offset, None)), now);
    assert_eq!(offsets(&schedule.next(0, now).unwrap()).len(), 10);
}

#[test]
fn batch_starts_when_buffer_cannot_grow() {
    let waker = Waker::from(Arc::new(Bell::default()));
    let (mut schedule, _, now) = with_lingering(Rules { buffer_bytes: 1, ..lingering() }, 2);
    assert_eq!(schedule.room(0, &waker), None, "all bytes are taken");
    assert_eq!(offsets(&schedule.next(0, now).unwrap()), [0, 1]);
    let (mut schedule, _, now) = with_lingering(lingering(), 2);
    assert!(!schedule.is_settled(0, &waker), "an error follows the records");
    assert_eq!(offsets(&schedule.next(0, now).unwrap()), [0, 1]);
}

#[test]
fn drained_partition_ignores_batch_linger() {
    let (mut schedule, mark, now) = with_lingering(lingering(), 2);
    let waker = Waker::from(Arc::new(Bell::default()));
    schedule.drain(0);
    assert!(schedule.is_drained(0, &waker));
    schedule.remove(0);
    // Another partition with the same id has its own linger.
    let later = now + Duration::from_secs(5);
    assert_eq!(schedule.add(TopicPartition::new("t", 1)), 0);
    schedule.offer(0, mark, [record(1, 0, None)], later);
    schedule.tick(now + Duration::from_secs(10));
    assert!(schedule.next(0, now + Duration::from_secs(10)).is_none());
    schedule.tick(now + Duration::from_secs(15));
    assert!(schedule.next(0, now + Duration::from_secs(15)).is_some());
}

#[test]
fn seek_discards_buffered_records() {
    let (mut schedule, mark, now) = with(rules(), &[None, None, None]);
    let job = schedule.next(0, now).unwrap();
    mark.0.over.store(true, SeqCst);
    let next = TestMark::new();
    schedule.offer(0, next.clone(), [record(0, 1, None)], now);
    schedule.finished(0, job, Outcome::Handled, now);
    let job = schedule.next(0, now).unwrap();
    assert_eq!(job.first, 3, "the first record after the seek");
    schedule.finished(0, job, Outcome::Handled, now);
    assert_eq!((next.done(), schedule.metrics().buffered_bytes), (2, 0));
}

#[test]
fn ended_partition_only_completes_running_handler() {
    let (mut schedule, mark, now) = with(rules(), &[None, None, None]);
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(bell.clone());
    let job = schedule.next(0, now).unwrap();
    schedule.end(0);
    assert!(!schedule.is_drained(0, &waker));
    assert_eq!(schedule.cancel(Some(1)), []);
    assert_eq!(schedule.cancel(Some(0)), [0]);
    assert!(schedule.running(now)[0].cancelled);
    schedule.offer(0, mark.clone(), [record(0, 3, None)], now);
    schedule.finished(0, job, Outcome::Handled, now);
    assert_eq!(mark.done(), 1, "the running record was completed");
    schedule.take_signals().wakers.into_iter().for_each(Waker::wake);
    assert_eq!(bell.0.load(SeqCst), 1);
    assert!(schedule.is_drained(0, &waker) && schedule.next(0, now).is_none());
    schedule.remove(0);
    assert_eq!(schedule.metrics().buffered_bytes, 0);
    assert_eq!(schedule.add(TopicPartition::new("t", 5)), 0, "the id of the removed partition is free");
}

#[test]
fn drained_partition_leaves_no_offset_gap() {
    let rules = Rules { queues: 64, retries: 5, ..rules() };
    let keys = [Some(1), Some(1), Some(2), Some(1), Some(2), Some(3)];
    let waker = Waker::from(Arc::new(Bell::default()));
    let begin = || {
        let (mut schedule, mark, now) = with(rules.clone(), &keys[..3]);
        schedule.new_lanes();
        let jobs: Vec<_> = (0..2).map(|lane| schedule.next(lane, now).unwrap()).collect();
        assert_eq!(jobs.iter().flat_map(offsets).collect::<Vec<_>>(), [0, 2]);
        let more: Vec<_> = (3..).zip(&keys[3..]).map(|(offset, key)| record(0, offset, *key)).collect();
        schedule.offer(0, mark.clone(), more, now);
        schedule.drain(0);
        (schedule, mark, now, jobs.into_iter())
    };
    let (mut schedule, mark, now, mut jobs) = begin();
    assert!(schedule.next(2, now).is_none(), "the third key was not begun, and lies after the others");
    schedule.finished(1, jobs.nth(1).unwrap(), Outcome::Handled, now);
    assert!(schedule.next(1, now).is_none() && !schedule.is_drained(0, &waker));
    let (mut schedule, mark, now, mut jobs) = {
        drop((schedule, mark, now, jobs));
        begin()
    };
    schedule.finished(0, jobs.next().unwrap(), Outcome::Handled, now);
    let between = schedule.next(0, now).unwrap();
    assert_eq!(offsets(&between), [1], "the record lies before one that was begun");
    schedule.finished(1, jobs.next().unwrap(), Outcome::Handled, now);
    assert!(!schedule.is_drained(0, &waker));
    schedule.finished(0, between, Outcome::Handled, now);
    assert!(schedule.is_drained(0, &waker) && schedule.next(0, now).is_none());
    assert_eq!(mark.done(), 3);
    // A record that fails now is not tried again, and the records after it are left.
    let (mut schedule, mark, now, mut jobs) = begin();
    assert_eq!(schedule.finished(0, jobs.next().unwrap(), failed(), now), Verdict::Abandoned);
    assert!(schedule.next(0, now).is_none());
    schedule.finished(1, jobs.next().unwrap(), Outcome::Handled, now);
    assert!(schedule.is_drained(0, &waker) && mark.done() == -1);
    // A record that waits for its retry is not waited for either.
    let (mut schedule, _, now) = with(rules, &keys[..3]);
    let first = schedule.next(0, now).unwrap();
    let second = schedule.next(1, now);
    schedule.finished(0, first, failed(), now);
    schedule.drain(0);
    assert_eq!(schedule.next_due(), None);
    if let Some(second) = second {
        schedule.finished(1, second, Outcome::Handled, now);
    }
    assert!(schedule.is_drained(0, &waker));
}

#[test]
fn ended_partition_drops_its_pending_retry() {
    let (mut schedule, mark, now) = with(rules(), &[None, None]);
    let job = schedule.next(0, now).unwrap();
    schedule.finished(0, job, failed(), now);
    schedule.end(0);
    assert_eq!(schedule.next_due(), None);
    // A record that fails while its partition is drained is neither retried nor skipped.
    let (mut other, _, now) = with(Rules { retries: 0, ..rules() }, &[None]);
    let job = other.next(0, now).unwrap();
    other.end(0);
    assert_eq!(other.finished(0, job, failed(), now), Verdict::Abandoned);
    assert!(other.failure().is_none() && mark.done() == -1);
}

#[test]
fn starts_and_wakes_one_handler_per_job() {
    let mut schedule = schedule(Rules { concurrency: 3, ..rules() });
    let now = Instant::now();
    assert_eq!(schedule.new_lanes(), 0..0);
    for partition in 0..2 {
        let id = schedule.add(TopicPartition::new("t", partition));
        schedule.offer(id, TestMark::new(), [record(partition, 0, None)], now);
    }
    assert!(schedule.take_signals().driver);
    assert_eq!(schedule.new_lanes(), 0..2);
    assert_eq!(schedule.new_lanes(), 2..2, "two handler tasks are enough for the jobs");
    let bells: Vec<_> = (0..2).map(|_| Arc::new(Bell::default())).collect();
    for (lane, bell) in bells.iter().enumerate() {
        let job = schedule.next(lane, now).unwrap();
        schedule.finished(lane, job, Outcome::Handled, now);
        schedule.wait(lane, &Waker::from(bell.clone()));
    }
    schedule.take_signals();
    schedule.offer(0, TestMark::new(), [record(0, 1, None), record(0, 2, None)], now);
    let signals = schedule.take_signals();
    assert_eq!((signals.wakers.len(), signals.driver), (1, false), "one queue is one job");
    signals.wakers.into_iter().for_each(Waker::wake);
    assert_eq!(bells.iter().map(|bell| bell.0.load(SeqCst)).sum::<usize>(), 1);
}

#[test]
fn limits_buffer_by_records_and_bytes() {
    let size = record(0, 0, None).size();
    let mut schedule = schedule(Rules { buffer_bytes: size * 8, ..rules() });
    schedule.handlers.push(HandlerSlot::default());
    let (one, two) = (schedule.add(TopicPartition::new("t", 0)), schedule.add(TopicPartition::new("t", 1)));
    let bells: Vec<_> = (0..2).map(|_| Arc::new(Bell::default())).collect();
    let wakers: Vec<_> = bells.iter().map(|bell| Waker::from(bell.clone())).collect();
    let (mark, now) = (TestMark::new(), Instant::now());
    assert_eq!(schedule.room(one, &wakers[0]), Some(OfferRoom { records: 10, bytes: size * 8 }));
    schedule.offer(one, mark.clone(), (0..6).map(|offset| record(0, offset, None)), now);
    assert_eq!(schedule.room(one, &wakers[0]), None, "more than half of its records");
    assert_eq!(schedule.room(two, &wakers[1]), Some(OfferRoom { records: 10, bytes: size * 2 }));
    schedule.offer(two, TestMark::new(), (0..2).map(|offset| record(1, offset, None)), now);
    assert_eq!(schedule.room(two, &wakers[1]), None, "no bytes are left");
    let ring = |schedule: &mut Schedule<TestMark>| {
        schedule.take_signals().wakers.into_iter().for_each(Waker::wake);
        [0, 1].map(|bell: usize| bells[bell].0.load(SeqCst))
    };
    let mut rung = Vec::new();
    while let Some(job) = schedule.next(0, now) {
        let partition = job.partition;
        schedule.finished(0, job, Outcome::Handled, now);
        rung.push((partition, ring(&mut schedule)));
    }
    // The partitions alternate; the first has room when it is down to half, the second when bytes
    // are free again.
    let expected =
        [(0, [1, 0]), (1, [1, 1]), (0, [1, 1]), (1, [1, 1]), (0, [1, 1]), (0, [1, 1]), (0, [1, 1]), (0, [1, 1])];
    assert_eq!(rung, expected);
    assert_eq!(schedule.room(one, &wakers[0]), Some(OfferRoom { records: 10, bytes: size * 8 }));
}

#[test]
fn oldest_running_job_determines_busy_time() {
    let rules = Rules { queues: 64, ..rules() };
    let (mut schedule, _, now) = with(rules, &[Some(1), Some(2)]);
    assert_eq!(schedule.busy_since(), None);
    let first = schedule.next(0, now).unwrap();
    let later = now + Duration::from_secs(10);
    let second = schedule.next(1, later).unwrap();
    assert_eq!(schedule.busy_since(), Some(now));
    let running = schedule.running(now + Duration::from_secs(20));
    let times: Vec<_> = running.iter().map(|job| (job.offset, job.for_how_long.as_secs())).collect();
    assert_eq!(times, [(0, 20), (1, 10)]);
    let overdue = now + Duration::from_secs(300);
    assert!(schedule.is_overdue(overdue) && !schedule.is_overdue(overdue - Duration::from_millis(1)));
    schedule.take_signals();
    schedule.finished(0, first, Outcome::Handled, overdue);
    assert!(schedule.take_signals().driver, "the worker's task is woken to rejoin the group");
    assert_eq!(schedule.busy_since(), Some(later));
    schedule.finished(1, second, Outcome::Handled, overdue);
    assert!(!schedule.is_overdue(overdue));
}

/// The next step of a model test.
#[derive(Clone, Debug)]
enum Step {
    Offer { partition: usize, keys: Vec<u8> },
    Next(usize),
    Finish { lane: usize, how: u8 },
    Wait(u16),
    Seek(usize),
    End(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..3_usize, prop::collection::vec(0..6_u8, 1..5)).prop_map(|(partition, keys)| Step::Offer { partition, keys }),
        6 => (0..4_usize).prop_map(Step::Next),
        6 => (0..4_usize, 0..10_u8).prop_map(|(lane, how)| Step::Finish { lane, how }),
        2 => (0..3000_u16).prop_map(Step::Wait),
        1 => (0..3_usize).prop_map(Step::Seek),
        1 => (0..3_usize).prop_map(Step::End),
    ]
}

/// A partition in the model.
struct Known {
    id: PartitionId,
    mark: TestMark,
    next: i64,
    /// The key of each record, by offset, and true if it is done.
    records: Vec<(u8, bool)>,
    ended: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// In every interleaving, one record of a key (or partition) runs at a time, in order, and the
    /// mark has the exact progress.
    #[test]
    fn keeps_order_and_exact_progress_under_interleavings(
        steps in prop::collection::vec(step(), 1..120),
        by_key in any::<bool>(),
        batch in prop::option::of(1..4_usize),
        linger in prop_oneof![Just(0), 1..3000_u64],
        failed in prop_oneof![Just(Failed::Skip), Just(Failed::DeadLetter), Just(Failed::Stop)],
    ) {
        let batch = batch.filter(|_| !by_key);
        let linger = Duration::from_millis(linger);
        let rules = Rules { queues: if by_key { 16 } else { 1 }, batch, linger, retries: 1, failed, ..rules() };
        let mut schedule = schedule(rules);
        schedule.handlers.resize_with(4, HandlerSlot::default);
        let mut now = Instant::now();
        let mut lanes: [Option<Job>; 4] = [None, None, None, None];
        let fresh = |schedule: &mut Schedule<TestMark>, number: usize| Known {
            id: schedule.add(TopicPartition::new("t", number as i32)),
            mark: TestMark::new(),
            next: 0,
            records: Vec::new(),
            ended: false,
        };
        let mut known: Vec<Known> = (0..3).map(|number| fresh(&mut schedule, number)).collect();
        // Partitions that have ended, until their running jobs have ended.
        let mut old: HashMap<PartitionId, Known> = HashMap::new();
        let begun: Mutex<Vec<(PartitionId, i64)>> = Mutex::default();
        for step in steps {
            match step {
                Step::Offer { partition, keys } => {
                    let of = &mut known[partition];
                    let from = of.next;
                    of.next += keys.len() as i64;
                    of.records.extend(keys.iter().map(|key| (*key, false)));
                    let records = keys.iter().zip(from..).map(|(key, offset)| record(partition as i32, offset, Some(*key)));
                    schedule.offer(of.id, of.mark.clone(), records.collect::<Vec<_>>(), now);
                }
                Step::Next(lane) => {
                    if lanes[lane].is_none() && let Some(job) = schedule.next(lane, now) {
                        let of = known.iter().find(|of| of.id == job.partition).expect("no job of an ended partition");
                        prop_assert!(!of.ended);
                        for record in job.load.records() {
                            let at = record.offset as usize;
                            let (key, done) = of.records[at];
                            prop_assert!(!done, "the record was begun after it was done");
                            let before = &of.records[..at];
                            let first = job.load.records()[0].offset as usize;
                            let clear = before.iter().enumerate().all(|(place, (other, done))| {
                                *done || place >= first || (by_key && *other != key)
                            });
                            prop_assert!(clear, "a record before it is not done: {at} of {:?}", of.records);
                        }
                        begun.lock().unwrap().push((job.partition, job.load.records()[0].offset));
                        lanes[lane] = Some(job);
                    }
                }
                Step::Finish { lane, how } => {
                    if let Some(job) = lanes[lane].take() {
                        let (id, all) = (job.partition, offsets(&job));
                        let sends_dead_letter = matches!(job.task, Task::DeadLetter(_));
                        let outcome = match (how, sends_dead_letter) {
                            (0..=5, false) => Outcome::Handled,
                            (6..=7, false) => self::failed(),
                            (_, false) => Outcome::Failed { error: error(), again: false },
                            (0..=6, true) => Outcome::Buried,
                            (_, true) => Outcome::BuryingFailed(Error::broker(ErrorCode::NOT_ENOUGH_REPLICAS, "x")),
                        };
                        let verdict = schedule.finished(lane, job, outcome, now);
                        let of = match known.iter_mut().find(|of| of.id == id) {
                            Some(of) => of,
                            None => old.get_mut(&id).expect("known"),
                        };
                        if matches!(verdict, Verdict::Done | Verdict::Skipped) {
                            all.iter().for_each(|offset| of.records[*offset as usize].1 = true);
                        }
                        prop_assert!(!(of.ended && matches!(verdict, Verdict::Again(_))));
                        let running = lanes.iter().flatten().any(|job| job.partition == id);
                        if of.ended && !running {
                            old.remove(&id);
                            schedule.remove(id);
                        }
                    }
                }
                Step::Wait(millis) => {
                    now += Duration::from_millis(millis.into());
                    schedule.tick(now);
                }
                Step::Seek(partition) => {
                    // The partition is read again from its progress: records that were not begun
                    // come again under another mark.
                    let of = &mut known[partition];
                    let running = lanes.iter().flatten().any(|job| job.partition == of.id);
                    let parked = schedule.parked.values().chain(&schedule.due).any(|job| job.partition == of.id);
                    if !running && !parked {
                        of.mark.0.over.store(true, SeqCst);
                        let from = of.records.iter().position(|(_, done)| !done).unwrap_or(of.records.len());
                        of.mark = TestMark::new();
                        of.mark.0.done.store(from as i64, SeqCst);
                        let records: Vec<_> = (from..of.records.len())
                            .map(|at| {
                                of.records[at].1 = false;
                                record(partition as i32, at as i64, Some(of.records[at].0))
                            })
                            .collect();
                        schedule.offer(of.id, of.mark.clone(), records, now);
                    }
                }
                Step::End(partition) => {
                    let of = &mut known[partition];
                    of.ended = true;
                    let id = of.id;
                    schedule.end(id);
                    let running = lanes.iter().flatten().any(|job| job.partition == id);
                    if running {
                        let new = fresh(&mut schedule, partition);
                        old.insert(id, std::mem::replace(of, new));
                    } else {
                        schedule.remove(id);
                        *of = fresh(&mut schedule, partition);
                    }
                }
            }
            for of in known.iter().chain(old.values()) {
                let prefix = of.records.iter().take_while(|(_, done)| *done).count() as i64;
                prop_assert_eq!(of.mark.done().max(0), prefix);
            }
            if schedule.failure().is_some() {
                break;
            }
        }
        // With time and success, all records are done.
        if schedule.failure().is_none() {
            for _ in 0..10_000 {
                now += Duration::from_secs(60);
                schedule.tick(now);
                for (lane, running) in lanes.iter_mut().enumerate() {
                    if let Some(job) = running.take().or_else(|| schedule.next(lane, now)) {
                        let sends_dead_letter = matches!(job.task, Task::DeadLetter(_));
                        let outcome = if sends_dead_letter { Outcome::Buried } else { Outcome::Handled };
                        schedule.finished(lane, job, outcome, now);
                    }
                }
            }
            for of in &known {
                prop_assert_eq!(of.mark.done().max(0), of.records.len() as i64);
            }
            old.keys().for_each(|id| schedule.remove(*id));
            prop_assert_eq!(schedule.metrics().buffered_bytes, 0);
        }
    }
}
