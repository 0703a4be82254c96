//! The client that producers, consumers and admins share: connections, versions, metadata,
//! coordinators, and the one path of all requests.
//!
//! The rules are Sans-IO files (`backoff`, `reconnect`, `login_gate`, `pipeline`, `versions`,
//! `metadata_merge`, `metadata_plan`). IO is in three kinds of tasks: one that asks for metadata,
//! one for each connection (which makes it, then drives it), and one for each look-up of a
//! coordinator. The tasks hold the `core`; dropping the last `Client` closes it.

mod address;
mod backoff;
mod call;
mod client;
mod connection;
mod connection_life;
mod connection_task;
mod coordinator_lookup;
mod coordinators;
mod core;
mod counters;
mod deadline;
mod encode;
mod exchange;
mod feature_refresh;
mod frames;
mod handshake;
mod least_loaded_node;
mod login;
mod login_gate;
mod logins;
mod metadata;
mod metadata_cache;
mod metadata_merge;
mod metadata_plan;
mod metadata_task;
mod metadata_wait;
mod partition_info;
mod pipeline;
mod pool;
mod properties;
mod reconnect;
mod request;
mod request_path;
mod resolution;
mod response_queue;
mod retry_grid;
mod revocable_parts;
mod settings;
mod single_flight;
#[cfg(test)]
mod tests;
mod throttle;
mod versions;

pub(crate) use crate::cluster::request::{Attempt, ConnectionKind, CoordinatorKind, RawRequest, Route, VersionBounds};
pub(crate) use crate::cluster::response_queue::ResponseQueue;
pub(crate) use crate::cluster::revocable_parts::{Revocable, RevocableParts};
pub(crate) use backoff::Backoff;
pub(crate) use client::{Client, Link};
pub use counters::BrokerMetrics;
pub(crate) use metadata::{Broker, Metadata, PartitionMetadata, TopicMetadata};
pub use partition_info::PartitionInfo;
pub(crate) use properties::client_properties;
pub(crate) use retry_grid::RetryGrid;
pub(crate) use settings::{ClientSettings, show_millis};
