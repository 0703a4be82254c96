//! Batches for tests, as a log would hold them.

use bytes::Bytes;

use crate::wire::{
    Compression,
    batch::{BatchBuilder, BatchHeader, Compressor, ControlRecord, ProducerStamp, RecordParts, marker_batch},
};

/// The kind of records in a batch.
#[derive(Clone, Copy)]
pub(super) enum Sort {
    Plain,
    /// Records of an open transaction of that producer.
    Transaction(i64),
}

/// `count` records from that offset on: keys `k<offset>`, values `v<offset>`, timestamp 1000 +
/// offset, leader epoch 1.
pub(super) fn batch(base_offset: i64, count: i64, sort: Sort) -> Bytes {
    built(base_offset, count, sort, Compression::None, "v")
}

/// Like [`batch`], compressed, with values that start with that text.
pub(super) fn built(base_offset: i64, count: i64, sort: Sort, compression: Compression, value: &str) -> Bytes {
    let mut builder = BatchBuilder::with_capacity(1024);
    for offset in base_offset..base_offset + count {
        let (key, value) = (format!("k{offset}"), format!("{value}{offset}"));
        let parts = RecordParts { key: Some(key.as_bytes()), value: Some(value.as_bytes()), record: None };
        builder.append(&parts, 1000 + offset);
    }
    let stamp = match sort {
        Sort::Plain => ProducerStamp::NONE,
        Sort::Transaction(producer_id) => {
            ProducerStamp { producer_id, producer_epoch: 0, base_sequence: 0, transactional: true }
        }
    };
    let sealed = builder.seal(&mut Compressor::new(compression).unwrap()).unwrap();
    let mut bytes = [&sealed.header(stamp)[..], sealed.body()].concat();
    BatchHeader::place(&mut bytes, base_offset, 1, None).unwrap();
    bytes.into()
}

/// `count` records from that offset on, with values of so many bytes.
#[cfg(test)]
pub(super) fn batch_of(base_offset: i64, count: i64, size: usize) -> Bytes {
    built(base_offset, count, Sort::Plain, Compression::None, &"v".repeat(size))
}

/// The end of that producer's transaction.
pub(super) fn marker(offset: i64, producer_id: i64, commit: bool) -> Bytes {
    let stamp = ProducerStamp { producer_id, producer_epoch: 0, base_sequence: -1, transactional: true };
    let kind = match commit {
        true => ControlRecord::Commit { coordinator_epoch: 0 },
        false => ControlRecord::Abort { coordinator_epoch: 0 },
    };
    marker_batch(kind, offset, 1, stamp, 0).unwrap()
}

/// Letters that no codec can make much smaller.
#[cfg(test)]
pub(super) fn noise(length: usize) -> String {
    let mut state = 1u64;
    let mut letter = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        char::from(b'!' + (state >> 33) as u8 % 90)
    };
    (0..length).map(|_| letter()).collect()
}
