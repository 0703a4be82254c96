//! Records that wait for a topic that is not known yet, or for a partition that does not exist yet.
//!
//! Sans-IO.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{AdmittedRecord, AppendContext, PlacedRecord, Placement, Topic, TopicAppend};
use crate::{
    error::{DeliveryStatus, Error, ErrorKind},
    producer::{
        accumulator::{Partition, SenderEvent},
        batch_results::{BatchResults, Outcome, ResultRun},
        batch_shared::BatchShared,
        buffer_pool::BufferReservation,
        delivery_report::ReportRun,
        partitioner::BrokerUnavailable,
        record_entry::{RecordReservation, WaitedRecord},
        report_notes::{ReportNote, ReportNotes},
    },
    record::Record,
};

/// Records that share one `BatchResults` while they wait, so that each completion looks at few of
/// them.
const CELL_RECORDS: u32 = 256;

#[derive(Debug, Default)]
pub(super) struct WaitingRecords {
    pub(super) topics: HashMap<Arc<str>, VecDeque<WaitingRecord>>,
    /// Topics that records have begun to wait for, and that the task does not know of yet.
    pub(super) unseen: Vec<Arc<str>>,
    /// The results in which the next record gets its place, and the number of places in use.
    pub(super) results: Option<(Arc<BatchResults>, u32)>,
    pub(super) closed: Option<Error>,
    /// Number of slots that were assigned to partitions.
    pub(super) slots: usize,
    /// Availability of the brokers that lead partitions.
    pub(super) clogged: HashMap<i32, BrokerUnavailable>,
}

/// The longest time that a record waits for its topic, and the property that sets it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TopicTimeout {
    time: Duration,
    property: &'static str,
}

impl TopicTimeout {
    /// Returns the shorter of `max.block.ms` and `delivery.timeout.ms`: no record outlives its
    /// delivery timeout.
    pub(crate) fn new(max_block: Duration, delivery_timeout: Duration) -> Self {
        if delivery_timeout < max_block {
            Self { time: delivery_timeout, property: "delivery.timeout.ms" }
        } else {
            Self { time: max_block, property: "max.block.ms" }
        }
    }

    pub(super) fn after(self, since: Instant) -> Instant {
        since + self.time
    }
}

impl fmt::Display for TopicTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} ms)", self.property, self.time.as_millis())
    }
}

/// A record that waits for its topic or partition. Dropping it gives it a result.
#[derive(Debug)]
pub(super) struct WaitingRecord {
    pub(super) record: Record<'static>,
    pub(super) admitted: AdmittedRecord,
    /// Time at which it was sent: its delivery timeout runs from here.
    pub(super) since: Instant,
    pub(super) place: Option<Box<WaitedRecord>>,
    pub(super) batch_shared: Arc<BatchShared>,
    pub(super) reported: bool,
}

impl WaitingRecords {
    /// Lets a record wait for a topic. Its bytes are already taken from the buffer.
    pub(super) fn push(
        &mut self,
        topic: Arc<str>,
        record: &Record<'_>,
        admitted: AdmittedRecord,
        now: Instant,
        batch_shared: &Arc<BatchShared>,
    ) -> PlacedRecord {
        let (results, index) = self.next_place(batch_shared);
        let queue = self.topics.entry(topic.clone()).or_default();
        let look_for_topic = queue.is_empty();
        queue.push_back(WaitingRecord {
            record: record.clone().into_owned(),
            admitted,
            since: now,
            place: Some(Box::new(WaitedRecord {
                run: ResultRun { results: results.clone(), first: index, count: 1 },
                reserved: BufferReservation::of(&batch_shared.buffer, admitted.bound),
                group: batch_shared.flushes.join(),
            })),
            batch_shared: batch_shared.clone(),
            reported: batch_shared.reports.is_on(),
        });
        if look_for_topic {
            self.unseen.push(topic);
        }
        PlacedRecord { results, index, look_for_topic }
    }

