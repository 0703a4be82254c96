//! A record of a poll, borrowed from the batch that it came in.

use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use crate::consumer::buffer::{decoded_batch::DecodedBatch, owned_record::owned_record};
use crate::{
    error::Result,
    record::{ConsumerRecord, Deserializer, Payload, Record, TimestampType, TopicPartition, field_as, from_millis},
    wire::batch::{HeadersIter, RecordView},
};

/// A record, borrowed from the batch that it came in.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    pub(crate) view: RecordView<'a>,
    pub(crate) part: &'a DecodedBatch,
}

impl<'a> RecordRef<'a> {
    /// The topic.
    pub fn topic(&self) -> &'a Arc<str> {
        &self.part.progress.partition().topic
    }

    /// The partition's number.
    pub fn partition(&self) -> i32 {
        self.part.progress.partition().partition
    }

    /// The topic and the partition.
    pub fn topic_partition(&self) -> &'a TopicPartition {
        self.part.progress.partition()
    }

    /// The record's offset in its partition.
    pub fn offset(&self) -> i64 {
        self.view.offset
    }

    /// The leader epoch under which the record's batch was appended, where the broker says it
    /// (KIP-320).
    pub fn leader_epoch(&self) -> Option<i32> {
        Some(self.part.records.header.partition_leader_epoch).filter(|epoch| *epoch >= 0)
    }

    /// Milliseconds since the Unix epoch; −1 where the record has none.
    pub fn timestamp_millis(&self) -> i64 {
        self.view.timestamp
    }

    /// The record's timestamp, `None` where it has none.
    pub fn timestamp(&self) -> Option<SystemTime> {
        (self.view.timestamp >= 0).then(|| from_millis(self.view.timestamp))
    }

    /// Who gave the timestamp.
    pub fn timestamp_type(&self) -> TimestampType {
        self.part.records.header.timestamp_type()
    }

    /// The key, if there is one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.view.key
    }

    /// The value; `None` for a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.view.value
    }

    /// The key as a `T`, which may borrow from the batch; `None` where the record has none.
    ///
    /// # Errors
    /// `Deserialization`, which names the record; it was read all the same, and the next one comes
    /// next.
    pub fn key_as<T>(&self, deserializer: &(impl Deserializer<'a, T> + ?Sized)) -> Result<Option<T>> {
        field_as(deserializer, (self.topic(), self.partition()), self.offset(), true, self.key())
    }

    /// The value as a `T`, which may borrow from the batch; `None` for a tombstone.
    ///
    /// # Errors
    /// As [`key_as`](Self::key_as).
    pub fn value_as<T>(&self, deserializer: &(impl Deserializer<'a, T> + ?Sized)) -> Result<Option<T>> {
        field_as(deserializer, (self.topic(), self.partition()), self.offset(), false, self.value())
    }

    /// The headers in their order; names may repeat.
    pub fn headers(&self) -> RecordHeaders<'a> {
        RecordHeaders(self.view.headers)
    }

    /// The same record on its own, sharing the bytes of its batch: it may be kept, and keeps them
    /// in memory.
    pub fn to_owned(&self) -> ConsumerRecord {
        owned_record(self.part, &self.view)
    }
}

/// As [`Record::forward`] makes it, for the topic that it was read from.
impl<'a> From<RecordRef<'a>> for Record<'a> {
    fn from(record: RecordRef<'a>) -> Self {
        let headers = record.headers().map(|(name, value)| (name, value.map(Payload::from)));
        let key_and_value = (record.key().map(Payload::from), record.value().map(Payload::from));
        Record::copied(record.topic(), record.timestamp_millis(), key_and_value, headers)
    }
}

/// As [`Record::forward`] makes it, for the topic that it was read from.
impl<'a> From<&RecordRef<'a>> for Record<'a> {
    fn from(record: &RecordRef<'a>) -> Self {
        Record::from(*record)
    }
}

impl fmt::Debug for RecordRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordRef")
            .field("partition", self.topic_partition())
            .field("offset", &self.offset())
            .field("timestamp_millis", &self.timestamp_millis())
            .field("key", &self.key().map(<[u8]>::escape_ascii).map(|key| key.to_string()))
            .field("value", &self.value().map(<[u8]>::escape_ascii).map(|value| value.to_string()))
            .finish_non_exhaustive()
    }
}

/// The headers of a record: name and value of each.
#[derive(Clone, Copy, Debug)]
pub struct RecordHeaders<'a>(HeadersIter<'a>);

impl<'a> Iterator for RecordHeaders<'a> {
    /// The name, with U+FFFD for what is not UTF-8; the value, which may be null.
    type Item = (Cow<'a, str>, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        Some((String::from_utf8_lossy(name), value))
    }
}
