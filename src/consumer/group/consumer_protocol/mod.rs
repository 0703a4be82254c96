//! Membership by the consumer protocol (KIP-848): the coordinator assigns, and the member carries
//! out the assignment.
//!
//! There is one request, the heartbeat. It carries the member's subscription and owned partitions;
//! its response carries the member's epoch and, if they changed, the partitions that it may own.
//! `membership` holds the member's states, `reconcile` the way from the owned partitions to the
//! assigned ones, `errors` the meaning of each error; none of them does IO.
//! `consumer_protocol_task` sends what they decide.

mod actions;
mod consumer_protocol_task;
mod errors;
mod membership;
#[cfg(all(test, feature = "testkit"))]
mod model_tests;
mod reconcile;
mod requests;
#[cfg(test)]
mod tests;

pub(super) use actions::{
    Action, AttemptId, HeartbeatFields, HeartbeatResponse, OwnedPartition, PartitionsByTopicId, TopicsToSubscribe,
};
pub(super) use consumer_protocol_task::ConsumerProtocolTask;
pub(super) use membership::ConsumerMembership;
