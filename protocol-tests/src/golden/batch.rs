//! Record batches for Kafka to write, and those that it read.

use std::fmt::Write as _;

use super::{garbled, hex, unhex};
use crate::error::Error;
use crate::message::Message;

/// Compression of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// All codecs, for tests that iterate over them.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// Returns the name in Kafka's settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// The clock from which a batch's timestamps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timestamps {
    /// No timestamps: formats before 0.10.
    None,
    /// The producer's clock, with a timestamp for each record.
    #[default]
    Create,
    /// The broker's clock, with this time in milliseconds for the whole batch.
    Append(i64),
}

/// A batch for Kafka to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The format: 2, or the old 0 and 1.
    pub magic: i8,
    /// The compression.
    pub codec: Codec,
    /// The first record's offset; the others follow.
    pub base_offset: i64,
    /// The clock of the timestamps.
    pub timestamps: Timestamps,
    /// The producer's id; -1 for none.
    pub producer_id: i64,
    /// The producer's epoch; -1 for none.
    pub producer_epoch: i16,
    /// The first record's sequence number; -1 for none.
    pub base_sequence: i32,
    /// True if it is part of a transaction.
    pub transactional: bool,
    /// The leader's epoch; -1 for none.
    pub leader_epoch: i32,
    /// Records with their timestamps in milliseconds.
    pub records: Vec<(i64, Message)>,
}

impl Batch {
    /// Creates an empty batch of format 2 without an idempotent producer.
    pub fn new(codec: Codec) -> Self {
        Self {
            magic: 2,
            codec,
            base_offset: 0,
            timestamps: Timestamps::Create,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            transactional: false,
            leader_epoch: -1,
            records: Vec::new(),
        }
    }

    /// Adds a record.
    #[must_use]
    pub fn record(mut self, timestamp: i64, message: Message) -> Self {
        self.records.push((timestamp, message));
        self
    }

    pub(super) fn question(&self) -> String {
        let (timestamps, append) = match self.timestamps {
            Timestamps::None => ("NoTimestampType", -1),
            Timestamps::Create => ("CreateTime", -1),
            Timestamps::Append(at) => ("LogAppendTime", at),
        };
        let mut question = format!(
            "batch\t{}\t{}\t{}\t{timestamps}\t{append}\t{}\t{}\t{}\t{}\t{}",
            self.magic,
            self.codec.name(),
            self.base_offset,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.transactional,
            self.leader_epoch,
        );
        for (timestamp, Message { key, value, headers }) in &self.records {
            let _ = write!(question, "\t{timestamp},{},{}", hex(key.as_deref()), hex(value.as_deref()));
            for (name, value) in headers {
                let _ = write!(question, ",{}:{}", hex(Some(name.as_bytes())), hex(value.as_deref()));
            }
        }
        question
    }
}

/// A batch that Kafka read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadBatch {
    /// The format.
    pub magic: i8,
    /// The compression, as in Kafka's settings.
    pub codec: String,
    /// The first offset.
    pub base_offset: i64,
    /// The last offset.
    pub last_offset: i64,
    /// The kind of timestamps: `CreateTime`, `LogAppendTime` or `NoTimestampType`.
    pub timestamps: String,
    /// The highest timestamp in milliseconds; -1 for none.
    pub max_timestamp: i64,
    /// The producer's id; -1 for none.
    pub producer_id: i64,
    /// The producer's epoch; -1 for none.
    pub producer_epoch: i16,
    /// The first record's sequence number; -1 for none.
    pub base_sequence: i32,
    /// True if it is part of a transaction.
    pub transactional: bool,
    /// True if it is a commit or abort marker.
    pub control: bool,
    /// The leader's epoch; -1 for none.
    pub leader_epoch: i32,
    /// The size in bytes.
    pub size: usize,
    /// Its records.
    pub records: Vec<ReadRecord>,
}

/// One record of a [`ReadBatch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadRecord {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp in milliseconds; -1 for none.
    pub timestamp: i64,
    /// Key, value and headers.
    pub message: Message,
}

/// Parses the lines of Golden.java's response: each batch's, followed by its records'.
pub(super) fn read(lines: &[String]) -> Result<Vec<ReadBatch>, Error> {
    let mut batches: Vec<ReadBatch> = Vec::new();
    for line in lines {
        let mut fields = line.split('\t');
        let understood = match fields.next() {
            Some("batch") => read_batch(fields).map(|batch| batches.push(batch)),
            Some("record") => {
                batches.last_mut().and_then(|batch| read_record(fields).map(|record| batch.records.push(record)))
            }
            _ => None,
        };
        understood.ok_or_else(|| garbled(line))?;
    }
    Ok(batches)
}

fn read_batch<'a>(mut fields: impl Iterator<Item = &'a str>) -> Option<ReadBatch> {
    Some(ReadBatch {
        magic: fields.next()?.parse().ok()?,
        codec: fields.next()?.to_owned(),
        base_offset: fields.next()?.parse().ok()?,
        last_offset: fields.next()?.parse().ok()?,
        timestamps: fields.next()?.to_owned(),
        max_timestamp: fields.next()?.parse().ok()?,
        producer_id: fields.next()?.parse().ok()?,
        producer_epoch: fields.next()?.parse().ok()?,
        base_sequence: fields.next()?.parse().ok()?,
        transactional: fields.next()?.parse().ok()?,
        control: fields.next()?.parse().ok()?,
        leader_epoch: fields.next()?.parse().ok()?,
        size: fields.next()?.parse().ok()?,
        records: Vec::new(),
    })
}

fn read_record<'a>(mut fields: impl Iterator<Item = &'a str>) -> Option<ReadRecord> {
    let offset = fields.next()?.parse().ok()?;
    let timestamp = fields.next()?.parse().ok()?;
    let key = unhex(fields.next()?).ok()?;
    let value = unhex(fields.next()?).ok()?;
    let headers = fields
        .map(|header| {
            let (name, value) = header.split_once(':')?;
            Some((String::from_utf8(unhex(name).ok()??).ok()?, unhex(value).ok()?))
        })
        .collect::<Option<_>>()?;
    Some(ReadRecord { offset, timestamp, message: Message { key, value, headers } })
}
