//! A Produce request, built in place: one buffer, which is sent and then reused.

use std::{
    mem,
    time::{SystemTime, UNIX_EPOCH},
};

use peers_common::Failure;

/// The version that Ottla uses with Kafka 4, the first that names topics by id.
pub const VERSION: i16 = 13;
pub const PRODUCE: i16 = 0;
pub const CLIENT_ID: &[u8] = b"peers";
const TIMEOUT_MS: i32 = 30_000;
/// `max.request.size` of the other clients.
const MAX_REQUEST: usize = 1 << 20;

/// Size of a v2 batch's header, and the positions in it of the length, of the checksum, and of the
/// first byte that the checksum covers.
const BATCH_HEADER: usize = 61;
const BATCH_LENGTH: usize = 8;
const CHECKSUM: usize = 17;
const CHECKED_FROM: usize = 21;
/// Bytes of the lengths that are known only later; a varint may be longer than its value needs.
const COUNT_SIZE: usize = 2;
const LENGTH_SIZE: usize = 3;
const MAX_LENGTH: usize = (1 << (7 * LENGTH_SIZE)) - 1;
/// Upper bound of a record's bytes beside its key and value: five varints, the attributes, no
/// headers.
const MAX_RECORD_OVERHEAD: usize = 5 * 5 + 2;

/// The producer id and epoch, which idempotence requires.
#[derive(Clone, Copy)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

/// The batches of a request: partition and number of records.
pub type Sent = Vec<(i32, u32)>;

pub struct Request {
    producer: Producer,
    batch_size: usize,
    bytes: Vec<u8>,
    /// The beginning of every request: from its length to its number of partitions.
    head: Vec<u8>,
    /// The batches that are closed.
    closed: Sent,
    /// The next sequence number of each partition.
    sequences: Vec<i32>,
    partition: usize,
    /// Position of the open batch's header.
    batch: Option<usize>,
    records: u32,
}

impl Request {
    pub fn new(topic_id: [u8; 16], producer: Producer, partitions: usize, batch_size: usize) -> Result<Self, Failure> {
        if batch_size < BATCH_HEADER || batch_size > MAX_LENGTH.min(MAX_REQUEST) || partitions >= 1 << (7 * COUNT_SIZE)
        {
            return Err("batch size or count of partitions out of range".into());
        }
        let mut head = vec![0; 4];
        put_header(&mut head, PRODUCE, VERSION);
        head.push(0); // no transactional id
        head.extend((-1_i16).to_be_bytes()); // acks=all
        head.extend(TIMEOUT_MS.to_be_bytes());
        head.push(1 + 1); // one topic
        head.extend(topic_id);
        head.extend([0; COUNT_SIZE]);
        Ok(Self {
            producer,
            batch_size,
            bytes: head.clone(),
            head,
            closed: Vec::new(),
            sequences: vec![0; partitions],
            partition: 0,
            batch: None,
            records: 0,
        })
    }

    /// Returns true if this record would need a batch for which the request has no room.
    #[inline]
    pub fn is_full(&self, key: Option<&[u8]>, value: &[u8]) -> bool {
        !self.fits(key, value)
            && (self.closed.len() + 1 == self.sequences.len() || self.bytes.len() + self.batch_size > MAX_REQUEST)
    }

    #[inline]
    fn fits(&self, key: Option<&[u8]>, value: &[u8]) -> bool {
        let record = MAX_RECORD_OVERHEAD + key.map_or(0, <[u8]>::len) + value.len();
        self.batch.is_none_or(|batch| self.bytes.len() - batch + record <= self.batch_size)
    }

    #[inline]
    pub fn append(&mut self, key: Option<&[u8]>, value: &[u8]) -> Result<(), Failure> {
        if !self.fits(key, value) {
            self.close()?;
        }
        if self.batch.is_none() {
            self.open()?;
        }
        let mut start = [0; 32];
        // Attributes, and a timestamp delta of 0.
        let mut at = 2;
        at += put_varint(&mut start[at..], self.records as i32);
        at += put_varint(&mut start[at..], key.map_or(-1, |key| key.len() as i32));
        let mut middle = [0; 8];
        let length = put_varint(&mut middle, value.len() as i32);
        let inner = at + key.map_or(0, <[u8]>::len) + length + value.len() + 1;
        let mut size = [0; 8];
        let size_length = put_varint(&mut size, inner as i32);
        self.bytes.reserve(size_length + inner);
        self.bytes.extend_from_slice(&size[..size_length]);
        self.bytes.extend_from_slice(&start[..at]);
        self.bytes.extend_from_slice(key.unwrap_or_default());
        self.bytes.extend_from_slice(&middle[..length]);
        self.bytes.extend_from_slice(value);
        self.bytes.push(0); // no headers
        self.records += 1;
        Ok(())
    }

