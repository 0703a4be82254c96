//! The consumer's public types: [`Consumer`](consumer::Consumer), its builder, the records that it
//! returns, and the rebalance listener.

pub(super) mod builder;
pub(super) mod checks;
pub(super) mod consumer;
mod exactly_once;
mod group_metadata;
pub(super) mod inspection;
mod offset_lookup;
pub(super) mod offset_queries;
pub(super) mod partition_stream;
pub(super) mod pending_commit;
pub(super) mod rebalance_listener;
pub(super) mod record_ref;
pub(super) mod record_stream;
pub(super) mod records;
pub(super) mod recv_batch;
mod rewind;
pub(super) mod seek;
