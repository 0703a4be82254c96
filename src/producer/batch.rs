//! A batch, from its first record to its results: the records' bytes, the waiting results, and the
//! state of its attempts.

use std::{ops::Range, sync::Arc, time::Instant};

use smallvec::{SmallVec, smallvec};

use super::{counters::Counters, flush::FlushGroup};
use crate::producer::batch_body::Body;
use crate::producer::batch_results::ResultRun;
use crate::producer::batch_shared::BatchShared;
use crate::producer::{
    batch_results::{BatchResults, Outcome},
    buffer_pool::BufferReservation,
    report_notes::{ReportNote, ReportNotes},
    revocable_batch::RevocableBatch,
};
use crate::producer::{
    delivery_report::ReportRun,
    record_entry::{RecordEntry, RecordReservation, WaitedRecord},
};
use crate::{
    cluster::Backoff,
    error::{DeliveryStatus, Error, ErrorKind, clean},
    record::Record,
    wire::batch::BatchBuilder,
};

/// The outcome of a whole batch, from the broker or from the client.
#[derive(Clone, Debug)]
pub(crate) enum BatchOutcome {
    Persisted {
        base_offset: Option<i64>,
        log_append_millis: Option<i64>,
    },
    Failed(Error),
    /// Some records were invalid, listed by index, so that none was written (KIP-467).
    Invalid {
        error: Error,
        records: Vec<(i32, Option<String>)>,
    },
}

impl BatchOutcome {
    /// Returns the delivery status of the failed records; `None` if they are persisted.
    fn failed(&self) -> Option<DeliveryStatus> {
        match self {
            BatchOutcome::Persisted { .. } => None,
            BatchOutcome::Failed(error) | BatchOutcome::Invalid { error, .. } => {
                Some(error.delivery_status().unwrap_or(DeliveryStatus::PossiblyPersisted))
            }
        }
    }
}

/// A batch of one partition, from its first record to its results.
///
/// Dropping it in any state gives every record without a result one, so that no delivery waits
/// forever.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) body: Body,
    pub(crate) created: Instant,
    /// Leaves without waiting for its linger.
    pub(crate) flushed: bool,
    records: u32,

    /// Its position among the batches of its partition, set when it is first sent. It covers
    /// `order` to `order + span`, which its parts share when it is split.
    pub(crate) order: u128,
    pub(crate) span: u128,
    /// The sequence number of its first record, set when it is first sent.
    pub(crate) sequence: Option<i32>,
    pub(crate) attempts: u32,
    pub(crate) backoff: Option<Backoff>,
    pub(crate) retry_at: Option<Instant>,
    /// The broker of the last attempt.
    pub(crate) last_node: Option<i32>,
    /// True if an attempt may have written it.
    pub(crate) maybe_written: bool,
    /// True if a broker may have recorded its sequence numbers, even if it counts as not written:
    /// the leader's disk may have failed after the write.
    pub(crate) sequences_used: bool,
    /// True if it is a part of a batch that an attempt may have written.
    pub(crate) whole_in_doubt: bool,
    /// True if the last attempt went to a new leader without waiting for its backoff.
    pub(crate) retried_at_once: bool,
    pub(crate) last_error: Option<Error>,

    /// The results of the records that were appended directly to this batch, and their number.
    own_results: Arc<BatchResults>,
    own_count: u32,
    runs: SmallVec<[ResultRun; 1]>,
    groups: SmallVec<[FlushGroup; 1]>,
    /// Bytes that are reserved in the buffer, and how many of them the records use: an open batch
    /// reserves in advance.
    reservation: BufferReservation,
    used: usize,
    /// Notes for the reports of the records from `reported_from` on; only if reports are on.
    notes: ReportNotes,
    reported_from: u32,
    shared: Arc<BatchShared>,
    /// The outcome that its records will get.
    outcome: Option<BatchOutcome>,
    completed: bool,
}

