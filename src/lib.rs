//! Ottla: a Kafka client in Rust with nothing of C in it.

mod admin;
pub(crate) mod cluster;
pub(crate) mod config;
mod consumer;
pub mod error;
pub mod net;
mod producer;
mod record;
#[cfg(feature = "testkit")]
pub mod testkit;
mod wire;

pub use admin::{
    Admin, AdminBuilder, BrokerDescription, ClusterDescription, CreatedTopic, NewTopic, PartitionDescription,
    TopicDescription, TopicId, TopicListing, TopicResult, TopicResults,
};
pub use consumer::{
    Consumer, ConsumerBuilder, IsolationLevel, OffsetAndMetadata, OffsetAndTimestamp, OffsetReset, PartitionInfo,
    PartitionRecords, RecordHeaders, RecordRef, RecordStream, Records, RecordsIter,
};
pub use error::{DeliveryStatus, Error, ErrorCode, ErrorKind, Result};
pub use producer::{
    Acks, Delivery, DeliveryId, DeliveryReport, DeliveryReports, Producer, ProducerBuilder, TrySendError,
};
pub use record::{ConsumerRecord, Header, Offset, Payload, Record, RecordMetadata, TimestampType, TopicPartition};
pub use wire::{ApiKey, Compression};
