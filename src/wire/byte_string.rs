//! A string that shares the bytes of the message it was read from.

use std::{fmt, ops::Deref, str};

use bytes::Bytes;

/// A UTF-8 string backed by [`Bytes`]: reading one from a response copies nothing, and a clone
/// shares the memory.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ByteString(Bytes);

impl ByteString {
    pub(crate) const fn new() -> Self {
        Self(Bytes::new())
    }

    pub(crate) const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Takes the bytes as text, or returns `None` if they are not UTF-8.
    pub(crate) fn from_utf8(bytes: Bytes) -> Option<Self> {
        str::from_utf8(&bytes).is_ok().then_some(Self(bytes))
    }

    pub(crate) fn as_str(&self) -> &str {
        // The bytes were checked when the value was made, and never change: the fallback is not
        // reached.
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl Deref for ByteString {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for ByteString {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl PartialEq<str> for ByteString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for ByteString {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_only_utf8_and_compares_as_text() {
        let text = ByteString::from_static("größe");
        assert_eq!((text.as_str(), text.to_string(), text == "größe"), ("größe", "größe".to_owned(), true));
        assert_eq!(ByteString::from_utf8(Bytes::from_static(&[0xff])), None);
        assert_eq!(ByteString::from("a".to_owned()), ByteString::from("a"));
        assert!(ByteString::new().is_empty() && ByteString::default() == *"");
    }
}
