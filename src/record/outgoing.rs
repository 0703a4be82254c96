use std::{borrow::Cow, fmt, sync::Arc, time::SystemTime};

use bytes::Bytes;
use thin_vec::ThinVec;

use super::{Marks, TopicName, from_millis, to_millis};

/// A record to be sent: a topic, a value, and what else there is to say.
///
/// It borrows what it is given, so that sending copies each byte once, into the batch; give owned
/// values (`String`, `Vec<u8>`, [`Bytes`]) where a record has to live longer than its parts.
///
/// ```
/// use ottla::Record;
/// let record = Record::to("orders").with_key("42").with_value("shipped").with_header("trace", "a1b2");
/// assert_eq!(record.topic(), "orders");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Record<'a> {
    // Every call that builds or sends a record moves it. Above 128 bytes a move is a call of its
    // own, and fields of fewer than eight bytes are read back before they are written whole: hence
    // the numbers that stand for "none", and the headers behind one pointer.
    pub(crate) topic: Cow<'a, str>,
    key: PayloadSlot<'a>,
    value: PayloadSlot<'a>,
    pub(crate) headers: ThinVec<(Cow<'a, str>, Option<Payload<'a>>)>,
    timestamp: i64,
    tag: u64,
    /// Of 32 bits, or `NO_PARTITION`.
    partition: i64,
    pub(crate) marks: Marks,
}

const _: () = assert!(size_of::<Record<'_>>() <= 128);

/// The time of `send`. No log goes back so far.
const NO_TIMESTAMP: i64 = i64::MIN;
/// Whichever the key or the partitioner gives.
const NO_PARTITION: i64 = i64::MIN;

impl<'a> Record<'a> {
    /// A record for that topic, with neither key nor value yet.
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

    /// The partition to write to. Without it the key decides, and without a key the producer's
    /// partitioner.
    #[inline]
    pub fn with_partition(mut self, partition: i32) -> Self {
        self.set_partition(Some(partition));
        self
    }

    /// The key: records of one key go to one partition, in order.
    #[inline]
    pub fn with_key(mut self, key: impl Into<Payload<'a>>) -> Self {
        self.key = key.into().0;
        self
    }

    /// The value. A record without one is a tombstone: it deletes its key from a compacted topic.
    #[inline]
    pub fn with_value(mut self, value: impl Into<Payload<'a>>) -> Self {
        self.value = value.into().0;
        self
    }

    /// Adds a header. Headers keep their order, and names may repeat.
    pub fn with_header(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Payload<'a>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header whose value is null.
    pub fn with_null_header(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// When the record came into being; the time of `send` if not set. A record that is sent
    /// microseconds after others of its thread may get theirs, which is older by less than a tick
    /// of the system's timer (1 to 10 ms).
    pub fn with_timestamp(self, at: SystemTime) -> Self {
        self.with_timestamp_millis(to_millis(at))
    }

    /// When the record came into being, in milliseconds since the Unix epoch.
    #[inline]
    pub fn with_timestamp_millis(mut self, millis: i64) -> Self {
        self.set_timestamp_millis(Some(millis));
        self
    }

    /// A number of your own by which to know the record again in its report: it comes back as
    /// [`DeliveryReport::tag`](crate::producer::DeliveryReport::tag) and is not sent to Kafka. Default: none.
    #[inline]
    pub fn with_tag(mut self, tag: u64) -> Self {
        self.set_tag(Some(tag));
        self
    }

    /// The topic that the record is for.
    #[inline]
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The same record, owning all of its parts.
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

    /// The key's bytes.
    #[inline]
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_slice()
    }

    /// The value's bytes.
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

    /// The partition that was asked for.
    #[inline]
    pub fn partition(&self) -> Option<i32> {
        i32::try_from(self.partition).ok()
    }

    /// The timestamp that was given, in milliseconds since the Unix epoch.
    #[inline]
    pub fn timestamp_millis(&self) -> Option<i64> {
        (self.timestamp != NO_TIMESTAMP).then_some(self.timestamp)
    }

    /// The number under which its result is reported.
    #[inline]
    pub fn tag(&self) -> Option<u64> {
        self.marks.has_tag().then_some(self.tag)
    }

    /// Asks for a partition, or leaves the choice to the key and the partitioner.
    #[inline]
    pub fn set_partition(&mut self, partition: Option<i32>) {
        self.partition = partition.map_or(NO_PARTITION, i64::from);
    }

    /// Replaces the timestamp, in milliseconds since the Unix epoch; `None` for the time of `send`.
    #[inline]
    pub fn set_timestamp_millis(&mut self, millis: Option<i64>) {
        self.timestamp = millis.map_or(NO_TIMESTAMP, |millis| millis.max(NO_TIMESTAMP + 1));
    }

    /// Replaces the number under which its result is reported, see [`tag`](Self::tag).
    #[inline]
    pub fn set_tag(&mut self, tag: Option<u64>) {
        self.marks.set_has_tag(tag.is_some());
        self.tag = tag.unwrap_or(0);
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

/// The bytes of a key, a value or a header: borrowed or owned, from text or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'a>(PayloadSlot<'a>);

/// A payload or none, in no more room than a payload takes.
#[derive(Clone)]
enum PayloadSlot<'a> {
    Slice(Option<&'a [u8]>),
    Bytes(Bytes),
}

impl PayloadSlot<'_> {
    const NULL: Self = PayloadSlot::Slice(None);

    #[inline]
    fn as_slice(&self) -> Option<&[u8]> {
        match self {
            PayloadSlot::Slice(slice) => *slice,
            PayloadSlot::Bytes(bytes) => Some(bytes),
        }
    }

    fn into_owned(self) -> PayloadSlot<'static> {
        match self {
            PayloadSlot::Slice(None) => PayloadSlot::NULL,
            PayloadSlot::Slice(Some(slice)) => PayloadSlot::Bytes(Bytes::copy_from_slice(slice)),
            PayloadSlot::Bytes(bytes) => PayloadSlot::Bytes(bytes),
        }
    }
}

impl PartialEq for PayloadSlot<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for PayloadSlot<'_> {}

impl fmt::Debug for PayloadSlot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.as_slice() {
            Some(bytes) => Bytes::copy_from_slice(bytes).fmt(f),
            None => f.write_str("null"),
        }
    }
}

