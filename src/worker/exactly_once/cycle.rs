//! Decides when a worker's transactions begin and end, and what follows their failures.
//!
//! One transaction is open at a time, over all partitions. The schedule reports each job that
//! begins, and each failure. The transaction task performs the [steps](Step) and reports their
//! results. Records are handed out only while the transaction is open, and a transaction commits
//! only when none of its records runs.
//!
//! Sans-IO.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use super::{phase::Phase, recoveries::Recoveries, status::ExactlyOnceStatus};
use crate::{
    error::{Error, ErrorCode, ErrorKind},
    histogram::Histogram,
};

/// Errors of the group coordinator that a rebalance causes: the offsets' records belong to another
/// member by now, or soon will.
const REBALANCED: [ErrorCode; 6] = [
    ErrorCode::ILLEGAL_GENERATION,
    ErrorCode::UNKNOWN_MEMBER_ID,
    ErrorCode::FENCED_INSTANCE_ID,
    ErrorCode::REBALANCE_IN_PROGRESS,
    ErrorCode::STALE_MEMBER_EPOCH,
    ErrorCode::GROUP_ID_NOT_FOUND,
];

/// The limits of a transaction.
#[derive(Clone, Debug)]
pub(crate) struct CycleRules {
    /// Number of records after which a transaction commits.
    pub(crate) records: u64,
    /// Time after its first record at which it commits.
    pub(crate) interval: Duration,
    /// Age at which the coordinator may abort it (`transaction.timeout.ms`).
    pub(crate) timeout: Duration,
    /// The transactional id, for errors.
    pub(crate) transactional_id: Arc<str>,
}

/// A step for the transaction task.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Makes a producer and initializes it, instead of one that failed with this error; then
    /// [`Cycle::prepared`].
    Prepare(Option<Error>),
    /// Begins a transaction; then [`Cycle::begun`].
    Begin,
    /// Collects the offsets and commits; then [`Cycle::committed`], [`Cycle::commit_aborted`] or
    /// [`Cycle::commit_unknown`].
    Commit,
    /// Aborts the transaction; then [`Cycle::aborted`].
    Abort,
    /// Reads records again; then [`Cycle::rewound`].
    Rewind(RewindTo),
    /// Ends the worker.
    Fail(Error),
}

/// The place from which records are read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RewindTo {
    /// The first record of the transaction, because it is known not to be committed.
    Start,
    /// The group's committed offset, because only the coordinator knows the outcome.
    Committed,
}

/// The reason for which an open transaction cannot commit.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// A handler, or the delivery of a dead letter, failed. The schedule bounds these.
    Handler,
    /// A partition is no longer read, so that its offsets cannot be committed.
    Lost,
    /// The transaction is older than its timeout.
    Overdue,
    /// The producer reported this.
    Producer(Error),
}

/// Jobs that may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    All,
    /// Those before records that were begun already.
    Gaps,
    None,
}

/// Counts of transactions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TransactionCounts {
    pub(crate) committed: u64,
    pub(crate) aborted: u64,
    pub(crate) unknown: u64,
    pub(crate) producers_replaced: u64,
    pub(crate) records: Histogram,
    pub(crate) commit_micros: Histogram,
}

/// The open transaction.
#[derive(Debug, Default)]
struct Current {
    /// Time at which its first record was begun.
    since: Option<Instant>,
    records: u64,
    /// Partitions, by their numbers in the schedule, with records in it.
    partitions: BTreeSet<usize>,
    commit_began: Option<Instant>,
    /// True if an abort was answered, and only running records delay what follows.
    is_aborted: bool,
    failure: Option<Failure>,
}

