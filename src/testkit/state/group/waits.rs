//! Requests that wait: a JoinGroup until all members have joined, a SyncGroup until the leader has
//! assigned.
//!
//! Sans-IO.

use std::collections::HashMap;

use super::{join::JoinOutcome, members::Member, sync::SyncOutcome, ticket::Ticket};
use crate::error::ErrorCode;

/// The outcomes of requests that waited, until they are fetched.
#[derive(Debug, Default)]
pub(super) struct Waits {
    tickets: u64,
    joins: HashMap<Ticket, JoinOutcome>,
    syncs: HashMap<Ticket, SyncOutcome>,
}

impl Waits {
    pub(super) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    pub(super) fn end_join(&mut self, ticket: Ticket, outcome: JoinOutcome) {
        self.joins.insert(ticket, outcome);
    }

    pub(super) fn end_sync(&mut self, ticket: Ticket, outcome: SyncOutcome) {
        self.syncs.insert(ticket, outcome);
    }

    /// Ends a member's wait for the other members with an error.
    pub(super) fn fail_join(&mut self, member: &mut Member, error: ErrorCode) {
        if let Some(ticket) = member.joining.take() {
            self.end_join(ticket, JoinOutcome::error(error, member.id.clone()));
        }
    }

    /// Ends a member's wait for its assignment with an error.
    pub(super) fn fail_sync(&mut self, member: &mut Member, error: ErrorCode) {
        if let Some(ticket) = member.syncing.take() {
            self.end_sync(ticket, SyncOutcome::error(error));
        }
    }

    pub(super) fn take_join(&mut self, ticket: Ticket) -> Option<JoinOutcome> {
        self.joins.remove(&ticket)
    }

    pub(super) fn take_sync(&mut self, ticket: Ticket) -> Option<SyncOutcome> {
        self.syncs.remove(&ticket)
    }
}