impl Payload<'_> {
    /// The bytes themselves.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice().unwrap_or_default()
    }

    fn into_owned(self) -> Payload<'static> {
        Payload(self.0.into_owned())
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self(PayloadSlot::Slice(Some(bytes)))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(PayloadSlot::Slice(Some(bytes)))
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self(PayloadSlot::Slice(Some(text.as_bytes())))
    }
}

impl<'a> From<&'a String> for Payload<'a> {
    #[inline]
    fn from(text: &'a String) -> Self {
        Self(PayloadSlot::Slice(Some(text.as_bytes())))
    }
}

impl<'a> From<&'a Vec<u8>> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(PayloadSlot::Slice(Some(bytes)))
    }
}

impl<'a> From<&'a Bytes> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a Bytes) -> Self {
        Self(PayloadSlot::Slice(Some(bytes)))
    }
}

impl From<Bytes> for Payload<'_> {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Self(PayloadSlot::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Payload<'_> {
    #[inline]
    fn from(bytes: Vec<u8>) -> Self {
        Self(PayloadSlot::Bytes(bytes.into()))
    }
}

impl From<String> for Payload<'_> {
    #[inline]
    fn from(text: String) -> Self {
        Self(PayloadSlot::Bytes(text.into()))
    }
}

/// Where an acknowledged record stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordMetadata {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The record's offset. `None` where the broker does not say it: with `acks=0`, and when it
    /// already had the record from an earlier attempt.
    pub offset: Option<i64>,
    /// The record's timestamp in milliseconds since the Unix epoch: the producer's, or the broker's
    /// where the topic has `message.timestamp.type=LogAppendTime`.
    pub timestamp_millis: i64,
}

impl RecordMetadata {
    /// The record's timestamp.
    pub fn timestamp(&self) -> SystemTime {
        from_millis(self.timestamp_millis)
    }
}
