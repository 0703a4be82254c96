//! One partition's queue at the sender: batches to be sent again, batches in flight, and the order
//! between them.
//!
//! ```text
//!   accumulator ──take──▶ in flight ──written──▶ settled
//!                          ▲     │
//!                    drain │     │ retriable, split, out of order
//!                          │     ▼
//!                          waiting (in the order of first sending; before the accumulator)
//! ```
//!
//! These rules keep the log ordered and free of duplicates:
//! - a numbered batch is sent again only while no batch before it is outstanding;
//! - new batches are numbered only when no batch waits, no number is in doubt, no epoch is to be
//!   raised, and no batch in flight may be a duplicate, because brokers recognize a duplicate only
//!   among the last five batches;
//! - the first batch is sent alone, because a broker that does not know the producer would accept
//!   any other batch as the first;
//! - all batches in flight are at one broker: if the leader moves, the partition continues there
//!   when the old leader has answered;
//! - the epoch is raised only while nothing is in flight, and then all waiting batches are numbered
//!   again. So waiting batches must not be in the log: a batch that may be is first sent again
//!   under its old number, unless that cannot clarify it either.
//!
//! Results are published in the order of sending: a known result is withheld until all results
//! before it are known. Only a purge, or the end of the producer, publishes results at once.
//!
//! Sans-IO.

pub(super) mod completion;
mod response_table;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use crate::producer::partition_queue::completion::late;
use crate::producer::partition_queue::response_table::{Action, AttemptResult, Doubt, action, add_doubt};
use crate::producer::{
    accumulator::Partition,
    batch::{Batch, BatchOutcome},
    batch_body::Body,
    idempotence::{Identity, ProducerId, Sequences, TransactionIdentity},
    purge::PurgeScope,
    response::BatchDecision,
    revocable_batch::RevocableBatch,
};
use crate::{
    cluster::{Backoff, RetryGrid},
    error::{DeliveryStatus, Error},
    wire::batch::{ProducerStamp, SealedBatch},
};

/// The sender's rules, from the producer's settings.
#[derive(Clone, Debug)]
pub(crate) struct SenderRules {
    pub(crate) acks: i16,
    pub(crate) retries: u32,
    pub(crate) max_in_flight: usize,
    pub(crate) max_request_size: usize,
    pub(crate) linger: Duration,
    pub(crate) delivery_timeout: Duration,
    /// `None` if the partitioner does not use the availability of brokers.
    pub(crate) availability_timeout: Option<Duration>,
    pub(crate) backoff: Backoff,
    /// Aligns the backoffs of many partitions, so that they end together.
    pub(crate) grid: RetryGrid,
}

/// The distance between the `order` of two batches; the parts of a split batch share it.
const SPAN: u128 = 1 << 32;

/// The readiness of a partition to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The partition has nothing to send.
    Empty,
    /// The partition has to be checked again at that time.
    At(Instant),
    /// The partition can send now.
    Ready,
    /// The partition has to wait for one of its own answers.
    Blocked,
    /// The partition needs a producer id.
    NoProducerId,
}

/// A reason why a partition cannot send its next batch, in the order in which the reasons are
/// checked:
/// 1. the batch itself, because only a batch that is due needs anything else;
/// 2. the connections, for any batch;
/// 3. the sequence numbers. The producer id is the last thing that is missing: when a broker
///    refuses an id, the batches of all partitions that wait for one fail, so a partition that
///    could not use the id yet must not be among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Obstacle {
    NoBatch,
    /// The next batch is sent again, and its backoff is not over.
    Backoff(Instant),
    /// The next batch is sent again under its numbers, and a batch before it is in flight: if that
    /// one failed, this one would be out of order once more.
    EarlierInFlight,
    /// The next batch is neither full nor flushed, and its linger is not over.
    Linger(Instant),
    /// `max.in.flight.requests.per.connection` batches are in flight.
    MaxInFlight,
    /// A batch is in flight at an earlier leader. A later one could be in the new leader's log
    /// before it.
    InFlightElsewhere,
    /// The epoch is raised once nothing is in flight. Only batches that have numbers may still be
    /// sent, if the raise waits for their fate.
    EpochRaise,
    /// A batch that may have been written has failed, so the next number is not known.
    NumbersInDoubt,
    /// A batch in flight may be a repetition. Brokers recognize repetitions only among the last
    /// five batches, so no new batch may follow it.
    RepetitionInFlight,
    /// The broker may not know the producer yet, and would accept any batch as the first.
    FirstInFlight,
    NoProducerId,
    /// The partition is not added to the transaction yet.
    NotInTransaction,
    /// The producer has another id by now, but batches with numbers of the old one are outstanding.
    OldProducerId,
}

