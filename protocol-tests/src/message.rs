//! A message, as all clients of these tests see it.

/// Key, value and headers, as one client writes them and another reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The key; `None` is Kafka's null, which is not the same as empty.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is Kafka's null, a tombstone in a compacted topic.
    pub value: Option<Vec<u8>>,
    /// The headers, in order; a name may occur more than once.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Message {
    /// Creates a message with a value and no key.
    pub fn value(value: impl Into<Vec<u8>>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// Sets the key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }
}

/// A message and its place in the log.
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
