//! Reading and changing a record that is there already, as interceptors do.

use std::{borrow::Cow, num::NonZeroU32};

use super::{Payload, Record};

/// The producer whose interceptors have seen a record: one that is given back and sent again is not shown to them twice.
/// It is no part of what the record says, so all marks are equal.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SeenBy(pub(crate) Option<NonZeroU32>);

impl PartialEq for SeenBy {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for SeenBy {}

impl<'a> Record<'a> {
    /// The headers, in their order; a value may be null.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.headers.iter().map(|(name, value)| (&**name, value.as_ref().map(Payload::as_slice)))
    }

    /// Sends the record to another topic.
    pub fn set_topic(&mut self, topic: impl Into<Cow<'a, str>>) {
        self.topic = topic.into();
    }

    /// Adds a header behind the others; one of the same name stays.
    pub fn add_header(&mut self, name: impl Into<Cow<'a, str>>, value: impl Into<Payload<'a>>) {
        self.headers.push((name.into(), Some(value.into())));
    }

    /// Removes all headers of that name; gives how many there were.
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
    fn everything_can_be_read_and_replaced() {
        let mut record = Record::to("a").partition(1).key("k").value("v").header("x", "1").header("y", "2");
        record.add_header("x", String::from("3"));
        assert_eq!(record.remove_headers("y"), 1);
        assert_eq!(record.remove_headers("z"), 0);
        let headers: Vec<_> = record.headers().collect();
        assert_eq!(headers, [("x", Some(&b"1"[..])), ("x", Some(&b"3"[..]))]);
        assert_eq!((record.chosen_partition(), record.key_bytes()), (Some(1), Some(&b"k"[..])));
        record.set_topic(String::from("b"));
        record.set_partition(None);
        record.set_key(None);
        record.set_value(Some("w".into()));
        record.set_timestamp_millis(Some(i64::MIN));
        assert_eq!(record.chosen_timestamp_millis(), Some(i64::MIN + 1), "the nearest that is not taken for none");
        record.set_timestamp_millis(Some(7));
        record.set_tag(Some(9));
        assert_eq!((record.chosen_timestamp_millis(), record.chosen_tag()), (Some(7), Some(9)));
        let expected = Record::to("b").value("w").header("x", "1").header("x", "3").timestamp_millis(7).tag(9);
        assert_eq!(record, expected);
        record.seen_by = SeenBy(NonZeroU32::new(4));
        assert_eq!(record, expected, "who has seen a record is no part of it");
    }
}