impl Obstacle {
    fn readiness(self) -> Readiness {
        match self {
            Obstacle::NoBatch => Readiness::Empty,
            Obstacle::Backoff(at) | Obstacle::Linger(at) => Readiness::At(at),
            Obstacle::NoProducerId => Readiness::NoProducerId,
            Obstacle::EarlierInFlight
            | Obstacle::MaxInFlight
            | Obstacle::InFlightElsewhere
            | Obstacle::EpochRaise
            | Obstacle::NumbersInDoubt
            | Obstacle::RepetitionInFlight
            | Obstacle::FirstInFlight
            | Obstacle::NotInTransaction
            | Obstacle::OldProducerId => Readiness::Blocked,
        }
    }
}

/// The effects of an event on the partition's epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpochEffects {
    /// True if the epoch was raised.
    pub(crate) raised: bool,
    /// The new epoch, if the producer id stays.
    pub(crate) raised_to: Option<ProducerId>,
    /// True if the producer id's epochs are used up.
    pub(crate) needs_new_id: bool,
    /// True if a transactional partition cannot continue under its numbers.
    pub(crate) needs_coordinator: bool,
}

/// A batch that was taken for a request.
#[derive(Debug)]
pub(crate) struct DrainedBatch {
    pub(crate) body: Body,
    pub(crate) stamp: ProducerStamp,
    pub(crate) revocable: RevocableBatch,
    pub(crate) records: u32,
    pub(crate) attempt: u32,
    /// Time at which it was begun, if this is its first attempt.
    pub(crate) created: Option<Instant>,
}

#[derive(Debug)]
struct InFlight {
    request: u64,
    node: i32,
    batch: Batch,
    /// True if its records are compressed for this attempt, not for an earlier one.
    compressed_now: bool,
}

impl InFlight {
    /// Returns true if an earlier attempt may have written it. A broker recognizes it only among
    /// the last five batches, so no more may follow it until its fate is known.
    fn is_repeated(&self) -> bool {
        (self.batch.maybe_written || self.batch.sequences_used) && self.batch.attempts > 1
    }
}

#[derive(Debug)]
pub(crate) struct PartitionQueue {
    pub(crate) partition: Arc<Partition>,
    waiting: VecDeque<Batch>,
    in_flight: VecDeque<InFlight>,
    /// Batches with known results that are withheld until those of earlier batches are known.
    decided: VecDeque<Batch>,
    sequences: Sequences,
    /// Order from which batches are certainly not in the log under their current numbers,
    /// regardless of their attempts: brokers write numbers consecutively, and a batch with the
    /// number that came next was refused and never written.
    unwritten_from: u128,
    drained: u128,
    topic_id: uuid::Uuid,
    /// The last transaction that the partition was to be added to, and the last that it was added
    /// to.
    wanted_in: u64,
    added_to: u64,
}

impl PartitionQueue {
    pub(crate) fn new(partition: Arc<Partition>) -> Self {
        Self {
            partition,
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            decided: VecDeque::new(),
            sequences: Sequences::default(),
            unwritten_from: u128::MAX,
            drained: 0,
            topic_id: uuid::Uuid::nil(),
            wanted_in: 0,
            added_to: 0,
        }
    }

    /// Returns true, once for each transaction, if the partition has something to send and is not
    /// added to the transaction yet.
    pub(crate) fn wants_to_join(&mut self, transaction: TransactionIdentity) -> bool {
        let wants = transaction.adds_partitions
            && self.wanted_in != transaction.number
            && (!self.waiting.is_empty() || self.partition.oldest_batch().is_some());
        if wants {
            self.wanted_in = transaction.number;
        }
        wants
    }

    /// Returns the identity that its sequence numbers belong to.
    pub(crate) fn producer(&self) -> Option<ProducerId> {
        self.sequences.producer()
    }

    /// Records that the partition was added to a transaction.
    pub(crate) fn added_to(&mut self, transaction: u64) {
        self.added_to = transaction;
    }

    /// Returns the readiness to send to `leader`.
    pub(crate) fn readiness(
        &self,
        now: Instant,
        rules: &SenderRules,
        identity: &Identity,
        hurry: bool,
        leader: Option<i32>,
    ) -> Readiness {
        self.obstacle(now, rules, identity, hurry, leader).map_or(Readiness::Ready, Obstacle::readiness)
    }