    fn next_place(&mut self, batch_shared: &BatchShared) -> (Arc<BatchResults>, u32) {
        match &mut self.results {
            Some((results, used)) if *used < CELL_RECORDS => {
                let index = *used;
                *used += 1;
                (results.clone(), index)
            }
            place => {
                let results = batch_shared.new_cell();
                *place = Some((results.clone(), 1));
                (results, 0)
            }
        }
    }
}

impl WaitingRecord {
    /// Appends the record to its partition of the topic; returns it if the topic has no such
    /// partition. A batch that it begins is as old as the record, so that the wait for the topic
    /// counts towards `delivery.timeout.ms`.
    pub(super) fn move_to<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        mut self,
        topic: &Topic,
        placement: &Placement,
        context: &mut AppendContext<'_, C, T>,
    ) -> Option<Self> {
        let mut reservation = RecordReservation::Waited(Some(self.place.take()?));
        let since = self.since;
        let mut context = AppendContext { shared: context.shared, clock: || since, notify: &mut context.notify };
        let appended =
            topic.append(&mut None, &self.record, self.admitted, &mut reservation, placement, &mut context, |_, _| ());
        self.place = reservation.waited();
        match appended {
            TopicAppend::Done(()) => None,
            // A record with reserved bytes is never refused for lack of memory.
            TopicAppend::NoPartition | TopicAppend::Full => Some(self),
            TopicAppend::Refused(error) => {
                self.fail(error);
                None
            }
        }
    }

    /// Fails the record, which was never sent.
    pub(super) fn fail(&mut self, error: Error) {
        let Some(place) = self.place.take() else { return };
        let WaitedRecord { run, reserved, .. } = *place;
        let error = error.with_status(DeliveryStatus::NotPersisted);
        self.batch_shared.counters.settled(Some(DeliveryStatus::NotPersisted), run.count);
        self.batch_shared.log_failed(self.record.topic(), self.record.partition(), run.count, &error);
        self.batch_shared.note_failed(&error, false);
        let outcome = Outcome::Failed(error);
        if self.reported {
            let mut notes = ReportNotes::default();
            notes.push(ReportNote { timestamp: self.admitted.timestamp, tag: self.record.tag() });
            self.batch_shared.reports.report(ReportRun {
                results: run.results.id(),
                first: run.first,
                topic: self.record.topic().into(),
                partition: self.record.partition(),
                outcome: outcome.clone(),
                notes,
                read: 0,
                reserved,
            });
        }
        run.results.complete(run.first, run.count, outcome);
    }
}

/// A topic that is about to be published, and the records that waited for it.
pub(super) struct ChangedTopic {
    pub(super) topic: Arc<Topic>,
    /// Records that are to be appended.
    pub(super) arriving: VecDeque<WaitingRecord>,
    /// Records whose partition does not exist yet.
    pub(super) staying: VecDeque<WaitingRecord>,
}

impl ChangedTopic {
    pub(super) fn new(topic: Arc<Topic>) -> Self {
        Self { topic, arriving: VecDeque::new(), staying: VecDeque::new() }
    }

    /// Takes the records that have begun to wait since the last call.
    pub(super) fn take_waiting(&mut self, waiting: &mut WaitingRecords) {
        if let Some(queue) = waiting.topics.get_mut(&self.topic.name) {
            self.arriving = std::mem::take(queue);
        }
    }

    /// Appends the records that were taken, if their partitions exist.
    pub(super) fn append_arriving<C: Fn() -> Instant, T: FnMut(&Arc<Partition>, SenderEvent)>(
        &mut self,
        placement: &Placement,
        context: &mut AppendContext<'_, C, T>,
    ) {
        for record in self.arriving.drain(..) {
            self.staying.extend(record.move_to(&self.topic, placement, context));
        }
    }
}

impl Drop for WaitingRecord {
    fn drop(&mut self) {
        if self.place.is_some() {
            let error = Error::new(ErrorKind::Closed, "the producer ended before the record's topic was known");
            self.fail(error);
        }
    }
}
