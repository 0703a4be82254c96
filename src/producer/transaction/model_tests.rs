//! The manager against a model of the brokers, under every fault of the model, in any order: lost,
//! late and repeated answers, late copies of requests, coordinators that move, timeouts, other
//! producers, used up epochs, records and offsets that fail, dropped calls.
//!
//! A call that is told *committed* has all its records and offsets committed; of one that is told
//! *aborted* nothing ever is; *unknown* is told only if a coordinator may have seen more than one
//! commit. Nothing of one transaction reaches another. Once the faults stop, everything ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    action::{Action, Notice, Reply},
    manager::{State, TransactionManager, TransactionRules},
    model_coordinator::{GROUP, ModelCoordinator, TxnState, Written},
    outcome::Outcome,
    protocol::Protocol,
    request::{Answer, AttemptId, CallId, Failure, Request},
};
use crate::{
    error::{Error, ErrorCode, ErrorKind},
    producer::idempotence::ProducerId,
    record::{GroupMetadata, OffsetAndMetadata, TopicPartition},
};

const PARTITIONS: i32 = 2;

#[derive(Clone, Debug)]
struct Sent {
    attempt: AttemptId,
    request: Request,
    is_v2: bool,
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    record: Written,
    producer: ProducerId,
    is_v2: bool,
    is_in_flight: bool,
    /// True if an attempt was lost, so that the batch may be written, or still will be.
    in_doubt: bool,
}

/// The sender's part: batches of the running transaction.
#[derive(Debug, Default)]
struct Sender {
    identity: Option<(ProducerId, u64, Protocol)>,
    batches: Vec<Batch>,
    ghosts: Vec<Batch>,
    added: BTreeSet<usize>,
    wanted: BTreeSet<usize>,
    gate_closed: bool,
    has_failed: bool,
    idle_told: bool,
    drained: bool,
}

/// The calls of one transaction and their results, as the user sees them.
#[derive(Debug, Default)]
struct Account {
    acknowledged: Vec<Written>,
    failed: usize,
    /// The last offset of each partition that a call sent; the value of each call's last.
    offsets: BTreeMap<i32, u64>,
    offsets_failed: usize,
    commits_sent: u32,
    outcome: Option<Outcome>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Init,
    Begin,
    Commit,
    Abort,
    Offsets(u64),
    Close,
}

struct World {
    rng: StdRng,
    now: Instant,
    manager: TransactionManager,
    coordinator: ModelCoordinator,
    sender: Sender,
    wire: Vec<Sent>,
    ghosts: Vec<Sent>,
    answers: Vec<(AttemptId, Answer)>,
    old_answers: Vec<(AttemptId, Answer)>,
    calls: BTreeMap<CallId, Kind>,
    next: u64,
    /// The transaction that the user holds.
    held: Option<u64>,
    accounts: BTreeMap<u64, Account>,
    level: Option<i16>,
    calm: bool,
    /// The reason for which the producer may fail.
    excuse: Option<&'static str>,
    /// All steps, for the message of a failure.
    log: Vec<String>,
}

