use std::{sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{TimestampType, TopicPartition, from_millis};

/// A record that was read, with its parts owned.
///
/// Key, value and headers are slices of the fetch response: the response stays in memory as long as
/// one of them does. Use [`detach`](Self::detach) for a record that is kept for long.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerRecord {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The record's offset in its partition.
    pub offset: i64,
    /// The leader epoch under which the record's batch was appended, if the broker sends it
    /// (KIP-320).
    pub leader_epoch: Option<i32>,
    /// Milliseconds since the Unix epoch; −1 if the record has no timestamp.
    pub timestamp_millis: i64,
    /// The origin of the timestamp: the producer or the broker.
    pub timestamp_type: TimestampType,
    /// The key, if there is one.
    pub key: Option<Bytes>,
    /// The value; `None` for a tombstone.
    pub value: Option<Bytes>,
    /// The headers in their order; names may repeat.
    pub headers: Vec<Header>,
}

/// A header of a record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// The name; bytes that are not UTF-8 are replaced by U+FFFD.
    pub name: String,
    /// The value, which may be null.
    pub value: Option<Bytes>,
}

impl ConsumerRecord {
    /// Returns the record's timestamp, or `None` if it has none.
    pub fn timestamp(&self) -> Option<SystemTime> {
        (self.timestamp_millis >= 0).then(|| from_millis(self.timestamp_millis))
    }

    /// Returns the partition that the record was read from.
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition { topic: self.topic.clone(), partition: self.partition }
    }

    /// Returns the record's approximate size in memory: its bytes, and the structures around them.
    pub(crate) fn size(&self) -> usize {
        let bytes = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter().map(|header| size_of::<Header>() + header.name.len() + bytes(&header.value));
        size_of::<Self>() + bytes(&self.key) + bytes(&self.value) + headers.sum::<usize>()
    }

    /// Copies the bytes of the record, so that it does not keep a whole response in memory.
    pub fn detach(mut self) -> Self {
        let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
        self.key = self.key.map(copy);
        self.value = self.value.map(copy);
        for header in &mut self.headers {
            header.value = header.value.take().map(copy);
        }
        self
    }
}
