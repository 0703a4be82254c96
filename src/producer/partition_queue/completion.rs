//! How batches leave a partition's queue, or come back into it: retries, verdicts in the order of
//! sending, and what both do to the numbers.
//!
//! Sans-IO.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::rngs::StdRng;

use crate::producer::partition_queue::{EpochEffects, PartitionQueue, SenderRules};
use crate::{
    error::{DeliveryStatus, Error, ErrorKind},
    log::event,
    producer::{
        batch::{Batch, BatchOutcome},
        idempotence::Raise,
    },
};

/// For how long records may be sent again before the log is told: longer than a leader's move
/// takes.
const PATIENCE: Duration = Duration::from_secs(10);

impl PartitionQueue {
    pub(super) fn retry(
        &mut self,
        mut batch: Batch,
        error: Error,
        hopeless: bool,
        now: Instant,
        rules: &SenderRules,
        rng: &mut StdRng,
    ) {
        if hopeless || batch.is_decided() {
            self.fail(batch, error);
            return;
        }
        if batch.created + rules.delivery_timeout <= now {
            let late = late(&batch, rules, Some(&error));
            self.fail(batch, late);
            return;
        }
        batch.counters().retried(batch.records());
        let backoff = batch.backoff.get_or_insert_with(|| rules.backoff.clone()).next(rng);
        batch.retry_at = Some(rules.grid.after(now, backoff));
        let waited = now.saturating_duration_since(batch.created);
        if waited >= PATIENCE
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

    pub(super) fn put_back(&mut self, batch: Batch) {
        let at = self.waiting.partition_point(|other| other.order < batch.order);
        self.waiting.insert(at, batch);
    }

    pub(super) fn fail(&mut self, batch: Batch, error: Error) {
        self.forget(&batch);
        let status = batch.status();
        self.decide(batch, BatchOutcome::Failed(error.with_status(status)));
    }

    /// Gives a batch its verdict. It is told when those of all earlier batches have been, so that
    /// results come in the order of sending.
    pub(super) fn decide(&mut self, mut batch: Batch, outcome: BatchOutcome) {
        batch.decide(outcome);
        if batch.is_withheld() {
            let at = self.decided.partition_point(|other| other.order < batch.order);
            self.decided.insert(at, batch);
        }
    }

    /// Tells the verdicts that need not wait for an earlier one any more.
    fn tell_in_turn(&mut self) {
        let undecided = self.in_flight.iter().map(|flying| &flying.batch).filter(|batch| !batch.is_decided());
        let first = undecided.chain(self.waiting.front()).map(|batch| batch.order).min();
        self.tell_before(first.unwrap_or(u128::MAX));
    }

    /// Tells the verdicts of all batches before that place, in their order.
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

    /// A numbered batch will not be sent again: what does that do to the numbers?
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

    /// Whether a numbered batch is on its way or waits to be sent again.
    pub(super) fn has_outstanding(&self) -> bool {
        !self.in_flight.is_empty() || self.waiting.iter().any(|batch| batch.sequence.is_some())
    }

    pub(super) fn has_outstanding_before(&self, order: u128) -> bool {
        self.in_flight.iter().any(|flying| flying.batch.order < order)
            || self.waiting.iter().any(|batch| batch.sequence.is_some() && batch.order < order)
    }

    /// A batch that no attempt can have written was refused for other reasons than that it did not
    /// come next.
    pub(super) fn refused_unwritten(&mut self, batch: &Batch) {
        if !batch.maybe_written && !batch.sequences_used {
            self.unwritten_from = self.unwritten_from.min(batch.order);
        }
    }

    /// What may be in the log, or still reach it from a connection that is long given up, would be
    /// there twice if it was sent again under new numbers. Where a number is in doubt, so is all
    /// that was sent behind it.
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

    /// What every event ends with: the epoch, and the results that can be told now.
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
        let in_question = self.waiting.iter().any(|batch| batch.sequence.is_some() && batch.maybe_written);
        if in_question && self.sequences.raise_can_wait() {
            return EpochEffects::default();
        }
        self.fail_what_new_numbers_would_double();
        self.unwritten_from = u128::MAX;
        for batch in &mut self.waiting {
            batch.sequence = None;
            // Not under the numbers that it gets now.
            (batch.maybe_written, batch.sequences_used, batch.whole_in_doubt) = (false, false, false);
        }
        let needs_new_id = self.sequences.raise() == Raise::NeedsNewId;
        EpochEffects { raised: true, raised_to: self.sequences.producer(), needs_new_id }
    }
}

fn in_doubt(batch: &Batch) -> Error {
    Error::new(
        ErrorKind::Timeout,
        format!("{}: it may be in the log, and could only be sent again in a way that might double it", batch.place()),
    )
}

/// Takes note of a batch whose time is up, and gives its error.
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
