//! Who may still decide about a batch that was given to a request.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::cell::Cell;

/// Whether a batch that was given to a request can still be taken back: decided once, by the first of the connection, when
/// it hands the request to the socket, and the sender, when it gives up on the batch.
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

    /// Decides that the request with these batches is written. `false` when one of them was taken back: then all of them
    /// are, and the request must not be written.
    pub(crate) fn write_all(tickets: &[Self]) -> bool {
        let written = tickets.iter().all(|ticket| !ticket.is_withdrawn()) && tickets.iter().all(Self::write);
        if !written {
            for ticket in tickets {
                ticket.undo();
            }
        }
        written
    }

    /// Decides that the batch is written; `false` when it was taken back.
    pub(crate) fn write(&self) -> bool {
        self.decide(WRITTEN).is_ok()
    }

    /// Takes the batch back; `false` when it may be on the wire.
    pub(crate) fn withdraw(&self) -> bool {
        self.decide(WITHDRAWN).is_ok() || self.is_withdrawn()
    }

    /// Whether this attempt was taken back, so that no byte of it was written.
    pub(crate) fn is_withdrawn(&self) -> bool {
        self.cell.ticket().0.load(Ordering::Acquire) == self.attempt + WITHDRAWN
    }

    /// Takes the batch back although it was decided that it is written: no byte of its request was.
    fn undo(&self) {
        let state = &self.cell.ticket().0;
        if self.decide(WITHDRAWN).is_err() {
            // Fails where the batch was taken back already, or the attempt is void: then there is nothing to undo.
            let (written, withdrawn) = (self.attempt + WRITTEN, self.attempt + WITHDRAWN);
            let _ = state.compare_exchange(written, withdrawn, Ordering::AcqRel, Ordering::Acquire);
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

    #[test]
    fn write_all_with_one_withdrawn_takes_all_back() {
        let cells = [1, 2, 3].map(|id| Arc::new(Cell::new(id)));
        let tickets = cells.each_ref().map(Ticket::next);
        assert!(tickets[1].withdraw());
        assert!(!Ticket::write_all(&tickets));
        assert!(tickets.iter().all(Ticket::is_withdrawn));
        let tickets = cells.each_ref().map(Ticket::next);
        assert!(Ticket::write_all(&tickets));
        assert!(tickets.iter().all(|ticket| !ticket.is_withdrawn() && !ticket.withdraw()));
    }

    #[test]
    fn write_all_undoes_what_it_had_decided() {
        let cells = [1, 2].map(|id| Arc::new(Cell::new(id)));
        let tickets = cells.each_ref().map(Ticket::next);
        // The second attempt is void, as if it were taken back between the look at it and the decision.
        let _newer = Ticket::next(&cells[1]);
        assert!(!Ticket::write_all(&tickets));
        assert!(tickets[0].is_withdrawn());
    }
}
