use crate::{error::Result, record::TimestampType};

/// The 61 bytes before the records of a v2 batch (8 of them base offset, 4 of them the length of what follows).
pub(crate) const BATCH_HEADER_SIZE: usize = 61;

/// The header of a batch, as it stands in the log. For a v0/v1 message (set) it is made up from the message: the producer
/// fields are −1 and `record_count` is 1 (or, compressed, unknown: 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Bytes behind this field, as the wire has it.
    pub(crate) batch_length: i32,
    pub(crate) partition_leader_epoch: i32,
    pub(crate) magic: i8,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl BatchHeader {
    /// Reads a v2 header; refuses other magics, negative counts and lengths below the header's own.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let _ = bytes;
        unimplemented!()
    }

    /// The size of the whole batch in bytes, header included.
    pub(crate) fn size(&self) -> usize {
        unimplemented!()
    }

    /// The offset of the batch's last record.
    pub(crate) fn last_offset(&self) -> i64 {
        unimplemented!()
    }

    pub(crate) fn is_control(&self) -> bool {
        unimplemented!()
    }

    pub(crate) fn is_transactional(&self) -> bool {
        unimplemented!()
    }

    pub(crate) fn is_compressed(&self) -> bool {
        unimplemented!()
    }

    pub(crate) fn timestamp_type(&self) -> TimestampType {
        unimplemented!()
    }
}