#[derive(Debug)]
pub(crate) struct Cycle {
    rules: CycleRules,
    phase: Phase,
    current: Current,
    /// A step that the task has not taken yet.
    step: Option<Step>,
    /// True if a record waits for a transaction.
    is_wanted: bool,
    /// Time before which no transaction begins.
    not_before: Option<Instant>,
    /// True if the producer can begin a transaction.
    is_ready: bool,
    /// The error by which the last producer ended, until there is another one.
    replaced: Option<Error>,
    /// The error by which the last producer ended.
    last_failure: Option<Error>,
    recoveries: Recoveries,
    /// True if a failure was counted that may show itself once more as a fenced producer.
    is_fencing_counted: bool,
    rng: StdRng,
    counts: TransactionCounts,
}

impl Cycle {
    pub(crate) fn new(rules: CycleRules, recoveries: Recoveries, rng: StdRng) -> Self {
        let mut cycle = Self {
            rules,
            phase: Phase::Idle,
            current: Current::default(),
            step: None,
            is_wanted: false,
            not_before: None,
            is_ready: false,
            replaced: None,
            last_failure: None,
            recoveries,
            is_fencing_counted: false,
            rng,
            counts: TransactionCounts::default(),
        };
        // At once: it ends a transaction that an earlier instance left open.
        cycle.enter(Phase::Preparing, Step::Prepare(None));
        cycle
    }

    // ---- queries

    /// Returns the jobs that may begin.
    pub(crate) fn admission(&self) -> Admission {
        match self.phase {
            Phase::Open => Admission::All,
            Phase::Closing => Admission::Gaps,
            _ => Admission::None,
        }
    }

