//! One client under everything: connections, versions, metadata, coordinators, and the one path that requests take.

mod backoff;
mod client;
mod metadata;
mod properties;
mod settings;

pub(crate) use backoff::Backoff;
pub(crate) use client::{Attempt, Client, CoordinatorKind, Lane, RawRequest, RawResponse, Route};
pub(crate) use metadata::{Broker, Metadata, PartitionMetadata, TopicMetadata};
pub(crate) use properties::client_properties;
pub(crate) use settings::ClientSettings;
