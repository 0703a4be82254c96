//! Batches that leave a partition's queue or return to it: retries, results in the order of
//! sending, and the effects of both on the sequence numbers.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use crate::producer::partition_queue::{EpochEffects, PartitionQueue, SenderRules, response_table::Predecessors};
use crate::{
    cluster::Backoff,
    error::{DeliveryStatus, Error, ErrorCode, ErrorKind},
    log::event,
    producer::{
        batch::{Batch, BatchOutcome},
        batch_split::split,
        idempotence::Raise,
        response::BatchDecision,
        transaction::protocol::MARKERS_WRITTEN,
    },
    wire::batch::SealedBatch,
};

/// Time for which records may be sent again before this is logged: longer than a leader's move
/// takes.
const REPORTED_AFTER: Duration = Duration::from_secs(10);

impl PartitionQueue {
    /// Acknowledges the numbers of a batch that is in the log, and returns its outcome. The offset
    /// is known if this attempt wrote the batch.
    pub(super) fn acknowledge(&mut self, batch: &Batch, decision: &BatchDecision) -> BatchOutcome {
        let (base_offset, log_append_millis) = match *decision {
            BatchDecision::Written { base_offset, log_append_millis } => (base_offset, log_append_millis),
            _ => (None, None),
        };
        if let Some(sequence) = batch.sequence {
            let last_offset = base_offset.map(|offset| offset.saturating_add(i64::from(batch.records()) - 1));
            self.sequences.acknowledged(sequence, batch.records(), last_offset);
        }
        BatchOutcome::Persisted { base_offset, log_append_millis }
    }

    /// Sends a batch again after a backoff. It fails if its time is up, or if its outcome was
    /// decided meanwhile.
    pub(super) fn retry(
        &mut self,
        mut batch: Batch,
        error: Error,
        now: Instant,
        rules: &SenderRules,
        rng: &mut StdRng,
    ) {
        if batch.is_decided() {
            self.give_up(batch);
            return;
        }
        if batch.created + rules.delivery_timeout <= now {
            let late = late(&batch, rules, Some(&error));
            self.fail(batch, late);
            return;
        }
        batch.counters().retried(batch.records());
        let backoff = batch.backoff.get_or_insert_with(|| first_backoff(&error, rules)).next(rng);
        let is_short = error.code() == Some(ErrorCode::CONCURRENT_TRANSACTIONS);
        batch.retry_at = Some(if is_short { now + backoff } else { rules.grid.after(now, backoff) });
        let waited = now.saturating_duration_since(batch.created);
        if waited >= REPORTED_AFTER
            && let Some(suppressed) = batch.counters().admit_line("waiting", now)
        {
            event!(
                WARN,
                batch.counters().origin(),
                topic = &*batch.topic,
                partition = batch.partition,
                node = batch.last_node,
                attempt = batch.attempts,
                waited_s = waited.as_secs(),
                suppressed,
                %error,
                "records cannot be written, here and perhaps to other partitions; they are sent again until \
                 delivery.timeout.ms has passed"
            );
        }
        event!(
            DEBUG,
            batch.counters().origin(),
            topic = &*batch.topic,
            partition = batch.partition,
            node = batch.last_node,
            attempt = batch.attempts,
            records = batch.records(),
            code = error.code().map(tracing::field::display),
            %error,
            maybe_written = batch.maybe_written,
            backoff_ms = backoff.as_millis() as u64,
            "a batch is sent again"
        );
        batch.last_error = Some(error);
        self.put_back(batch);
    }

    /// Sends a withdrawn batch again at once, unless its outcome was decided meanwhile: its request
    /// was not written, so it costs neither a retry nor a backoff.
    pub(super) fn resend(&mut self, batch: Batch) {
        if batch.is_decided() {
            self.give_up(batch);
        } else {
            self.put_back(batch);
        }
    }

    /// Sends the records of a batch that is too large for the topic in smaller batches.
    pub(super) fn split(&mut self, batch: Batch, sealed: &SealedBatch, error: Error, now: Instant) {
        batch.counters().split();
        self.partition.compression_ratio.reset();
        if let Some(suppressed) = batch.counters().admit_line("split", now) {
            event!(
                INFO,
                batch.counters().origin(),
                topic = &*batch.topic,
                partition = batch.partition,
                node = batch.last_node,
                records = batch.records(),
                bytes = sealed.size(),
                code = error.code().map(tracing::field::display),
                suppressed,
                "the broker rejected a batch as too large (max.message.bytes): the producer splits it and sends the \
                 parts"
            );
        }
        match split(batch, sealed) {
            Ok(parts) => parts.into_iter().for_each(|part| self.put_back(part)),
            Err(failed) => self.fail(failed.0, error.with_source(failed.1)),
        }
    }