impl Batch {
    pub(crate) fn new(
        topic: Arc<str>,
        partition: i32,
        builder: BatchBuilder,
        created: Instant,
        batch_shared: &Arc<BatchShared>,
    ) -> Self {
        batch_shared.counters.batch_begun();
        Self {
            topic,
            partition,
            body: Body::Open(builder),
            created,
            flushed: false,
            records: 0,
            order: 0,
            span: 0,
            sequence: None,
            attempts: 0,
            backoff: None,
            retry_at: None,
            last_node: None,
            maybe_written: false,
            sequences_used: false,
            whole_in_doubt: false,
            retried_at_once: false,
            last_error: None,
            own_results: batch_shared.new_cell(),
            own_count: 0,
            runs: SmallVec::new(),
            groups: smallvec![batch_shared.flushes.join()],
            reservation: BufferReservation::empty(&batch_shared.buffer),
            used: 0,
            notes: ReportNotes::default(),
            reported_from: 0,
            shared: batch_shared.clone(),
            outcome: None,
            completed: false,
        }
    }

    /// Returns the results of the records that are appended directly to this batch.
    pub(crate) fn results(&self) -> &Arc<BatchResults> {
        &self.own_results
    }

    /// Encodes a record into the open body and returns the index of its result in
    /// [`results`](Self::results), unless the record already has a place. Returns `None` if the
    /// buffer has no bytes for it. `room` is the rest of the batch's size.
    #[inline]
    pub(crate) fn append(
        &mut self,
        entry: &RecordEntry<'_>,
        reservation: &mut RecordReservation,
        room: usize,
    ) -> Option<u32> {
        let index = self.own_count;
        match reservation {
            RecordReservation::FromPool if !self.reserve(entry.bound as usize, room) => return None,
            RecordReservation::FromPool => self.add_own(),
            RecordReservation::Reserved => {
                self.reservation.add(entry.bound);
                self.used += entry.bound as usize;
                self.add_own();
            }
            RecordReservation::Waited(place) => {
                if let Some(waited) = place.take() {
                    self.add_waiting(*waited);
                }
            }
        }
        self.note(entry);
        if let Body::Open(builder) = &mut self.body {
            builder.append_bounded(&entry.parts, entry.bound as usize, entry.timestamp);
        }
        Some(index)
    }

    /// Reserves the bytes of the next record. It reserves as many bytes again as the batch holds,
    /// within `room`, so that not every record has to reserve; the rest is released when the batch
    /// is closed.
    #[inline]
    fn reserve(&mut self, bytes: usize, room: usize) -> bool {
        let used = self.used + bytes;
        let held = self.reservation.bytes();
        if used > held && !self.reservation.grow(used - held, held.min(room)) {
            return false;
        }
        self.used = used;
        true
    }

    /// Closes the batch to further records. Returns the memory of the stage.
    pub(crate) fn close(&mut self) -> Vec<u8> {
        drop(self.reservation.split(self.reservation.bytes().saturating_sub(self.used)));
        match &mut self.body {
            Body::Open(builder) => builder.take_stage(),
            Body::Sealed(_) | Body::Lent(_) => Vec::new(),
        }
    }

    /// Counts a record that comes directly from `send`.
    #[inline]
    fn add_own(&mut self) {
        let index = self.own_count;
        self.own_count += 1;
        match self.runs.last_mut() {
            Some(run) if Arc::ptr_eq(&run.results, &self.own_results) => run.count += 1,
            _ => self.runs.push(ResultRun { results: self.own_results.clone(), first: index, count: 1 }),
        }
    }

    /// Counts a record that already has a place for its result, because it waited for its topic.
    fn add_waiting(&mut self, WaitedRecord { run, reserved, group }: WaitedRecord) {
        match self.runs.last_mut() {
            Some(last) if Arc::ptr_eq(&last.results, &run.results) && last.first + last.count == run.first => {
                last.count += run.count;
            }
            _ => self.runs.push(run),
        }
        if !self.groups.iter().any(|known| Arc::ptr_eq(known, &group)) {
            // The record came before this batch was begun, and a flush has happened since.
            self.flushed = true;
            self.groups.push(group);
        }
        self.used += reserved.bytes();
        self.reservation.absorb(reserved);
    }

