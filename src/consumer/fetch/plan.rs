//! The next step of a fetch task.

use crate::{consumer::fetch::memory_budget::Reservation, wire::fetch::FetchRequest};
use std::time::Instant;

/// The next step of a broker's fetch task.
#[derive(Debug)]
pub(crate) enum FetchPlan {
    /// Send this request; the largest possible response is reserved.
    Fetch {
        request: Box<FetchRequest>,
        reserved: Reservation,
        /// True if some topic's id is not known, so that topics have to be named.
        by_name: bool,
    },
    /// Wait until woken, or until that time.
    Wait(Option<Instant>),
    /// End: the broker is gone and its data was read, or fewer connections are used now.
    End,
}

/// A request that tells a broker that a session is over.
#[derive(Debug)]
pub(crate) struct SessionClose {
    pub(crate) broker: i32,
    /// A fetch without partitions.
    pub(crate) request: FetchRequest,
}
