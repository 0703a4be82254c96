//! Control batches: the markers that end a transaction in a log (KIP-98).

use super::RecordView;
#[cfg(any(test, feature = "testkit"))]
use super::{
    BatchBuilder, BatchHeader, ProducerStamp, RecordParts,
    header::{CHECKED_FROM, LOG_OVERHEAD},
};
use crate::error::{Error, ErrorKind, Result};

/// The record of a control batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ControlRecord {
    /// The producer's open transaction was aborted: its records before this marker must not be
    /// delivered.
    Abort { coordinator_epoch: i32 },
    /// The producer's open transaction was committed.
    Commit { coordinator_epoch: i32 },
    /// Another type, by its number, that clients ignore (the metadata log has some, and new ones
    /// may be added).
    Other(i16),
}

impl ControlRecord {
    /// Reads a record of a control batch.
    ///
    /// # Errors
    /// `Corrupt` for a marker that is too short.
    pub(crate) fn parse(record: &RecordView<'_>) -> Result<Self> {
        let corrupt =
            |what| Error::new(ErrorKind::Corrupt, format!("the control record at offset {}: {what}", record.offset));
        // Version, then type; newer versions may append fields.
        let Some([_, _, t0, t1]) = record.key.and_then(|key| key.first_chunk()) else {
            return Err(corrupt("its key is too short"));
        };
        let marker = match i16::from_be_bytes([*t0, *t1]) {
            0 => |coordinator_epoch| Self::Abort { coordinator_epoch },
            1 => |coordinator_epoch| Self::Commit { coordinator_epoch },
            other => return Ok(Self::Other(other)),
        };
        let Some([_, _, epoch @ ..]) = record.value.and_then(|value| value.first_chunk::<6>()) else {
            return Err(corrupt("its value is too short"));
        };
        Ok(marker(i32::from_be_bytes(*epoch)))
    }
}

/// Encodes a control batch that ends a producer's transaction; `stamp.base_sequence` is not used.
///
/// # Errors
/// `InvalidArgument` for a marker that does not end a transaction.
#[cfg(any(test, feature = "testkit"))]
pub(crate) fn marker_batch(
    marker: ControlRecord,
    base_offset: i64,
    leader_epoch: i32,
    stamp: ProducerStamp,
    timestamp: i64,
) -> Result<bytes::Bytes> {
    let (kind, epoch) = match marker {
        ControlRecord::Abort { coordinator_epoch } => (0i16, coordinator_epoch),
        ControlRecord::Commit { coordinator_epoch } => (1, coordinator_epoch),
        ControlRecord::Other(kind) => {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("control type {kind} does not end a transaction"),
            ));
        }
    };
    let key = [[0, 0], kind.to_be_bytes()].concat();
    let value = [&[0, 0][..], &epoch.to_be_bytes()].concat();
    let mut builder = BatchBuilder::with_capacity(64);
    builder.append(&RecordParts { key: Some(&key), value: Some(&value), record: None }, timestamp);
    let size = builder.size();
    let body = builder.into_body();
    let header = BatchHeader {
        base_offset,
        batch_length: (size - LOG_OVERHEAD) as i32,
        partition_leader_epoch: leader_epoch,
        magic: 2,
        crc: 0,
        attributes: BatchHeader::attributes(0, true, true),
        last_offset_delta: 0,
        base_timestamp: timestamp,
        max_timestamp: timestamp,
        producer_id: stamp.producer_id,
        producer_epoch: stamp.producer_epoch,
        base_sequence: -1,
        record_count: 1,
    };
    let mut bytes = [&header.write()[..], &body].concat();
    let crc = crate::wire::crc::castagnoli(&bytes[CHECKED_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Ok(bytes.into())
}
