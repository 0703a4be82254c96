//! A record that is to be appended to a batch, and the memory that is reserved for it.

use crate::{
    producer::{batch_results::ResultRun, buffer_pool::BufferReservation, flush::FlushGroup, partitioner::Sticky},
    wire::batch::RecordParts,
};

/// A record to be appended.
pub(crate) struct RecordEntry<'a> {
    pub(crate) parts: RecordParts<'a>,
    /// An upper bound of its bytes in a batch, which is the number of bytes that it reserves.
    pub(crate) bound: u32,
    pub(crate) timestamp: i64,
    /// The topic's sticky partition, for a record that may go to any partition.
    pub(crate) sticky: Option<&'a Sticky>,
}

/// The source of a record's reserved bytes.
#[derive(Debug)]
pub(crate) enum RecordReservation {
    /// Its batch takes them from the buffer pool.
    FromPool,
    /// The caller has already taken them.
    Reserved,
    /// The record waited for its topic: its bytes are reserved, and it has a place for its result.
    /// `None` once a batch has it. Boxed, so that the enum is small for all other records.
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
