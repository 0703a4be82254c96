//! A record on its way into a batch, and the memory that it has reserved.

use crate::{
    producer::{batch_results::ResultRun, buffer_pool::BufferReservation, flush::FlushGroup, partitioner::Sticky},
    wire::batch::RecordParts,
};

/// A record to be appended.
pub(crate) struct RecordEntry<'a> {
    pub(crate) parts: RecordParts<'a>,
    /// An upper bound of its bytes in a batch: what it is charged.
    pub(crate) bound: u32,
    pub(crate) timestamp: i64,
    /// The topic's turns, for a record that may go to any partition.
    pub(crate) sticky: Option<&'a Sticky>,
}

/// Where the bytes of a record are charged.
#[derive(Debug)]
pub(crate) enum RecordReservation {
    /// Its batch takes them from the credits.
    FromPool,
    /// They were taken before, by who waited for them.
    Reserved,
    /// The record waited for its topic: it was charged, and has a place for its result. `None` once
    /// a batch has it. In a box, so that a payment is small for all the others.
    Waited(Option<Box<WaitedRecord>>),
}

impl RecordReservation {
    pub(crate) fn waited(self) -> Option<Box<WaitedRecord>> {
        match self {
            RecordReservation::Waited(waited) => waited,
            RecordReservation::FromPool | RecordReservation::Reserved => None,
        }
    }
}

/// A record that waited for its topic.
#[derive(Debug)]
pub(crate) struct WaitedRecord {
    pub(crate) run: ResultRun,
    pub(crate) reserved: BufferReservation,
    pub(crate) group: FlushGroup,
}