    /// Returns the first obstacle to sending the next batch, in the order of [`Obstacle`].
    fn obstacle(
        &self,
        now: Instant,
        rules: &SenderRules,
        identity: &Identity,
        hurry: bool,
        leader: Option<i32>,
    ) -> Option<Obstacle> {
        let (obstacle, numbered) = match self.waiting.front() {
            Some(batch) => (self.resend_obstacle(batch, now, leader), batch.sequence.is_some()),
            None => (self.linger_obstacle(now, rules, hurry), false),
        };
        obstacle
            .or_else(|| self.in_flight_obstacle(rules, leader))
            .or_else(|| self.sequence_obstacle(numbered, identity))
    }

    /// Checks whether a batch is due to be sent again.
    fn resend_obstacle(&self, batch: &Batch, now: Instant, leader: Option<i32>) -> Option<Obstacle> {
        // A batch does not wait for its backoff at a new leader, except if the last attempt did the
        // same: so two brokers that point at each other are not asked in a loop.
        let moved = leader.is_some() && leader != batch.last_node && !batch.retried_at_once;
        let backoff = batch.retry_at.filter(|at| *at > now && !moved);
        let is_behind =
            || batch.sequence.is_some() && self.in_flight.iter().any(|flying| flying.batch.order < batch.order);
        backoff.map(Obstacle::Backoff).or_else(|| is_behind().then_some(Obstacle::EarlierInFlight))
    }

    /// Checks whether the oldest batch of the accumulator is due.
    fn linger_obstacle(&self, now: Instant, rules: &SenderRules, hurry: bool) -> Option<Obstacle> {
        match self.partition.oldest_batch() {
            None => Some(Obstacle::NoBatch),
            Some(oldest) if oldest.due || hurry => None,
            Some(oldest) => Some(oldest.created + rules.linger).filter(|due| *due > now).map(Obstacle::Linger),
        }
    }

    /// Checks whether a batch may be in flight at `leader` beside those that are.
    fn in_flight_obstacle(&self, rules: &SenderRules, leader: Option<i32>) -> Option<Obstacle> {
        if self.in_flight.len() >= rules.max_in_flight {
            Some(Obstacle::MaxInFlight)
        } else if leader.is_some() && self.in_flight.iter().any(|flying| Some(flying.node) != leader) {
            Some(Obstacle::InFlightElsewhere)
        } else {
            None
        }
    }

    /// Checks whether a batch may be sent under the numbers that it has, or get new ones.
    fn sequence_obstacle(&self, numbered: bool, identity: &Identity) -> Option<Obstacle> {
        if let Some(transaction) = identity.transaction() {
            if transaction.adds_partitions && self.added_to != transaction.number {
                return Some(Obstacle::NotInTransaction);
            }
            if identity.is_other_than(self.sequences.producer()) && !self.has_outstanding() {
                // Doubts about the numbers of an earlier epoch end with it.
                return None;
            }
        }
        if self.sequences.wants_raise() && !(numbered && self.sequences.raise_can_wait()) {
            return Some(Obstacle::EpochRaise);
        }
        if numbered || matches!(identity, Identity::Anonymous) {
            return None;
        }
        if !self.sequences.may_assign() {
            return Some(Obstacle::NumbersInDoubt);
        }
        if self.in_flight.iter().any(InFlight::is_repeated) {
            return Some(Obstacle::RepetitionInFlight);
        }
        if !self.sequences.is_introduced() && !self.in_flight.is_empty() {
            return Some(Obstacle::FirstInFlight);
        }
        if identity.known().is_none() {
            return Some(Obstacle::NoProducerId);
        }
        let is_old = identity.is_other_than(self.sequences.producer());
        (is_old && self.has_outstanding()).then_some(Obstacle::OldProducerId)
    }

    /// Returns true if one of its batches is in flight at that broker.
    pub(crate) fn is_in_flight_at(&self, node: i32) -> bool {
        self.in_flight.iter().any(|flying| flying.node == node)
    }

    /// Returns the number of batches that wait to be sent again.
    pub(crate) fn queued_batches(&self) -> usize {
        self.waiting.len()
    }

    /// Returns the size of the next batch in bytes, to check whether it still fits into a request.
    pub(crate) fn next_size(&self) -> Option<usize> {
        match self.waiting.front() {
            Some(batch) => Some(batch.size()),
            None => self.partition.oldest_batch().map(|oldest| oldest.size),
        }
    }

