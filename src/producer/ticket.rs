//! Who may still decide about a batch that was given to a request.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::cell::Cell;

/// Whether a batch that was given to a request can still be taken back: decided once, by whoever is first, the request
/// that writes it or the sender that gives up on it.
///
/// It lives in the batch's cell, so that an attempt allocates nothing for it.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    cell: Arc<Cell>,
    attempt: u32,
}

/// The last attempt's number, and in its low bits what became of that.
#[derive(Debug, Default)]
pub(crate) struct TicketState(AtomicU32);

const WRITTEN: u32 = 1;
const WITHDRAWN: u32 = 2;
const ATTEMPT: u32 = 4;

impl Ticket {
    /// A ticket for the next attempt of the batch whose own cell this is. Those of earlier attempts are void.
    pub(crate) fn next(cell: &Arc<Cell>) -> Self {
        let state = &cell.ticket().0;
        let attempt = (state.load(Ordering::Acquire) & !(ATTEMPT - 1)).wrapping_add(ATTEMPT);
        state.store(attempt, Ordering::Release);
        Self { cell: cell.clone(), attempt }
    }

    /// The request is about to write the batch; `false` when it must not any more.
    pub(crate) fn write(&self) -> bool {
        self.decide(WRITTEN).is_ok()
    }

    /// Takes the batch back; `false` when it may be on the wire.
    pub(crate) fn withdraw(&self) -> bool {
        match self.decide(WITHDRAWN) {
            Ok(_) => true,
            Err(state) => state == self.attempt + WITHDRAWN,
        }
    }

    fn decide(&self, what: u32) -> Result<u32, u32> {
        let state = &self.cell.ticket().0;
        state.compare_exchange(self.attempt, self.attempt + what, Ordering::AcqRel, Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_decided_once() {
        let cell = Arc::new(Cell::new(1));
        let ticket = Ticket::next(&cell);
        assert!(ticket.write());
        assert!(!ticket.withdraw() && !ticket.write());
        let next = Ticket::next(&cell);
        assert!(!ticket.write(), "an earlier attempt's is void");
        assert!(next.withdraw() && next.withdraw());
        assert!(!next.write());
    }
}