    #[inline]
    fn note(&mut self, entry: &RecordEntry<'_>) {
        let reported = !self.notes.is_empty();
        if reported || self.shared.reports.is_on() {
            if !reported {
                self.reported_from = self.records;
            }
            self.notes.push(ReportNote { timestamp: entry.timestamp, tag: entry.parts.record.and_then(Record::tag) });
        }
        self.records += 1;
    }

    /// Returns the counters for events of this batch.
    pub(crate) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    pub(crate) fn records(&self) -> u32 {
        self.records
    }

    /// Returns the bytes that it will take in a request; before it is sealed, those before
    /// compression.
    pub(crate) fn size(&self) -> usize {
        match &self.body {
            Body::Open(builder) => builder.size(),
            Body::Sealed(sealed) => sealed.size(),
            Body::Lent(_) => 0,
        }
    }

    /// Returns a revocable handle for the next attempt; those of earlier attempts become void.
    pub(crate) fn revocable(&self) -> RevocableBatch {
        RevocableBatch::next(&self.own_results)
    }

    /// Returns true if the outcome of its records is known, or was published.
    pub(crate) fn is_decided(&self) -> bool {
        self.completed || self.outcome.is_some()
    }

    /// Returns true if the outcome is known and not yet published.
    pub(crate) fn is_withheld(&self) -> bool {
        self.outcome.is_some()
    }

    /// Sets the outcome of its records, unless one is set.
    pub(crate) fn decide(&mut self, outcome: BatchOutcome) {
        if !self.is_decided() {
            self.outcome = Some(outcome);
        }
    }

    /// Publishes the outcome.
    pub(crate) fn complete_decided(&mut self) {
        if let Some(outcome) = self.outcome.take() {
            self.complete(outcome);
        }
    }

    /// Returns the delivery status of its records. If the batch is in a request that is not written
    /// yet, this withdraws the batch, so that the answer stays true.
    pub(crate) fn status(&self) -> DeliveryStatus {
        let on_the_wire = match &self.body {
            Body::Lent(revocable) => !revocable.withdraw(),
            _ => false,
        };
        if self.maybe_written || on_the_wire { DeliveryStatus::PossiblyPersisted } else { DeliveryStatus::NotPersisted }
    }

    /// Returns `"orders[3]"`, for errors.
    pub(crate) fn place(&self) -> String {
        format!("{}[{}]", self.topic, self.partition)
    }

    /// Gives every record its result and releases everything but the body. Later calls have no
    /// effect.
    pub(crate) fn complete(&mut self, outcome: BatchOutcome) {
        if std::mem::replace(&mut self.completed, true) {
            return;
        }
        self.counters().settled(outcome.failed(), self.records);
        if let BatchOutcome::Failed(error) | BatchOutcome::Invalid { error, .. } = &outcome {
            self.shared.log_failed(&self.topic, Some(self.partition), self.records, error);
            self.shared.note_failed(error, self.sequence.is_some());
        }
        match outcome {
            BatchOutcome::Persisted { base_offset, log_append_millis } => {
                let outcome = Outcome::Persisted {
                    topic: self.topic.clone(),
                    partition: self.partition,
                    first_offset: base_offset,
                    log_append_millis,
                };
                self.complete_range(0..self.records, &outcome);
            }
            BatchOutcome::Failed(error) => self.complete_range(0..self.records, &Outcome::Failed(error)),
            BatchOutcome::Invalid { error, records } => self.complete_invalid(&error, records),
        }
        self.shared.add_completed(self.records);
        self.groups.clear();
        self.runs.clear();
        drop(self.reservation.split(usize::MAX));
    }

    fn complete_invalid(&mut self, error: &Error, mut records: Vec<(i32, Option<String>)>) {
        records.sort_by_key(|(index, _)| *index);
        records.dedup_by_key(|(index, _)| *index);
        // These records may succeed in another batch.
        let rest =
            error.clone().context("not written, because other records of its batch are invalid").with_retriable(true);
        let rest = Outcome::Failed(rest);
        let mut next = 0;
        for (index, message) in records {
            let Some(index) = u32::try_from(index).ok().filter(|index| *index < self.records) else { continue };
            self.complete_range(next..index, &rest);
            let message = message.as_deref().map_or("the broker found this record invalid".into(), clean);
            self.complete_range(index..index + 1, &Outcome::Failed(error.clone().context(message)));
            next = index + 1;
        }
        self.complete_range(next..self.records, &rest);
    }