    /// Takes the next batch for a request. Call it only when [`readiness`](Self::readiness)
    /// returned `Ready`.
    pub(crate) fn drain(&mut self, request: u64, node: i32, now: Instant, identity: &Identity) -> Option<DrainedBatch> {
        let mut batch = match self.waiting.pop_front() {
            Some(batch) => batch,
            None => {
                let batch = self.partition.take()?;
                self.next_in_order(batch)
            }
        };
        if let (None, Some(id)) = (batch.sequence, identity.known()) {
            if identity.is_other_than(self.sequences.producer()) {
                self.sequences.start(id, identity.transaction().is_some());
            }
            batch.sequence = Some(self.sequences.assign(batch.records()));
        }
        let begun = batch.last_node.is_none().then_some(batch.created);
        batch.attempts += 1;
        batch.last_node = Some(node);
        batch.retried_at_once = batch.retry_at.take().is_some_and(|at| at > now);
        let revocable = batch.revocable();
        let body = std::mem::replace(&mut batch.body, Body::Lent(revocable.clone()));
        let compressed_now = matches!(body, Body::Open(_));
        let (records, attempt) = (batch.records(), batch.attempts);
        let stamp = self.sequences.stamp(batch.sequence);
        let drained = DrainedBatch { body, stamp, revocable, records, attempt, created: begun };
        self.in_flight.push_back(InFlight { request, node, batch, compressed_now });
        Some(drained)
    }

    /// Sets the order of a batch from the accumulator, after all others.
    fn next_in_order(&mut self, mut batch: Batch) -> Batch {
        batch.order = self.drained * SPAN;
        batch.span = SPAN;
        self.drained += 1;
        batch
    }

    /// Handles the decision on the batch in that request, as [`response_table`] says. `body` is the
    /// body that the request returns.
    pub(crate) fn handle_decision(
        &mut self,
        request: u64,
        body: Result<SealedBatch, Error>,
        decision: BatchDecision,
        now: Instant,
        rules: &SenderRules,
        rng: &mut StdRng,
    ) -> EpochEffects {
        let Some(at) = self.in_flight.iter().position(|flying| flying.request == request) else {
            return EpochEffects::default();
        };
        // The batch is changed where it is, and moved once: it is large.
        let Some(mut flying) = self.in_flight.remove(at) else { return EpochEffects::default() };
        let sealed = match body {
            Ok(sealed) => sealed,
            Err(error) => {
                // Its bytes could not be built, so nothing was sent.
                self.fail(flying.batch, error);
                return self.settle_down();
            }
        };
        if flying.compressed_now {
            self.partition.compression_ratio.observe(sealed.uncompressed_size(), sealed.size());
        }
        let batch = &mut flying.batch;
        batch.body = Body::Sealed(sealed.clone());
        let result = AttemptResult::of(&decision, batch, rules.retries, || self.predecessors(batch.order));
        if !result.counts() {
            batch.attempts = batch.attempts.saturating_sub(1);
        }
        add_doubt(batch, &decision, result);
        match action(result, Doubt::of(batch)) {
            Action::Persist => {
                let outcome = self.acknowledge(batch, &decision);
                batch.decide(outcome);
                self.withhold(flying.batch);
            }
            Action::Retry => self.retry(flying.batch, decision.into_error(), now, rules, rng),
            Action::Resend => self.resend(flying.batch),
            Action::RaiseAndRetry => {
                self.sequences.must_raise();
                self.retry(flying.batch, decision.into_error(), now, rules, rng);
            }
            Action::RaiseAndRetryUnwritten => {
                self.mark_unwritten(batch);
                self.sequences.must_raise();
                self.retry(flying.batch, decision.into_error(), now, rules, rng);
            }
            Action::Split => self.split(flying.batch, &sealed, decision.into_error(), now),
            Action::Fail => self.fail(flying.batch, decision.into_error()),
            Action::RaiseAndFail => {
                self.sequences.must_raise();
                self.fail(flying.batch, decision.into_error());
            }
            Action::FailRecords => self.fail_records(flying.batch, decision),
        }
        self.settle_down()
    }