    fn open(&mut self) -> Result<(), Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
        self.bytes.extend((self.partition as i32).to_be_bytes());
        self.bytes.extend([0; LENGTH_SIZE]);
        self.batch = Some(self.bytes.len());
        self.bytes.extend([0; 8 + 4]); // base offset, length
        self.bytes.extend((-1_i32).to_be_bytes()); // leader epoch
        self.bytes.push(2); // magic
        self.bytes.extend([0; 4 + 2 + 4]); // checksum, attributes, last offset's delta
        self.bytes.extend(now.to_be_bytes());
        self.bytes.extend(now.to_be_bytes());
        self.bytes.extend(self.producer.id.to_be_bytes());
        self.bytes.extend(self.producer.epoch.to_be_bytes());
        self.bytes.extend(self.sequences[self.partition].to_be_bytes());
        self.bytes.extend([0; 4]); // count
        Ok(())
    }

    /// Closes the open batch: fills in the rest of its header, and its checksum.
    fn close(&mut self) -> Result<(), Failure> {
        let Some(begin) = self.batch.take() else { return Ok(()) };
        let (records, size) = (mem::take(&mut self.records), self.bytes.len() - begin);
        if size >= MAX_LENGTH {
            return Err(format!("a batch of {size} bytes").into());
        }
        put_padded(&mut self.bytes[begin - LENGTH_SIZE..begin], size + 1);
        let batch = &mut self.bytes[begin..];
        batch[BATCH_LENGTH..BATCH_LENGTH + 4].copy_from_slice(&((size - BATCH_LENGTH - 4) as i32).to_be_bytes());
        batch[CHECKED_FROM + 2..CHECKED_FROM + 6].copy_from_slice(&(records - 1).to_be_bytes());
        batch[BATCH_HEADER - 4..BATCH_HEADER].copy_from_slice(&records.to_be_bytes());
        let checksum = crc_fast::crc32_iscsi(&batch[CHECKED_FROM..]);
        batch[CHECKSUM..CHECKSUM + 4].copy_from_slice(&checksum.to_be_bytes());
        self.bytes.push(0); // no tagged fields
        self.closed.push((self.partition as i32, records));
        let sequence = &mut self.sequences[self.partition];
        // The largest sequence number is followed by 0.
        *sequence = sequence.wrapping_add(records as i32) & i32::MAX;
        self.partition = (self.partition + 1) % self.sequences.len();
        Ok(())
    }

    /// Returns the finished request and its batches, or `None` if there are none.
    pub fn finish(&mut self, correlation: i32) -> Result<Option<(&[u8], Sent)>, Failure> {
        self.close()?;
        if self.closed.is_empty() {
            return Ok(None);
        }
        self.bytes.extend([0; 2]); // no tagged fields, of the topic and of the request
        let length = i32::try_from(self.bytes.len() - 4)?;
        self.bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.bytes[8..12].copy_from_slice(&correlation.to_be_bytes());
        let count = self.head.len() - COUNT_SIZE..self.head.len();
        put_padded(&mut self.bytes[count], self.closed.len() + 1);
        Ok(Some((&self.bytes, mem::take(&mut self.closed))))
    }

    /// Begins the next request, in the same buffer.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.extend_from_slice(&self.head);
    }
}

/// Appends the header of a request (v2), with correlation id 0.
pub fn put_header(bytes: &mut Vec<u8>, key: i16, version: i16) {
    bytes.extend(key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend((CLIENT_ID.len() as i16).to_be_bytes());
    bytes.extend(CLIENT_ID);
    bytes.push(0); // no tagged fields
}

/// Writes a varint in zigzag form; returns its size.
#[inline]
fn put_varint(bytes: &mut [u8], value: i32) -> usize {
    let mut rest = ((value << 1) ^ (value >> 31)) as u32;
    let mut at = 0;
    while rest >= 0x80 {
        bytes[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    bytes[at] = rest as u8;
    at + 1
}

/// Writes an unsigned varint that fills all of these bytes.
fn put_padded(bytes: &mut [u8], value: usize) {
    let last = bytes.len() - 1;
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = (value >> (7 * at)) as u8 & 0x7f | if at < last { 0x80 } else { 0 };
    }
}
