//! The state machine of a producer's transactions: user calls and events in, actions out.
//!
//! ```text
//! Uninitialized ─▶ Initializing ─▶ Ready ─▶ Open ─▶ Flushing ─▶ Committing ─▶ Ready
//!                       ▲           │        │         │            │ refused
//!                       └── bump ───┘        ▼         ▼            ▼
//!                                         Failed ─▶ Draining ─▶ Aborting ─▶ Ready
//! ```
//! Two rules decide what the user is told. A transaction is called aborted only if no commit was
//! sent, or if the only one that a coordinator may have seen was refused. And a request without an
//! answer is repeated unchanged until it has one; under the first protocol the epoch is then raised
//! before the next transaction, so that no late copy reaches it.
//!
//! Sans-IO.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng};

use super::{
    action::{Action, Notice, Reply},
    answers::{TransactionApi, Verdict, after_repeats, verdict},
    current::Transaction,
    exchange::Exchange,
    failure::{coordinator_error, transaction_failed},
    identity::{Assigned, after_end, after_init},
    offsets::NextOffsets,
    outcome::Outcome,
    partitions::Slot,
    planted::{self, Bug},
    protocol::{MARKERS_WRITTEN, Protocol},
    request::{Answer, AttemptId, CallId, Failure, Request},
    versions::versions,
};
use crate::{
    cluster::Backoff,
    error::{Error, ErrorCode, ErrorKind, Result},
    producer::idempotence::ProducerId,
    record::{GroupMetadata, OffsetAndMetadata, TopicPartition},
};

#[derive(Clone, Debug)]
pub(crate) struct TransactionRules {
    pub(crate) transactional_id: Arc<str>,
    /// `transaction.timeout.ms`.
    pub(crate) timeout: Duration,
    pub(crate) delivery_timeout: Duration,
    pub(crate) retry_backoff: Duration,
    pub(crate) retry_backoff_max: Duration,
    pub(crate) seed: u64,
}

#[derive(Clone, Debug)]
pub(crate) enum State {
    Uninitialized,
    Initializing,
    Ready,
    Open,
    /// The transaction cannot commit, and the user has not ended it yet.
    Failed,
    /// A commit waits for the results of records and offsets.
    Flushing,
    /// An abort waits until nothing is in flight: a late batch behind the marker would leave the
    /// next transaction open.
    Draining,
    Committing,
    Aborting,
    Fatal(Error),
}

/// A call that may wait for the end of the previous transaction.
#[derive(Clone, Copy, Debug)]
enum NextCall {
    Init,
    Begin,
    Close,
}

/// An answer, held against its request.
enum Judgement {
    /// The verdict, and the code that decides.
    Code(Verdict, ErrorCode),
    /// The answer lacks a part that the request asks for.
    Incomplete,
    /// The answer names an epoch that cannot follow the one that was sent.
    Foreign,
}

/// The machine. It belongs to one producer and one transactional id.
#[derive(Debug)]
pub(crate) struct TransactionManager {
    rules: TransactionRules,
    backoff: Backoff,
    soon: Backoff,
    rng: StdRng,
    state: State,
    identity: Option<ProducerId>,
    /// True if a transaction of the first protocol used the identity.
    is_used_in_v1: bool,
    /// True if the epoch has to be raised before the next transaction.
    must_bump: bool,
    /// The protocol of the next transaction.
    protocol: Protocol,
    /// The number of the last transaction that was begun.
    number: u64,
    current: Option<Transaction>,
    last_outcome: Option<(u64, Outcome)>,
    next_call: Option<(CallId, NextCall)>,
    /// The request to the transaction's coordinator; it handles one at a time.
    coordinator: Option<Exchange>,
    /// The request to a group's coordinator.
    group: Option<Exchange>,
    attempts: u64,
    actions: Vec<Action>,
}

impl TransactionManager {
    pub(crate) fn new(rules: TransactionRules) -> Self {
        Self {
            backoff: Backoff::new(rules.retry_backoff, rules.retry_backoff_max),
            soon: Backoff::new(MARKERS_WRITTEN.min(rules.retry_backoff), rules.retry_backoff_max),
            rng: StdRng::seed_from_u64(rules.seed),
            rules,
            state: State::Uninitialized,
            identity: None,
            is_used_in_v1: false,
            must_bump: false,
            protocol: Protocol::V1,
            number: 0,
            current: None,
            last_outcome: None,
            next_call: None,
            coordinator: None,
            group: None,
            attempts: 0,
            actions: Vec::new(),
        }
    }

    // ---- user calls

