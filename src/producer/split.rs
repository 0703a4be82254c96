//! Taking a closed batch apart when the broker finds it too large.

use super::batch::Batch;
use crate::{
    error::{Error, ErrorKind, Result},
    record::Record,
    wire::batch::{BatchBuilder, Batches, Decompressor, ProducerStamp, RecordParts, SealedBatch},
};

/// What a batch of ours may weigh when it is opened again.
const LIMIT: usize = i32::MAX as usize;

/// Splits a batch of two or more records into batches of about half its (uncompressed) bytes.
pub(super) fn split(batch: Batch, sealed: &SealedBatch) -> std::result::Result<Vec<Batch>, (Batch, Error)> {
    match halves(sealed) {
        Ok(bodies) if bodies.iter().map(BatchBuilder::count).sum::<u32>() == batch.records() => {
            Ok(batch.into_parts(bodies))
        }
        Ok(_) => Err((batch, Error::new(ErrorKind::Internal, "a batch of ours lost records when it was split"))),
        Err(error) => Err((batch, error)),
    }
}

fn halves(sealed: &SealedBatch) -> Result<Vec<BatchBuilder>> {
    let mut bytes = sealed.header(ProducerStamp::NONE).to_vec();
    bytes.extend_from_slice(sealed.body());
    let raw = Batches::new(bytes.into())
        .next()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a batch of ours cannot be read again"))??;
    let records = raw.records(&mut Decompressor::default(), LIMIT)?;
    let half = records.size() / 2;
    let mut first = BatchBuilder::with_capacity(half);
    let mut second = BatchBuilder::with_capacity(half);
    let last = sealed.count().saturating_sub(1);
    for (view, index) in records.iter().zip(0u32..) {
        let view = view?;
        let mut headers = Record::to("");
        for (name, value) in view.headers {
            let name = std::str::from_utf8(name)
                .map_err(|error| Error::new(ErrorKind::Internal, "a header of ours is not UTF-8").with_source(error))?;
            headers = match value {
                Some(value) => headers.header(name, value),
                None => headers.null_header(name),
            };
        }
        let parts = RecordParts { key: view.key, value: view.value, record: Some(&headers) };
        let still_first = second.count() == 0 && first.size() < half && index < last;
        let into = if index == 0 || still_first { &mut first } else { &mut second };
        into.append(&parts, view.timestamp);
    }
    if second.count() == 0 {
        return Err(Error::new(ErrorKind::Internal, "a batch of one record cannot be split"));
    }
    Ok(vec![first, second])
}