    /// Returns true if the records that run now are in vain: their transaction does not commit.
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.phase, Phase::Aborting | Phase::Rewinding | Phase::Failed)
    }

    /// Returns true if the end of the transaction is awaited before that partition may be given up.
    pub(crate) fn holds(&self, partition: usize) -> bool {
        self.phase != Phase::Failed && self.current.partitions.contains(&partition)
    }

    /// Returns the partitions with records in the transaction.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = usize> + use<> {
        self.current.partitions.clone().into_iter()
    }

    /// Returns true if no transaction has records, and nothing is left to do for the last one.
    pub(crate) fn is_idle(&self) -> bool {
        let is_settled =
            matches!(self.phase, Phase::Idle | Phase::Preparing | Phase::Beginning | Phase::Open | Phase::Failed);
        self.phase == Phase::Failed || is_settled && self.current.partitions.is_empty()
    }

    /// Returns the state of the transaction, without the producer's.
    pub(crate) fn status(&self, now: Instant) -> ExactlyOnceStatus {
        ExactlyOnceStatus {
            phase: self.phase.into(),
            records: self.current.records,
            for_how_long: self.current.since.map(|since| now.saturating_duration_since(since)),
            recent_failures: self.recoveries.count(),
            last_failure: self.last_failure.clone(),
            producer: None,
        }
    }

    pub(crate) fn counts(&self) -> &TransactionCounts {
        &self.counts
    }

    /// Returns the time of the next [`tick`](Self::tick).
    pub(crate) fn next_due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle => self.not_before.filter(|_| self.is_wanted || !self.is_ready),
            Phase::Open => self.current.since.map(|since| since + self.rules.interval.min(self.rules.timeout)),
            Phase::Closing => self.current.since.map(|since| since + self.rules.timeout),
            _ => None,
        }
    }

    /// Takes the next step.
    pub(crate) fn take_step(&mut self) -> Option<Step> {
        self.step.take()
    }

    /// Returns true if a step waits for the task.
    pub(crate) fn has_step(&self) -> bool {
        self.step.is_some()
    }

    // ---- events of the schedule

    /// Notes that a record waits.
    pub(crate) fn want(&mut self, now: Instant) {
        self.is_wanted = true;
        self.try_begin(now);
    }

    /// Notes that a job with so many records of a partition begins.
    pub(crate) fn job_begun(&mut self, partition: usize, records: usize, now: Instant) {
        self.current.partitions.insert(partition);
        self.current.since.get_or_insert(now);
        self.current.records += records as u64;
        if self.current.records >= self.rules.records {
            self.close();
        }
    }

    /// Takes no more records, if there are any: the transaction commits once none of them runs.
    pub(crate) fn close(&mut self) {
        if self.phase == Phase::Open && !self.current.partitions.is_empty() {
            self.phase = Phase::Closing;
        }
    }

    /// Notes that none of the transaction's records runs, or waits before another that has run.
    pub(crate) fn settled(&mut self) {
        match self.phase {
            Phase::Closing => self.enter(Phase::Complete, Step::Commit),
            Phase::Aborting if self.current.is_aborted => self.rewind(RewindTo::Start),
            _ => {}
        }
    }

    /// Returns true if [`settled`](Self::settled) has an effect.
    pub(crate) fn awaits_settling(&self) -> bool {
        self.phase == Phase::Closing || self.phase == Phase::Aborting && self.current.is_aborted
    }

    /// Gives up a partition at once. A transaction with its records does not commit any more,
    /// unless the commit has begun: then its offsets are part of it, and the coordinator decides.
    pub(crate) fn lose(&mut self, partition: usize) {
        if self.current.partitions.remove(&partition) {
            self.fail(Failure::Lost);
        }
    }

    /// Aborts the transaction, because it cannot commit.
    pub(crate) fn fail(&mut self, failure: Failure) {
        if matches!(self.phase, Phase::Open | Phase::Closing | Phase::Complete) {
            self.current.failure = Some(failure);
            self.enter(Phase::Aborting, Step::Abort);
        }
    }

    pub(crate) fn tick(&mut self, now: Instant) {
        let age = self.current.since.map(|since| now.saturating_duration_since(since));
        match self.phase {
            Phase::Idle => self.try_begin(now),
            Phase::Open | Phase::Closing if age.is_some_and(|age| age >= self.rules.timeout) => {
                self.fail(Failure::Overdue);
            }
            Phase::Open if age.is_some_and(|age| age >= self.rules.interval) => self.close(),
            _ => {}
        }
    }

    // ---- results of the steps

    /// Handles the result of [`Step::Begin`].
    pub(crate) fn begun(&mut self, result: Result<(), Error>, now: Instant) {
        if self.phase != Phase::Beginning {
            return;
        }
        match result {
            Ok(()) => {
                self.phase = Phase::Open;
                self.is_wanted = false;
                self.not_before = None;
            }
            Err(error) => {
                self.phase = Phase::Idle;
                self.recover_producer(error, now);
            }
        }
    }

    /// Handles the result of [`Step::Prepare`].
    pub(crate) fn prepared(&mut self, result: Result<(), Error>, now: Instant) {
        if self.phase != Phase::Preparing {
            return;
        }
        self.phase = Phase::Idle;
        match result {
            Ok(()) => {
                self.is_ready = true;
                self.counts.producers_replaced += u64::from(self.replaced.take().is_some());
                self.try_begin(now);
            }
            Err(error) => self.recover_producer(error, now),
        }
    }

    /// Notes that the offsets were collected, and are part of the transaction from now on. Returns
    /// false if it failed before.
    pub(crate) fn committing(&mut self, now: Instant) -> bool {
        let is_complete = self.phase == Phase::Complete;
        if is_complete {
            self.phase = Phase::Committing;
            self.current.commit_began = Some(now);
        }
        is_complete
    }

    /// Notes that the transaction is committed.
    pub(crate) fn committed(&mut self, now: Instant) {
        if let Some(began) = self.current.commit_began {
            self.counts.commit_micros.record_micros(now.saturating_duration_since(began));
        }
        self.counts.committed += 1;
        self.counts.records.record(self.current.records);
        self.recoveries.reset_wait();
        self.is_fencing_counted = false;
        self.current = Current::default();
        self.phase = Phase::Idle;
        self.try_begin(now);
    }

    /// Notes that the commit failed and the transaction was aborted, because of this error.
    pub(crate) fn commit_aborted(&mut self, error: Error, now: Instant) {
        self.counts.aborted += 1;
        self.rewind(RewindTo::Start);
        self.recover(error, now);
    }

    /// Notes that the transaction may be committed or aborted.
    pub(crate) fn commit_unknown(&mut self, error: Error, now: Instant) {
        self.counts.unknown += 1;
        self.rewind(RewindTo::Committed);
        self.recover(error, now);
    }

    /// Handles the end of [`Step::Abort`], and the error if it failed: the transaction is not
    /// committed either way.
    pub(crate) fn aborted(&mut self, result: Result<(), Error>, now: Instant) {
        if self.phase != Phase::Aborting {
            return;
        }
        self.counts.aborted += 1;
        self.current.is_aborted = true;
        match self.current.failure.take() {
            Some(Failure::Producer(error)) => self.recover(error, now),
            Some(Failure::Overdue) => self.recover(self.overdue(), now),
            // A handler's failure is bounded by the schedule; a lost partition is no failure.
            Some(Failure::Handler | Failure::Lost) | None => {
                if let Err(error) = result {
                    self.recover(error, now);
                }
            }
        }
    }

    /// Handles the end of [`Step::Rewind`]. An error means that the place could not be looked up.
    pub(crate) fn rewound(&mut self, result: Result<(), Error>, now: Instant) {
        if self.phase != Phase::Rewinding {
            return;
        }
        match result {
            Ok(()) => {
                self.current = Current::default();
                self.phase = Phase::Idle;
                self.try_begin(now);
            }
            Err(error) => self.fail_worker(error),
        }
    }

    // ---- recovery

    fn enter(&mut self, phase: Phase, step: Step) {
        self.phase = phase;
        self.step = Some(step);
    }

    fn rewind(&mut self, to: RewindTo) {
        self.enter(Phase::Rewinding, Step::Rewind(to));
    }

    fn try_begin(&mut self, now: Instant) {
        let is_due = self.not_before.is_none_or(|at| at <= now);
        if self.phase != Phase::Idle || !is_due {
            return;
        }
        if !self.is_ready {
            self.enter(Phase::Preparing, Step::Prepare(self.replaced.clone()));
        } else if self.is_wanted {
            self.enter(Phase::Beginning, Step::Begin);
        }
    }

    /// Decides what follows an error of the producer: another transaction after a wait, perhaps by
    /// a new producer, or the end of the worker.
    fn recover(&mut self, error: Error, now: Instant) {
        let is_fenced = error.kind() == ErrorKind::Fenced;
        if !is_fenced && (error.is_fatal() || error.kind() == ErrorKind::Closed) {
            return self.fail_worker(error);
        }
        // The next request tells again that the producer is fenced: that is one failure.
        let is_known = is_fenced && std::mem::take(&mut self.is_fencing_counted);
        if !is_known && !may_pass(&error) {
            self.is_fencing_counted = !is_fenced && names_epoch(&error);
            if self.recoveries.exceeds_bound(now) {
                let error = self.too_many(&error);
                return self.fail_worker(error);
            }
        }
        self.not_before = Some(now + self.recoveries.wait(&mut self.rng));
        if is_fenced {
            self.is_ready = false;
            self.last_failure = Some(error.clone());
            self.replaced = Some(error);
        }
    }

    /// Decides what follows an error before the transaction: no other input changes it, so that
    /// only one that is retriable, or that another producer caused, is survived.
    fn recover_producer(&mut self, error: Error, now: Instant) {
        if error.is_retriable() || error.kind() == ErrorKind::Fenced {
            self.recover(error, now);
        } else {
            self.fail_worker(error);
        }
    }

    fn fail_worker(&mut self, error: Error) {
        self.enter(Phase::Failed, Step::Fail(error));
    }

    fn overdue(&self) -> Error {
        let message = format!(
            "a transaction of \"{}\" was open for longer than transaction.timeout.ms ({} ms)",
            self.rules.transactional_id,
            self.rules.timeout.as_millis()
        );
        Error::new(ErrorKind::Handler, message)
    }

    fn too_many(&self, error: &Error) -> Error {
        let (id, failures) = (&self.rules.transactional_id, self.recoveries.count());
        let within = self.recoveries.window().as_secs();
        let (kind, message) = if error.kind() == ErrorKind::Fenced || names_epoch(error) {
            let message = format!(
                "this worker's producer was fenced {failures} times within {within} s (max.poll.interval.ms): another \
                 producer uses transactional.id \"{id}\", or its transactions are older than transaction.timeout.ms; \
                 give each worker a transactional.id of its own: {error}"
            );
            (ErrorKind::Fenced, message)
        } else {
            let message = format!(
                "{failures} transactions of \"{id}\" failed within {within} s (max.poll.interval.ms), the last one \
                 because: {error}"
            );
            (error.kind(), message)
        };
        Error::because_of(kind, message, error.clone())
    }
}

