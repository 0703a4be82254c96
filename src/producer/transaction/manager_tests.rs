//! Each state of the manager against each call and each event, under both protocols; then the rules
//! on outcomes and epochs, one by one.

use std::{
    error::Error as _,
    time::{Duration, Instant},
};

use super::{
    action::{Action, Notice, Reply},
    manager::{State, TransactionManager, TransactionRules},
    outcome::Outcome,
    protocol::Protocol,
    request::{Answer, AttemptId, CallId, Failure, Request},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind},
    record::{GroupMetadata, OffsetAndMetadata, TopicPartition},
};

/// The states of the tables. `Bumped` is `Ready` with an epoch that has to be raised; in the states
/// of a transaction, the coordinator knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Uninitialized,
    Initializing,
    Ready,
    Bumped,
    Open,
    Failed,
    Flushing,
    Draining,
    Committing,
    Aborting,
    Fatal,
}

use Stage::*;

struct Fixture {
    manager: TransactionManager,
    now: Instant,
    calls: u64,
    protocol: Protocol,
}

const V: [Protocol; 2] = [Protocol::V1, Protocol::V2];

fn cause() -> Error {
    Error::new(ErrorKind::RecordTooLarge, "the first cause")
}

fn offsets() -> Vec<(TopicPartition, OffsetAndMetadata)> {
    vec![(TopicPartition::new("in", 0), OffsetAndMetadata::new(5))]
}

impl Fixture {
    fn new(protocol: Protocol) -> Self {
        let rules = TransactionRules {
            transactional_id: "t".into(),
            timeout: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(120),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            seed: 7,
        };
        let mut manager = TransactionManager::new(rules);
        manager.feature_learned(if protocol == Protocol::V2 { Some(2) } else { None });
        Self { manager, now: Instant::now(), calls: 0, protocol }
    }

    /// Brings a manager to a stage; what it did until then is dropped.
    fn at(stage: Stage, protocol: Protocol) -> Self {
        let mut fixture = Self::new(protocol);
        fixture.go_to(stage);
        fixture.manager.take_actions();
        fixture
    }

    fn go_to(&mut self, stage: Stage) {
        let call = self.call();
        let now = self.now;
        match stage {
            Uninitialized => {}
            Initializing => self.manager.init(call, now),
            Ready => {
                self.go_to(Initializing);
                self.answer(Answer::Assigned { id: 7, epoch: 0 });
            }
            Bumped => {
                self.go_to(Committing);
                if self.protocol == Protocol::V1 {
                    self.lose();
                    self.wait();
                    self.answer(Answer::Code(ErrorCode::NONE));
                } else {
                    self.answer(Answer::Assigned { id: 9, epoch: 9 });
                }
            }
            Open => {
                self.go_to(Ready);
                self.manager.begin(call, now);
                if self.protocol == Protocol::V1 {
                    self.manager.partition_wanted(1, TopicPartition::new("out", 0), 3, now);
                    self.answer(Answer::Partitions(vec![(TopicPartition::new("out", 0), ErrorCode::NONE)]));
                } else {
                    self.manager.batch_sent(1);
                }
            }
            Failed => {
                self.go_to(Open);
                self.manager.record_failed(1, cause(), false, now);
            }
            Flushing => {
                self.go_to(Open);
                self.manager.commit(call, now);
            }
            Draining => {
                self.go_to(Open);
                self.manager.abort(Some(call), now);
            }
            Committing => {
                self.go_to(Flushing);
                self.manager.idle(1, now);
            }
            Aborting => {
                self.go_to(Draining);
                self.manager.idle(1, now);
            }
            Fatal => {
                self.go_to(Ready);
                self.manager.close_now();
            }
        }
    }

    fn call(&mut self) -> CallId {
        self.calls += 1;
        CallId(self.calls)
    }

    /// Gives a result to the attempt that is in flight, and not to one that the result causes:
    /// attempts are numbered upwards.
    fn attempt(&mut self, result: impl Fn(&mut TransactionManager, AttemptId)) {
        for attempt in (1..50).rev() {
            result(&mut self.manager, AttemptId(attempt));
        }
    }

    fn answer(&mut self, answer: Answer) {
        let now = self.now;
        self.attempt(|manager, attempt| manager.answered(attempt, &answer, now));
    }

    fn code(&mut self, code: ErrorCode) {
        self.answer(Answer::Code(code));
    }

