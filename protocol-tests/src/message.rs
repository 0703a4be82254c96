//! A message as all the clients here see it.

/// What one client writes and another reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The key; `None` is Kafka's null, which is not the same as empty.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is Kafka's null, a tombstone in a compacted topic.
    pub value: Option<Vec<u8>>,
    /// The headers, in order; the same name may come twice.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Message {
    /// A message with a value and no key.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The same with a key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same with one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }
}

/// A message and where it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Consumed {
    /// Its partition.
    pub partition: i32,
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970; -1 for none.
    pub timestamp: i64,
    /// The message.
    pub message: Message,
}
