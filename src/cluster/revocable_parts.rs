//! The last word of a request's owner before the connection hands the request to the socket.
//!
//! Sans-IO.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

/// A part of a request that its owner can take back while the request waits in the connection
/// (throttled, re-authenticating, or behind others), with the certainty that the broker has seen
/// nothing of it.
pub(crate) trait Revocable: fmt::Debug + Send + Sync {
    /// Whether that attempt was taken back.
    fn is_withdrawn(&self, attempt: u32) -> bool;

    /// Decides that the attempt is written; `false` when it was taken back.
    fn write(&self, attempt: u32) -> bool;

    /// Takes the attempt back, also after [`write`](Self::write): no byte of its request was
    /// written.
    fn withdraw(&self, attempt: u32);
}

/// The parts of a request that may be taken back, each with its attempt; none in a request that
/// always leaves.
#[derive(Debug, Default)]
pub(crate) struct RevocableParts(SmallVec<[(Arc<dyn Revocable>, u32); 2]>);

impl RevocableParts {
    /// Decides that the request is written. `false` when a part was taken back: then all of them
    /// are, and the request must not be written.
    pub(crate) fn confirm_write(&self) -> bool {
        let parts = || self.0.iter().map(|(part, attempt)| (part, *attempt));
        let leaves = parts().all(|(part, attempt)| !part.is_withdrawn(attempt))
            && parts().all(|(part, attempt)| part.write(attempt));
        if !leaves {
            parts().for_each(|(part, attempt)| part.withdraw(attempt));
        }
        leaves
    }
}

impl FromIterator<(Arc<dyn Revocable>, u32)> for RevocableParts {
    fn from_iter<I: IntoIterator<Item = (Arc<dyn Revocable>, u32)>>(parts: I) -> Self {
        Self(parts.into_iter().collect())
    }
}
