//! The result of one record, as callbacks and streams get it.

use crate::{
    error::Result,
    producer::{
        batch_results::Outcome,
        buffer_pool::BufferReservation,
        delivery::{DeliveryId, result},
        report_notes::ReportNotes,
    },
    record::RecordMetadata,
};
use std::sync::Arc;

/// The result of one record, as [`DeliveryReports`] gives it out and
/// [`on_delivery`](super::ProducerBuilder::on_delivery) is told it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// The same as [`Delivery::id`](super::Delivery::id) of the record.
    pub id: DeliveryId,
    /// The number that the record was given with [`Record::tag`](crate::Record::tag).
    pub tag: Option<u64>,
    /// The topic that the record was sent to.
    pub topic: Arc<str>,
    /// The partition, unless the record failed before it had one.
    pub partition: Option<i32>,
    /// Where the record stands in the log, or why it failed and how far it got.
    pub result: Result<RecordMetadata>,
}

/// Records next to each other that share an outcome.
#[derive(Debug)]
pub(crate) struct ReportRun {
    pub(crate) results: u64,
    pub(crate) first: u32,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<i32>,
    /// The first record's.
    pub(crate) outcome: Outcome,
    /// One for each record.
    pub(crate) notes: ReportNotes,
    /// How many of them were read.
    pub(crate) read: u32,
    pub(crate) reserved: BufferReservation,
}

impl ReportRun {
    /// The report of the record at that place of the run.
    pub(crate) fn report(&self, place: u32) -> Option<DeliveryReport> {
        let note = self.notes.get(place)?;
        Some(DeliveryReport {
            id: DeliveryId { results: self.results, index: self.first + place },
            tag: note.tag,
            topic: self.topic.clone(),
            partition: self.partition,
            result: result(self.outcome.clone(), place, note.timestamp),
        })
    }
}