    /// Initializes the producer, unless it is: takes over the transactional id, which ends the
    /// transaction of an older producer.
    pub(crate) fn init(&mut self, call: CallId, now: Instant) {
        self.next_call = Some((call, NextCall::Init));
        self.advance(now);
    }

    /// Begins a transaction once the previous one has ended and the producer is initialized. A
    /// transaction that is still open was leaked by its owner, and is aborted first.
    pub(crate) fn begin(&mut self, call: CallId, now: Instant) {
        self.next_call = Some((call, NextCall::Begin));
        self.advance(now);
    }

    /// Replies once nothing is left to do at the coordinator.
    pub(crate) fn close(&mut self, call: CallId, now: Instant) {
        self.next_call = Some((call, NextCall::Close));
        self.advance(now);
    }

    /// Gives up what `close` waits for.
    pub(crate) fn close_now(&mut self) {
        self.fail_producer(Error::new(ErrorKind::Closed, "the producer was closed"));
    }

    /// Commits the transaction, or joins the commit that runs. A failed transaction is aborted. For
    /// a transaction that has ended, replies its outcome again.
    pub(crate) fn commit(&mut self, call: CallId, now: Instant) {
        match self.state {
            State::Open => {
                self.state = State::Flushing;
                self.actions.extend([Action::CloseGate, Action::FlushAll]);
                self.set_commit_call(call);
            }
            State::Flushing | State::Committing => self.set_commit_call(call),
            State::Failed => {
                self.drain();
                self.reply_outcome(call);
            }
            _ => self.reply_outcome(call),
        }
        self.advance(now);
    }

    /// Aborts the transaction, or joins the abort that runs; without a call if the transaction was
    /// dropped.
    pub(crate) fn abort(&mut self, call: Option<CallId>, now: Instant) {
        match &self.state {
            State::Open => self.decide(Outcome::Aborted(None)),
            State::Failed | State::Draining | State::Aborting => {}
            State::Fatal(error) => {
                let error = error.clone();
                return self.reply_if(call, Reply::Aborted(Err(error)));
            }
            State::Flushing | State::Committing => {
                let error = Error::new(ErrorKind::InvalidArgument, "the transaction is being committed");
                return self.reply_if(call, Reply::Aborted(Err(error)));
            }
            State::Uninitialized | State::Initializing | State::Ready => {
                return self.reply_if(call, Reply::Aborted(Ok(())));
            }
        }
        if matches!(self.state, State::Open | State::Failed) {
            self.drain();
        }
        if let Some(current) = &mut self.current {
            current.abort_call = call.or(current.abort_call);
        }
        self.advance(now);
    }

    /// Adds offsets to the transaction.
    pub(crate) fn send_offsets(
        &mut self,
        call: CallId,
        group: GroupMetadata,
        offsets: Vec<(TopicPartition, OffsetAndMetadata)>,
        now: Instant,
    ) {
        let refused = match (&self.state, &mut self.current) {
            (State::Open, _) if offsets.is_empty() => return self.reply(call, Reply::Offsets(Ok(()))),
            (State::Open, Some(current)) => {
                current.offsets.push(call, group, offsets);
                return self.advance(now);
            }
            (State::Fatal(error), _) => error.clone(),
            (_, Some(Transaction { outcome: Some(Outcome::Aborted(Some(cause))), .. })) => cause.clone(),
            _ => Error::new(ErrorKind::InvalidArgument, "the transaction has ended"),
        };
        self.reply(call, Reply::Offsets(Err(refused)));
    }

    /// Forgets a call whose future was dropped. The work goes on, except that no transaction is
    /// begun for it.
    pub(crate) fn forget(&mut self, call: CallId) {
        self.next_call = self.next_call.filter(|(of, _)| *of != call);
    }

    // ---- events of the sender

    /// Adds a partition before its first batch (first protocol).
    pub(crate) fn partition_wanted(&mut self, number: u64, partition: TopicPartition, slot: Slot, now: Instant) {
        if matches!(self.state, State::Open | State::Flushing)
            && let Some(current) = &mut self.current
            && current.number == number
            && current.protocol == Protocol::V1
        {
            current.partitions.want(partition, slot);
            self.advance(now);
        }
    }

    /// Notes that the first batch of a transaction was sent (second protocol).
    pub(crate) fn batch_sent(&mut self, number: u64) {
        if let Some(current) = self.current.as_mut().filter(|current| current.number == number) {
            current.is_started = true;
        }
    }

    /// Fails the transaction, because one of its records has failed. The epoch has to be raised if
    /// the record was `numbered` and the first protocol holds: its sequence number stays unused, or
    /// its batch may still be written.
    pub(crate) fn record_failed(&mut self, number: u64, error: Error, numbered: bool, now: Instant) {
        let Some(current) = self.current.as_ref().filter(|current| current.number == number) else { return };
        if planted::has(Bug::FailedRecordIsForgotten) {
            return;
        }
        self.must_bump |= numbered && current.protocol == Protocol::V1;
        self.fail(error);
        self.advance(now);
    }

