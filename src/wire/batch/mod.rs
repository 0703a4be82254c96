//! Record batches: the v2 format is read and written, message sets v0 and v1 are only read.

mod control;
mod header;
mod legacy;
mod pool;
mod reader;
mod records;
mod resync;
pub(super) mod staging_buffer;
#[cfg(test)]
mod tests;
pub(super) mod varint_packer;
mod writer;

pub(crate) use crate::wire::batch::staging_buffer::STAGE;
pub(crate) use control::ControlRecord;
#[cfg(any(test, feature = "testkit"))]
pub(crate) use control::marker_batch;
pub(crate) use header::{BATCH_HEADER_SIZE, BatchHeader};
pub(crate) use pool::{BodyBuffer, BodyPool};
pub(crate) use reader::{Batches, Decompressor, RawBatch, Records};
pub(crate) use records::{HeadersIter, RecordIter, RecordPosition, RecordView};
pub(crate) use writer::{BatchBuilder, Compressor, ProducerStamp, RecordParts, SealedBatch, record_size_bound};
