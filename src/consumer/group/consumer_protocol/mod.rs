//! Membership by the consumer protocol (KIP-848): the coordinator assigns, and the member carries
//! out the assignment.
//!
//! There is one request, the heartbeat. It carries the member's subscription and owned partitions;
//! its response carries the member's epoch and, if they changed, the partitions that it may own.
//! `consumer_membership` holds the member's states, `rejoining` its ways out of the group and back,
//! `heartbeats` the fields of each heartbeat and
//! its deadlines, `reconciliation` the way from the owned partitions to the assigned ones, `errors`
//! the consequence of each error; none of them does IO. `consumer_driver` sends what they decide.

mod actions;
mod consumer_driver;
mod consumer_membership;
mod errors;
mod heartbeats;
#[cfg(all(test, feature = "testkit"))]
mod model_tests;
mod reconciliation;
mod rejoining;
mod requests;
#[cfg(test)]
mod tests;

pub(super) use consumer_driver::ConsumerDriver;