    /// Puts a batch among the waiting batches, in the order of first sending.
    fn put_back(&mut self, batch: Batch) {
        let at = self.waiting.partition_point(|other| other.order < batch.order);
        self.waiting.insert(at, batch);
    }

    /// Fails the records of a batch.
    pub(super) fn fail(&mut self, batch: Batch, error: Error) {
        self.forget(&batch);
        let status = batch.status();
        self.decide(batch, BatchOutcome::Failed(error.with_status(status)));
    }

    /// Fails the records of a batch: those that the broker lists as invalid, and the others as
    /// retriable.
    pub(super) fn fail_records(&mut self, batch: Batch, decision: BatchDecision) {
        let BatchDecision::Rejected { error, records, .. } = decision else {
            return self.fail(batch, decision.into_error());
        };
        self.forget(&batch);
        let error = error.with_status(batch.status());
        self.decide(batch, BatchOutcome::Invalid { error, records });
    }

    /// Gives up a batch whose outcome is decided.
    fn give_up(&mut self, batch: Batch) {
        self.forget(&batch);
        self.withhold(batch);
    }

    /// Sets the outcome of a batch. It is published after those of all earlier batches, so that
    /// results come in the order of sending.
    pub(super) fn decide(&mut self, mut batch: Batch, outcome: BatchOutcome) {
        batch.decide(outcome);
        self.withhold(batch);
    }

    /// Keeps a batch until its outcome may be published.
    pub(super) fn withhold(&mut self, batch: Batch) {
        if batch.is_withheld() {
            // Batches are mostly decided in the order of sending.
            if self.decided.back().is_none_or(|last| last.order < batch.order) {
                return self.decided.push_back(batch);
            }
            let at = self.decided.partition_point(|other| other.order < batch.order);
            self.decided.insert(at, batch);
        }
    }

    /// Publishes the outcomes that need not wait for an earlier one any more.
    fn tell_in_turn(&mut self) {
        let undecided = self.in_flight.iter().map(|flying| &flying.batch).filter(|batch| !batch.is_decided());
        let first = undecided.chain(self.waiting.front()).map(|batch| batch.order).min();
        self.tell_before(first.unwrap_or(u128::MAX));
    }

    /// Publishes the outcomes of all batches before that order, in order.
    pub(super) fn tell_before(&mut self, order: u128) {
        loop {
            let flying = self.in_flight.iter_mut().map(|flying| &mut flying.batch).filter(|batch| batch.is_withheld());
            let next = flying.chain(self.decided.front_mut()).min_by_key(|batch| batch.order);
            let Some(batch) = next.filter(|batch| batch.order < order) else { return };
            batch.complete_decided();
            if self.decided.front().is_some_and(|batch| !batch.is_withheld()) {
                self.decided.pop_front();
            }
        }
    }

    /// Updates the sequence numbers for a numbered batch that will not be sent again.
    pub(super) fn forget(&mut self, batch: &Batch) {
        let Some(sequence) = batch.sequence else { return };
        if batch.maybe_written {
            self.sequences.unresolved();
        } else if batch.sequences_used {
            self.sequences.lost();
        } else {
            self.sequences.dropped(sequence, batch.records(), self.has_outstanding());
        }
    }

    /// Returns true if a numbered batch is in flight or waits to be sent again.
    pub(super) fn has_outstanding(&self) -> bool {
        !self.in_flight.is_empty() || self.waiting.iter().any(|batch| batch.sequence.is_some())
    }

    fn has_outstanding_before(&self, order: u128) -> bool {
        self.in_flight.iter().any(|flying| flying.batch.order < order)
            || self.waiting.iter().any(|batch| batch.sequence.is_some() && batch.order < order)
    }

    /// Returns the state of the numbered batches before that order.
    pub(super) fn predecessors(&self, order: u128) -> Predecessors {
        if self.has_outstanding_before(order) {
            Predecessors::Outstanding
        } else if self.sequences.is_in_doubt() {
            Predecessors::InDoubt
        } else {
            Predecessors::Settled
        }
    }

