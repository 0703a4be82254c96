//! Reads and changes an existing record, for interceptors.

use std::{borrow::Cow, num::NonZeroU32};

use super::{Payload, Record, TopicName};

/// Facts about a record that are not part of its content, in one word: whether it has a tag, and
/// which producer has shown it to its interceptors. The latter keeps a record that is returned and
/// sent again from being shown to them twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks(u64);

const HAS_TAG: u64 = 1 << 32;

impl Marks {
    pub(crate) fn seen_by(self) -> Option<NonZeroU32> {
        NonZeroU32::new(self.0 as u32)
    }

    pub(crate) fn set_seen_by(&mut self, producer: Option<NonZeroU32>) {
        self.0 = (self.0 & HAS_TAG) | u64::from(producer.map_or(0, NonZeroU32::get));
    }

    pub(super) fn has_tag(self) -> bool {
        self.0 & HAS_TAG != 0
    }

    pub(super) fn set_has_tag(&mut self, has_tag: bool) {
        self.0 = if has_tag { self.0 | HAS_TAG } else { self.0 & !HAS_TAG };
    }
}

/// The producer that has seen a record is not part of the record's content.
impl PartialEq for Marks {
    fn eq(&self, other: &Self) -> bool {
        self.has_tag() == other.has_tag()
    }
}

impl Eq for Marks {}

impl<'a> Record<'a> {
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

#[cfg(test)]
mod tests {
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
