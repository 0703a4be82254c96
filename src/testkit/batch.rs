//! Batches in wire format.

use bytes::Bytes;

use crate::{
    error::{Error, ErrorKind, Result},
    record::Record,
    wire::{
        Compression,
        batch::{BatchBuilder, Compressor, ProducerStamp, RecordParts},
    },
};

/// Encodes records as one batch (v2) at offset 0, as a producer without idempotence does; for
/// [`Options::prepared`](super::Options::prepared). The records' own topics and partitions do not
/// matter; a record without a timestamp gets 0.
///
/// # Errors
/// `InvalidArgument` when there are no records, `Configuration` for a compression that was not
/// compiled in.
pub fn batch(records: &[Record<'_>], compression: Compression) -> Result<Bytes> {
    build(records, compression, 0, ProducerStamp::NONE)
}

/// Encodes records as one batch of the given producer; records without a timestamp get `timestamp`.
pub(super) fn build(
    records: &[Record<'_>],
    compression: Compression,
    timestamp: i64,
    stamp: ProducerStamp,
) -> Result<Bytes> {
    if records.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "a batch needs at least one record"));
    }
    let mut batch = BatchBuilder::with_capacity(1024);
    for record in records {
        let key = record.key();
        let value = record.value();
        let parts = RecordParts { key, value, record: Some(record) };
        batch.append(&parts, record.timestamp_millis().unwrap_or(timestamp));
    }
    let sealed = batch.seal(&mut Compressor::new(compression)?)?;
    Ok([&sealed.header(stamp), &sealed.body()[..]].concat().into())
}
