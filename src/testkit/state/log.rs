//! The log of one partition: the batches as the producer sent them, with the base offset and leader
//! epoch filled in.
//!
//! Sans-IO.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;

use super::transactions::Transactions;
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    record::{ConsumerRecord, Header, TimestampType},
    wire::batch::{BatchHeader, Batches, ControlRecord, Decompressor},
};

/// Maximum decompressed size of a batch that the testkit itself reads, in bytes.
const DECOMPRESSED_LIMIT: usize = 256 * 1024 * 1024;

#[derive(Debug)]
struct Stored {
    base_offset: i64,
    last_offset: i64,
    max_timestamp: i64,
    bytes: Bytes,
    /// True if the broker can no longer read the batch.
    unreadable: bool,
}

/// A log in memory. Everything in it is committed: the high watermark is the end.
#[derive(Debug, Default)]
pub(crate) struct Log {
    start: i64,
    end: i64,
    batches: VecDeque<Stored>,
    /// The first offset of each leader epoch that the log knows (KIP-101).
    epochs: Vec<(i32, i64)>,
    transactions: Transactions,
}

/// A record's timestamp and offset, as ListOffsets returns them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimedOffset {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
    pub(crate) leader_epoch: i32,
}

impl Log {
    /// Returns the first offset that is still in the log.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// Returns the offset that the next record gets, which is also the high watermark.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Returns the first offset of the first open transaction, or the end: readers of committed
    /// records do not read beyond it.
    pub(crate) fn last_stable(&self) -> i64 {
        self.transactions.first_unstable().map_or(self.end, |first| first.max(self.start))
    }

    /// Returns the log's transactions.
    pub(crate) fn transactions(&self) -> &Transactions {
        &self.transactions
    }

    /// Begins the epoch of a new leader.
    pub(crate) fn begin_epoch(&mut self, epoch: i32) {
        if self.epochs.last().is_none_or(|&(last, _)| epoch > last) {
            // An epoch in which nothing was written leaves no entry, as in Kafka's checkpoint.
            self.epochs.retain(|&(_, start)| start < self.end);
            self.epochs.push((epoch, self.end));
        }
    }

    /// Appends a batch that was checked before and returns its base offset. The bytes are copied,
    /// so that a batch does not keep the whole request alive that it came in. `append_time` is set
    /// if the topic uses the broker's time.
    pub(crate) fn append(
        &mut self,
        batch: &[u8],
        header: &BatchHeader,
        epoch: i32,
        append_time: Option<i64>,
    ) -> Result<i64> {
        let marker = if header.is_control() { Some(marker_in(batch)?) } else { None };
        let mut bytes = batch.to_vec();
        let base_offset = self.end;
        BatchHeader::place(&mut bytes, base_offset, epoch, append_time)?;
        let last_offset = base_offset + i64::from(header.last_offset_delta);
        self.batches.push_back(Stored {
            base_offset,
            last_offset,
            max_timestamp: append_time.unwrap_or(header.max_timestamp),
            bytes: bytes.into(),
            unreadable: false,
        });
        self.end = last_offset + 1;
        match marker {
            Some(marker) => {
                let aborted = matches!(marker, ControlRecord::Abort { .. });
                self.transactions.ended(header.producer_id, base_offset, aborted);
            }
            None if header.is_transactional() => self.transactions.appended(header.producer_id, base_offset),
            None => {}
        }
        Ok(base_offset)
    }

    /// Makes the batch that holds `offset` unreadable; returns true if there is one.
    pub(crate) fn spoil_batch(&mut self, offset: i64) -> bool {
        let at = self.index_of(offset);
        let found = self.batches.get_mut(at).filter(|stored| stored.base_offset <= offset);
        found.map(|stored| stored.unreadable = true).is_some()
    }

    /// Removes the batch that holds `offset`, as compaction does; returns true if there was one.
    /// The log keeps its record of the batch's transaction.
    pub(crate) fn lose_batch(&mut self, offset: i64) -> bool {
        let at = self.index_of(offset);
        let there = self.batches.get(at).is_some_and(|stored| stored.base_offset <= offset);
        if there {
            self.batches.remove(at);
        }
        there
    }