fn out(partition: i32) -> TopicPartition {
    TopicPartition::new("out", partition)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let epoch = if rng.random_bool(0.5) { -1 } else { rng.random_range(32_762..=32_766) };
        let rules = TransactionRules {
            transactional_id: "t".into(),
            timeout: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(5),
            retry_backoff: Duration::from_millis(100),
            retry_backoff_max: Duration::from_secs(1),
            seed,
        };
        let mut world = Self {
            now: Instant::now(),
            manager: TransactionManager::new(rules),
            coordinator: ModelCoordinator::new(epoch),
            sender: Sender::default(),
            wire: Vec::new(),
            ghosts: Vec::new(),
            answers: Vec::new(),
            old_answers: Vec::new(),
            calls: BTreeMap::new(),
            next: 0,
            held: None,
            accounts: BTreeMap::new(),
            level: [None, Some(1), Some(2), Some(2)][rng.random_range(0..4)],
            calm: false,
            excuse: None,
            log: Vec::new(),
            rng,
        };
        world.manager.feature_learned(world.level);
        world
    }

    fn chance(&mut self, percent: u32) -> bool {
        !self.calm && self.rng.random_range(0..100) < percent
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn call(&mut self, kind: Kind) -> CallId {
        let call = CallId(self.id());
        self.calls.insert(call, kind);
        self.log.push(format!("{kind:?} = {call:?}"));
        call
    }

    fn account(&mut self, number: u64) -> &mut Account {
        self.accounts.entry(number).or_default()
    }

    // ---- the user

    fn user(&mut self) {
        let now = self.now;
        match self.held {
            None => {
                let waits = self.calls.values().any(|kind| matches!(kind, Kind::Begin | Kind::Init));
                if waits && self.chance(90) {
                    return;
                }
                // The future of the call that waits was dropped.
                let waiting = self.calls.iter().find(|(_, kind)| matches!(kind, Kind::Begin | Kind::Init));
                if let Some((&call, _)) = waiting {
                    self.calls.remove(&call);
                    self.manager.forget(call);
                }
                if self.chance(10) {
                    let call = self.call(Kind::Init);
                    self.manager.init(call, now);
                } else {
                    let call = self.call(Kind::Begin);
                    self.manager.begin(call, now);
                }
            }
            Some(number) => match self.rng.random_range(0..100) {
                0..50 => self.send_record(number),
                50..65 => self.send_offsets(number),
                65..85 => self.commit(number),
                85..92 => {
                    let call = self.call(Kind::Abort);
                    self.held = None;
                    self.manager.abort(Some(call), now);
                }
                92..96 => {
                    self.log.push(format!("drop {number}"));
                    self.held = None;
                    self.manager.abort(None, now);
                }
                // The transaction is leaked.
                _ => self.held = None,
            },
        }
    }

    fn commit(&mut self, number: u64) {
        let call = self.call(Kind::Commit);
        self.held = None;
        self.log.push(format!("commit {number}"));
        self.manager.commit(call, self.now);
        if self.chance(20) {
            self.calls.remove(&call);
        }
    }

    fn send_record(&mut self, number: u64) {
        let Some((producer, of, protocol)) = self.sender.identity else { return };
        assert_eq!(of, number, "the sender has the transaction that the user holds");
        if self.sender.gate_closed || self.sender.has_failed {
            return;
        }
        let record = Written { number, place: self.rng.random_range(0..PARTITIONS), value: self.id() };
        let is_v2 = protocol == Protocol::V2;
        self.log.push(format!("send {record:?}"));
        self.sender.batches.push(Batch { record, producer, is_v2, is_in_flight: false, in_doubt: false });
    }

    fn send_offsets(&mut self, number: u64) {
        let call = self.call(Kind::Offsets(number));
        let group = GroupMetadata::without_member("g");
        let mut offsets = Vec::new();
        for place in 0..PARTITIONS {
            if self.rng.random_bool(0.6) {
                let value = number * 1_000_000 + self.id();
                offsets.push((TopicPartition::new("in", place), OffsetAndMetadata::new(value as i64)));
                self.account(number).offsets.insert(place, value);
            }
        }
        self.manager.send_offsets(call, group, offsets, self.now);
    }

    // ---- the sender

    fn sender(&mut self) {
        let Some((_, number, protocol)) = self.sender.identity else { return };
        let at = match self.sender.batches.len() {
            0 => return self.tell_idle(number),
            count => self.rng.random_range(0..count),
        };
        let batch = self.sender.batches[at];
        let slot = batch.record.place as usize;
        if batch.is_in_flight {
            return self.answer_batch(at);
        }
        if protocol == Protocol::V1 && !self.sender.added.contains(&slot) {
            if self.sender.wanted.insert(slot) {
                self.manager.partition_wanted(number, out(batch.record.place), slot, self.now);
            }
            if self.chance(3) {
                self.fail_batch(at, false, "the delivery timeout has passed");
            }
            return;
        }
        if self.chance(5) {
            // A batch of which an attempt was lost has its sequence numbers.
            return self.fail_batch(at, batch.in_doubt, "the delivery timeout has passed");
        }
        if !self.sender.drained && protocol == Protocol::V2 {
            self.manager.batch_sent(number);
            self.sender.drained = true;
        }
        self.sender.batches[at].is_in_flight = true;
    }

    fn answer_batch(&mut self, at: usize) {
        let batch = self.sender.batches[at];
        let fault = if self.calm { 99 } else { self.rng.random_range(0..100) };
        match fault {
            0..8 => {
                // The request is lost, and may arrive later.
                self.sender.ghosts.push(batch);
                if self.sender.has_failed || self.chance(30) {
                    self.fail_batch(at, true, "the batch got no answer");
                } else {
                    self.sender.batches[at].is_in_flight = false;
                    self.sender.batches[at].in_doubt = true;
                }
                return;
            }
            8..11 => return self.fail_batch(at, true, "the broker refused the batch"),
            _ => {}
        }
        match self.coordinator.produce(batch.producer, batch.record, batch.is_v2) {
            Ok(()) => {
                self.sender.batches.remove(at);
                self.account(batch.record.number).acknowledged.push(batch.record);
            }
            Err(ErrorCode::CONCURRENT_TRANSACTIONS) if !self.sender.has_failed => {
                self.sender.batches[at].is_in_flight = false;
            }
            Err(code) => self.fail_batch(at, true, code.name()),
        }
    }

    fn fail_batch(&mut self, at: usize, numbered: bool, reason: &str) {
        let batch = self.sender.batches.remove(at);
        self.log.push(format!("failed {:?}: {reason}", batch.record));
        self.account(batch.record.number).failed += 1;
        let error = Error::new(ErrorKind::Timeout, reason);
        self.manager.record_failed(batch.record.number, error, numbered, self.now);
    }

    fn tell_idle(&mut self, number: u64) {
        if self.sender.gate_closed && !self.sender.idle_told {
            self.sender.idle_told = true;
            self.log.push(format!("idle {number}"));
            self.manager.idle(number, self.now);
        }
    }

    fn fail_unsent(&mut self) {
        self.sender.has_failed = true;
        let (waiting, flying) = std::mem::take(&mut self.sender.batches).into_iter().partition(|b| !b.is_in_flight);
        self.sender.batches = flying;
        let waiting: Vec<Batch> = waiting;
        for batch in waiting {
            self.account(batch.record.number).failed += 1;
            // A batch with numbers that is given up needs another epoch.
            if batch.in_doubt {
                let error = Error::new(ErrorKind::Closed, "aborted");
                self.manager.record_failed(batch.record.number, error, true, self.now);
            }
        }
    }

    // ---- the network

    /// Handles a request at its coordinator.
    fn handle(&mut self, request: &Request, is_v2: bool) -> Answer {
        let code = |result: Result<(), ErrorCode>| result.err().unwrap_or(ErrorCode::NONE);
        let assigned = |producer: ProducerId| Answer::Assigned { id: producer.id, epoch: producer.epoch };
        match request {
            Request::InitProducerId(expected) => match self.coordinator.init(*expected) {
                Ok(producer) => assigned(producer),
                Err(code) => Answer::Code(code),
            },
            Request::AddPartitions(producer, partitions) => {
                let places: Vec<_> = partitions.iter().map(|partition| partition.partition).collect();
                let code = code(self.coordinator.add(*producer, &places));
                Answer::Partitions(partitions.iter().map(|partition| (partition.clone(), code)).collect())
            }
            Request::AddOffsets(producer, _) => Answer::Code(code(self.coordinator.add(*producer, &[GROUP]))),
            Request::TxnOffsetCommit(producer, _, offsets) => {
                let written: Vec<_> = offsets
                    .iter()
                    .map(|(partition, offset)| Written {
                        number: offset.offset as u64 / 1_000_000,
                        place: partition.partition,
                        value: offset.offset as u64,
                    })
                    .collect();
                let code = code(self.coordinator.commit_offsets(*producer, &written, is_v2));
                Answer::Partitions(offsets.iter().map(|(partition, _)| (partition.clone(), code)).collect())
            }
            Request::EndTxn { producer, commit } => match self.coordinator.end(*producer, *commit, is_v2) {
                Ok(next) if is_v2 => assigned(next),
                Ok(_) => Answer::Code(ErrorCode::NONE),
                Err(code) => Answer::Code(code),
            },
        }
    }

    /// Answers a code to a request in the shape of its API.
    fn refuse(request: &Request, code: ErrorCode) -> Answer {
        match request {
            Request::AddPartitions(_, partitions) => {
                Answer::Partitions(partitions.iter().map(|partition| (partition.clone(), code)).collect())
            }
            Request::TxnOffsetCommit(.., offsets) => {
                Answer::Partitions(offsets.iter().map(|(partition, _)| (partition.clone(), code)).collect())
            }
            _ => Answer::Code(code),
        }
    }

    fn network(&mut self) {
        if !self.answers.is_empty() && (self.wire.is_empty() || self.rng.random_bool(0.5)) {
            let at = self.rng.random_range(0..self.answers.len());
            let (attempt, answer) = self.answers.remove(at);
            self.log.push(format!("answer {attempt:?} {answer:?}"));
            if self.chance(10) {
                self.old_answers.push((attempt, answer.clone()));
            }
            return self.manager.answered(attempt, &answer, self.now);
        }
        if self.wire.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.wire.len());
        let sent = self.wire.remove(at);
        let lost = || Error::new(ErrorKind::Network, "connection lost");
        let (attempt, now) = (sent.attempt, self.now);
        let fault = if self.calm { 99 } else { self.rng.random_range(0..100) };
        match fault {
            // Lost before the coordinator has it; it may arrive late.
            0..6 => {
                self.log.push(format!("lost on the way {sent:?}"));
                self.ghosts.push(sent);
                self.manager.failed(attempt, Failure::Lost(lost()), now);
            }
            // The answer is lost.
            6..12 => {
                let answer = self.handle(&sent.request, sent.is_v2);
                self.log.push(format!("answer lost {sent:?} {answer:?}"));
                self.manager.failed(attempt, Failure::Lost(lost()), now);
            }
            12..16 => self.manager.failed(attempt, Failure::Unsent(lost()), now),
            16..18 => self.manager.failed(attempt, Failure::LookUp(ErrorCode::COORDINATOR_NOT_AVAILABLE), now),
            // The coordinator moves; its answer says nothing about the effect.
            18..24 => {
                if self.rng.random_bool(0.5) {
                    self.handle(&sent.request, sent.is_v2);
                }
                let codes = [
                    ErrorCode::NOT_COORDINATOR,
                    ErrorCode::COORDINATOR_NOT_AVAILABLE,
                    ErrorCode::COORDINATOR_LOAD_IN_PROGRESS,
                ];
                let code = codes[self.rng.random_range(0..codes.len())];
                self.log.push(format!("moved {sent:?} {code:?}"));
                self.answers.push((attempt, Self::refuse(&sent.request, code)));
            }
            24..27 => {
                let codes = [
                    ErrorCode::UNKNOWN_SERVER_ERROR,
                    ErrorCode::TRANSACTION_ABORTABLE,
                    ErrorCode::GROUP_AUTHORIZATION_FAILED,
                    ErrorCode::INVALID_REQUEST,
                ];
                let code = codes[self.rng.random_range(0..codes.len())];
                if code != ErrorCode::GROUP_AUTHORIZATION_FAILED || matches!(sent.request, Request::TxnOffsetCommit(..))
                {
                    if code != ErrorCode::GROUP_AUTHORIZATION_FAILED {
                        // Repeated too often, it ends the producer.
                        self.excuse = Some("unexpected codes");
                    }
                    self.log.push(format!("refused {sent:?} {code:?}"));
                    self.answers.push((attempt, Self::refuse(&sent.request, code)));
                } else {
                    self.wire.push(sent);
                }
            }
            _ => {
                let mut answer = self.handle(&sent.request, sent.is_v2);
                if self.chance(4) {
                    self.tamper(&sent.request, &mut answer);
                }
                self.log.push(format!("handled {sent:?} {answer:?}"));
                self.answers.push((attempt, answer));
            }
        }
    }

    /// Names another producer's epoch in an answer. After EndTxn the producer has to find its own
    /// again; an answer to InitProducerId is not doubted a second time.
    fn tamper(&mut self, request: &Request, answer: &mut Answer) {
        let Answer::Assigned { id, epoch } = answer else { return };
        match request {
            Request::EndTxn { .. } => (*id, *epoch) = (*id + 7, 3),
            Request::InitProducerId(Some(sent)) => {
                self.excuse = Some("an answer for another producer");
                (*id, *epoch) = (sent.id, sent.epoch);
            }
            _ => {}
        }
    }

    fn mischief(&mut self) {
        match self.rng.random_range(0..12) {
            0..3 if !self.ghosts.is_empty() => {
                let at = self.rng.random_range(0..self.ghosts.len());
                let ghost = self.ghosts.remove(at);
                self.late_copy(&ghost);
            }
            3..5 if !self.sender.ghosts.is_empty() => {
                let at = self.rng.random_range(0..self.sender.ghosts.len());
                let batch = self.sender.ghosts.remove(at);
                let result = self.coordinator.produce(batch.producer, batch.record, batch.is_v2);
                self.log.push(format!("late batch {batch:?} {result:?}"));
            }
            5..7 if !self.old_answers.is_empty() => {
                let at = self.rng.random_range(0..self.old_answers.len());
                let (attempt, answer) = self.old_answers.remove(at);
                self.manager.answered(attempt, &answer, self.now);
            }
            7 if self.chance(10) => {
                self.log.push("another producer".to_owned());
                self.excuse = Some("another producer");
                let _ = self.coordinator.init(None);
            }
            8 if self.chance(10) && self.coordinator.state == TxnState::Ongoing => {
                let is_v2 = self.sender.identity.is_some_and(|(.., protocol)| protocol == Protocol::V2);
                self.log.push("the transaction times out".to_owned());
                self.excuse = Some("timeout");
                self.coordinator.fence(is_v2);
            }
            9 if self.chance(20) => {
                self.level = [None, Some(1), Some(2)][self.rng.random_range(0..3)];
                self.manager.feature_learned(self.level);
            }
            _ => {
                self.coordinator.write_markers();
                self.log.push("markers".to_owned());
            }
        }
    }

    fn late_copy(&mut self, ghost: &Sent) {
        if matches!(ghost.request, Request::InitProducerId(_) | Request::AddPartitions(..) | Request::AddOffsets(..)) {
            // It may open a transaction that has ended, or fence the producer that sent it.
            self.excuse = Some("a late copy");
        }
        let answer = self.handle(&ghost.request, ghost.is_v2);
        self.log.push(format!("late copy {ghost:?} {answer:?}"));
    }

    // ---- the actions

    fn act(&mut self) {
        for action in self.manager.take_actions() {
            match action {
                Action::Send { attempt, request, versions } => {
                    if let Request::EndTxn { commit: true, .. } = request {
                        let number = self.manager.current().map(|current| current.number);
                        self.account(number.expect("a transaction commits")).commits_sent += 1;
                    }
                    self.wire.push(Sent { attempt, request, is_v2: versions.min == 5 });
                }
                Action::SetIdentity { producer, number, protocol } => {
                    assert!(self.sender.batches.is_empty(), "the last transaction left batches");
                    self.log.push(format!("identity {producer:?} {number} {protocol:?}"));
                    let ghosts = std::mem::take(&mut self.sender.ghosts);
                    self.sender = Sender { identity: Some((producer, number, protocol)), ghosts, ..Sender::default() };
                    assert!((0..i16::MAX).contains(&producer.epoch));
                }
                Action::PartitionsAdded(_, slots) => self.sender.added.extend(slots),
                Action::CloseGate => self.sender.gate_closed = true,
                Action::FailUnsent(_) => self.fail_unsent(),
                Action::Reply(call, reply) => self.reply(call, reply),
                Action::Notice(Notice::ProducerFailed(error)) => {
                    self.log.push(format!("producer failed: {error}"));
                    assert!(self.excuse.is_some(), "the producer failed without a reason: {error}");
                }
                Action::FlushAll
                | Action::ForgetTransactionCoordinator
                | Action::ForgetGroupCoordinator(_)
                | Action::Notice(_) => {}
            }
        }
        if let Some((number, outcome)) = self.manager.last_outcome() {
            let (number, outcome) = (*number, outcome.clone());
            self.check_outcome(number, outcome);
        }
    }

    fn reply(&mut self, call: CallId, reply: Reply) {
        self.log.push(format!("reply {call:?} {reply:?}"));
        let Some(kind) = self.calls.remove(&call) else { return };
        match (kind, reply) {
            (Kind::Begin, Reply::Began(Ok(number))) => self.held = Some(number),
            (Kind::Offsets(number), Reply::Offsets(result)) => {
                self.account(number).offsets_failed += usize::from(result.is_err());
            }
            (Kind::Init, Reply::Initialized(_))
            | (Kind::Begin, Reply::Began(Err(_)))
            | (Kind::Commit, Reply::Ended(_))
            | (Kind::Abort, Reply::Aborted(_))
            | (Kind::Close, Reply::Closed) => {}
            (kind, reply) => panic!("{kind:?} was answered {reply:?}"),
        }
    }

    /// Checks an outcome when it is told, and that it does not change.
    fn check_outcome(&mut self, number: u64, outcome: Outcome) {
        let account = self.accounts.entry(number).or_default();
        if let Some(known) = &account.outcome {
            assert_eq!(std::mem::discriminant(known), std::mem::discriminant(&outcome), "transaction {number}");
            return;
        }
        match &outcome {
            Outcome::Committed => {
                assert_eq!(account.failed, 0, "transaction {number} committed without a record that failed");
                assert_eq!(account.offsets_failed, 0, "transaction {number} committed without offsets");
            }
            Outcome::Aborted(_) => {}
            Outcome::Unknown(_) => assert!(account.commits_sent >= 1, "transaction {number} sent no commit"),
        }
        account.outcome = Some(outcome);
    }

    /// Holds the outcomes that were told against the logs.
    fn check_logs(&self) {
        for (number, account) in &self.accounts {
            let of = |written: &[Written]| written.iter().filter(|written| written.number == *number).count();
            let (committed, aborted) = (of(&self.coordinator.committed), of(&self.coordinator.aborted));
            let has_offsets = self.coordinator.numbers_of_offsets.contains(number);
            match &account.outcome {
                Some(Outcome::Committed) => {
                    assert_eq!(aborted, 0, "transaction {number} was told committed");
                    for record in &account.acknowledged {
                        assert!(self.coordinator.committed.contains(record), "{record:?} is not committed");
                    }
                    assert_eq!(has_offsets, !account.offsets.is_empty(), "offsets of transaction {number}");
                }
                Some(Outcome::Aborted(_)) | None => {
                    assert_eq!((committed, has_offsets), (0, false), "transaction {number} was told aborted");
                }
                Some(Outcome::Unknown(_)) => {
                    assert!(committed == 0 || aborted == 0, "transaction {number} is half committed");
                }
            }
        }
        let mut values = BTreeSet::new();
        assert!(self.coordinator.committed.iter().all(|record| values.insert(record.value)), "a record is there twice");
        // The offsets in the group are those of the last call of the last transaction that has any.
        for (place, value) in &self.coordinator.committed_offsets {
            let account = &self.accounts[&(value / 1_000_000)];
            assert_eq!(account.offsets.get(place), Some(value), "offsets of {place} went back");
        }
    }

    // ---- runs

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.random_range(0..200));
        match self.rng.random_range(0..100) {
            0..10 => self.user(),
            10..50 => self.sender(),
            50..85 => self.network(),
            85..95 => self.mischief(),
            _ => {}
        }
        self.act();
        if self.manager.next_timer().is_some_and(|at| at <= self.now) {
            self.manager.poll(self.now);
            self.act();
        }
    }

    fn is_fatal(&self) -> bool {
        matches!(self.manager.state(), State::Fatal(_))
    }

    /// Runs without faults until `done`.
    fn settle(&mut self, done: impl Fn(&Self) -> bool) {
        self.calm = true;
        for _ in 0..3_000 {
            if done(self) || self.is_fatal() {
                return;
            }
            self.now += Duration::from_millis(50);
            self.sender();
            self.act();
            self.network();
            self.act();
            self.coordinator.write_markers();
            self.manager.poll(self.now);
            self.act();
        }
        panic!("the manager hangs: {:?} {:?}", self.manager, self.wire);
    }

    fn finish(&mut self) {
        self.settle(|world| world.calls.is_empty());
        if let Some(number) = self.held {
            self.commit(number);
            self.act();
            self.settle(|world| world.calls.is_empty());
        }
        for ghost in std::mem::take(&mut self.ghosts) {
            self.late_copy(&ghost);
        }
        for batch in std::mem::take(&mut self.sender.ghosts) {
            let _ = self.coordinator.produce(batch.producer, batch.record, batch.is_v2);
        }
        let call = self.call(Kind::Begin);
        self.manager.begin(call, self.now);
        self.act();
        self.settle(|world| world.held.is_some());
        if let Some(number) = self.held.filter(|_| !self.is_fatal()) {
            self.send_record(number);
            self.commit(number);
            self.act();
            self.settle(|world| world.calls.is_empty());
            let outcome = self.accounts[&number].outcome.clone();
            assert!(
                matches!(outcome, Some(Outcome::Committed)) || self.excuse.is_some(),
                "without faults a transaction commits: {outcome:?}"
            );
        }
        self.coordinator.write_markers();
        let call = self.call(Kind::Close);
        self.manager.close(call, self.now);
        self.act();
        self.settle(|world| world.calls.is_empty());
        assert!(self.calls.is_empty(), "every call has its reply: {:?}", self.calls);
        self.coordinator.write_markers();
        self.check_logs();
    }
}

