//! Membership by the classic protocol: the group's leader assigns the partitions.
//!
//! `classic_membership` and `joining` hold the member, `session` its deadlines, `owned_partitions`
//! the partitions that it owns, `leader` its part as the leader, `errors` the consequence of each
//! error; none of them does IO. `classic_driver` sends its requests.

mod actions;
mod classic_driver;
mod classic_membership;
mod errors;
mod joining;
mod leader;
pub(crate) mod member_metadata;
mod member_state;
#[cfg(test)]
mod model;
#[cfg(test)]
mod model_tests;
mod owned_partitions;
pub(super) mod requests;
mod session;
#[cfg(test)]
mod tests;

pub(super) use classic_driver::ClassicDriver;