    /// Appends bytes as they are, as a batch of `records` records, with the base offset written
    /// into them; returns the base offset.
    pub(crate) fn append_raw(&mut self, mut bytes: Vec<u8>, records: u32) -> i64 {
        let base_offset = self.end;
        for (byte, right) in bytes.iter_mut().zip(base_offset.to_be_bytes()) {
            *byte = right;
        }
        self.end = base_offset + i64::from(records);
        let (last_offset, max_timestamp) = (self.end - 1, -1);
        let unreadable = false;
        self.batches.push_back(Stored { base_offset, last_offset, max_timestamp, bytes: bytes.into(), unreadable });
        base_offset
    }

    /// Returns whole batches from the one that holds `offset`, up to `max_bytes`, but at least one
    /// if `at_least_one` is set (KIP-74). `end` is the end of the replica's copy, and `readable`
    /// the offset before which the reader may read. `Err` if `offset` is outside of the copy.
    pub(crate) fn read(
        &self,
        offset: i64,
        end: i64,
        readable: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Slice, ErrorCode> {
        if offset < self.start || offset > end.min(self.end) {
            return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
        }
        let mut slice = Slice { end: offset, ..Slice::default() };
        let there = self.batches.range(self.index_of(offset)..).take_while(|stored| stored.last_offset < readable);
        for stored in there {
            if stored.unreadable && slice.batches.is_empty() {
                return Err(ErrorCode::CORRUPT_MESSAGE);
            }
            if stored.unreadable {
                break;
            }
            let first = at_least_one && slice.batches.is_empty();
            if !first && slice.size + stored.bytes.len() > max_bytes {
                break;
            }
            slice.size += stored.bytes.len();
            slice.end = stored.last_offset + 1;
            slice.batches.push(stored.bytes.clone());
        }
        Ok(slice)
    }

    /// Returns the first record with a timestamp that is not before `timestamp` (KIP-79).
    pub(crate) fn at_time(&self, timestamp: i64) -> Result<Option<TimedOffset>> {
        for stored in &self.batches {
            if stored.max_timestamp < timestamp || stored.last_offset < self.start {
                continue;
            }
            let mut found = None;
            each_record(&stored.bytes, &mut |header, offset, time| {
                if found.is_none() && time >= timestamp && offset >= self.start {
                    found = Some(TimedOffset { offset, timestamp: time, leader_epoch: header.partition_leader_epoch });
                }
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Returns the first of the records with the highest timestamp (KIP-734).
    pub(crate) fn at_max_time(&self) -> Result<Option<TimedOffset>> {
        match self.batches.iter().map(|stored| stored.max_timestamp).max() {
            Some(max) => self.at_time(max),
            None => Ok(None),
        }
    }

    /// Returns the newest epoch not above `epoch`, and its end offset (KIP-320); `None` if the log
    /// does not know it.
    pub(crate) fn end_of_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        let &(latest, _) = self.epochs.last()?;
        if epoch == latest {
            return Some((epoch, self.end));
        }
        let next = self.epochs.iter().position(|&(known, _)| known > epoch)?;
        let &(_, end) = self.epochs.get(next)?;
        match next.checked_sub(1).and_then(|floor| self.epochs.get(floor)) {
            Some(&(floor, _)) => Some((floor, end)),
            None => Some((epoch, end)),
        }
    }

    /// Returns the epoch in which `offset` was written.
    pub(crate) fn epoch_at(&self, offset: i64) -> i32 {
        self.epochs.iter().rev().find(|&&(_, start)| start <= offset).map_or(-1, |&(epoch, _)| epoch)
    }

    /// Removes everything from `offset` on, and the whole of a batch that `offset` cuts through.
    /// Returns the new end.
    pub(crate) fn truncate(&mut self, offset: i64) -> i64 {
        while self.batches.back().is_some_and(|stored| stored.last_offset >= offset) {
            if let Some(stored) = self.batches.pop_back() {
                self.end = stored.base_offset;
            }
        }
        self.end = self.end.min(offset.max(0));
        self.start = self.start.min(self.end);
        self.epochs.retain(|&(_, start)| start < self.end);
        self.transactions.truncated(self.end);
        self.end
    }

    /// Removes the records before `offset`, as DeleteRecords and retention do. Returns the new
    /// start.
    pub(crate) fn delete_before(&mut self, offset: i64) -> i64 {
        self.start = self.start.max(offset.min(self.end));
        while self.batches.front().is_some_and(|stored| stored.last_offset < self.start) {
            self.batches.pop_front();
        }
        self.transactions.deleted_before(self.start);
        self.start
    }

    /// Returns every record, decoded.
    pub(crate) fn records(&self, topic: &Arc<str>, partition: i32) -> Result<Vec<ConsumerRecord>> {
        let mut out = Vec::new();
        let mut decompressor = Decompressor::default();
        for stored in &self.batches {
            for batch in Batches::new(stored.bytes.clone()) {
                let records = batch?.records(&mut decompressor, DECOMPRESSED_LIMIT)?;
                let header = records.header;
                for record in records.iter() {
                    let record = record?;
                    if record.offset < self.start || header.is_control() {
                        continue;
                    }
                    out.push(ConsumerRecord {
                        topic: topic.clone(),
                        partition,
                        offset: record.offset,
                        leader_epoch: Some(header.partition_leader_epoch),
                        timestamp_millis: timestamp_of(&header, record.timestamp),
                        timestamp_type: header.timestamp_type(),
                        key: record.key.map(|key| records.share(key)),
                        value: record.value.map(|value| records.share(value)),
                        headers: record
                            .headers
                            .map(|(name, value)| Header {
                                name: String::from_utf8_lossy(name).into_owned(),
                                value: value.map(|value| records.share(value)),
                            })
                            .collect(),
                    });
                }
            }
        }
        Ok(out)
    }

    fn index_of(&self, offset: i64) -> usize {
        self.batches.partition_point(|stored| stored.last_offset < offset)
    }
}

/// Returns the control record of a control batch.
fn marker_in(batch: &[u8]) -> Result<ControlRecord> {
    let none = || Error::new(ErrorKind::Corrupt, "a control batch without a record");
    let batch = Batches::new(Bytes::copy_from_slice(batch)).next().ok_or_else(none)??;
    let records = batch.records(&mut Decompressor::default(), DECOMPRESSED_LIMIT)?;
    ControlRecord::parse(&records.iter().next().ok_or_else(none)??)
}

/// The result of [`Log::read`]: whole batches, shared with the log.
#[derive(Debug, Default)]
pub(crate) struct Slice {
    pub(crate) batches: Vec<Bytes>,
    pub(crate) size: usize,
    /// The offset behind the last batch; the offset at which the reading began if there are none.
    pub(crate) end: i64,
}

/// Calls `see` with every record of some batches; returns the number of batches.
pub(crate) fn each_record(batches: &Bytes, see: &mut dyn FnMut(&BatchHeader, i64, i64)) -> Result<usize> {
    let mut decompressor = Decompressor::default();
    let mut count = 0;
    for batch in Batches::new(batches.clone()) {
        let records = batch?.records(&mut decompressor, DECOMPRESSED_LIMIT)?;
        for record in records.iter() {
            let record = record?;
            see(&records.header, record.offset, timestamp_of(&records.header, record.timestamp));
            count += 1;
        }
    }
    Ok(count)
}

/// With LogAppendTime the batch's maximum timestamp applies to every record in it.
fn timestamp_of(header: &BatchHeader, timestamp: i64) -> i64 {
    match header.timestamp_type() {
        TimestampType::LogAppendTime => header.max_timestamp,
        TimestampType::CreateTime => timestamp,
    }
}
