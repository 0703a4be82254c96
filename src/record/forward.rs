//! Turns a record that was read into a record to be sent.

use std::borrow::Cow;

use super::{ConsumerRecord, Payload, Record, TopicName};

impl<'a> Record<'a> {
    /// Copies a record that was read, for another topic: a [`ConsumerRecord`] (by reference, or by
    /// value to own its parts) or a [`RecordRef`](crate::consumer::RecordRef). No byte of key,
    /// value or headers is copied here.
    ///
    /// The copy has the key and the value (null stays null, and empty stays empty), all headers
    /// (their order, repeated names and null values), and the timestamp, if the record has one. It
    /// has no partition, so that the key decides; [`with_partition`](Self::with_partition) sets
    /// one. [`set_timestamp_millis`](Self::set_timestamp_millis)`(None)` gives it the time of
    /// `send` instead.
    ///
    /// ```
    /// use ottla::{
    ///     Offset, Record, TopicPartition,
    ///     testkit::{Cluster, Options},
    /// };
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> ottla::Result<()> {
    /// let cluster = Cluster::start(Options::new().in_memory()).await?;
    /// cluster.create_topic("orders", 1)?;
    /// cluster.append(
    ///     "orders",
    ///     0,
    ///     &[Record::to("orders")
    ///         .with_key("42")
    ///         .with_value("shipped")
    ///         .with_header("trace", "a1b2")],
    /// )?;
    /// let (consumer, producer) =
    ///     (cluster.consumer().build().await?, cluster.producer().build().await?);
    /// consumer.assign([(TopicPartition::new("orders", 0), Offset::Beginning)])?;
    ///
    /// let record = consumer.recv().await.transpose()?.expect("a record");
    /// producer.send(Record::forward("orders.copy", &record)).await?.await?;
    ///
    /// let copy = &cluster.records("orders.copy", 0)?[0];
    /// assert_eq!(
    ///     (&copy.key, &copy.value, &copy.headers),
    ///     (&record.key, &record.value, &record.headers)
    /// );
    /// assert_eq!(copy.timestamp_millis, record.timestamp_millis);
    /// # Ok(()) }
    /// ```
    pub fn forward(topic: impl TopicName<'a>, record: impl Into<Record<'a>>) -> Self {
        let mut record = record.into();
        record.set_topic(topic);
        record
    }
}

/// Like [`Record::forward`], but for the topic that the record was read from.
impl<'a> From<&'a ConsumerRecord> for Record<'a> {
    fn from(record: &'a ConsumerRecord) -> Self {
        let headers = record.headers.iter().map(|header| (&*header.name, header.value.as_ref().map(Payload::from)));
        Record::copied(
            &record.topic,
            record.timestamp_millis,
            (record.key.as_ref().map(Payload::from), record.value.as_ref().map(Payload::from)),
            headers.map(|(name, value)| (Cow::Borrowed(name), value)),
        )
    }
}

/// Like [`Record::forward`], but for the topic that the record was read from.
impl From<ConsumerRecord> for Record<'static> {
    fn from(record: ConsumerRecord) -> Self {
        let headers = record.headers.into_iter();
        Record::copied(
            record.topic,
            record.timestamp_millis,
            (record.key.map(Payload::from), record.value.map(Payload::from)),
            headers.map(|header| (Cow::Owned(header.name), header.value.map(Payload::from))),
        )
    }
}

/// A header to be sent.
type Header<'a> = (Cow<'a, str>, Option<Payload<'a>>);

impl<'a> Record<'a> {
    /// Makes a record of these parts. A negative timestamp counts as none.
    pub(crate) fn copied(
        topic: impl TopicName<'a>,
        timestamp_millis: i64,
        (key, value): (Option<Payload<'a>>, Option<Payload<'a>>),
        headers: impl Iterator<Item = Header<'a>>,
    ) -> Self {
        let mut copy = Record::to(topic);
        copy.set_key(key);
        copy.set_value(value);
        copy.set_timestamp_millis(Some(timestamp_millis).filter(|millis| *millis >= 0));
        copy.headers.extend(headers);
        copy
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::record::{Header, TimestampType};

    fn read(key: Option<&'static [u8]>, value: Option<&'static [u8]>, timestamp_millis: i64) -> ConsumerRecord {
        let header = |name: &str, value: Option<&'static [u8]>| Header {
            name: name.to_owned(),
            value: value.map(Bytes::from_static),
        };
        ConsumerRecord {
            topic: "from".into(),
            partition: 3,
            offset: 7,
            leader_epoch: Some(1),
            timestamp_millis,
            timestamp_type: TimestampType::LogAppendTime,
            key: key.map(Bytes::from_static),
            value: value.map(Bytes::from_static),
            headers: vec![header("b", Some(b"1")), header("a", None), header("b", Some(b"")), header("b", Some(b"1"))],
        }
    }

    #[test]
    fn keeps_everything_except_topic_and_partition() {
        let record = read(Some(b"k"), Some(b"v"), 12);
        let expected = Record::to("to").with_key("k").with_value("v").with_timestamp_millis(12);
        let expected = expected.with_header("b", "1").with_null_header("a").with_header("b", "").with_header("b", "1");
        assert_eq!(Record::forward("to", &record), expected);
        assert_eq!(Record::from(&record).topic(), "from");
        let owned: Record<'static> = Record::forward(String::from("to"), record);
        assert_eq!(owned, expected);
        assert_eq!(owned.partition(), None, "the key decides");
    }

    #[test]
    fn keeps_null_and_empty_bytes_distinct() {
        for (key, value) in [(None, Some(&b""[..])), (Some(&b""[..]), None), (None, None)] {
            let record = read(key, value, -1);
            let copy = Record::forward(&record.topic, &record);
            assert_eq!((copy.key(), copy.value()), (key, value));
            assert_eq!(copy.timestamp_millis(), None, "a record without a timestamp gets the time of send");
        }
    }
}
