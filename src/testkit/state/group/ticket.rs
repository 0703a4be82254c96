//! The ticket with which a request waits for its outcome.
//!
//! Sans-IO.

/// Identifies a wait for the outcome of a JoinGroup or SyncGroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(super) u64);

/// Either the response, or the ticket to wait with.
#[derive(Debug)]
pub(crate) enum Outcome<T> {
    Done(T),
    Wait(Ticket),
}
