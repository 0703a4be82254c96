//! Message sets v0 and v1, the formats of brokers before 0.11 and of topics that such brokers
//! wrote. They are only read.
//!
//! A message is offset, length, CRC-32, magic, attributes, a timestamp (v1), key, value. A
//! compressed message wraps a whole message set in its value.

use bytes::Bytes;

use super::{
    BatchHeader, HeadersIter, RecordView, Records,
    header::{CODEC_MASK, LOG_APPEND_TIME},
};
use crate::{
    error::Result,
    record::TimestampType,
    wire::codec::{self, DecompressorState},
};

/// The length field of a v0 message without key and value.
pub(super) const MIN_MESSAGE_LENGTH: i32 = 14;
/// Position of the first byte that a message's checksum covers: the magic.
pub(super) const CHECKED_FROM: usize = 16;

/// A message as it was read, either a record or a wrapper.
struct Message<'a> {
    offset: i64,
    length: i32,
    crc: u32,
    magic: i8,
    attributes: i16,
    timestamp: i64,
    key: Option<&'a [u8]>,
    value: Option<&'a [u8]>,
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N], &'static str> {
    let (part, rest) = input.split_first_chunk::<N>().ok_or("it ends early")?;
    *input = rest;
    Ok(*part)
}

fn take_field<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, &'static str> {
    let length = i32::from_be_bytes(take(input)?);
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| "one of its lengths is negative")?;
    let (field, rest) = input.split_at_checked(length).ok_or("one of its lengths exceeds its end")?;
    *input = rest;
    Ok(Some(field))
}

/// Splits one message off the front.
fn take_message<'a>(input: &mut &'a [u8]) -> Result<Message<'a>, &'static str> {
    let offset = i64::from_be_bytes(take(input)?);
    let length = i32::from_be_bytes(take(input)?);
    let size = usize::try_from(length).map_err(|_| "its length is negative")?;
    let (mut message, rest) = input.split_at_checked(size).ok_or("it ends after the end of its set")?;
    *input = rest;
    let crc = u32::from_be_bytes(take(&mut message)?);
    let [magic, attributes] = take(&mut message)?;
    // This format defines no other bits; later formats give them a meaning.
    let (known, timestamp) = match magic {
        0 => (CODEC_MASK, -1),
        1 => (CODEC_MASK | LOG_APPEND_TIME, i64::from_be_bytes(take(&mut message)?)),
        _ => return Err("its format is not that of a message set"),
    };
    let key = take_field(&mut message)?;
    let value = take_field(&mut message)?;
    if !message.is_empty() {
        return Err("bytes are left over after its value");
    }
    let attributes = i16::from(attributes) & known;
    Ok(Message { offset, length, crc, magic: magic as i8, attributes, timestamp, key, value })
}

/// Derives a batch's header from the message at the front, which is complete.
pub(super) fn parse_header(mut bytes: &[u8]) -> Result<BatchHeader> {
    let mut header = BatchHeader {
        base_offset: bytes.first_chunk().map_or(0, |offset| i64::from_be_bytes(*offset)),
        batch_length: 0,
        partition_leader_epoch: -1,
        magic: 0,
        crc: 0,
        attributes: 0,
        last_offset_delta: 0,
        base_timestamp: -1,
        max_timestamp: -1,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
        record_count: 0,
    };
    let message = take_message(&mut bytes).map_err(|what| header.corrupt(what))?;
    if message.offset < 0 || message.offset == i64::MAX {
        return Err(header.corrupt("its offset is outside of the log"));
    }
    header.batch_length = message.length;
    header.magic = message.magic;
    header.crc = message.crc;
    header.attributes = message.attributes;
    header.base_timestamp = message.timestamp;
    header.max_timestamp = message.timestamp;
    header.record_count = i32::from(!header.is_compressed());
    Ok(header)
}

/// Returns the records of a message: itself, or the messages that it wraps.
pub(super) fn records(
    header: BatchHeader,
    bytes: &Bytes,
    decompressor: &mut DecompressorState,
    limit: usize,
) -> Result<Records> {
    if !header.is_compressed() {
        return Ok(Records { header, body: bytes.clone() });
    }
    let wrapper = take_message(&mut &bytes[..]).map_err(|what| header.corrupt(what))?;
    let value = wrapper.value.ok_or_else(|| header.corrupt("it is compressed, but holds nothing"))?;
    let body = codec::decompress(header.codec_id(), decompressor, header.magic, value, limit)
        .map_err(|error| error.context(format_args!("the batch at offset {}", header.base_offset)))?;
    unwrapped(header, body)
}

/// Returns the records of the message set that a compressed message wrapped.
pub(super) fn unwrapped(mut header: BatchHeader, body: Bytes) -> Result<Records> {
    // The wrapper has the offset of its last record. The inner offsets are the log's in v0. In v1
    // they start anywhere, usually at 0, so that the broker need not rewrite them: the difference
    // between the last inner offset and the wrapper's is added to each.
    let mut rest = &body[..];
    let (mut count, mut first, mut last) = (0i32, 0, 0);
    while !rest.is_empty() {
        let inner = take_message(&mut rest).map_err(|what| header.corrupt(format_args!("record {count}: {what}")))?;
        if inner.magic != header.magic || inner.attributes & CODEC_MASK != 0 {
            return Err(header.corrupt(format_args!("record {count}: its format or codec differs from its wrapper's")));
        }
        if count == 0 {
            first = inner.offset;
        }
        last = inner.offset;
        count = count.checked_add(1).ok_or_else(|| header.corrupt("it holds too many records"))?;
    }
    if count == 0 {
        return Err(header.corrupt("it is compressed, but holds no records"));
    }
    let span = last.checked_sub(first).and_then(|span| i32::try_from(span).ok()).filter(|span| *span >= 0);
    let base = if header.magic == 0 { Some(first) } else { span.map(|span| header.base_offset - i64::from(span)) };
    let (Some(span), Some(base), true) = (span, base.filter(|base| *base >= 0), last < i64::MAX) else {
        return Err(header.corrupt(format_args!("its records' offsets {first} to {last} are impossible")));
    };
    header.last_offset_delta = span;
    header.record_count = count;
    header.base_offset = base;
    Ok(Records { header, body })
}

/// Returns the difference between the log's offsets and those of a body's messages.
pub(super) fn offset_shift(header: &BatchHeader, body: &[u8]) -> i64 {
    body.first_chunk().map_or(0, |first| header.base_offset.wrapping_sub(i64::from_be_bytes(*first)))
}

/// Splits one record off the front of a body.
pub(super) fn take_record<'a>(
    input: &mut &'a [u8],
    header: &BatchHeader,
    offset_shift: i64,
) -> Result<RecordView<'a>, &'static str> {
    let message = take_message(input)?;
    let offset = message.offset.wrapping_add(offset_shift);
    if !(header.base_offset..=header.last_offset()).contains(&offset) {
        return Err("its offset is outside of the batch");
    }
    Ok(RecordView {
        offset,
        timestamp: match header.timestamp_type() {
            TimestampType::CreateTime => message.timestamp,
            TimestampType::LogAppendTime => header.max_timestamp,
        },
        key: message.key,
        value: message.value,
        headers: HeadersIter::default(),
    })
}
