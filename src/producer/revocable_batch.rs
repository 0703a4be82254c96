//! Withdrawing a batch that was given to a request.
//!
//! Sans-IO.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::cluster::Revocable;
use crate::producer::batch_results::BatchResults;

/// Decides once if a batch in a request is written or withdrawn. The first decides: the connection,
/// when it hands the request to the socket, or the sender, when it gives up the batch.
///
/// The state is stored in the batch's results, so that an attempt allocates nothing for it.
#[derive(Clone, Debug)]
pub(crate) struct RevocableBatch {
    results: Arc<BatchResults>,
    attempt: u32,
}

/// The number of the last attempt, with its outcome in the low bits.
#[derive(Debug, Default)]
pub(crate) struct RevocableState(AtomicU32);

const WRITTEN: u32 = 1;
const WITHDRAWN: u32 = 2;
const ATTEMPT: u32 = 4;

impl RevocableBatch {
    /// Returns a handle for the next attempt of the batch with these results. Handles of earlier
    /// attempts become void.
    pub(crate) fn next(results: &Arc<BatchResults>) -> Self {
        let state = &results.revocable_state().0;
        let attempt = (state.load(Ordering::Acquire) & !(ATTEMPT - 1)).wrapping_add(ATTEMPT);
        state.store(attempt, Ordering::Release);
        Self { results: results.clone(), attempt }
    }

    /// Returns the batch as a part of a request that a connection has.
    pub(crate) fn part(&self) -> (Arc<dyn Revocable>, u32) {
        (self.results.clone(), self.attempt)
    }

    /// Withdraws the batch; returns `false` if it may be on the wire.
    pub(crate) fn withdraw(&self) -> bool {
        self.results.revocable_state().decide(self.attempt, WITHDRAWN) || self.is_withdrawn()
    }

    /// Returns true if this attempt was withdrawn, so that no byte of it was written.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.results.is_withdrawn(self.attempt)
    }
}

impl RevocableState {
    fn decide(&self, attempt: u32, what: u32) -> bool {
        self.0.compare_exchange(attempt, attempt + what, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Revocable for BatchResults {
    fn is_withdrawn(&self, attempt: u32) -> bool {
        self.revocable_state().0.load(Ordering::Acquire) == attempt + WITHDRAWN
    }

    fn write(&self, attempt: u32) -> bool {
        self.revocable_state().decide(attempt, WRITTEN)
    }

    fn withdraw(&self, attempt: u32) {
        let state = self.revocable_state();
        if !state.decide(attempt, WITHDRAWN) {
            // This fails if the batch is already withdrawn, or the attempt is void: then there is
            // nothing to undo.
            let (written, withdrawn) = (attempt + WRITTEN, attempt + WITHDRAWN);
            let _ = state.0.compare_exchange(written, withdrawn, Ordering::AcqRel, Ordering::Acquire);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::cluster::RevocableParts;
    use crate::producer::revocable_batch::*;

    fn leave(tickets: &[RevocableBatch]) -> bool {
        tickets.iter().map(RevocableBatch::part).collect::<RevocableParts>().confirm_write()
    }

    #[test]
    fn attempt_is_written_or_withdrawn_once() {
        let results = Arc::new(BatchResults::new(1));
        let revocable = RevocableBatch::next(&results);
        assert!(results.write(revocable.attempt));
        assert!(!revocable.withdraw() && !results.write(revocable.attempt));
        let next = RevocableBatch::next(&results);
        assert!(!results.write(revocable.attempt), "the handle of an earlier attempt is void");
        assert!(next.withdraw() && next.withdraw());
        assert!(!results.write(next.attempt));
    }

    #[test]
    fn withdrawn_batch_takes_back_whole_request() {
        let result_cells = [1, 2, 3].map(|id| Arc::new(BatchResults::new(id)));
        let tickets = result_cells.each_ref().map(RevocableBatch::next);
        assert!(tickets[1].withdraw());
        assert!(!leave(&tickets));
        assert!(tickets.iter().all(RevocableBatch::is_withdrawn));
        let tickets = result_cells.each_ref().map(RevocableBatch::next);
        assert!(leave(&tickets));
        assert!(tickets.iter().all(|revocable| !revocable.is_withdrawn() && !revocable.withdraw()));
    }

    #[test]
    fn unsent_request_withdraws_all_its_batches() {
        let result_cells = [1, 2].map(|id| Arc::new(BatchResults::new(id)));
        let tickets = result_cells.each_ref().map(RevocableBatch::next);
        // The second attempt is void, as if it were withdrawn between the check and the decision.
        let _newer = RevocableBatch::next(&result_cells[1]);
        assert!(!leave(&tickets));
        assert!(tickets[0].is_withdrawn());
    }
}