    /// Fails batches that are older than `delivery.timeout.ms`. The outcome of a batch in flight is
    /// decided now, and its sequence numbers are settled when its request ends. `cause` names the
    /// current obstacle.
    pub(crate) fn expire(&mut self, now: Instant, rules: &SenderRules, cause: Option<&Error>) -> EpochEffects {
        let Some(limit) = now.checked_sub(rules.delivery_timeout) else { return EpochEffects::default() };
        for flying in &mut self.in_flight {
            let batch = &mut flying.batch;
            if batch.created <= limit && !batch.is_decided() {
                let status = batch.status();
                batch.maybe_written |= status == DeliveryStatus::PossiblyPersisted;
                let error = late(batch, rules, cause).with_status(status);
                batch.decide(BatchOutcome::Failed(error));
            }
        }
        while self.waiting.front().is_some_and(|batch| batch.created <= limit) {
            let Some(batch) = self.waiting.pop_front() else { break };
            let error = late(&batch, rules, cause);
            self.fail(batch, error);
        }
        if self.waiting.is_empty() {
            while let Some(batch) = self.partition.take_older_than(limit) {
                let batch = self.next_in_order(batch);
                let error = late(&batch, rules, cause);
                self.fail(batch, error);
            }
        }
        self.settle_down()
    }

    /// Returns the time at which the next batch expires.
    pub(crate) fn next_expiry(&self, rules: &SenderRules) -> Option<Instant> {
        let flying = self.in_flight.iter().map(|flying| &flying.batch).filter(|batch| !batch.is_decided());
        let oldest = flying.chain(self.waiting.front()).map(|batch| batch.created).min();
        let incoming = self.partition.oldest_batch().map(|glance| glance.created);
        Some(oldest.into_iter().chain(incoming).min()? + rules.delivery_timeout)
    }

    /// Fails all batches, each with its own status.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        self.decide_in_flight(|_| error.clone());
        self.fail_unsent(error);
        self.tell_before(u128::MAX);
    }

    /// Fails all batches that are not in flight.
    pub(crate) fn fail_waiting(&mut self, error: &Error) -> EpochEffects {
        self.fail_unsent(error);
        self.settle_down()
    }

    fn fail_unsent(&mut self, error: &Error) {
        for batch in std::mem::take(&mut self.waiting) {
            self.fail(batch, error.clone());
        }
        // The accumulator is checked before each batch is taken, because an accumulator that was
        // seen empty notifies of later records.
        while self.partition.oldest_batch().is_some() {
            let Some(batch) = self.partition.take() else { break };
            let batch = self.next_in_order(batch);
            self.fail(batch, error.clone());
        }
    }

    /// Fails the batches of a purge, and returns the number of their records. If there are any, all
    /// known results are published now, even if earlier records have none yet. The sequence numbers
    /// of a batch in flight are settled when its request ends. Batches in the accumulator are
    /// purged if they were begun at `now` or before.
    pub(crate) fn purge(&mut self, what: PurgeScope, now: Instant) -> (usize, EpochEffects) {
        let mut records = 0;
        let mut purged = |batch: &Batch| {
            records += batch.records() as usize;
            PurgeScope::error(batch.place())
        };
        if what.in_flight() {
            self.decide_in_flight(&mut purged);
        }
        if what.queued() {
            for batch in std::mem::take(&mut self.waiting) {
                let error = purged(&batch);
                self.fail(batch, error);
            }
            while let Some(batch) = self.partition.take_older_than(now) {
                let batch = self.next_in_order(batch);
                let error = purged(&batch);
                self.fail(batch, error);
            }
        }
        if records > 0 {
            self.tell_before(u128::MAX);
        }
        (records, self.settle_down())
    }

    /// Decides that the batches in flight have failed, regardless of their answers.
    fn decide_in_flight(&mut self, mut error: impl FnMut(&Batch) -> Error) {
        for flying in self.in_flight.iter_mut().filter(|flying| !flying.batch.is_decided()) {
            let batch = &mut flying.batch;
            let status = batch.status();
            batch.maybe_written |= status == DeliveryStatus::PossiblyPersisted;
            let error = error(batch).with_status(status);
            batch.decide(BatchOutcome::Failed(error));
        }
    }

    /// Sets the topic's id; a different id means that the topic was deleted and created again.
    pub(crate) fn topic_id(&mut self, id: uuid::Uuid) -> EpochEffects {
        if id.is_nil() || id == self.topic_id {
            return EpochEffects::default();
        }
        if !std::mem::replace(&mut self.topic_id, id).is_nil() {
            self.sequences.topic_recreated();
            // The log of the new topic has none of the batches.
            self.unwritten_from = 0;
        }
        self.settle_down()
    }
}