/// Returns true if the transaction failed because of its epoch: another producer has a newer one,
/// or the coordinator raised it when it aborted a transaction that was too old.
fn names_epoch(error: &Error) -> bool {
    matches!(error.code(), Some(ErrorCode::INVALID_PRODUCER_EPOCH | ErrorCode::PRODUCER_FENCED))
}

/// Returns true if the next transaction may succeed without a change: after an error that is
/// retriable, or that a rebalance caused.
fn may_pass(error: &Error) -> bool {
    let passes = |error: &Error| {
        error.is_retriable()
            || error.kind() == ErrorKind::NotAssigned
            || error.code().is_some_and(|code| REBALANCED.contains(&code))
    };
    let cause = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Error>());
    passes(error) || cause.is_some_and(passes)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn cycle() -> Cycle {
        let rules = CycleRules {
            records: 3,
            interval: Duration::from_millis(100),
            timeout: 10 * SECOND,
            transactional_id: "w".into(),
        };
        Cycle::new(rules, Recoveries::new(2, 300 * SECOND), StdRng::seed_from_u64(1))
    }

    /// Returns a cycle with an open transaction without records.
    fn open(now: Instant) -> Cycle {
        let mut cycle = cycle();
        assert!(matches!(cycle.take_step(), Some(Step::Prepare(None))));
        cycle.prepared(Ok(()), now);
        assert!(cycle.take_step().is_none(), "no record waits");
        cycle.want(now);
        assert!(matches!(cycle.take_step(), Some(Step::Begin)));
        cycle.begun(Ok(()), now);
        cycle
    }

    /// Begins the next transaction, as soon as it may begin.
    fn begin_again(cycle: &mut Cycle, now: &mut Instant) {
        cycle.want(*now);
        if let Some(due) = cycle.next_due() {
            *now = due;
            cycle.tick(due);
        }
        if matches!(cycle.step, Some(Step::Prepare(Some(_)))) {
            cycle.take_step();
            cycle.prepared(Ok(()), *now);
        }
        assert!(matches!(cycle.take_step(), Some(Step::Begin)), "{cycle:?}");
        cycle.begun(Ok(()), *now);
    }

    /// Fails the commit of a transaction with one record.
    fn fail_commit(cycle: &mut Cycle, error: Error, now: Instant) {
        cycle.job_begun(0, 1, now);
        cycle.close();
        cycle.settled();
        assert!(matches!(cycle.take_step(), Some(Step::Commit)));
        assert!(cycle.committing(now));
        cycle.commit_aborted(error, now);
        if matches!(cycle.step, Some(Step::Rewind(RewindTo::Start))) {
            cycle.take_step();
            cycle.rewound(Ok(()), now);
        }
    }

    #[test]
    fn transaction_closes_by_count_and_time() {
        let now = Instant::now();
        let mut cycle = open(now);
        assert_eq!((cycle.admission(), cycle.next_due()), (Admission::All, None), "its time counts from a record");
        cycle.job_begun(0, 2, now);
        assert_eq!(cycle.next_due(), Some(now + Duration::from_millis(100)));
        cycle.job_begun(1, 1, now);
        assert_eq!(cycle.admission(), Admission::Gaps);
        let mut cycle = open(now);
        cycle.job_begun(0, 1, now);
        cycle.tick(now + Duration::from_millis(99));
        assert_eq!(cycle.admission(), Admission::All);
        cycle.tick(now + Duration::from_millis(100));
        assert_eq!(cycle.admission(), Admission::Gaps);
        cycle.tick(now + 10 * SECOND);
        assert!(cycle.is_failed() && matches!(cycle.take_step(), Some(Step::Abort)), "its records ran for too long");
    }

    #[test]
    fn lost_partition_aborts_until_commit_begins() {
        let now = Instant::now();
        let mut cycle = open(now);
        cycle.job_begun(0, 1, now);
        cycle.close();
        cycle.settled();
        cycle.lose(0);
        assert!(!cycle.committing(now), "its offset cannot be committed");
        assert!(matches!(cycle.take_step(), Some(Step::Abort)));
        let mut cycle = open(now);
        cycle.job_begun(0, 1, now);
        cycle.close();
        cycle.settled();
        assert!(cycle.committing(now));
        cycle.lose(0);
        assert!(!cycle.is_failed() && !cycle.holds(0), "the coordinator decides");
    }

    #[test]
    fn fencing_is_survived_until_bound() {
        let mut now = Instant::now();
        let mut cycle = open(now);
        for _ in 0..2 {
            fail_commit(&mut cycle, Error::new(ErrorKind::Fenced, "other"), now);
            begin_again(&mut cycle, &mut now);
        }
        assert_eq!(cycle.counts().producers_replaced, 2);
        fail_commit(&mut cycle, Error::new(ErrorKind::Fenced, "other"), now);
        let Some(Step::Fail(error)) = cycle.take_step() else { panic!("{cycle:?}") };
        assert_eq!(error.kind(), ErrorKind::Fenced);
        assert!(error.to_string().contains("\"w\""), "{error}");
    }

    #[test]
    fn fencing_told_twice_counts_once() {
        let mut now = Instant::now();
        let mut cycle = open(now);
        let epoch = Error::broker(ErrorCode::INVALID_PRODUCER_EPOCH, "produce");
        fail_commit(&mut cycle, Error::because_of(ErrorKind::TransactionFailed, "failed", epoch), now);
        cycle.want(now);
        now = cycle.next_due().unwrap();
        cycle.tick(now);
        assert!(matches!(cycle.take_step(), Some(Step::Begin)));
        cycle.begun(Err(Error::new(ErrorKind::Fenced, "other")), now);
        assert_eq!(cycle.status(now).recent_failures, 1);
    }

    #[test]
    fn rebalances_and_passing_errors_are_not_bounded() {
        let mut now = Instant::now();
        let mut cycle = open(now);
        let rebalanced = Error::broker(ErrorCode::ILLEGAL_GENERATION, "offsets");
        let passing = Error::broker(ErrorCode::NOT_ENOUGH_REPLICAS, "produce");
        for cause in [rebalanced, passing].into_iter().cycle().take(20) {
            fail_commit(&mut cycle, Error::because_of(ErrorKind::TransactionFailed, "failed", cause), now);
            begin_again(&mut cycle, &mut now);
        }
        assert_eq!((cycle.status(now).recent_failures, cycle.counts().aborted), (0, 20));
    }

    #[test]
    fn error_without_remedy_ends_worker_at_once() {
        let now = Instant::now();
        let mut cycle = cycle();
        cycle.take_step();
        cycle.prepared(Err(Error::new(ErrorKind::Timeout, "no broker")), now);
        cycle.tick(cycle.next_due().unwrap());
        assert!(matches!(cycle.take_step(), Some(Step::Prepare(None))), "it is tried again without a record");
        cycle.prepared(Err(Error::new(ErrorKind::Authorization, "no")), now);
        assert!(matches!(cycle.take_step(), Some(Step::Fail(_))));
        assert!(cycle.is_idle(), "nothing is waited for");
    }
}