    /// Records that neither this batch nor a later one is in the log: brokers write numbers
    /// consecutively, and this batch was refused and never written.
    pub(super) fn mark_unwritten(&mut self, batch: &mut Batch) {
        batch.maybe_written = false;
        self.unwritten_from = self.unwritten_from.min(batch.order);
    }

    /// Fails batches that may be in the log, or may still reach it from a connection that was given
    /// up long ago: if they were sent again under new numbers, they would be duplicated. If a
    /// number is in doubt, so is every batch that was sent after it.
    fn fail_what_new_numbers_would_double(&mut self) {
        let from = if self.sequences.is_in_doubt() { u128::MAX } else { self.unwritten_from };
        let (doubtful, rest) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition::<VecDeque<_>, _>(|batch| batch.sequence.is_some() && batch.maybe_written && batch.order < from);
        self.waiting = rest;
        for batch in doubtful {
            let error = in_doubt(&batch).with_status(DeliveryStatus::PossiblyPersisted);
            self.decide(batch, BatchOutcome::Failed(error));
        }
    }

    /// Ends every event: updates the epoch, and publishes results.
    pub(super) fn settle_down(&mut self) -> EpochEffects {
        let effects = self.settle_numbers();
        self.tell_in_turn();
        effects
    }

    /// Decides about numbers in doubt, and raises the epoch if that is due and nothing is in
    /// flight.
    fn settle_numbers(&mut self) -> EpochEffects {
        if !self.has_outstanding() {
            self.sequences.nothing_outstanding();
        }
        if !self.sequences.wants_raise() || !self.in_flight.is_empty() {
            return EpochEffects::default();
        }
        if self.sequences.is_transactional() {
            return self.fail_what_waits_for_coordinator();
        }
        let in_question = self.waiting.iter().any(|batch| batch.sequence.is_some() && batch.maybe_written);
        if in_question && self.sequences.raise_can_wait() {
            return EpochEffects::default();
        }
        self.fail_what_new_numbers_would_double();
        self.unwritten_from = u128::MAX;
        for batch in &mut self.waiting {
            batch.sequence = None;
            // It is not in the log under the numbers that it gets next.
            (batch.maybe_written, batch.sequences_used, batch.whole_in_doubt) = (false, false, false);
        }
        let needs_new_id = self.sequences.raise() == Raise::NeedsNewId;
        EpochEffects { raised: true, raised_to: self.sequences.producer(), needs_new_id, ..EpochEffects::default() }
    }

    /// Fails the waiting batches of a transaction that would need another epoch: the coordinator
    /// raises it only between transactions.
    fn fail_what_waits_for_coordinator(&mut self) -> EpochEffects {
        for batch in std::mem::take(&mut self.waiting) {
            let error = batch.last_error.clone().unwrap_or_else(|| in_doubt(&batch));
            self.fail(batch, error);
        }
        EpochEffects { needs_coordinator: true, ..EpochEffects::default() }
    }
}

/// Returns the backoff of a batch whose first attempt met this error. CONCURRENT_TRANSACTIONS says
/// that the markers of the previous transaction are being written, which takes little time.
fn first_backoff(error: &Error, rules: &SenderRules) -> Backoff {
    if error.code() == Some(ErrorCode::CONCURRENT_TRANSACTIONS) {
        rules.backoff.starting_at(MARKERS_WRITTEN)
    } else {
        rules.backoff.clone()
    }
}

fn in_doubt(batch: &Batch) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("{}: it may be in the log, and sending it again might duplicate it", batch.place()),
    )
}

/// Counts an expired batch, and returns its error.
pub(super) fn late(batch: &Batch, rules: &SenderRules, cause: Option<&Error>) -> Error {
    batch.counters().expired(batch.records());
    let place = batch.place();
    let millis = rules.delivery_timeout.as_millis();
    let message = match batch.last_error.as_ref().or(cause) {
        Some(cause) => format!("{place}: not acknowledged within delivery.timeout.ms ({millis}): {cause}"),
        None => format!("{place}: not acknowledged within delivery.timeout.ms ({millis})"),
    };
    let error = Error::new(ErrorKind::Timeout, message);
    match batch.last_error.clone().or(cause.cloned()) {
        Some(cause) => error.with_source(cause),
        None => error,
    }
}