    fn fail(&mut self, failure: &Failure) {
        let now = self.now;
        self.attempt(|manager, attempt| manager.failed(attempt, failure.clone(), now));
    }

    fn lose(&mut self) {
        self.fail(&Failure::Lost(Error::new(ErrorKind::Network, "lost")));
    }

    /// Waits until the next request is due.
    fn wait(&mut self) {
        self.now += Duration::from_secs(2);
        self.manager.poll(self.now);
    }

    fn next_identity(&self) -> Answer {
        match self.protocol {
            Protocol::V1 => Answer::Code(ErrorCode::NONE),
            Protocol::V2 => Answer::Assigned { id: 7, epoch: 1 },
        }
    }

    /// Returns the state and what was done since the last call, in one line.
    fn told(&mut self) -> String {
        let mut line = match self.manager.state() {
            State::Uninitialized => "Uninitialized",
            State::Initializing => "Initializing",
            State::Ready => "Ready",
            State::Open => "Open",
            State::Failed => "Failed",
            State::Flushing => "Flushing",
            State::Draining => "Draining",
            State::Committing => "Committing",
            State::Aborting => "Aborting",
            State::Fatal(_) => "Fatal",
        }
        .to_owned();
        for action in self.manager.take_actions() {
            let word = match action {
                Action::Send { request: Request::InitProducerId(None), .. } => "Init".to_owned(),
                Action::Send { request: Request::InitProducerId(Some(of)), .. } => {
                    format!("Init({},{})", of.id, of.epoch)
                }
                Action::Send { request, .. } => format!("{:?}", request.api()),
                Action::SetIdentity { producer, .. } => format!("identity({},{})", producer.id, producer.epoch),
                Action::CloseGate => "gate".to_owned(),
                Action::FlushAll => "flush".to_owned(),
                Action::FailUnsent(_) => "fail".to_owned(),
                Action::PartitionsAdded(..) => "added".to_owned(),
                Action::ForgetTransactionCoordinator | Action::ForgetGroupCoordinator(_) => "forget".to_owned(),
                Action::Reply(_, reply) => Self::reply(&reply),
                Action::Notice(_) => continue,
            };
            line.push(' ');
            line.push_str(&word);
        }
        line
    }

    fn reply(reply: &Reply) -> String {
        let (name, is_ok) = match reply {
            Reply::Initialized(result) => ("init", result.is_ok()),
            Reply::Began(result) => ("began", result.is_ok()),
            Reply::Offsets(result) => ("offsets", result.is_ok()),
            Reply::Aborted(result) => ("abort", result.is_ok()),
            Reply::Closed => ("closed", true),
            Reply::Ended(Outcome::Committed) => ("committed", true),
            Reply::Ended(Outcome::Aborted(_)) => ("aborted", true),
            Reply::Ended(Outcome::Unknown(_)) => ("unknown", true),
        };
        if is_ok { format!("→{name}") } else { format!("→{name}-error") }
    }
}

