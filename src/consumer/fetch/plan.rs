//! The next step of a fetch task.

use crate::{consumer::fetch::memory_budget::Reservation, wire::fetch::FetchRequest};
use std::time::Instant;

/// What a broker's task is to do next.
#[derive(Debug)]
pub(crate) enum FetchPlan {
    /// To send this, with the bytes reserved that the answer may have.
    Fetch {
        request: Box<FetchRequest>,
        reserved: Reservation,
        /// Whether some topic's id is not known, so that it can only be asked for by name.
        by_name: bool,
    },
    /// To wait until it is woken, or until then.
    Wait(Option<Instant>),
    /// To end: the broker is gone, and nothing that came from it is left; or it is read over fewer
    /// connections now.
    End,
}

/// Tells a broker that a session is over.
#[derive(Debug)]
pub(crate) struct SessionClose {
    pub(crate) broker: i32,
    /// A fetch of nothing.
    pub(crate) request: FetchRequest,
}
