//! Record batches: the v2 format both ways, message sets v0 and v1 for reading.

mod header;
mod reader;
mod writer;

pub(crate) use header::{BATCH_HEADER_SIZE, BatchHeader};
pub(crate) use reader::{Batches, Decompressor, HeadersIter, RawBatch, RecordIter, RecordView, Records};
pub(crate) use writer::{BatchBuilder, Compressor, ProducerStamp, RecordParts, SealedBatch, record_size_bound};
