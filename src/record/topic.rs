use std::{borrow::Cow, fmt, sync::Arc};

use crate::error::{Error, ErrorKind, Result, clean};

/// The name of a topic, in every type that a program may hold it in: `&str`, `String`, `Cow<str>`,
/// `Box<str>`, or the `Arc<str>` of a record that was read
/// ([`ConsumerRecord::topic`](super::ConsumerRecord::topic)), owned or by reference.
///
/// [`Record::to`](super::Record::to) and [`TopicPartition::new`] take it. An `Arc<str>` is shared,
/// not copied, if the callee keeps one.
pub trait TopicName<'a>: sealed::Sealed {
    #[doc(hidden)]
    fn into_cow(self) -> Cow<'a, str>;
    #[doc(hidden)]
    fn into_arc(self) -> Arc<str>;
}

mod sealed {
    pub trait Sealed {}
}

/// Each type, with its conversion to a borrowed or owned name, and to a shared one.
macro_rules! topic_names {
    ($($form:ty, $name:ident => $cow:expr, $arc:expr;)*) => { $(
        impl<'a> sealed::Sealed for $form {}

        impl<'a> TopicName<'a> for $form {
            #[inline]
            fn into_cow(self) -> Cow<'a, str> {
                let $name = self;
                $cow
            }

            #[inline]
            fn into_arc(self) -> Arc<str> {
                let $name = self;
                $arc
            }
        }
    )* };
}

topic_names! {
    &'a str, name => Cow::Borrowed(name), name.into();
    &'a String, name => Cow::Borrowed(name), name.as_str().into();
    &'a Arc<str>, name => Cow::Borrowed(name), name.clone();
    Cow<'a, str>, name => name, name.into();
    &'a Cow<'_, str>, name => Cow::Borrowed(name), name.as_ref().into();
}

macro_rules! owned_topic_names {
    ($($form:ty, $name:ident => $string:expr, $arc:expr;)*) => { $(
        impl sealed::Sealed for $form {}

        impl<'a> TopicName<'a> for $form {
            #[inline]
            fn into_cow(self) -> Cow<'a, str> {
                let $name = self;
                Cow::Owned($string)
            }

            #[inline]
            fn into_arc(self) -> Arc<str> {
                let $name = self;
                $arc
            }
        }
    )* };
}

owned_topic_names! {
    String, name => name, name.into();
    Box<str>, name => name.into(), name.into();
    Arc<str>, name => (*name).to_owned(), name;
}

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Makes the name of a partition from its topic and its number.
    ///
    /// ```
    /// use ottla::TopicPartition;
    ///
    /// # fn place(record: &ottla::ConsumerRecord, borrowed: ottla::consumer::RecordRef<'_>) {
    /// let orders = TopicPartition::new("orders", 0);
    /// let other = TopicPartition::new(&record.topic, record.partition + 1); // shares the name
    /// let same = TopicPartition::new(borrowed.topic(), borrowed.partition());
    /// # let _ = (orders, other, same); }
    /// ```
    pub fn new<'a>(topic: impl TopicName<'a>, partition: i32) -> Self {
        Self { topic: topic.into_arc(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", clean(&self.topic), self.partition)
    }
}

/// A position in a partition to start reading from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Offset {
    /// The first record that is still in the log.
    Beginning,
    /// The end of the log, after the last record.
    End,
    /// This exact offset.
    At(i64),
}

impl From<i64> for Offset {
    fn from(offset: i64) -> Self {
        Offset::At(offset)
    }
}

/// Refuses the names that Kafka forbids, with the reason. A valid name has 1 to 249 of the
/// characters `a-z A-Z 0-9 . _ -`, and is not `.` or `..`.
pub(crate) fn check_topic_name(name: &str) -> Result<()> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name == "." || name == ".." {
        "it is \".\" or \"..\""
    } else if name.len() > 249 {
        "it is longer than 249 characters"
    } else if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        "it has characters other than a-z, A-Z, 0-9, '.', '_' and '-'"
    } else {
        return Ok(());
    };
    let shown: String = name.chars().take(64).collect();
    Err(Error::new(ErrorKind::InvalidArgument, format!("topic name {shown:?} is not allowed: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn accepts_names_of_every_string_type() {
        let (owned, shared): (String, Arc<str>) = ("t".into(), "t".into());
        let (borrowed, boxed): (Cow<'_, str>, Box<str>) = ("t".into(), "t".into());
        let partitions = [
            TopicPartition::new("t", 0),
            TopicPartition::new(&owned, 0),
            TopicPartition::new(&shared, 0),
            TopicPartition::new(&borrowed, 0),
            TopicPartition::new(shared.clone(), 0),
            TopicPartition::new(borrowed.clone(), 0),
            TopicPartition::new(boxed.clone(), 0),
            TopicPartition::new(owned.clone(), 0),
        ];
        assert!(partitions.iter().all(|partition| *partition == partitions[0]));
        assert!(Arc::ptr_eq(&partitions[2].topic, &shared) && Arc::ptr_eq(&partitions[4].topic, &shared));
        let records = [
            Record::to("t"),
            Record::to(&owned),
            Record::to(&shared),
            Record::to(&borrowed),
            Record::to(shared.clone()),
            Record::to(borrowed.clone()),
            Record::to(boxed),
            Record::to(owned.clone()),
        ];
        assert!(records.iter().all(|record| record.topic() == "t"));
    }

    #[test]
    fn rejects_names_that_kafka_rejects() {
        for good in ["a", "orders", "A.b_c-9", &"x".repeat(249)] {
            assert!(check_topic_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(250)] {
            let error = check_topic_name(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
