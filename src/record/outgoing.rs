use std::{borrow::Cow, sync::Arc, time::SystemTime};

use bytes::Bytes;

use super::{SeenBy, from_millis, to_millis};

/// A record to be sent: a topic, a value, and what else there is to say.
///
/// It borrows what it is given, so that sending copies each byte once, into the batch; give owned values
/// (`String`, `Vec<u8>`, [`Bytes`]) where a record has to live longer than its parts.
///
/// ```
/// use ottla::Record;
/// let record = Record::to("orders").key("42").value("shipped").header("trace", "a1b2");
/// assert_eq!(record.topic(), "orders");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    pub(crate) topic: Cow<'a, str>,
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<Payload<'a>>,
    pub(crate) value: Option<Payload<'a>>,
    pub(crate) headers: Vec<(Cow<'a, str>, Option<Payload<'a>>)>,
    pub(crate) timestamp: Option<i64>,
    pub(crate) tag: Option<u64>,
    pub(crate) seen_by: SeenBy,
}

impl<'a> Record<'a> {
    /// A record for that topic, with neither key nor value yet.
    pub fn to(topic: impl Into<Cow<'a, str>>) -> Self {
        Self {
            topic: topic.into(),
            partition: None,
            key: None,
            value: None,
            headers: Vec::new(),
            timestamp: None,
            tag: None,
            seen_by: SeenBy::default(),
        }
    }

    /// The partition to write to. Without it the key decides, and without a key the producer's partitioner.
    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    /// The key: records of one key go to one partition, in order.
    pub fn key(mut self, key: impl Into<Payload<'a>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The value. A record without one is a tombstone: it deletes its key from a compacted topic.
    pub fn value(mut self, value: impl Into<Payload<'a>>) -> Self {
        self.value = Some(value.into());
        self
    }

    /// Adds a header. Headers keep their order, and names may repeat.
    pub fn header(mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Payload<'a>>) -> Self {
        self.headers.push((name.into(), Some(value.into())));
        self
    }

    /// Adds a header whose value is null.
    pub fn null_header(mut self, name: impl Into<Cow<'a, str>>) -> Self {
        self.headers.push((name.into(), None));
        self
    }

    /// When the record came into being; the time of `send` if not set.
    pub fn timestamp(self, at: SystemTime) -> Self {
        self.timestamp_millis(to_millis(at))
    }

    /// When the record came into being, in milliseconds since the Unix epoch.
    pub fn timestamp_millis(mut self, millis: i64) -> Self {
        self.timestamp = Some(millis);
        self
    }

    /// A number of your own by which to know the record again in its report: it comes back as
    /// [`DeliveryReport::tag`](crate::DeliveryReport::tag) and is not sent to Kafka. Default: none.
    pub fn tag(mut self, tag: u64) -> Self {
        self.tag = Some(tag);
        self
    }

    /// The topic that the record is for.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The same record, owning all of its parts.
    pub fn into_owned(self) -> Record<'static> {
        Record {
            topic: Cow::Owned(self.topic.into_owned()),
            partition: self.partition,
            key: self.key.map(Payload::into_owned),
            value: self.value.map(Payload::into_owned),
            headers: self
                .headers
                .into_iter()
                .map(|(name, value)| (Cow::Owned(name.into_owned()), value.map(Payload::into_owned)))
                .collect(),
            timestamp: self.timestamp,
            tag: self.tag,
            seen_by: self.seen_by,
        }
    }
}

/// The bytes of a key, a value or a header: borrowed or owned, from text or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'a>(Repr<'a>);

#[derive(Clone, Debug)]
enum Repr<'a> {
    Slice(&'a [u8]),
    Bytes(Bytes),
}

impl PartialEq for Repr<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Repr<'_> {}

impl Repr<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Repr::Slice(slice) => slice,
            Repr::Bytes(bytes) => bytes,
        }
    }
}

impl Payload<'_> {
    /// The bytes themselves.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice()
    }

    fn into_owned(self) -> Payload<'static> {
        Payload(Repr::Bytes(match self.0 {
            Repr::Slice(slice) => Bytes::copy_from_slice(slice),
            Repr::Bytes(bytes) => bytes,
        }))
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(Repr::Slice(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self(Repr::Slice(bytes))
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Self {
        Self(Repr::Slice(text.as_bytes()))
    }
}

impl<'a> From<&'a String> for Payload<'a> {
    fn from(text: &'a String) -> Self {
        Self(Repr::Slice(text.as_bytes()))
    }
}

impl<'a> From<&'a Vec<u8>> for Payload<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self(Repr::Slice(bytes))
    }
}

impl<'a> From<&'a Bytes> for Payload<'a> {
    fn from(bytes: &'a Bytes) -> Self {
        Self(Repr::Slice(bytes))
    }
}

impl From<Bytes> for Payload<'_> {
    fn from(bytes: Bytes) -> Self {
        Self(Repr::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Payload<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Repr::Bytes(bytes.into()))
    }
}

impl From<String> for Payload<'_> {
    fn from(text: String) -> Self {
        Self(Repr::Bytes(text.into()))
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
    /// The record's offset. `None` where the broker does not say it: with `acks=0`, and when it already had the record
    /// from an earlier attempt.
    pub offset: Option<i64>,
    /// The record's timestamp in milliseconds since the Unix epoch: the producer's, or the broker's where the topic has
    /// `message.timestamp.type=LogAppendTime`.
    pub timestamp_millis: i64,
}

impl RecordMetadata {
    /// The record's timestamp.
    pub fn timestamp(&self) -> SystemTime {
        from_millis(self.timestamp_millis)
    }
}
