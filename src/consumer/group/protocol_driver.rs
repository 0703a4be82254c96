//! The IO of a group protocol: how the requests of its membership are sent, and how responses, the
//! subscription and metadata reach it. The rest is the same for both protocols, in the group task.

use std::time::Duration;

use tokio::time::Instant;

use crate::consumer::{
    group::{actions::AttemptId, membership::Membership, pending_leaves::PendingLeaves},
    subscription::topics::Subscription,
};

pub(super) type RequestOf<D> = <<D as ProtocolDriver>::Membership as Membership>::Request;
pub(super) type LeaveOf<D> = <<D as ProtocolDriver>::Membership as Membership>::Leave;

/// Drives the membership of one protocol, for the group task.
pub(super) trait ProtocolDriver: Send + Sized + 'static {
    type Membership: Membership + Send;
    type Response: Send + 'static;

    /// Creates a member that is not subscribed yet.
    fn new_membership(&self) -> Self::Membership;

    // ---- requests

    /// Sends a request of the membership.
    fn send(&mut self, request: RequestOf<Self>) -> impl Future<Output = Self::Response> + Send + 'static + use<Self>;

    /// Passes the response to a request to the membership.
    fn handle_response(&mut self, membership: &mut Self::Membership, attempt: AttemptId, response: Self::Response);

    /// Sends a leave of the membership, until the deadline.
    fn leave(&self, leaves: &mut PendingLeaves, leave: LeaveOf<Self>, deadline: Instant);

    /// Returns the time that a leave may take if no close waits for it.
    fn leave_timeout(&self) -> Duration;

    // ---- topics

    /// Returns true if the consumer is subscribed.
    fn is_subscribed(&self) -> bool;

    /// Requests the metadata that the subscription needs, and passes its topics to the membership
    /// as soon as they are known.
    fn subscribe(&mut self, membership: &mut Self::Membership, subscription: Option<Subscription>);

    /// Requests the topics of the subscription again: topics that are not requested for a while are
    /// dropped from the metadata.
    fn want_topics(&self);

    /// Passes new metadata to the membership.
    fn handle_metadata(&mut self, membership: &mut Self::Membership);

    /// Handles an assignment that the consumer has been told of.
    fn partitions_assigned(&mut self, _membership: &mut Self::Membership) {}

    /// Handles the end of a round, when all actions of the membership are carried out.
    fn actions_carried_out(&mut self, _membership: &Self::Membership) {}
}
