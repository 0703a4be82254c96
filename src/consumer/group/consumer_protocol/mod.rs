//! Membership by the consumer protocol (KIP-848): the coordinator assigns, and the member carries
//! out.
//!
//! There is one request, the heartbeat. It says what the member wants and owns; its answer says
//! which epoch the member is in and, where that changed, which partitions it may own. `membership`
//! holds the member's life, `reconcile` how it comes from what it owns to what it may own, `errors`
//! what each error means to it; none of them does IO. `consumer_protocol_task` sends what they
//! decide.

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