    /// Publishes the outcome of a range of records (given for its first record) to their results
    /// and reports.
    fn complete_range(&mut self, range: Range<u32>, outcome: &Outcome) {
        let mut start = 0;
        for i in 0..self.runs.len() {
            let Some(run) = self.runs.get(i).cloned() else { break };
            let from = range.start.max(start);
            let to = range.end.min(start + run.count);
            if from < to {
                let outcome = outcome.advanced(from - range.start);
                let first = run.first + (from - start);
                self.report(&run.results, first, from..to, &outcome);
                run.results.complete(first, to - from, outcome);
            }
            start += run.count;
        }
    }

    fn report(&mut self, results: &BatchResults, first: u32, range: Range<u32>, outcome: &Outcome) {
        if self.notes.is_empty() || range.end <= self.reported_from {
            return;
        }
        let from = range.start.max(self.reported_from);
        let skipped = from - range.start;
        let within = from - self.reported_from..range.end - self.reported_from;
        let notes =
            if within == (0..self.notes.len()) { std::mem::take(&mut self.notes) } else { self.notes.part(within) };
        let share = self.reservation.bytes() / (self.records - range.start).max(1) as usize * notes.len() as usize;
        self.shared.reports.report(ReportRun {
            results: results.id(),
            first: first + skipped,
            topic: self.topic.clone(),
            partition: Some(self.partition),
            outcome: outcome.advanced(skipped),
            notes,
            read: 0,
            reserved: self.reservation.split(share),
        });
    }

    /// Splits the batch into batches over the given bodies, which hold its records in order. Each
    /// part keeps the age, the attempts and the sequence numbers of the whole.
    pub(crate) fn into_parts(mut self, bodies: Vec<BatchBuilder>) -> Vec<Batch> {
        let mut parts = Vec::with_capacity(bodies.len());
        let span = self.span / bodies.len().max(1) as u128;
        let mut start = 0;
        for body in bodies {
            let count = body.count();
            let mut part = Batch::new(self.topic.clone(), self.partition, body, self.created, &self.shared);
            part.flushed = true;
            part.order = self.order + span * parts.len() as u128;
            part.span = span;
            part.sequence = self.sequence.map(|sequence| super::idempotence::advance(sequence, start));
            part.attempts = self.attempts;
            part.last_node = self.last_node;
            part.maybe_written = self.maybe_written;
            part.sequences_used = self.sequences_used;
            part.whole_in_doubt = self.whole_in_doubt || self.maybe_written || self.sequences_used;
            part.last_error = self.last_error.clone();
            part.records = count;
            part.groups = self.groups.clone();
            part.runs = slice(&self.runs, start..start + count);
            let share = self.reservation.bytes() / (self.records - start).max(1) as usize * count as usize;
            part.reservation = self.reservation.split(share);
            let reported = start.max(self.reported_from) - self.reported_from
                ..(start + count).max(self.reported_from) - self.reported_from;
            part.notes = self.notes.part(reported);
            part.reported_from = self.reported_from.saturating_sub(start).min(count);
            parts.push(part);
            start += count;
        }
        // The records belong to the parts now.
        self.completed = true;
        parts
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.complete_decided();
        if !self.completed {
            let error = Error::new(
                ErrorKind::Closed,
                format!("{}: the producer ended before the record was acknowledged", self.place()),
            );
            let status = self.status();
            self.complete(BatchOutcome::Failed(error.with_status(status)));
        }
        self.counters().batch_gone();
    }
}

/// Returns the runs of a range of the batch's records.
fn slice(runs: &[ResultRun], range: Range<u32>) -> SmallVec<[ResultRun; 1]> {
    let mut out = SmallVec::new();
    let mut start = 0;
    for run in runs {
        let from = range.start.max(start);
        let to = range.end.min(start + run.count);
        if from < to {
            out.push(ResultRun { results: run.results.clone(), first: run.first + (from - start), count: to - from });
        }
        start += run.count;
    }
    out
}
