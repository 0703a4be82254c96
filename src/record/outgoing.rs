use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use thin_vec::ThinVec;

use super::{
    TopicName, from_millis,
    marks::Marks,
    payload::{Payload, PayloadSlot},
    to_millis,
};

/// A record to be sent: a topic, a value, and optionally a key, headers, a partition, a timestamp
/// and a tag.
///
/// It borrows its parts, so that sending copies each byte once, into the batch. Pass owned values
/// (`String`, `Vec<u8>`, [`Bytes`](bytes::Bytes)) if a record has to outlive its parts.
///
/// ```
/// use ottla::Record;
/// let record = Record::to("orders")
///     .with_key("42")
///     .with_value("shipped")
///     .with_header("trace", "a1b2");
/// assert_eq!(record.topic(), "orders");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Record<'a> {
    // Every call that builds or sends a record moves it. Above 128 bytes the compiler emits a call
    // for a move, and a field of fewer than eight bytes is read back before it is written whole.
    // That is why numbers stand for "none", and why the headers are behind one pointer.
    pub(crate) topic: Cow<'a, str>,
    key: PayloadSlot<'a>,
    value: PayloadSlot<'a>,
    pub(crate) headers: ThinVec<(Cow<'a, str>, Option<Payload<'a>>)>,
    timestamp: i64,
    tag: u64,
    /// An `i32`, or `NO_PARTITION`.
    partition: i64,
    pub(crate) marks: Marks,
}

const _: () = assert!(size_of::<Record<'_>>() <= 128);

/// Stands for the time of `send`. No record in a log has a timestamp this old.
const NO_TIMESTAMP: i64 = i64::MIN;
/// Leaves the choice to the key or the partitioner.
const NO_PARTITION: i64 = i64::MIN;

impl<'a> Record<'a> {
    /// Makes a record for that topic, without a key and a value.
    ///
    /// ```
    /// use ottla::Record;
    ///
    /// let shipped = Record::to("orders").with_key("42").with_value("shipped");
    /// let deleted = Record::to("orders").with_key("42"); // without a value: a tombstone
    /// assert_eq!((shipped.topic(), deleted.value()), ("orders", None));
    /// ```
    #[inline]
    pub fn to(topic: impl TopicName<'a>) -> Self {
        Self {
            topic: topic.into_cow(),
            key: PayloadSlot::NULL,
            value: PayloadSlot::NULL,
            headers: ThinVec::new(),
            timestamp: NO_TIMESTAMP,
            tag: 0,
            partition: NO_PARTITION,
            marks: Marks::default(),
        }
    }

    /// Sets the partition to write to. Without it the key decides, and without a key the producer's
    /// partitioner.
    #[inline]
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.set_partition(Some(partition));
        self
    }

    /// Sets the key: records of one key go to one partition, in order.
    ///
    /// ```
    /// use ottla::Record;
    ///
    /// let id = 42_u32.to_be_bytes();
    /// let number = Record::to("orders").with_key(&id).with_value("shipped");
    /// let text = Record::to("orders").with_key("42").with_value("shipped");
    /// assert_eq!((number.key(), text.key()), (Some(&id[..]), Some(&b"42"[..])));
    /// ```
    #[inline]
    pub fn with_key(mut self, key: impl Into<Payload<'a>>) -> Self {
        self.key = key.into().0;
        self
    }

    /// Sets the value. A record without a value is a tombstone: it deletes its key from a compacted
    /// topic.
    #[inline]
    pub fn with_value(mut self, value: impl Into<Payload<'a>>) -> Self {
        self.value = value.into().0;
        self
    }

    /// Adds a header. Headers keep their order, and names may repeat.
    ///
    /// ```
    /// use ottla::Record;
    ///
    /// let record = Record::to("orders").with_value("shipped").with_header("trace", "a1b2");
    /// assert!(record.headers().eq([("trace", Some(&b"a1b2"[..]))]));
    /// ```
    pub fn with_header(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Payload<'a>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header with a null value.
    pub fn with_null_header(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// Sets the timestamp of the record. Default: the time of `send`. A record that is sent
    /// microseconds after others of its thread may get the timestamp of one of those, which is
    /// older by less than a tick of the system's timer (1 to 10 ms).
    pub fn with_timestamp(self, at: SystemTime) -> Self {
        self.with_timestamp_millis(to_millis(at))
    }

    /// Sets the timestamp of the record, in milliseconds since the Unix epoch.
    #[inline]
    pub fn with_timestamp_millis(mut self, millis: i64) -> Self {
        self.set_timestamp_millis(Some(millis));
        self
    }

    /// Sets a number by which the program recognizes the record in its report: it comes back as
    /// [`DeliveryReport::tag`](crate::producer::DeliveryReport::tag) and is not sent to Kafka.
    /// Default: none.
    #[inline]
    pub fn with_tag(mut self, tag: u64) -> Self {
        self.set_tag(Some(tag));
        self
    }

    /// Returns the topic.
    #[inline]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Converts the record into one that owns all of its parts.
    pub fn into_owned(self) -> Record<'static> {
        Record {
            topic: Cow::Owned(self.topic.into_owned()),
            key: self.key.into_owned(),
            value: self.value.into_owned(),
            headers: self
                .headers
                .into_iter()
                .map(|(name, value)| (Cow::Owned(name.into_owned()), value.map(Payload::into_owned)))
                .collect(),
            timestamp: self.timestamp,
            tag: self.tag,
            partition: self.partition,
            marks: self.marks,
        }
    }

    /// Returns the bytes of the key.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_slice()
    }

    /// Returns the bytes of the value.
    #[inline]
    pub fn value(&self) -> Option<&[u8]> {
        self.value.as_slice()
    }

    /// Replaces the key.
    pub fn set_key(&mut self, key: Option<Payload<'a>>) {
        self.key = key.map_or(PayloadSlot::NULL, |key| key.0);
    }

    /// Replaces the value; a record without one is a tombstone.
    pub fn set_value(&mut self, value: Option<Payload<'a>>) {
        self.value = value.map_or(PayloadSlot::NULL, |value| value.0);
    }

    /// Returns the requested partition, if there is one.
    #[inline]
    pub fn partition(&self) -> Option<i32> {
        i32::try_from(self.partition).ok()
    }

    /// Returns the timestamp in milliseconds since the Unix epoch, if one was set.
    #[inline]
    pub fn timestamp_millis(&self) -> Option<i64> {
        (self.timestamp != NO_TIMESTAMP).then_some(self.timestamp)
    }

    /// Returns the tag, the number that its report will carry.
    #[inline]
    pub fn tag(&self) -> Option<u64> {
        self.marks.has_tag().then_some(self.tag)
    }

    /// Sets the partition; `None` leaves the choice to the key and the partitioner.
    #[inline]
    pub fn set_partition(&mut self, partition: Option<i32>) {
        self.partition = partition.map_or(NO_PARTITION, i64::from);
    }

    /// Replaces the timestamp, in milliseconds since the Unix epoch; `None` stands for the time of
    /// `send`.
    #[inline]
    pub fn set_timestamp_millis(&mut self, millis: Option<i64>) {
        self.timestamp = millis.map_or(NO_TIMESTAMP, |millis| millis.max(NO_TIMESTAMP + 1));
    }

    /// Replaces the tag, the number that its report will carry, see [`tag`](Self::tag).
    #[inline]
    pub fn set_tag(&mut self, tag: Option<u64>) {
        self.marks.set_has_tag(tag.is_some());
        self.tag = tag.unwrap_or(0);
    }

    /// Returns the headers in their order; a value may be null.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (&**name, value.as_ref().map(Payload::as_slice)))
    }

    /// Changes the topic of the record.
    pub fn set_topic(&mut self, topic: impl TopicName<'a>) {
        self.topic = topic.into_cow();
    }

    /// Appends a header; existing headers of the same name stay.
    pub fn add_header(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Payload<'a>>) {
        self.headers.push((name.into(), Some(value.into())));
    }

    /// Removes all headers of that name. Returns the number of removed headers.
    pub fn remove_headers(&mut self, name: &str) -> usize {
        let before = self.headers.len();
        self.headers.retain(|(there, _)| there != name);
        before - self.headers.len()
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("topic", &self.topic)
            .field("partition", &self.partition())
            .field("key", &self.key)
            .field("value", &self.value)
            .field("headers", &self.headers)
            .field("timestamp", &self.timestamp_millis())
            .field("tag", &self.tag())
            .finish()
    }
}

