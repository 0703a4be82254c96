//! One partition as the sender sees it: what waits to be sent again, what is on its way, and the
//! order between them.
//!
//! ```text
//!   accumulator ──take──▶ in flight ──written──▶ settled
//!                          ▲     │
//!                    drain │     │ retriable, split, out of order
//!                          │     ▼
//!                          waiting (in the order of first sending; always before the accumulator)
//! ```
//!
//! What keeps the log in order and free of doubles:
//! - a batch that was numbered is sent again only while no batch before it is outstanding;
//! - new batches are numbered only when nothing waits, when no number is in doubt, when no epoch is
//!   to be raised, and when nothing in flight may be a repetition: brokers recognize one among the
//!   last five batches only;
//! - the first batch goes alone: a broker that does not know the producer would take any other for
//!   the first;
//! - everything in flight is at one broker: a partition whose leader moved goes on there when the
//!   old one has answered;
//! - the epoch is raised only while nothing is in flight, and then all that waits is numbered anew;
//!   so what waits must not be in the log, and if it may be, it is first sent again under its old
//!   number, unless that cannot tell either.
//!
//! Results are told in the order of sending: one that is known is kept back until all before it
//! are. Only a purge, or the end, tells at once what is known.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use crate::producer::partition_queue::completion::late;
use crate::producer::{
    accumulator::Partition,
    batch::{Batch, BatchOutcome},
    batch_body::Body,
    batch_split::split,
    idempotence::{Identity, ProducerId, Sequences},
    purge::PurgeScope,
    response::BatchDecision,
    revocable_batch::RevocableBatch,
};
use crate::{
    cluster::{Backoff, RetryGrid},
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind},
    log::event,
    wire::batch::{ProducerStamp, SealedBatch},
};

/// What the sender keeps to; from the producer's settings.
#[derive(Clone, Debug)]
pub(crate) struct SenderRules {
    pub(crate) acks: i16,
    pub(crate) retries: u32,
    pub(crate) max_in_flight: usize,
    pub(crate) max_request_size: usize,
    pub(crate) linger: Duration,
    pub(crate) delivery_timeout: Duration,
    /// `None`: the partitioner does not ask which brokers take data.
    pub(crate) availability_timeout: Option<Duration>,
    pub(crate) backoff: Backoff,
    /// Where the waits of many partitions end together.
    pub(crate) grid: RetryGrid,
}

/// The distance between the orders of batches, which the parts of a split one share.
const SPAN: u128 = 1 << 32;

/// When a partition can send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It has nothing to send.
    Empty,
    /// It will have to be asked again then.
    At(Instant),
    /// Now.
    Ready,
    /// Not before an answer of its own has come.
    Blocked,
    /// It needs a producer id.
    NoProducerId,
}

/// What has come of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EpochEffects {
    /// The epoch was raised.
    pub(crate) raised: bool,
    /// To this, where the producer id goes on.
    pub(crate) raised_to: Option<ProducerId>,
    /// The producer id's epochs are used up.
    pub(crate) needs_new_id: bool,
}

/// A batch taken for a request.
#[derive(Debug)]
pub(crate) struct DrainedBatch {
    pub(crate) body: Body,
    pub(crate) stamp: ProducerStamp,
    pub(crate) revocable: RevocableBatch,
    pub(crate) records: u32,
    pub(crate) attempt: u32,
    /// When it was begun, if it leaves for the first time.
    pub(crate) created: Option<Instant>,
}

#[derive(Debug)]
struct InFlight {
    request: u64,
    node: i32,
    batch: Batch,
    /// Its records are compressed for this attempt, not for one before it.
    compressed_now: bool,
}

impl InFlight {
    /// Whether an earlier attempt may have written it. A broker recognizes it among the last five
    /// batches only, so no more may come behind it until it is known.
    fn is_repeated(&self) -> bool {
        (self.batch.maybe_written || self.batch.sequences_used) && self.batch.attempts > 1
    }
}