    /// Fails the transaction, because a partition cannot continue under its sequence numbers.
    /// Between transactions this only requires another epoch for the next one.
    pub(crate) fn epoch_used_up(&mut self, number: u64, error: Error, now: Instant) {
        if number != self.number {
            return;
        }
        self.must_bump |= self.current.as_ref().map_or(self.is_used_in_v1, |current| current.protocol == Protocol::V1);
        self.fail(error);
        self.advance(now);
    }

    /// Fails the transaction that is open, because `send` refused a record: its caller may have
    /// dropped the error unseen.
    pub(crate) fn record_refused(&mut self, error: Error, now: Instant) {
        self.record_failed(self.number, error, false, now);
    }

    /// Notes that no record of the transaction is without a result.
    pub(crate) fn idle(&mut self, number: u64, now: Instant) {
        if let Some(current) = self.current.as_mut().filter(|current| current.number == number) {
            current.is_idle = true;
            self.advance(now);
        }
    }

    // ---- events of the task

    /// Takes the level of [`FEATURE`](super::protocol::FEATURE); it holds from the next transaction
    /// on.
    pub(crate) fn feature_learned(&mut self, level: Option<i16>) {
        let protocol = Protocol::of(level);
        if protocol != self.protocol && self.identity.is_some() {
            self.actions.push(Action::Notice(Notice::ProtocolChanged(protocol)));
        }
        self.protocol = protocol;
    }

    /// Takes the answer of an attempt. An answer to an attempt that was given up is dropped.
    pub(crate) fn answered(&mut self, attempt: AttemptId, answer: &Answer, now: Instant) {
        let Some(mut exchange) = self.take_ended(attempt, true) else { return };
        let api = exchange.request.api();
        if matches!(answer, Answer::Code(ErrorCode::CONCURRENT_TRANSACTIONS)) {
            // The coordinator is busy with an earlier request, and has not handled this one.
            exchange.had_no_effect();
        }
        let context = self.context(api);
        let (verdict, error) = match self.judge(&exchange, answer) {
            Judgement::Code(verdict, code) => (verdict, coordinator_error(code, context)),
            Judgement::Incomplete => {
                let error = Error::new(ErrorKind::Protocol, format!("{context}: the answer is incomplete"));
                (Verdict::RetryLimited, error)
            }
            Judgement::Foreign => {
                let error = format!("{context}: the coordinator answered the epoch of another producer");
                (Verdict::Fatal, Error::new(ErrorKind::Protocol, error))
            }
        };
        self.apply(exchange, verdict, Some(answer), error, now);
        self.advance(now);
    }

    /// Takes the failure of an attempt.
    pub(crate) fn failed(&mut self, attempt: AttemptId, failure: Failure, now: Instant) {
        let is_lost = matches!(failure, Failure::Lost(_));
        let Some(mut exchange) = self.take_ended(attempt, is_lost) else { return };
        let api = exchange.request.api();
        match failure {
            Failure::Lost(error) if api == TransactionApi::EndTxnCommit && planted::has(Bug::LostCommitIsSuccess) => {
                self.apply(exchange, Verdict::Done, None, error, now);
            }
            Failure::Lost(error) => {
                exchange.mark_lost();
                self.note_lost(api);
                self.forget_coordinator(&exchange.request);
                self.apply(exchange, Verdict::Retry, None, error, now);
            }
            Failure::Unsent(error) if error.kind() == ErrorKind::UnsupportedVersion => {
                self.apply(exchange, Verdict::Configuration, None, error, now);
            }
            // Repeating the request does not cure these.
            Failure::Unsent(error)
                if api == TransactionApi::InitProducerId
                    && matches!(error.kind(), ErrorKind::Authentication | ErrorKind::Configuration) =>
            {
                self.apply(exchange, Verdict::Refused, None, error, now);
            }
            Failure::Unsent(error) => {
                self.forget_coordinator(&exchange.request);
                self.apply(exchange, Verdict::Retry, None, error, now);
            }
            Failure::LookUp(code) => {
                let look_up = match api {
                    TransactionApi::TxnOffsetCommit => TransactionApi::FindGroupCoordinator,
                    _ => TransactionApi::FindTransactionCoordinator,
                };
                let error = Error::broker(code, self.context(look_up));
                self.apply(exchange, verdict(look_up, code, self.running_protocol()), None, error, now);
            }
        }
        self.advance(now);
    }

