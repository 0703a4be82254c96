//! Lets the owner of a request withdraw it until the connection hands it to the socket.
//!
//! Sans-IO.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;

/// A part of a request that its owner can withdraw while the request waits in the connection
/// (throttled, re-authenticating, or behind others), with the certainty that the broker has seen
/// nothing of it.
pub(crate) trait Revocable: fmt::Debug + Send + Sync {
    /// Returns true if the attempt was withdrawn.
    fn is_withdrawn(&self, attempt: u32) -> bool;

    /// Commits to writing the attempt; returns `false` if it was withdrawn.
    fn write(&self, attempt: u32) -> bool;

    /// Withdraws the attempt, also after [`write`](Self::write): no byte of its request was
    /// written.
    fn withdraw(&self, attempt: u32);
}

/// The parts of a request that may be withdrawn, each with its attempt; empty for a request that is
/// always sent.
#[derive(Debug, Default)]
pub(crate) struct RevocableParts(SmallVec<[(Arc<dyn Revocable>, u32); 2]>);

impl RevocableParts {
    /// Commits to writing the request. Returns `false` if a part was withdrawn: then all of them
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