#[derive(Debug)]
pub(crate) struct PartitionQueue {
    pub(crate) partition: Arc<Partition>,
    waiting: VecDeque<Batch>,
    in_flight: VecDeque<InFlight>,
    /// Batches whose results are known and kept back for those of earlier ones.
    decided: VecDeque<Batch>,
    sequences: Sequences,
    /// Batches from that place on are surely not in the log under the numbers that they have,
    /// whatever became of their attempts: brokers write numbers one behind the other, and one was
    /// refused that came next and was never written.
    unwritten_from: u128,
    drained: u128,
    topic_id: uuid::Uuid,
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
        }
    }

    /// Whether it could send to `leader`, and if not, why.
    pub(crate) fn readiness(
        &self,
        now: Instant,
        rules: &SenderRules,
        identity: &Identity,
        hurry: bool,
        leader: Option<i32>,
    ) -> Readiness {
        let numbered = match self.waiting.front() {
            Some(batch) => {
                // A new leader need not be waited for; but two brokers that point at each other are
                // not asked without end.
                let moved = leader.is_some() && leader != batch.last_node && !batch.retried_at_once;
                if let Some(at) = batch.retry_at.filter(|at| *at > now && !moved) {
                    return Readiness::At(at);
                }
                if batch.sequence.is_some() && self.in_flight.iter().any(|flying| flying.batch.order < batch.order) {
                    return Readiness::Blocked;
                }
                batch.sequence.is_some()
            }
            None => match self.partition.oldest_batch() {
                None => return Readiness::Empty,
                Some(oldest) if oldest.due || hurry => false,
                Some(oldest) => match oldest.created + rules.linger {
                    due if due > now => return Readiness::At(due),
                    _ => false,
                },
            },
        };
        let elsewhere = self.in_flight.iter().any(|flying| Some(flying.node) != leader);
        if self.in_flight.len() >= rules.max_in_flight || (elsewhere && leader.is_some()) {
            return Readiness::Blocked;
        }
        if self.sequences.wants_raise() && !(numbered && self.sequences.raise_can_wait()) {
            return Readiness::Blocked;
        }
        if !numbered && !matches!(identity, Identity::Anonymous) {
            if !self.sequences.may_assign() || self.in_flight.iter().any(|flying| flying.is_repeated()) {
                return Readiness::Blocked;
            }
            if !self.sequences.is_introduced() && !self.in_flight.is_empty() {
                return Readiness::Blocked;
            }
            match identity.known() {
                None => return Readiness::NoProducerId,
                Some(id) => {
                    let stale = self.sequences.producer().is_none_or(|own| own.id != id.id);
                    if stale && self.has_outstanding() {
                        return Readiness::Blocked;
                    }
                }
            }
        }
        Readiness::Ready
    }

    /// Whether a batch of it is on its way to that broker.
    pub(crate) fn is_in_flight_at(&self, node: i32) -> bool {
        self.in_flight.iter().any(|flying| flying.node == node)
    }

    /// How many batches are to be sent again.
    pub(crate) fn queued_batches(&self) -> usize {
        self.waiting.len()
    }

    /// What the next batch weighs, to see whether it still fits into a request.
    pub(crate) fn next_size(&self) -> Option<usize> {
        match self.waiting.front() {
            Some(batch) => Some(batch.size()),
            None => self.partition.oldest_batch().map(|oldest| oldest.size),
        }
    }

    /// Takes the next batch for a request. Only when [`readiness`](Self::readiness) said `Ready`.
    pub(crate) fn drain(&mut self, request: u64, node: i32, now: Instant, identity: &Identity) -> Option<DrainedBatch> {
        let mut batch = match self.waiting.pop_front() {
            Some(batch) => batch,
            None => {
                let batch = self.partition.take()?;
                self.next_in_order(batch)
            }
        };
        if let (None, Some(id)) = (batch.sequence, identity.known()) {
            if self.sequences.producer().is_none_or(|own| own.id != id.id) {
                self.sequences.start(id);
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
        let drained = DrainedBatch { body, stamp, revocable: revocable, records, attempt, created: begun };
        self.in_flight.push_back(InFlight { request, node, batch, compressed_now });
        Some(drained)
    }

    /// Gives a batch from the accumulator its place behind all others.
    fn next_in_order(&mut self, mut batch: Batch) -> Batch {
        batch.order = self.drained * SPAN;
        batch.span = SPAN;
        self.drained += 1;
        batch
    }

    /// Takes in what became of the batch in that request. `body` is what the request gives back.
    pub(crate) fn handle_decision(
        &mut self,
        request: u64,
        body: Result<SealedBatch, Error>,
        answer: BatchDecision,
        now: Instant,
        rules: &SenderRules,
        rng: &mut StdRng,
    ) -> EpochEffects {
        let Some(at) = self.in_flight.iter().position(|flying| flying.request == request) else {
            return EpochEffects::default();
        };
        let Some(InFlight { mut batch, compressed_now, .. }) = self.in_flight.remove(at) else {
            return EpochEffects::default();
        };
        let sealed = match body {
            Ok(sealed) => {
                if compressed_now {
                    self.partition.compression_ratio.observe(sealed.uncompressed_size(), sealed.size());
                }
                batch.body = Body::Sealed(sealed.clone());
                sealed
            }
            Err(error) => {
                // Its bytes could not be made, so nothing was sent.
                let status = batch.status();
                self.fail(batch, error.with_status(status));
                return self.settle_down();
            }
        };
        match answer {
            BatchDecision::Written { base_offset, log_append_millis } => {
                if let Some(sequence) = batch.sequence {
                    let last_offset = base_offset.map(|offset| offset.saturating_add(i64::from(batch.records()) - 1));
                    self.sequences.acknowledged(sequence, batch.records(), last_offset);
                }
                self.decide(batch, BatchOutcome::Persisted { base_offset, log_append_millis });
            }
            BatchDecision::Duplicate(error) => match batch.sequence {
                Some(_) if !batch.maybe_written && !batch.sequences_used => {
                    // No attempt of ours can have written it: its numbers were taken by something
                    // else.
                    self.sequences.must_raise();
                    self.retry(batch, error, false, now, rules, rng);
                }
                sequence => {
                    if let Some(sequence) = sequence {
                        self.sequences.acknowledged(sequence, batch.records(), None);
                    }
                    // Where it stands, the broker has forgotten.
                    self.decide(batch, BatchOutcome::Persisted { base_offset: None, log_append_millis: None });
                }
            },
            BatchDecision::Retry { error, maybe_written } => {
                batch.maybe_written |= maybe_written;
                batch.sequences_used |= error.code() == Some(ErrorCode::KAFKA_STORAGE_ERROR);
                let exhausted = batch.attempts > rules.retries;
                self.retry(batch, error, exhausted, now, rules, rng);
            }
            BatchDecision::OutOfOrder(error) => {
                batch.attempts = batch.attempts.saturating_sub(1);
                let is_next = !self.has_outstanding_before(batch.order);
                // A part's numbers do not come next either if the whole is there.
                let may_be_in_whole = is_next && batch.whole_in_doubt;
                let hopeless = batch.sequence.is_none() || may_be_in_whole;
                batch.maybe_written |= may_be_in_whole;
                if is_next && !hopeless {
                    // What is before it is missing for good, so no attempt can have written it or
                    // ever will; unless what is before it is in doubt, and arrives late.
                    batch.maybe_written &= self.sequences.is_in_doubt();
                    if !batch.maybe_written {
                        self.unwritten_from = self.unwritten_from.min(batch.order);
                    }
                    self.sequences.must_raise();
                }
                self.retry(batch, error, hopeless, now, rules, rng);
            }
            BatchDecision::UnknownProducer { error, log_start } => {
                // What an earlier attempt may have written would be there twice under another
                // epoch.
                let hopeless = batch.sequence.is_none() || batch.maybe_written;
                // Where the log starts is not known while the partition moves: then once more
                // before the epoch is raised.
                if batch.sequence.is_some() && (hopeless || log_start != -1 || batch.attempts > 1) {
                    self.refused_unwritten(&batch);
                    self.sequences.must_raise();
                }
                self.retry(batch, error, hopeless, now, rules, rng);
            }
            BatchDecision::StaleEpoch(error) => {
                if batch.sequence.is_some() {
                    self.refused_unwritten(&batch);
                    self.sequences.must_raise();
                }
                let hopeless = batch.sequence.is_none() || batch.maybe_written;
                self.retry(batch, error, hopeless, now, rules, rng);
            }
            BatchDecision::TooLarge(error) if batch.records() > 1 && !batch.is_decided() => {
                batch.attempts = batch.attempts.saturating_sub(1);
                batch.counters().split();
                self.partition.compression_ratio.reset();
                let lines = batch.counters();
                if let Some(suppressed) = lines.admit_line("split", now) {
                    event!(
                        INFO,
                        lines.origin(),
                        topic = &*batch.topic,
                        partition = batch.partition,
                        node = batch.last_node,
                        records = batch.records(),
                        bytes = sealed.size(),
                        code = error.code().map(tracing::field::display),
                        suppressed,
                        "the broker finds a batch too large (max.message.bytes): it is split and sent in parts"
                    );
                }
                match split(batch, &sealed) {
                    Ok(parts) => parts.into_iter().for_each(|part| self.put_back(part)),
                    Err(failed) => self.fail(failed.0, error.with_source(failed.1)),
                }
            }
            BatchDecision::TooLarge(error) => self.fail(batch, error),
            BatchDecision::Rejected { error, maybe_written, records } => {
                batch.maybe_written |= maybe_written;
                if records.is_empty() {
                    self.fail(batch, error);
                } else {
                    let error = error.with_status(batch.status());
                    self.forget(&batch);
                    self.decide(batch, BatchOutcome::Invalid { error, records });
                }
            }
            BatchDecision::Withdrawn => {
                // The attempt was none, so it takes neither a retry nor a backoff.
                batch.attempts = batch.attempts.saturating_sub(1);
                if batch.is_decided() {
                    let message = format!("{}: taken back before it was sent", batch.place());
                    self.fail(batch, Error::new(ErrorKind::Timeout, message));
                } else {
                    self.put_back(batch);
                }
            }
        }
        self.settle_down()
    }

    /// Fails what is older than `delivery.timeout.ms`. What is on the wire gets its result now and
    /// is resolved when its request ends. `cause` says what stands in the way at the moment.
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

    /// When the next record would expire.
    pub(crate) fn next_expiry(&self, rules: &SenderRules) -> Option<Instant> {
        let flying = self.in_flight.iter().map(|flying| &flying.batch).filter(|batch| !batch.is_decided());
        let oldest = flying.chain(self.waiting.front()).map(|batch| batch.created).min();
        let incoming = self.partition.oldest_batch().map(|glance| glance.created);
        Some(oldest.into_iter().chain(incoming).min()? + rules.delivery_timeout)
    }

    /// Fails everything, each batch with its own status.
    pub(crate) fn fail_all(&mut self, error: &Error) {
        self.decide_in_flight(|_| error.clone());
        self.fail_unsent(error);
    }

    /// Fails all that is not in flight.
    pub(crate) fn fail_waiting(&mut self, error: &Error) -> EpochEffects {
        self.fail_unsent(error);
        self.settle_down()
    }

    fn fail_unsent(&mut self, error: &Error) {
        for batch in std::mem::take(&mut self.waiting) {
            self.fail(batch, error.clone());
        }
        // Looks before it takes: an accumulator that was seen empty tells of what comes in
        // afterwards.
        while self.partition.oldest_batch().is_some() {
            let Some(batch) = self.partition.take() else { break };
            let batch = self.next_in_order(batch);
            self.fail(batch, error.clone());
        }
        self.tell_before(u128::MAX);
    }

    /// Fails what the user does not want any more, and gives how many records these were. If there
    /// are any, all results that are known are told now, also where earlier records have none yet.
    /// What is on the wire is resolved when its request ends. Of what is in the accumulator, what
    /// was begun until `now` goes.
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

    /// Decides that what is in flight has failed, whatever will be answered.
    fn decide_in_flight(&mut self, mut error: impl FnMut(&Batch) -> Error) {
        for flying in self.in_flight.iter_mut().filter(|flying| !flying.batch.is_decided()) {
            let batch = &mut flying.batch;
            let status = batch.status();
            batch.maybe_written |= status == DeliveryStatus::PossiblyPersisted;
            let error = error(batch).with_status(status);
            batch.decide(BatchOutcome::Failed(error));
        }
    }

    /// Takes note of the topic's id; another one means that the topic was deleted and created
    /// again.
    pub(crate) fn topic_id(&mut self, id: uuid::Uuid) -> EpochEffects {
        if id.is_nil() || id == self.topic_id {
            return EpochEffects::default();
        }
        if !std::mem::replace(&mut self.topic_id, id).is_nil() {
            self.sequences.topic_recreated();
            // The log is another, and has nothing.
            self.unwritten_from = 0;
        }
        self.settle_down()
    }
}
pub(super) mod completion;
