//! A membership as a state machine: the inputs and outputs that both group protocols have.
//!
//! The task passes the time, the reader's polls and the consumer's answers on to it, and carries
//! out its actions. The subscription and the responses of the coordinator differ by protocol, so
//! they are methods of each machine.
//!
//! Sans-IO.

use std::time::Instant;

use crate::{
    consumer::group::{
        actions::{Action, AttemptId},
        member_snapshot::{Identity, MemberSnapshot},
    },
    error::Error,
};

/// A member of a group, as its task sees it.
pub(crate) trait Membership {
    /// A request to the coordinator, or another look-up with a response.
    type Request;
    /// A request that leaves the group.
    type Leave;

    /// Returns the next action, or `None` if there is none.
    fn next_action(&mut self) -> Option<Action<Self::Request, Self::Leave>>;

    /// Returns the time at which [`tick`](Self::tick) has something to do, if nothing else happens
    /// before.
    fn next_wake(&self) -> Option<Instant>;

    /// Handles all that is due by `now`.
    fn tick(&mut self, now: Instant);

    /// Returns the membership, as the handles see it.
    fn snapshot(&self) -> MemberSnapshot;

    /// Records that the reader polled, by `now` at the latest.
    fn polled(&mut self, now: Instant);

    /// Records that the consumer has given up the partitions of that revocation.
    fn revoked(&mut self, now: Instant, attempt: AttemptId);

    /// Handles a refused commit of that member and generation.
    fn commit_refused(&mut self, now: Instant, identity: &Identity, error: &Error);

    /// Records that a leave has ended, with or without success: it is not retried.
    fn leave_ended(&mut self, now: Instant);

    /// Closes the membership: leaves the group if it is a member, and sends the consumer no more
    /// events.
    fn close(&mut self);
}
