//! Tests of the cluster at the level of bytes, over the in-memory network.

mod addresses;
mod client;
mod every_error;
mod faults;
mod groups;
mod hostile_text;
mod logs;
mod robustness;
mod transaction_coordinator;
mod transaction_offsets;
mod transaction_protocol;
pub(crate) mod transactional_producer;
mod transactions;
