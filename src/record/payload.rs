//! The bytes of a key, a value or a header that is sent.

use std::fmt;

use bytes::Bytes;

/// The bytes of a key, a value or a header: borrowed or owned, from text or bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'a>(pub(super) PayloadSlot<'a>);

/// A payload or none, in the size of a payload.
#[derive(Clone)]
pub(super) enum PayloadSlot<'a> {
    Slice(Option<&'a [u8]>),
    Bytes(Bytes),
}

impl PayloadSlot<'_> {
    pub(super) const NULL: Self = PayloadSlot::Slice(None);

    #[inline]
    pub(super) fn as_slice(&self) -> Option<&[u8]> {
        match self {
            PayloadSlot::Slice(slice) => *slice,
            PayloadSlot::Bytes(bytes) => Some(bytes),
        }
    }

    pub(super) fn into_owned(self) -> PayloadSlot<'static> {
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
    /// Returns the bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.0.as_slice().unwrap_or_default()
    }

    pub(super) fn into_owned(self) -> Payload<'static> {
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
