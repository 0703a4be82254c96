//! The scope of a purge.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Selects the records that [`Producer::purge`](super::Producer::purge) gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PurgeScope {
    /// Records outside of a request: in the buffer, waiting for their topic, or waiting to be sent
    /// again.
    Queued,
    /// Records in a request without an answer yet.
    InFlight,
    /// All records without a result.
    All,
}

impl PurgeScope {
    /// Returns the error of purged records; `place` is `"orders[3]"`.
    pub(crate) fn error(place: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Purged, format!("{place}: purged before the record was acknowledged"))
    }

    pub(crate) fn queued(self) -> bool {
        self != PurgeScope::InFlight
    }

    pub(crate) fn in_flight(self) -> bool {
        self != PurgeScope::Queued
    }
}