/// Plays a run to its end, and returns it.
fn run(seed: u64, steps: usize) -> World {
    let mut world = World::new(seed);
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..steps {
            world.step();
        }
        world.finish();
    }));
    if let Err(failed) = failed {
        eprintln!("seed {seed}");
        let log = &world.log;
        eprintln!("{}", log[log.len().saturating_sub(120)..].join("\n"));
        std::panic::resume_unwind(failed);
    }
    world
}

/// Checks that the runs reach what they are meant to test.
#[test]
fn runs_reach_every_outcome() {
    let mut seen = BTreeMap::<_, usize>::new();
    for seed in 0..600 {
        let world = run(seed, 400);
        for account in world.accounts.values() {
            let outcome = match &account.outcome {
                Some(Outcome::Committed) => "committed",
                Some(Outcome::Aborted(None)) => "aborted by the user",
                Some(Outcome::Aborted(Some(_))) => "aborted",
                Some(Outcome::Unknown(_)) => "unknown",
                None => continue,
            };
            *seen.entry(outcome).or_default() += 1;
        }
        *seen.entry("records").or_default() += world.coordinator.committed.len();
        *seen.entry("aborted records").or_default() += world.coordinator.aborted.len();
        *seen.entry("offsets").or_default() += world.coordinator.numbers_of_offsets.len();
        *seen.entry("fatal").or_default() += usize::from(world.is_fatal());
        *seen.entry("another id").or_default() += usize::from(world.coordinator.producer.id != 1000);
    }
    assert!(seen.len() == 9 && seen.values().all(|count| *count >= 10), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn outcomes_are_true_under_every_fault(seed in any::<u64>(), steps in 20_usize..600) {
        run(seed, steps);
    }
}