/// The position of an acknowledged record in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The record's offset. `None` if the broker does not return it: with `acks=0`, and if it
    /// already had the record from an earlier attempt.
    pub offset: Option<i64>,
    /// The record's timestamp in milliseconds since the Unix epoch: the producer's, or the broker's
    /// if the topic has `message.timestamp.type=LogAppendTime`.
    pub timestamp_millis: i64,
}

impl RecordMetadata {
    /// Returns the record's timestamp.
    pub fn timestamp(&self) -> SystemTime {
        from_millis(self.timestamp_millis)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn setters_replace_every_field_of_record() {
        let mut record =
            Record::to("a").with_partition(1).with_key("k").with_value("v").with_header("x", "1").with_header("y", "2");
        record.add_header("x", String::from("3"));
        assert_eq!(record.remove_headers("y"), 1);
        assert_eq!(record.remove_headers("z"), 0);
        let headers: Vec<_> = record.headers().collect();
        assert_eq!(headers, [("x", Some(&b"1"[..])), ("x", Some(&b"3"[..]))]);
        assert_eq!((record.partition(), record.key()), (Some(1), Some(&b"k"[..])));
        record.set_topic(String::from("b"));
        record.set_partition(None);
        record.set_key(None);
        record.set_value(Some("w".into()));
        record.set_timestamp_millis(Some(i64::MIN));
        assert_eq!(record.timestamp_millis(), Some(i64::MIN + 1), "the nearest value that does not stand for none");
        record.set_timestamp_millis(Some(7));
        record.set_tag(Some(9));
        assert_eq!((record.timestamp_millis(), record.tag()), (Some(7), Some(9)));
        let expected = Record::to("b")
            .with_value("w")
            .with_header("x", "1")
            .with_header("x", "3")
            .with_timestamp_millis(7)
            .with_tag(9);
        assert_eq!(record, expected);
        record.marks.set_seen_by(NonZeroU32::new(4));
        assert_eq!((record.marks.seen_by(), record.tag()), (NonZeroU32::new(4), Some(9)));
        assert_eq!(record, expected, "the producer that has seen a record is not part of it");
    }
}
