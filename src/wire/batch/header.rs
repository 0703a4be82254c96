use crate::{
    error::{Error, ErrorKind, Result},
    record::TimestampType,
};

/// The 61 bytes before the records of a v2 batch (8 of them are the base offset, 4 the length of
/// the rest).
pub(crate) const BATCH_HEADER_SIZE: usize = 61;

/// Bytes of the base offset and the length. Every format begins with them, and `batch_length` does
/// not count them.
pub(super) const LOG_OVERHEAD: usize = 12;
/// Position of the first byte that a v2 batch's checksum covers: the attributes.
pub(super) const CHECKED_FROM: usize = 21;

pub(super) const CODEC_MASK: i16 = 0x07;
pub(super) const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// The header of a batch, as it is in the log.
///
/// For a v0/v1 message the header is derived from the message: the producer fields are −1 and
/// `record_count` is 1. A compressed message has only the last offset of the messages that it
/// wraps: its `base_offset` is that offset too, and `record_count` is 0, until
/// [`records`](super::RawBatch::records) has decompressed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Bytes after this field, as on the wire.
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

/// Returns the N bytes from `at` on; the caller has checked that they exist.
fn part<const N: usize>(bytes: &[u8; BATCH_HEADER_SIZE], at: usize) -> [u8; N] {
    let mut part = [0; N];
    part.copy_from_slice(&bytes[at..at + N]);
    part
}

impl BatchHeader {
    /// Reads a v2 header. Other magics, negative counts and lengths below the header's own are
    /// refused.
    ///
    /// # Errors
    /// `Corrupt`, naming the batch's offset.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let Some(bytes) = bytes.first_chunk::<BATCH_HEADER_SIZE>() else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("a batch of {} bytes is shorter than its header of {BATCH_HEADER_SIZE}", bytes.len()),
            ));
        };
        let header = Self {
            base_offset: i64::from_be_bytes(part(bytes, 0)),
            batch_length: i32::from_be_bytes(part(bytes, 8)),
            partition_leader_epoch: i32::from_be_bytes(part(bytes, 12)),
            magic: bytes[16] as i8,
            crc: u32::from_be_bytes(part(bytes, 17)),
            attributes: i16::from_be_bytes(part(bytes, 21)),
            last_offset_delta: i32::from_be_bytes(part(bytes, 23)),
            base_timestamp: i64::from_be_bytes(part(bytes, 27)),
            max_timestamp: i64::from_be_bytes(part(bytes, 35)),
            producer_id: i64::from_be_bytes(part(bytes, 43)),
            producer_epoch: i16::from_be_bytes(part(bytes, 51)),
            base_sequence: i32::from_be_bytes(part(bytes, 53)),
            record_count: i32::from_be_bytes(part(bytes, 57)),
        };
        let wrong = if header.magic != 2 {
            format!("magic {} is not that of a v2 batch", header.magic)
        } else if i64::from(header.batch_length) < (BATCH_HEADER_SIZE - LOG_OVERHEAD) as i64 {
            format!("length {} is below that of the header", header.batch_length)
        } else if header.record_count < 0 {
            format!("record count {} is negative", header.record_count)
        } else if header.last_offset_delta < 0 {
            format!("last offset delta {} is negative", header.last_offset_delta)
        } else if header.base_offset < 0 || header.base_offset.checked_add(1 << 32).is_none() {
            "its offset is outside of the log".to_owned()
        } else {
            return Ok(header);
        };
        Err(header.corrupt(wrong))
    }

    /// Returns the size of the whole batch in bytes, header included.
    pub(crate) fn size(&self) -> usize {
        LOG_OVERHEAD + self.batch_length as usize
    }

    /// Returns the offset of the batch's last record.
    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// Returns the offset after the batch, at which reading continues.
    pub(crate) fn next_offset(&self) -> i64 {
        self.last_offset() + 1
    }

    /// Returns true if the batch has a transaction's marker instead of records.
    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.codec_id() != 0
    }

    /// Returns the codec's number, 0 for none.
    pub(crate) fn codec_id(&self) -> u8 {
        (self.attributes & CODEC_MASK) as u8
    }

    pub(crate) fn timestamp_type(&self) -> TimestampType {
        if self.attributes & LOG_APPEND_TIME != 0 { TimestampType::LogAppendTime } else { TimestampType::CreateTime }
    }

    /// Makes an error about this batch.
    pub(super) fn corrupt(&self, what: impl std::fmt::Display) -> Error {
        Error::new(ErrorKind::Corrupt, format!("the batch at offset {}: {what}", self.base_offset))
    }

    /// Returns the attributes of a v2 batch.
    pub(super) fn attributes(codec_id: u8, transactional: bool, control: bool) -> i16 {
        i16::from(codec_id) | if transactional { TRANSACTIONAL } else { 0 } | if control { CONTROL } else { 0 }
    }

    /// Turns the bytes of a v2 batch into those that a log stores: sets its base offset and its
    /// leader epoch and, if the topic uses LogAppendTime, its timestamp (which the checksum covers,
    /// so the checksum is computed again).
    ///
    /// # Errors
    /// `Corrupt` like [`parse`](Self::parse), and if the bytes end before the batch does.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn place(
        bytes: &mut [u8],
        base_offset: i64,
        leader_epoch: i32,
        log_append_time: Option<i64>,
    ) -> Result<()> {
        let header = Self::parse(bytes)?;
        let size = header.size();
        let length = bytes.len();
        let Some(bytes) = bytes.get_mut(..size) else {
            return Err(header.corrupt(format!("its length field says {size} bytes, and there are {length}")));
        };
        bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
        if let Some(time) = log_append_time {
            bytes[21..23].copy_from_slice(&(header.attributes | LOG_APPEND_TIME).to_be_bytes());
            bytes[35..43].copy_from_slice(&time.to_be_bytes());
            let crc = crate::wire::crc::castagnoli(&bytes[CHECKED_FROM..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        Ok(())
    }

    /// Encodes the header. `crc` is written as it is.
    pub(super) fn write(&self) -> [u8; BATCH_HEADER_SIZE] {
        let mut out = [0; BATCH_HEADER_SIZE];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.batch_length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[16] = self.magic as u8;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.record_count.to_be_bytes());
        out
    }
}
