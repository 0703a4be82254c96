//! A record of a poll, borrowed from the batch that it came in.

use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use crate::consumer::buffer::{
    fetched_batch::{DecodedRecords, FetchedBatch},
    owned_record::owned_record,
};
use crate::{
    error::Result,
    record::{ConsumerRecord, Deserializer, Payload, Record, TimestampType, TopicPartition, field_as, from_millis},
    wire::batch::{HeadersIter, RecordView},
};

/// A record, borrowed from the batch that it came in.
#[derive(Clone, Copy)]
pub struct RecordRef<'a> {
    pub(crate) view: RecordView<'a>,
    pub(crate) batch: &'a FetchedBatch<DecodedRecords>,
}

impl<'a> RecordRef<'a> {
    /// Returns the topic.
    pub fn topic(&self) -> &'a Arc<str> {
        &self.batch.progress.partition().topic
    }

    /// Returns the partition's number.
    pub fn partition(&self) -> i32 {
        self.batch.progress.partition().partition
    }

    /// Returns the topic and the partition.
    pub fn topic_partition(&self) -> &'a TopicPartition {
        self.batch.progress.partition()
    }

    /// Returns the record's offset in its partition.
    pub fn offset(&self) -> i64 {
        self.view.offset
    }

    /// Returns the leader epoch under which the record's batch was appended, if the broker sends it
    /// (KIP-320).
    pub fn leader_epoch(&self) -> Option<i32> {
        Some(self.batch.content.records.header.partition_leader_epoch).filter(|epoch| *epoch >= 0)
    }

    /// Returns the timestamp in milliseconds since the Unix epoch; −1 if the record has none.
    pub fn timestamp_millis(&self) -> i64 {
        self.view.timestamp
    }

    /// Returns the record's timestamp; `None` if it has none.
    pub fn timestamp(&self) -> Option<SystemTime> {
        (self.view.timestamp >= 0).then(|| from_millis(self.view.timestamp))
    }

    /// Returns the source of the timestamp: the producer or the broker.
    pub fn timestamp_type(&self) -> TimestampType {
        self.batch.content.records.header.timestamp_type()
    }

    /// Returns the key, if there is one.
    pub fn key(&self) -> Option<&'a [u8]> {
        self.view.key
    }

    /// Returns the value; `None` for a tombstone.
    pub fn value(&self) -> Option<&'a [u8]> {
        self.view.value
    }

    /// Returns the key as a `T`, which may borrow from the batch; `None` if the record has none.
    ///
    /// # Errors
    /// `Deserialization`, which names the record. The record counts as read all the same, so
    /// reading continues with the next one.
    pub fn key_as<T>(&self, deserializer: &(impl Deserializer<'a, T> + ?Sized)) -> Result<Option<T>> {
        field_as(deserializer, (self.topic(), self.partition()), self.offset(), true, self.key())
    }

    /// Returns the value as a `T`, which may borrow from the batch; `None` for a tombstone.
    ///
    /// # Errors
    /// Those of [`key_as`](Self::key_as).
    pub fn value_as<T>(&self, deserializer: &(impl Deserializer<'a, T> + ?Sized)) -> Result<Option<T>> {
        field_as(deserializer, (self.topic(), self.partition()), self.offset(), false, self.value())
    }

    /// Iterates over the headers in their order; names may repeat.
    pub fn headers(&self) -> RecordHeaders<'a> {
        RecordHeaders(self.view.headers)
    }

    /// Returns an owned copy of the record that shares the bytes of its batch: it may be kept, and
    /// keeps these bytes in memory.
    pub fn to_owned(&self) -> ConsumerRecord {
        owned_record(&self.batch.progress, &self.batch.content, &self.view)
    }
}

/// Copies the record for the topic that it was read from, like [`Record::forward`].
impl<'a> From<RecordRef<'a>> for Record<'a> {
    fn from(record: RecordRef<'a>) -> Self {
        let headers = record.headers().map(|(name, value)| (name, value.map(Payload::from)));
        let key_and_value = (record.key().map(Payload::from), record.value().map(Payload::from));
        Record::copied(record.topic(), record.timestamp_millis(), key_and_value, headers)
    }
}

/// Copies the record for the topic that it was read from, like [`Record::forward`].
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
    /// The name, with U+FFFD for bytes that are not UTF-8; the value, which may be null.
    type Item = (Cow<'a, str>, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        Some((String::from_utf8_lossy(name), value))
    }
}