fn check(table: &[(Stage, &str)], event: impl Fn(&mut Fixture), protocols: &[Protocol]) {
    let mut wrong = String::new();
    for protocol in protocols {
        for (stage, expected) in table {
            let mut fixture = Fixture::at(*stage, *protocol);
            event(&mut fixture);
            let told = fixture.told();
            if told != *expected {
                wrong.push_str(&format!("\n{protocol:?} {stage:?}: {told:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

// ---- user calls

#[test]
fn init_in_each_state() {
    let init = |fixture: &mut Fixture| {
        let call = fixture.call();
        fixture.manager.init(call, fixture.now);
    };
    let table = [
        (Uninitialized, "Initializing Init"),
        (Initializing, "Initializing"),
        (Ready, "Ready →init"),
        (Bumped, "Initializing Init(7,0)"),
        (Open, "Draining gate fail"),
        (Failed, "Draining gate"),
        (Flushing, "Flushing"),
        (Draining, "Draining"),
        (Committing, "Committing"),
        (Aborting, "Aborting"),
        (Fatal, "Fatal →init-error"),
    ];
    check(&table, init, &V);
}

#[test]
fn begin_in_each_state() {
    let begin = |fixture: &mut Fixture| {
        let call = fixture.call();
        fixture.manager.begin(call, fixture.now);
    };
    let table = [
        (Uninitialized, "Initializing Init"),
        (Initializing, "Initializing"),
        (Ready, "Open identity(7,0) →began"),
        (Bumped, "Initializing Init(7,0)"),
        (Open, "Draining gate fail"),
        (Failed, "Draining gate"),
        (Flushing, "Flushing"),
        (Draining, "Draining"),
        (Committing, "Committing"),
        (Aborting, "Aborting"),
        (Fatal, "Fatal →began-error"),
    ];
    check(&table, begin, &V);
}

#[test]
fn offsets_in_each_state() {
    let send_offsets = |fixture: &mut Fixture| {
        let call = fixture.call();
        fixture.manager.send_offsets(call, GroupMetadata::without_member("g"), offsets(), fixture.now);
    };
    let refused = [
        (Uninitialized, "Uninitialized →offsets-error"),
        (Initializing, "Initializing →offsets-error"),
        (Ready, "Ready →offsets-error"),
        (Bumped, "Ready →offsets-error"),
        (Failed, "Failed →offsets-error"),
        (Flushing, "Flushing →offsets-error"),
        (Draining, "Draining →offsets-error"),
        (Committing, "Committing →offsets-error"),
        (Aborting, "Aborting →offsets-error"),
        (Fatal, "Fatal →offsets-error"),
    ];
    check(&refused, send_offsets, &V);
    check(&[(Open, "Open AddOffsets")], send_offsets, &[Protocol::V1]);
    check(&[(Open, "Open TxnOffsetCommit")], send_offsets, &[Protocol::V2]);
}

#[test]
fn commit_in_each_state() {
    let commit = |fixture: &mut Fixture| {
        let call = fixture.call();
        fixture.manager.commit(call, fixture.now);
    };
    let table = [
        (Bumped, "Ready →committed"),
        (Open, "Flushing gate flush"),
        (Failed, "Draining gate →aborted"),
        (Flushing, "Flushing"),
        (Draining, "Draining →aborted"),
        (Committing, "Committing"),
        (Aborting, "Aborting →aborted"),
    ];
    check(&table, commit, &V);
}

#[test]
fn abort_in_each_state() {
    let abort = |fixture: &mut Fixture| {
        let call = fixture.call();
        fixture.manager.abort(Some(call), fixture.now);
    };
    let table = [
        (Uninitialized, "Uninitialized →abort"),
        (Initializing, "Initializing →abort"),
        (Ready, "Ready →abort"),
        (Open, "Draining gate fail"),
        (Failed, "Draining gate"),
        (Flushing, "Flushing →abort-error"),
        (Draining, "Draining"),
        (Committing, "Committing →abort-error"),
        (Aborting, "Aborting"),
        (Fatal, "Fatal →abort-error"),
    ];
    check(&table, abort, &V);
}

#[test]
fn close_in_each_state() {
    let close = |fixture: &mut Fixture| {
        let call = fixture.call();
        fixture.manager.close(call, fixture.now);
    };
    let table = [
        (Uninitialized, "Uninitialized →closed"),
        (Initializing, "Initializing"),
        (Ready, "Ready →closed"),
        (Bumped, "Ready →closed"),
        (Open, "Draining gate fail"),
        (Failed, "Draining gate"),
        (Flushing, "Flushing"),
        (Draining, "Draining"),
        (Committing, "Committing"),
        (Aborting, "Aborting"),
        (Fatal, "Fatal →closed"),
    ];
    check(&table, close, &V);
}

#[test]
fn close_that_runs_out_decides_outcome() {
    let table = [
        (Initializing, "Fatal gate fail →init-error"),
        (Ready, "Fatal gate fail"),
        (Flushing, "Fatal →aborted gate fail"),
        (Draining, "Fatal gate fail →abort-error"),
        (Committing, "Fatal →unknown gate fail"),
        (Aborting, "Fatal gate fail →abort-error"),
        (Fatal, "Fatal"),
    ];
    check(&table, |fixture| fixture.manager.close_now(), &V);
    let mut unsent = Fixture::at(Committing, Protocol::V1);
    unsent.fail(&Failure::Unsent(Error::new(ErrorKind::Network, "no connection")));
    unsent.manager.take_actions();
    unsent.manager.close_now();
    assert_eq!(unsent.told(), "Fatal →aborted gate fail", "no commit was ever written");
}

// ---- events

#[test]
fn failed_record_in_each_state() {
    let failed = |fixture: &mut Fixture| fixture.manager.record_failed(1, cause(), true, fixture.now);
    let table = [
        (Ready, "Ready"),
        (Open, "Failed fail"),
        (Failed, "Failed"),
        (Flushing, "Draining fail →aborted"),
        (Draining, "Draining"),
    ];
    check(&table, failed, &V);
}

#[test]
fn idle_in_each_state() {
    let idle = |fixture: &mut Fixture| fixture.manager.idle(1, fixture.now);
    let table = [(Ready, "Ready"), (Flushing, "Committing EndTxnCommit"), (Draining, "Aborting EndTxnAbort")];
    check(&table, idle, &V);
}

#[test]
fn lost_answer_in_each_state() {
    let lose = |fixture: &mut Fixture| {
        fixture.lose();
        fixture.wait();
    };
    let table = [
        (Initializing, "Initializing forget Init"),
        (Committing, "Committing forget EndTxnCommit"),
        (Aborting, "Aborting forget EndTxnAbort"),
    ];
    check(&table, lose, &V);
}

#[test]
fn unsent_request_is_repeated_without_doubt() {
    for protocol in V {
        let mut fixture = Fixture::at(Committing, protocol);
        fixture.fail(&Failure::Unsent(Error::new(ErrorKind::Network, "no connection")));
        fixture.wait();
        fixture.code(ErrorCode::PRODUCER_FENCED);
        assert_eq!(fixture.told(), "Fatal forget EndTxnCommit →aborted gate fail");
    }
}

#[test]
fn empty_transaction_sends_nothing() {
    for protocol in V {
        let mut fixture = Fixture::at(Ready, protocol);
        let (now, call) = (fixture.now, fixture.call());
        fixture.manager.begin(call, now);
        fixture.manager.commit(call, now);
        fixture.manager.idle(1, now);
        assert_eq!(fixture.told(), "Ready identity(7,0) →began gate flush →committed");
        fixture.manager.begin(call, now);
        fixture.manager.abort(Some(call), now);
        fixture.manager.idle(2, now);
        assert_eq!(fixture.told(), "Ready identity(7,0) →began gate fail →abort");
    }
}

#[test]
fn partition_is_added_once_under_first_protocol() {
    let mut fixture = Fixture::at(Open, Protocol::V1);
    let now = fixture.now;
    fixture.manager.partition_wanted(1, TopicPartition::new("out", 0), 3, now);
    assert_eq!(fixture.told(), "Open", "it was added");
    fixture.manager.partition_wanted(1, TopicPartition::new("out", 1), 4, now);
    fixture.manager.partition_wanted(1, TopicPartition::new("out", 2), 5, now);
    assert_eq!(fixture.told(), "Open AddPartitions", "one request at a time");
    fixture.answer(Answer::Partitions(vec![(TopicPartition::new("out", 1), ErrorCode::NONE)]));
    assert_eq!(fixture.told(), "Open added AddPartitions");
    fixture.manager.partition_wanted(9, TopicPartition::new("out", 3), 6, now);
    assert_eq!(fixture.told(), "Open", "another transaction");
}

#[test]
fn transaction_over_its_time_is_noticed_once() {
    let mut fixture = Fixture::at(Open, Protocol::V2);
    assert_eq!(fixture.manager.next_timer(), Some(fixture.now + Duration::from_secs(60)));
    fixture.now += Duration::from_secs(60);
    for expected in [1, 0] {
        fixture.manager.poll(fixture.now);
        let actions = fixture.manager.take_actions();
        let overdue = |action: &&Action| matches!(action, Action::Notice(Notice::Overdue { number: 1 }));
        assert_eq!(actions.iter().filter(overdue).count(), expected);
    }
}

// ---- outcomes and epochs

#[test]
fn refused_commit_is_aborted_or_unknown() {
    for protocol in V {
        for (first, told) in [(None, "→aborted"), (Some(ErrorCode::NOT_COORDINATOR), "→unknown")] {
            for (code, then) in [
                (ErrorCode::PRODUCER_FENCED, "Fatal"),
                (ErrorCode::INVALID_PRODUCER_EPOCH, "Fatal"),
                (ErrorCode::INVALID_PRODUCER_ID_MAPPING, "Fatal"),
                (ErrorCode::TRANSACTION_ABORTABLE, "Aborting"),
                (ErrorCode::UNKNOWN_PRODUCER_ID, "Aborting"),
            ] {
                let mut fixture = Fixture::at(Committing, protocol);
                if let Some(first) = first {
                    fixture.code(first);
                    fixture.wait();
                }
                fixture.manager.take_actions();
                fixture.code(code);
                let line = fixture.told();
                assert!(line.starts_with(then) && line.contains(told), "{protocol:?} {first:?} {code:?}: {line}");
            }
        }
    }
}

#[test]
fn each_repeated_code_puts_commit_in_doubt() {
    for code in [
        ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_COORDINATOR,
        ErrorCode::UNKNOWN_SERVER_ERROR,
    ] {
        let mut fixture = Fixture::at(Committing, Protocol::V1);
        fixture.code(code);
        fixture.wait();
        fixture.code(ErrorCode::PRODUCER_FENCED);
        let line = fixture.told();
        assert!(line.contains("→unknown"), "{code:?}: {line}");
    }
}

#[test]
fn concurrent_transactions_alone_leaves_no_doubt() {
    for (first, told) in [(ErrorCode::CONCURRENT_TRANSACTIONS, "→aborted"), (ErrorCode::NOT_COORDINATOR, "→unknown")]
    {
        let mut fixture = Fixture::at(Committing, Protocol::V2);
        for code in [first, ErrorCode::CONCURRENT_TRANSACTIONS] {
            fixture.code(code);
            fixture.wait();
        }
        fixture.code(ErrorCode::PRODUCER_FENCED);
        let line = fixture.told();
        assert!(line.contains(told), "{first:?}: {line}");
    }
}

#[test]
fn commit_that_timed_out_is_aborted_in_second_protocol() {
    let mut fixture = Fixture::at(Committing, Protocol::V2);
    fixture.code(ErrorCode::INVALID_TXN_STATE);
    assert_eq!(fixture.told(), "Aborting →aborted EndTxnAbort");
    fixture.answer(Answer::Assigned { id: 7, epoch: 1 });
    let call = fixture.call();
    fixture.manager.begin(call, fixture.now);
    assert_eq!(fixture.told(), "Open identity(7,1) →began");
    let mut first = Fixture::at(Committing, Protocol::V1);
    first.code(ErrorCode::INVALID_TXN_STATE);
    assert_eq!(first.told(), "Fatal →aborted gate fail");
}

#[test]
fn abort_after_refused_commit_resets_producer() {
    let mut fixture = Fixture::at(Committing, Protocol::V1);
    fixture.code(ErrorCode::TRANSACTION_ABORTABLE);
    fixture.manager.take_actions();
    fixture.code(ErrorCode::INVALID_TXN_STATE);
    assert_eq!(fixture.told(), "Initializing Init(7,0)", "the commit may have had its effect");
}

#[test]
fn abort_finds_nothing_to_end_only_without_additions() {
    let mut added = Fixture::at(Aborting, Protocol::V1);
    added.code(ErrorCode::INVALID_TXN_STATE);
    assert_eq!(added.told(), "Fatal gate fail →abort-error");
    let mut fixture = Fixture::at(Ready, Protocol::V1);
    let (now, call) = (fixture.now, fixture.call());
    fixture.manager.begin(call, now);
    fixture.manager.partition_wanted(1, TopicPartition::new("out", 0), 3, now);
    fixture.code(ErrorCode::TRANSACTION_ABORTABLE);
    fixture.manager.abort(Some(call), now);
    fixture.manager.idle(1, now);
    fixture.manager.take_actions();
    fixture.code(ErrorCode::INVALID_TXN_STATE);
    assert_eq!(fixture.told(), "Ready →abort");
}

#[test]
fn lost_answer_raises_epoch_under_first_protocol() {
    for (protocol, then) in [(Protocol::V1, "Initializing Init(7,0)"), (Protocol::V2, "Open identity(7,1) →began")] {
        for stage in [Committing, Aborting] {
            let mut fixture = Fixture::at(stage, protocol);
            fixture.lose();
            fixture.wait();
            let answer = fixture.next_identity();
            fixture.answer(answer);
            fixture.manager.take_actions();
            let call = fixture.call();
            fixture.manager.begin(call, fixture.now);
            assert_eq!(fixture.told(), then, "{stage:?}");
        }
    }
}

#[test]
fn numbered_loss_raises_epoch_under_first_protocol() {
    for (protocol, numbered, then) in [
        (Protocol::V1, true, "Initializing Init(7,0)"),
        (Protocol::V1, false, "Open identity(7,0) →began"),
        (Protocol::V2, true, "Open identity(7,1) →began"),
    ] {
        let mut fixture = Fixture::at(Draining, protocol);
        fixture.manager.record_failed(1, cause(), numbered, fixture.now);
        fixture.manager.idle(1, fixture.now);
        let answer = fixture.next_identity();
        fixture.answer(answer);
        fixture.manager.take_actions();
        let call = fixture.call();
        fixture.manager.begin(call, fixture.now);
        assert_eq!(fixture.told(), then, "{protocol:?} {numbered}");
    }
}

#[test]
fn higher_protocol_raises_epoch_first() {
    let mut fixture = Fixture::at(Committing, Protocol::V1);
    fixture.manager.feature_learned(Some(2));
    fixture.code(ErrorCode::NONE);
    fixture.manager.take_actions();
    let call = fixture.call();
    fixture.manager.begin(call, fixture.now);
    assert_eq!(fixture.told(), "Initializing Init(7,0)");
    fixture.answer(Answer::Assigned { id: 7, epoch: 1 });
    assert_eq!(fixture.told(), "Open identity(7,1) →began");
    let mut lowered = Fixture::at(Committing, Protocol::V2);
    lowered.manager.feature_learned(Some(1));
    lowered.answer(Answer::Assigned { id: 7, epoch: 1 });
    lowered.manager.take_actions();
    lowered.manager.begin(call, lowered.now);
    assert_eq!(lowered.told(), "Open identity(7,1) →began", "the end has raised it");
}

#[test]
fn refused_permission_leaves_producer_as_before() {
    for code in [ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED, ErrorCode::CLUSTER_AUTHORIZATION_FAILED] {
        let mut fixture = Fixture::at(Initializing, Protocol::V1);
        fixture.code(code);
        assert_eq!(fixture.told(), "Uninitialized →init-error");
        let mut bumped = Fixture::at(Bumped, Protocol::V1);
        let call = bumped.call();
        bumped.manager.begin(call, bumped.now);
        bumped.manager.take_actions();
        bumped.code(code);
        assert_eq!(bumped.told(), "Ready →began-error");
        bumped.manager.begin(call, bumped.now);
        assert_eq!(bumped.told(), "Initializing Init(7,0)", "the epoch still has to be raised");
    }
}

#[test]
fn epoch_of_another_producer_fails_producer() {
    let mut fixture = Fixture::at(Bumped, Protocol::V1);
    let call = fixture.call();
    fixture.manager.begin(call, fixture.now);
    fixture.manager.take_actions();
    fixture.answer(Answer::Assigned { id: 7, epoch: 0 });
    assert_eq!(fixture.told(), "Fatal gate fail →began-error");
}

#[test]
fn incomplete_answers_are_repeated_five_times() {
    let mut fixture = Fixture::at(Initializing, Protocol::V1);
    for _ in 0..5 {
        fixture.answer(Answer::Assigned { id: -1, epoch: -1 });
        fixture.wait();
        assert_eq!(fixture.told(), "Initializing Init");
    }
    fixture.answer(Answer::Assigned { id: -1, epoch: -1 });
    assert_eq!(fixture.told(), "Fatal gate fail →init-error");
}

#[test]
fn late_answers_change_nothing() {
    let mut fixture = Fixture::at(Committing, Protocol::V1);
    fixture.lose();
    fixture.manager.take_actions();
    fixture.code(ErrorCode::NONE);
    assert_eq!(fixture.told(), "Committing", "the attempt was given up");
}

// ---- offsets

fn with_offsets(protocol: Protocol) -> Fixture {
    let mut fixture = Fixture::at(Open, protocol);
    let call = fixture.call();
    fixture.manager.send_offsets(call, GroupMetadata::without_member("g"), offsets(), fixture.now);
    if protocol == Protocol::V1 {
        assert_eq!(fixture.told(), "Open AddOffsets");
        fixture.code(ErrorCode::NONE);
    }
    assert_eq!(fixture.told(), "Open TxnOffsetCommit");
    fixture
}

fn offset_codes(code: ErrorCode) -> Answer {
    Answer::Partitions(vec![(TopicPartition::new("in", 0), code)])
}

#[test]
fn commit_waits_for_offsets() {
    for protocol in V {
        let mut fixture = with_offsets(protocol);
        let call = fixture.call();
        fixture.manager.commit(call, fixture.now);
        fixture.manager.idle(1, fixture.now);
        assert_eq!(fixture.told(), "Flushing gate flush");
        fixture.answer(offset_codes(ErrorCode::NONE));
        assert_eq!(fixture.told(), "Committing →offsets EndTxnCommit");
    }
}

#[test]
fn refused_offsets_fail_commit() {
    for protocol in V {
        let mut fixture = with_offsets(protocol);
        let call = fixture.call();
        fixture.manager.commit(call, fixture.now);
        fixture.manager.idle(1, fixture.now);
        fixture.manager.take_actions();
        fixture.answer(offset_codes(ErrorCode::ILLEGAL_GENERATION));
        assert_eq!(fixture.told(), "Aborting fail →offsets-error →aborted EndTxnAbort");
        let Some((1, Outcome::Aborted(Some(error)))) = fixture.manager.last_outcome() else { panic!("aborted") };
        assert_eq!((error.kind(), error.code()), (ErrorKind::TransactionFailed, Some(ErrorCode::ILLEGAL_GENERATION)));
        let cause = error.source().and_then(|source| source.downcast_ref::<Error>()).expect("the first cause");
        assert_eq!(cause.kind(), ErrorKind::NotAssigned);
    }
}

#[test]
fn only_failed_partitions_of_offsets_are_repeated() {
    let mut fixture = Fixture::at(Open, Protocol::V2);
    let call = fixture.call();
    let partitions = [0, 1].map(|partition| TopicPartition::new("in", partition));
    let both = partitions.iter().map(|partition| (partition.clone(), OffsetAndMetadata::new(5))).collect();
    fixture.manager.send_offsets(call, GroupMetadata::without_member("g"), both, fixture.now);
    let [done, missing] = partitions;
    fixture.answer(Answer::Partitions(vec![
        (done, ErrorCode::NONE),
        (missing.clone(), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
    ]));
    fixture.manager.take_actions();
    fixture.wait();
    let actions = fixture.manager.take_actions();
    let [Action::Send { request: Request::TxnOffsetCommit(_, _, asked), .. }] = &actions[..] else {
        panic!("{actions:?}")
    };
    assert_eq!(asked.iter().map(|(partition, _)| partition).collect::<Vec<_>>(), [&missing]);
}

#[test]
fn missing_topic_of_offsets_fails_after_delivery_timeout() {
    let mut fixture = with_offsets(Protocol::V2);
    fixture.answer(offset_codes(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    fixture.now += Duration::from_secs(121);
    fixture.manager.poll(fixture.now);
    assert_eq!(fixture.told(), "Open TxnOffsetCommit");
    fixture.answer(offset_codes(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
    assert_eq!(fixture.told(), "Failed fail →offsets-error");
}

#[test]
fn newer_offsets_after_lost_ones_fail_transaction() {
    for protocol in V {
        let mut fixture = with_offsets(protocol);
        fixture.lose();
        fixture.wait();
        fixture.answer(offset_codes(ErrorCode::NONE));
        assert_eq!(fixture.told(), "Open forget TxnOffsetCommit →offsets");
        let call = fixture.call();
        let group = GroupMetadata::without_member("g");
        fixture.manager.send_offsets(call, group.clone(), offsets(), fixture.now);
        assert_eq!(fixture.told(), "Open TxnOffsetCommit", "a late copy would change nothing");
        fixture.answer(offset_codes(ErrorCode::NONE));
        let newer = vec![(TopicPartition::new("in", 0), OffsetAndMetadata::new(9))];
        fixture.manager.send_offsets(call, group, newer, fixture.now);
        assert_eq!(fixture.told(), "Failed →offsets fail →offsets-error");
    }
}

#[test]
fn timed_out_transaction_is_told_from_fenced_one() {
    for code in [ErrorCode::INVALID_PRODUCER_EPOCH, ErrorCode::INVALID_PRODUCER_ID_MAPPING] {
        for (protocol, then) in [(Protocol::V1, "Fatal"), (Protocol::V2, "Failed")] {
            let mut fixture = with_offsets(protocol);
            fixture.answer(offset_codes(code));
            let line = fixture.told();
            assert!(line.starts_with(then), "{code:?} {protocol:?}: {line}");
        }
    }
    let mut fixture = with_offsets(Protocol::V2);
    fixture.answer(offset_codes(ErrorCode::PRODUCER_FENCED));
    assert!(fixture.told().starts_with("Fatal"));
}
