//! A Kafka cluster inside the process, with faults and a clock, to test against.
//!
//! It speaks the Kafka protocol over loopback ports or over an in-memory network, stores the
//! records that are produced, runs consumer groups, and injects faults: errors for one partition,
//! lost responses, dead brokers, moved leaders. Its responses and checks are Kafka's; replication
//! is pretended. It is not for production: everything is in memory.
//!
//! It depends on `wire`, `net`, `record` and `error` alone, so that a mistake in the client cannot
//! hide in it.
//!
//! ```
//! use ottla::{ApiKey, ErrorCode, Record, testkit::{Cluster, Options, on}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ottla::Result<()> {
//! let cluster = Cluster::start(Options::new().brokers(3)).await?;
//! cluster.create_topic("orders", 3)?;
//!
//! // The broker refuses the next three batches for orders[0], and none for other partitions.
//! let refusal = on(ApiKey::Produce)
//!     .partition("orders", 0)
//!     .times(3)
//!     .error(ErrorCode::NOT_LEADER_OR_FOLLOWER);
//! let fault = cluster.fault(refusal);
//! // … build a producer with `cluster.producer()` and send …
//! assert_eq!(fault.hits(), 0);
//!
//! cluster.append("orders", 0, &[Record::to("orders").with_key("42").with_value("shipped")])?;
//! let records = cluster.records("orders", 0)?;
//! assert_eq!(records[0].value.as_deref(), Some(&b"shipped"[..]));
//! cluster.kill(1).await?;
//! assert_ne!(cluster.leader("orders", 0)?, Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! Tests that depend on time run on the in-memory network under tokio's paused clock, which the
//! brokers follow: `Options::new().in_memory()`. Clients come from [`Cluster::producer`],
//! [`Cluster::consumer`] and [`Cluster::admin`], which set addresses and network; a client on TCP
//! cannot reach such a cluster, nor any other broker under its addresses.
//!
//! Listeners are in plain text unless [`Options::sasl`] or `Options::tls` say otherwise. A test
//! denies a user access with a fault, such as
//! `on(ApiKey::Produce).user("bob").forever().error(ErrorCode::TOPIC_AUTHORIZATION_FAILED)`.
//!
//! Transactions run under both protocols: brokers decide by the versions of requests, and tell
//! clients the feature `transaction.version` ([`Options::feature`], [`Cluster::set_feature`]).
//! [`Cluster::transaction`] shows the coordinator's view of one.
//!
//! Not supported: share groups, configurations beyond the few named at
//! [`Cluster::create_topic_with`], compaction. ApiVersions does not offer the requests that are
//! only for these.

mod api;
mod batch;
mod broker_task;
pub mod certificates;
mod cluster;
mod connection_task;
mod fault;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod journal;
mod options;
mod sasl;
mod shared;
pub(crate) mod state;
#[cfg(test)]
pub(crate) mod tampered;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(feature = "tls")]
mod tls;
mod transactions;

pub use crate::net::memory::{MemoryListener, MemoryNetwork};
pub use batch::batch;
pub use cluster::{Cluster, FaultHandle};
pub use fault::{Fault, on, on_any_of};
pub use journal::Request;
pub use options::Options;
pub use sasl::Sasl;
pub use state::{
    consumer_group::{ConsumerGroupView, ConsumerMemberView},
    group::{GroupView, MemberView},
    sink::Received,
    transaction_coordinator::TransactionView,
};
#[cfg(feature = "tls")]
pub use tls::Tls;
