//! The result of one record, as given to callbacks and streams.

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

/// The result of one record, as [`DeliveryReports`](super::DeliveryReports) returns it and
/// [`on_delivery`](super::ProducerBuilder::on_delivery) receives it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeliveryReport {
    /// Identifies the record; equal to [`Delivery::id`](super::Delivery::id) of the record.
    pub id: DeliveryId,
    /// The number that was given to the record with [`Record::tag`](crate::Record::tag).
    pub tag: Option<u64>,
    /// The topic that the record was sent to.
    pub topic: Arc<str>,
    /// The partition; `None` if the record failed before it had one.
    pub partition: Option<i32>,
    /// The record's position in the log, or its error with its delivery status.
    pub result: Result<RecordMetadata>,
}

/// Consecutive records that share an outcome.
#[derive(Debug)]
pub(crate) struct ReportRun {
    pub(crate) results: u64,
    pub(crate) first: u32,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: Option<i32>,
    /// The outcome of the first record.
    pub(crate) outcome: Outcome,
    /// One note for each record.
    pub(crate) notes: ReportNotes,
    /// Number of notes that were read.
    pub(crate) read: u32,
    pub(crate) reserved: BufferReservation,
}

impl ReportRun {
    /// Returns the report of the record at that place of the run.
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