    /// Sends what is due.
    pub(crate) fn poll(&mut self, now: Instant) {
        if let Some(current) = self.current.as_mut().filter(|current| !current.is_overdue)
            && now.saturating_duration_since(current.began) >= self.rules.timeout
        {
            current.is_overdue = true;
            self.actions.push(Action::Notice(Notice::Overdue { number: current.number }));
        }
        self.advance(now);
    }

    /// Returns the time of the next [`poll`](Self::poll), if one is needed.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        let retries = [&self.coordinator, &self.group].into_iter().flatten().filter_map(Exchange::due);
        let overdue = self.current.as_ref().filter(|current| !current.is_overdue);
        let overdue = overdue.and_then(|current| current.began.checked_add(self.rules.timeout));
        retries.chain(overdue).min()
    }

    /// Returns the actions since the last call, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    // ---- status

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    pub(crate) fn identity(&self) -> Option<ProducerId> {
        self.identity
    }

    /// Returns the number and the outcome of the last transaction that has one.
    pub(crate) fn last_outcome(&self) -> Option<&(u64, Outcome)> {
        self.last_outcome.as_ref()
    }

    pub(crate) fn current(&self) -> Option<&Transaction> {
        self.current.as_ref()
    }

    /// Returns true if the transaction waits for [`idle`](Self::idle).
    pub(crate) fn waits_for_idle(&self) -> bool {
        matches!(self.state, State::Flushing | State::Draining)
            && self.current.as_ref().is_some_and(|current| !current.is_idle)
    }

    /// Returns the request that is being repeated, if there is one.
    pub(crate) fn repeated(&self) -> Option<&Exchange> {
        [&self.coordinator, &self.group].into_iter().flatten().find(|exchange| exchange.last_error().is_some())
    }

    /// Returns the number of the last transaction that was begun.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    // ---- answers

    fn context(&self, api: TransactionApi) -> String {
        format!("{api:?} of transactional id \"{}\"", self.rules.transactional_id)
    }

    fn running_protocol(&self) -> Protocol {
        self.current.as_ref().map_or(self.protocol, |current| current.protocol)
    }

    /// Takes the exchange of an attempt out of its place. Returns `None` for an attempt that is not
    /// in flight any more.
    fn take_ended(&mut self, attempt: AttemptId, seen: bool) -> Option<Exchange> {
        let end = |place: &mut Option<Exchange>| {
            place.take_if(|exchange| if seen { exchange.end_seen(attempt) } else { exchange.end_unsent(attempt) })
        };
        end(&mut self.coordinator).or_else(|| end(&mut self.group))
    }

    /// Judges an answer to a request.
    fn judge(&self, exchange: &Exchange, answer: &Answer) -> Judgement {
        let (api, protocol) = (exchange.request.api(), self.running_protocol());
        let judged = |code| (verdict(api, code, protocol), code);
        let worst = |codes: Option<Vec<(Verdict, ErrorCode)>>| {
            let worst = codes.and_then(|codes| codes.into_iter().max());
            worst.map_or(Judgement::Incomplete, |(verdict, code)| Judgement::Code(verdict, code))
        };
        match (&exchange.request, answer) {
            (Request::AddOffsets(..) | Request::EndTxn { .. }, Answer::Code(code)) => {
                Judgement::Code(verdict(api, *code, protocol), *code)
            }
            (_, Answer::Code(code)) if !code.is_ok() => Judgement::Code(verdict(api, *code, protocol), *code),
            (Request::InitProducerId(sent), Answer::Assigned { id, epoch }) => match after_init(*sent, *id, *epoch) {
                Assigned::Valid(_) => Judgement::Code(Verdict::Done, ErrorCode::NONE),
                Assigned::Malformed => Judgement::Incomplete,
                Assigned::Foreign => Judgement::Foreign,
            },
            (Request::EndTxn { .. }, Answer::Assigned { .. }) => Judgement::Code(Verdict::Done, ErrorCode::NONE),
            (Request::AddPartitions(_, asked), Answer::Partitions(codes)) => {
                worst(asked.iter().map(|partition| code_of(codes, partition).map(judged)).collect())
            }
            (Request::TxnOffsetCommit(.., asked), Answer::Partitions(codes)) => {
                worst(asked.iter().map(|(partition, _)| code_of(codes, partition).map(judged)).collect())
            }
            _ => Judgement::Incomplete,
        }
    }

    /// Carries out a verdict. The exchange goes back to its place if it is repeated.
    fn apply(&mut self, mut exchange: Exchange, verdict: Verdict, answer: Option<&Answer>, error: Error, now: Instant) {
        let api = exchange.request.api();
        exchange.note_error(&error);
        match verdict {
            Verdict::Done => self.succeed(&exchange, answer),
            Verdict::Retry => self.repeat(exchange, answer, false, now),
            Verdict::RetrySoon => self.repeat(exchange, answer, true, now),
            Verdict::FindCoordinator => {
                self.forget_coordinator(&exchange.request);
                self.repeat(exchange, answer, false, now);
            }
            Verdict::RetryWhileTopicMissing => {
                if now.saturating_duration_since(exchange.began) < self.rules.delivery_timeout {
                    self.repeat(exchange, answer, false, now);
                } else {
                    self.apply(exchange, Verdict::Abort, answer, error, now);
                }
            }
            Verdict::RetryLimited | Verdict::OtherPartition => {
                if exchange.may_repeat_unexpected() {
                    self.repeat(exchange, answer, false, now);
                } else {
                    self.apply(exchange, after_repeats(api), answer, error, now);
                }
            }
            Verdict::NothingToEnd => self.apply_nothing_to_end(exchange, error, now),
            Verdict::Abort | Verdict::AbortAfterRebalance | Verdict::AbortAndBump => {
                self.must_bump |= verdict == Verdict::AbortAndBump && self.running_protocol() == Protocol::V1;
                let error = if verdict == Verdict::AbortAfterRebalance {
                    let message = format!("the group has rebalanced since its metadata was read: {error}");
                    Error::because_of(ErrorKind::NotAssigned, message, error)
                } else {
                    error
                };
                if api == TransactionApi::EndTxnCommit {
                    self.refuse_commit(exchange.seen(), error, now);
                } else {
                    self.fail(error);
                }
            }
            Verdict::Reset => {
                self.must_bump = true;
                self.finish();
                self.start_init(self.identity, now);
            }
            Verdict::Refused if api == TransactionApi::InitProducerId => {
                self.state = if self.identity.is_some() { State::Ready } else { State::Uninitialized };
                self.reply_next(&Err(error));
            }
            Verdict::Fenced if error.kind() != ErrorKind::Fenced => {
                // INVALID_PRODUCER_ID_MAPPING has no kind of its own.
                self.apply(exchange, verdict, answer, error.with_kind(ErrorKind::Fenced), now);
            }
            Verdict::Refused | Verdict::Configuration | Verdict::Fenced | Verdict::Fatal => {
                let error = error.with_fatal();
                if api == TransactionApi::EndTxnCommit {
                    self.decide(Outcome::of_refused_commit(exchange.seen(), error.clone()));
                }
                self.fail_producer(error);
            }
        }
    }

    fn apply_nothing_to_end(&mut self, exchange: Exchange, error: Error, now: Instant) {
        let (has_added, is_commit_refused) =
            self.current.as_ref().map_or((false, false), |current| (current.has_added(), current.is_commit_refused));
        match (has_added, is_commit_refused) {
            (false, false) => self.finish(),
            // The commit that was refused may have had an effect before.
            (_, true) => self.apply(exchange, Verdict::Reset, None, error, now),
            (true, false) => self.apply(exchange, Verdict::Fatal, None, error, now),
        }
    }

    fn succeed(&mut self, exchange: &Exchange, answer: Option<&Answer>) {
        match &exchange.request {
            Request::InitProducerId(_) => {
                if let Some(Answer::Assigned { id, epoch }) = answer {
                    let producer = ProducerId { id: *id, epoch: *epoch };
                    self.identity = Some(producer);
                    self.must_bump = false;
                    self.is_used_in_v1 = false;
                    self.state = State::Ready;
                    self.actions.push(Action::Notice(Notice::Initialized(producer)));
                }
            }
            Request::AddPartitions(..) => {
                if let Some(current) = &mut self.current {
                    let slots = current.partitions.confirm_added();
                    self.actions.push(Action::PartitionsAdded(current.number, slots));
                }
            }
            Request::AddOffsets(_, group) => {
                if let Some(current) = &mut self.current {
                    current.offsets.group_added(Arc::clone(group));
                }
            }
            Request::TxnOffsetCommit(..) => {
                let calls = self.current.as_mut().map(|current| current.offsets.confirm_sent());
                for call in calls.into_iter().flatten() {
                    self.reply(call, Reply::Offsets(Ok(())));
                }
            }
            Request::EndTxn { producer, commit } => {
                if self.running_protocol() == Protocol::V2 {
                    self.take_next_identity(*producer, answer);
                }
                if *commit {
                    self.decide(Outcome::Committed);
                }
                self.finish();
            }
        }
    }

    /// Takes the identity of the next transaction from an answer to EndTxn.
    fn take_next_identity(&mut self, sent: ProducerId, answer: Option<&Answer>) {
        let assigned = match answer {
            Some(Answer::Assigned { id, epoch }) => after_end(sent, *id, *epoch),
            _ => Assigned::Malformed,
        };
        match assigned {
            Assigned::Valid(producer) => {
                self.identity = Some(producer);
                self.is_used_in_v1 = false;
            }
            Assigned::Malformed | Assigned::Foreign => {
                self.must_bump = true;
                self.actions.push(Action::Notice(Notice::UnexpectedIdentity { sent }));
            }
        }
    }

    /// Repeats a request after a wait, without the partitions that are done.
    fn repeat(&mut self, mut exchange: Exchange, answer: Option<&Answer>, soon: bool, now: Instant) {
        if let (Request::TxnOffsetCommit(.., asked), Some(Answer::Partitions(codes))) = (&mut exchange.request, answer)
        {
            asked.retain(|(partition, _)| code_of(codes, partition) != Some(ErrorCode::NONE));
        }
        let failures = exchange.count_failure();
        let backoff = if soon { &self.soon } else { &self.backoff };
        exchange.retry_at(now + backoff.after(failures, &mut self.rng));
        let place = if exchange.request.api() == TransactionApi::TxnOffsetCommit {
            &mut self.group
        } else {
            &mut self.coordinator
        };
        *place = Some(exchange);
    }

    /// Notes that a copy of a request may arrive late. Under the second protocol the epoch changes
    /// with the end of each transaction.
    fn note_lost(&mut self, api: TransactionApi) {
        let Some(current) = &mut self.current else { return };
        if api == TransactionApi::TxnOffsetCommit {
            current.offsets.mark_lost();
        }
        self.must_bump |= current.protocol == Protocol::V1 && api != TransactionApi::InitProducerId;
    }

    fn forget_coordinator(&mut self, request: &Request) {
        self.actions.push(match request {
            Request::TxnOffsetCommit(_, group, _) => Action::ForgetGroupCoordinator(group.group_id().into()),
            _ => Action::ForgetTransactionCoordinator,
        });
    }

    // ---- transitions

    /// Goes on as far as no answer is needed, and sends what is due.
    fn advance(&mut self, now: Instant) {
        while self.step(now) {}
        self.send_due(now);
    }

    /// Makes one transition; returns false if there is none.
    fn step(&mut self, now: Instant) -> bool {
        match self.state {
            State::Uninitialized => self.step_from_uninitialized(now),
            State::Ready => self.step_from_ready(now),
            State::Fatal(_) => self.step_from_fatal(),
            // The owner of the transaction has leaked it.
            State::Open if self.next_call.is_some() => {
                self.decide(Outcome::Aborted(None));
                if planted::has(Bug::DroppedTransactionGoesOn) {
                    self.finish();
                } else {
                    self.drain();
                }
                true
            }
            State::Failed if self.next_call.is_some() => {
                self.drain();
                true
            }
            State::Open => self.start_adding(now),
            State::Flushing => self.start_adding(now) || self.step_from_flushing(now),
            State::Failed => {
                self.drop_waiting_requests();
                false
            }
            State::Draining => {
                self.drop_waiting_requests();
                self.step_from_draining(now)
            }
            State::Initializing | State::Committing | State::Aborting => false,
        }
    }

    fn step_from_uninitialized(&mut self, now: Instant) -> bool {
        match self.next_call {
            None => false,
            Some((_, NextCall::Close)) => self.reply_next(&Ok(())),
            Some((_, NextCall::Init | NextCall::Begin)) => self.start_init(None, now),
        }
    }

    fn step_from_ready(&mut self, now: Instant) -> bool {
        // The first batch of the second protocol must not find the partitions of a transaction of
        // the first one under the same epoch.
        let is_stale = self.is_used_in_v1 && self.protocol == Protocol::V2;
        match self.next_call {
            None => false,
            Some((_, NextCall::Init)) if self.must_bump => self.start_init(self.identity, now),
            Some((_, NextCall::Begin)) if self.must_bump || is_stale => self.start_init(self.identity, now),
            Some((call, NextCall::Begin)) => {
                self.next_call = None;
                self.open(call, now);
                true
            }
            Some((_, NextCall::Init | NextCall::Close)) => self.reply_next(&Ok(())),
        }
    }

    fn step_from_fatal(&mut self) -> bool {
        let State::Fatal(error) = &self.state else { return false };
        let error = error.clone();
        self.next_call.is_some() && self.reply_next(&Err(error))
    }

    fn start_init(&mut self, producer: Option<ProducerId>, now: Instant) -> bool {
        self.state = State::Initializing;
        self.coordinator = Some(Exchange::new(Request::InitProducerId(producer), now));
        true
    }

    fn open(&mut self, call: CallId, now: Instant) {
        let Some(producer) = self.identity else { return };
        self.number += 1;
        self.current = Some(Transaction::new(self.number, self.protocol, now));
        self.state = State::Open;
        let (number, protocol) = (self.number, self.protocol);
        self.actions.push(Action::SetIdentity { producer, number, protocol });
        self.reply(call, Reply::Began(Ok(number)));
    }

    /// Starts the next request that adds something to the transaction; returns true if there was
    /// one.
    fn start_adding(&mut self, now: Instant) -> bool {
        let (Some(producer), Some(current)) = (self.identity, &mut self.current) else { return false };
        let is_v1 = current.protocol == Protocol::V1;
        if self.coordinator.is_none() {
            let request = if current.partitions.has_wanted() {
                Some(Request::AddPartitions(producer, current.partitions.start_adding()))
            } else if is_v1 {
                current.offsets.group_to_add().map(|group| Request::AddOffsets(producer, group))
            } else {
                None
            };
            if let Some(request) = request {
                current.is_started = true;
                self.coordinator = Some(Exchange::new(request, now));
                return true;
            }
        }
        if self.group.is_some() {
            return false;
        }
        match current.offsets.start_sending(is_v1) {
            NextOffsets::None => false,
            NextOffsets::Send(group, offsets) => {
                current.is_started = true;
                self.group = Some(Exchange::new(Request::TxnOffsetCommit(producer, group, offsets), now));
                true
            }
            NextOffsets::Conflict(partition) => {
                self.fail(Error::new(
                    ErrorKind::Timeout,
                    format!(
                        "no answer came to earlier offsets of this transaction for {}[{}]; a late copy of that request \
                         could undo newer ones",
                        partition.topic, partition.partition
                    ),
                ));
                true
            }
        }
    }

    fn step_from_flushing(&mut self, now: Instant) -> bool {
        let Some(current) = &self.current else { return false };
        let is_done = current.offsets.is_done() && self.group.is_none() || planted::has(Bug::CommitOvertakesOffsets);
        if !current.is_idle || !is_done || self.coordinator.is_some() {
            return false;
        }
        if current.is_started {
            self.start_end(true, now);
        } else {
            self.decide(Outcome::Committed);
            self.finish();
        }
        true
    }

    fn step_from_draining(&mut self, now: Instant) -> bool {
        let Some(current) = &self.current else { return false };
        if !current.is_idle || self.coordinator.is_some() || self.group.is_some() {
            return false;
        }
        if current.is_started {
            self.start_end(false, now);
        } else {
            self.finish();
        }
        true
    }

    fn start_end(&mut self, commit: bool, now: Instant) {
        let Some(producer) = self.identity else { return };
        self.state = if commit { State::Committing } else { State::Aborting };
        let commit = commit || planted::has(Bug::AbortIsCommit);
        self.coordinator = Some(Exchange::new(Request::EndTxn { producer, commit }, now));
    }

    /// Gives up requests of a transaction that will not commit, except those in flight and those to
    /// the transaction's coordinator of which a copy may be on its way: they are repeated, so that
    /// the copy arrives before the end rather than after it.
    fn drop_waiting_requests(&mut self) {
        self.coordinator.take_if(|exchange| exchange.due().is_some() && !exchange.is_lost());
        self.group.take_if(|exchange| exchange.due().is_some());
    }

    /// Fails the transaction: it cannot commit any more. The first cause counts.
    fn fail(&mut self, error: Error) {
        if !matches!(self.state, State::Open | State::Flushing) {
            return;
        }
        let Some(current) = &mut self.current else { return };
        current.partitions.drop_wanted();
        let (number, calls) = (current.number, current.offsets.fail_all());
        self.state = if matches!(self.state, State::Open) { State::Failed } else { State::Draining };
        self.actions.push(Action::Notice(Notice::Failed { number, cause: error.clone() }));
        let error = transaction_failed(error);
        self.actions.push(Action::FailUnsent(Some(error.clone())));
        for call in calls {
            self.reply(call, Reply::Offsets(Err(error.clone())));
        }
        self.decide(Outcome::Aborted(Some(error)));
    }

    /// Starts to end a transaction that will not commit.
    fn drain(&mut self) {
        let was_open = matches!(self.state, State::Open);
        self.state = State::Draining;
        self.actions.push(Action::CloseGate);
        let Some(current) = &mut self.current else { return };
        current.partitions.drop_wanted();
        let calls = current.offsets.fail_all();
        if was_open {
            self.actions.push(Action::FailUnsent(None));
        }
        for call in calls {
            let error =
                Error::new(ErrorKind::InvalidArgument, "the transaction was aborted before its offsets were sent");
            self.reply(call, Reply::Offsets(Err(error)));
        }
    }

    /// Aborts a transaction that the coordinator refuses to commit.
    fn refuse_commit(&mut self, seen: u32, error: Error, now: Instant) {
        self.decide(match Outcome::of_refused_commit(seen, error) {
            Outcome::Aborted(Some(cause)) => Outcome::Aborted(Some(transaction_failed(cause))),
            outcome => outcome,
        });
        if let Some(current) = &mut self.current {
            current.is_commit_refused = true;
        }
        self.start_end(false, now);
    }

    /// Sets the outcome of the transaction, if it has none, and tells the call that waits for it.
    fn decide(&mut self, outcome: Outcome) {
        let Some(current) = self.current.as_mut().filter(|current| current.outcome.is_none()) else { return };
        current.outcome = Some(outcome.clone());
        let (number, call) = (current.number, current.commit_call.take());
        if let Outcome::Unknown(cause) = &outcome {
            self.actions.push(Action::Notice(Notice::OutcomeUnknown { number, cause: cause.clone() }));
        }
        self.last_outcome = Some((number, outcome.clone()));
        self.reply_if(call, Reply::Ended(outcome));
    }

    /// Ends the transaction; its outcome is decided.
    fn finish(&mut self) {
        let Some(current) = self.current.take() else { return };
        self.is_used_in_v1 |= current.is_started && current.protocol == Protocol::V1;
        self.state = State::Ready;
        self.reply_if(current.abort_call, Reply::Aborted(Ok(())));
    }

    /// Fails the producer for good.
    fn fail_producer(&mut self, error: Error) {
        if matches!(self.state, State::Fatal(_)) {
            return;
        }
        let error = error.with_fatal();
        let commits_seen = match (&self.state, &self.coordinator) {
            (State::Committing, Some(exchange)) => exchange.seen_by_now(),
            _ => 0,
        };
        self.decide(if commits_seen == 0 {
            Outcome::Aborted(Some(error.clone()))
        } else {
            Outcome::Unknown(error.clone())
        });
        self.actions.push(Action::Notice(Notice::ProducerFailed(error.clone())));
        self.actions.push(Action::CloseGate);
        self.actions.push(Action::FailUnsent(Some(error.clone())));
        (self.coordinator, self.group) = (None, None);
        self.state = State::Fatal(error.clone());
        if let Some(mut current) = self.current.take() {
            for call in current.offsets.fail_all() {
                self.reply(call, Reply::Offsets(Err(error.clone())));
            }
            self.reply_if(current.abort_call, Reply::Aborted(Err(error.clone())));
        }
        self.step_from_fatal();
    }

    // ---- requests and replies

    fn send_due(&mut self, now: Instant) {
        let protocol = self.running_protocol();
        for exchange in [&mut self.coordinator, &mut self.group].into_iter().flatten() {
            if exchange.due().is_none_or(|due| due > now) {
                continue;
            }
            self.attempts += 1;
            let attempt = AttemptId(self.attempts);
            exchange.sent(attempt);
            let request = exchange.request.clone();
            let versions = versions(protocol, &request);
            self.actions.push(Action::Send { attempt, request, versions });
        }
    }

    fn set_commit_call(&mut self, call: CallId) {
        if let Some(current) = &mut self.current {
            current.commit_call = Some(call);
        }
    }

    fn reply(&mut self, call: CallId, reply: Reply) {
        self.actions.push(Action::Reply(call, reply));
    }

    fn reply_if(&mut self, call: Option<CallId>, reply: Reply) {
        if let Some(call) = call {
            self.reply(call, reply);
        }
    }

    /// Replies the outcome of the last transaction.
    fn reply_outcome(&mut self, call: CallId) {
        if let Some((_, outcome)) = &self.last_outcome {
            let outcome = outcome.clone();
            self.reply(call, Reply::Ended(outcome));
        }
    }

    /// Replies to the call that waits for the next state; returns true if there was one.
    fn reply_next(&mut self, result: &Result<()>) -> bool {
        let Some((call, next)) = self.next_call.take() else { return false };
        self.reply(
            call,
            match next {
                NextCall::Init => Reply::Initialized(result.clone()),
                NextCall::Begin => Reply::Began(result.clone().map(|()| self.number)),
                NextCall::Close => Reply::Closed,
            },
        );
        true
    }
}

fn code_of(codes: &[(TopicPartition, ErrorCode)], partition: &TopicPartition) -> Option<ErrorCode> {
    codes.iter().find(|(of, _)| of == partition).map(|(_, code)| *code)
}
