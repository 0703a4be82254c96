//! Which records to give up.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Which records [`Producer::purge`](super::Producer::purge) gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PurgeScope {
    /// Those that are not on their way: in the buffer, waiting for their topic, or waiting to be
    /// sent again.
    Queued,
    /// Those in a request that was not answered yet.
    InFlight,
    /// All.
    All,
}

impl PurgeScope {
    /// What purged records fail with; `place` is "orders[3]".
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
