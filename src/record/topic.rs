use std::{fmt, sync::Arc};

use crate::error::{Error, ErrorKind, Result, clean};

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// The partition of that number of that topic.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", clean(&self.topic), self.partition)
    }
}

/// A place in a partition to read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offset {
    /// The first record that is still there.
    Beginning,
    /// Behind the last record.
    End,
    /// This very offset.
    At(i64),
}

impl From<i64> for Offset {
    fn from(offset: i64) -> Self {
        Offset::At(offset)
    }
}

/// Refuses the names that Kafka forbids, saying why: 1 to 249 of the characters `a-z A-Z 0-9 . _ -`, but not `.` or `..`.
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

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for good in ["a", "orders", "A.b_c-9", &"x".repeat(249)] {
            assert!(check_topic_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\n", &"x".repeat(250)] {
            let error = check_topic_name(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
    }
}
