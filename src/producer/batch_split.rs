//! Splits a closed batch that the broker rejects as too large.
//!
//! Sans-IO.

use crate::producer::batch::Batch;
use crate::{
    error::{Error, ErrorKind, Result},
    wire::batch::{BatchBuilder, Decompressor, SealedBatch},
};

/// Splits a batch of two or more records into two of about half its (uncompressed) bytes each.
pub(super) fn split(batch: Batch, sealed: &SealedBatch) -> Result<Vec<Batch>, Box<(Batch, Error)>> {
    match halves(sealed) {
        Ok(bodies) if bodies.iter().map(BatchBuilder::count).sum::<u32>() == batch.records() => {
            Ok(batch.into_parts(bodies))
        }
        Ok(_) => {
            let error = Error::new(ErrorKind::Internal, "a batch lost records when the client split it");
            Err(Box::new((batch, error)))
        }
        Err(error) => Err(Box::new((batch, error))),
    }
}

fn halves(sealed: &SealedBatch) -> Result<Vec<BatchBuilder>> {
    let half = sealed.uncompressed_size() / 2;
    let last = sealed.count().saturating_sub(1);
    let mut first = BatchBuilder::with_capacity(half);
    let mut second = BatchBuilder::with_capacity(half);
    let records = sealed.records(&mut Decompressor::default())?;
    for (view, index) in records.iter().zip(0u32..) {
        let view = view?;
        let still_first = second.count() == 0 && first.size() < half && index < last;
        let into = if index == 0 || still_first { &mut first } else { &mut second };
        into.append_view(&view);
    }
    if second.count() == 0 {
        return Err(Error::new(ErrorKind::Internal, "a batch of one record cannot be split"));
    }
    Ok(vec![first, second])
}
