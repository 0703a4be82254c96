//! A consumer group, as its coordinator keeps it: of the classic or of the consumer protocol, with
//! the offsets that it committed.
//!
//! Time is passed in as `now`.
//!
//! Sans-IO.

mod classic_group;
mod committed;
pub(super) mod identity;
mod join;
mod members;
mod migration;
mod offsets;
mod pending_offsets;
mod requests;
mod sync;
#[cfg(test)]
mod tests;
mod ticket;
mod view;
mod waits;

use std::time::Instant;

use bytes::Bytes;

use super::consumer_group::ConsumerGroup;
use crate::error::ErrorCode;

pub(crate) use classic_group::{ClassicGroup, GroupSettings};
pub(crate) use committed::Committed;
pub(crate) use identity::MemberIdentity;
pub(crate) use join::{JoinOutcome, JoinRequest};
pub(crate) use offsets::CommittedOffsets;
pub(crate) use sync::{SyncOutcome, SyncRequest};
pub(crate) use ticket::{Outcome, Ticket};
pub use view::{GroupView, MemberView};

/// One group.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) offsets: CommittedOffsets,
    pub(crate) classic: ClassicGroup,
    /// The group's state if it is one of the consumer protocol; then it has no classic members of
    /// its own.
    consumer: Option<Box<ConsumerGroup>>,
}

impl Group {
    /// Returns true if the group is one of the consumer protocol.
    pub(crate) fn is_consumer(&self) -> bool {
        self.consumer.is_some()
    }

    pub(crate) fn consumer(&mut self) -> Option<&mut ConsumerGroup> {
        self.consumer.as_deref_mut()
    }

    /// Returns the group's present state.
    pub(crate) fn view(&self) -> GroupView {
        self.consumer.as_deref().map_or_else(|| self.classic.view(), consumer_view)
    }

    /// Returns the time of the group's next change if there are no requests.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let consumer = self.consumer.as_ref().and_then(|consumer| consumer.deadline());
        self.classic.deadline().into_iter().chain(consumer).min()
    }

    /// Applies everything that was due by now, each change at its own time.
    pub(crate) fn advance(&mut self, now: Instant, settings: &GroupSettings) {
        match &mut self.consumer {
            Some(consumer) => consumer.advance(now),
            None => self.classic.advance(now, settings),
        }
    }

    /// Returns true if the group has no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.classic.members.is_empty() && self.consumer.as_ref().is_none_or(|consumer| consumer.is_empty())
    }

    /// Forgets all members, and that there were any.
    pub(crate) fn forget_members(&mut self) {
        self.classic.forget_members();
        self.consumer = None;
    }

    /// Ends the waits of all members, which have to find the new coordinator. The generation and
    /// its assignment stay, because the new coordinator reads them from the log.
    pub(crate) fn coordinator_moved(&mut self) {
        self.classic.fail_waits(ErrorCode::NOT_COORDINATOR);
    }
}

/// Shows a group of the consumer protocol in the form of a classic one, as far as possible.
fn consumer_view(consumer: &ConsumerGroup) -> GroupView {
    let members = consumer.members().map(|(id, instance, client_id)| MemberView {
        member_id: id.to_owned(),
        instance_id: instance.map(str::to_owned),
        client_id: client_id.to_owned(),
        metadata: Bytes::new(),
        assignment: Bytes::new(),
    });
    GroupView {
        state: consumer.state(),
        generation: consumer.epoch(),
        protocol_type: "consumer".to_owned(),
        protocol: None,
        leader: None,
        members: members.collect(),
    }
}
