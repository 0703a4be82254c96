//! The last word of a request's owner before the connection hands the request to the socket.

use std::fmt;

/// Decides, when the connection takes a request to write it, whether the request may still be written.
///
/// Until then the request waits in the connection (throttled, re-authenticating, or behind others), and its owner may
/// take it back with the certainty that the broker has seen nothing of it.
pub(crate) struct Departure(Box<dyn FnOnce() -> bool + Send>);

impl Departure {
    /// `leave` is called once and without waiting, under the connection's lock; `false` takes the request back.
    pub(crate) fn new(leave: impl FnOnce() -> bool + Send + 'static) -> Self {
        Self(Box::new(leave))
    }

    pub(super) fn leave(self) -> bool {
        (self.0)()
    }
}

impl fmt::Debug for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Departure")
    }
}
