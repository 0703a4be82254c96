//! Ottla: a Kafka client in Rust without any C code.
//!
//! - [`Consumer::run`] calls a handler for every record. [`Worker`] takes care of order, retries,
//!   dead letters, commits and rebalances.
//! - [`Producer`] sends [`Record`]s: idempotent by default, with one result for each record.
//! - [`TransactionalProducer`] sends records and consumed offsets in [`Transaction`]s: consumers
//!   with `isolation.level=read_committed` see all of a transaction or nothing of it.
//! - [`Consumer`] reads [`ConsumerRecord`]s, or borrowed [`Records`](consumer::Records), from
//!   partitions that the program assigns or that the consumer's group assigns.
//! - [`Admin`] creates, deletes, lists and describes topics.
//! - [`security`] has TLS and SASL, for all clients.
//! - `testkit` (a feature) is a Kafka cluster inside the process, with fault injection, for tests.
//!
//! All clients run on the tokio runtime that they are built on, multi-threaded or current-thread,
//! and none blocks a thread. A client is made by its builder, or from the property names of Kafka's
//! Java client (librdkafka's names are accepted if they differ).
//!
//! ```
//! # #[cfg(feature = "testkit")]
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> ottla::Result<()> {
//! use std::time::Duration;
//! use ottla::{consumer::OffsetReset, testkit, Record};
//!
//! let cluster = testkit::Cluster::start(testkit::Options::new().in_memory()).await?;
//! cluster.create_topic("orders", 3)?;
//!
//! let producer = cluster.producer().build().await?;
//! let record = Record::to("orders").with_key("42").with_value("shipped");
//! let delivery = producer.send(record).await?; // in the buffer
//! let at = delivery.await?; // in the log
//! assert_eq!(at.offset, Some(0));
//! producer.close(Duration::from_secs(10)).await?;
//!
//! let builder = cluster.consumer().group("billing").auto_offset_reset(OffsetReset::Earliest);
//! let consumer = builder.build().await?;
//! consumer.subscribe(["orders", "^audit\\..*"])?;
//! let (handled, mut records) = tokio::sync::mpsc::unbounded_channel();
//! let worker = consumer.worker().concurrency(64).start(move |record| {
//!     let handled = handled.clone();
//!     async move { handled.send(record) } // done when this is `Ok`; an error is tried again
//! })?;
//! let record = records.recv().await.expect("a record");
//! assert_eq!(record.value.as_deref(), Some(&b"shipped"[..]));
//! worker.close(Duration::from_secs(10)).await?; // waits for handlers, commits, leaves the group
//!
//! // Or a loop of one's own: a record is done when the next one is asked for.
//! let builder = cluster.consumer().group("audit").auto_offset_reset(OffsetReset::Earliest);
//! let reader = builder.build().await?;
//! reader.subscribe(["orders"])?;
//! let record = reader.recv().await.transpose()?.expect("a subscribed consumer does not end");
//! assert_eq!(record.offset, 0);
//! reader.close(Duration::from_secs(10)).await?;
//! # Ok(()) }
//! # #[cfg(not(feature = "testkit"))]
//! # fn main() {}
//! ```
//!
//! # Guarantees
//! An acknowledged record is in the log; with idempotence it is there once and in order. The error
//! of a record that was not acknowledged says whether the record may be in the log
//! ([`Error::delivery_status`]). A consumer commits only records that its reader, or the worker's
//! handler, has completed. Configured byte limits bound the memory. Every wait has a deadline,
//! except the one for records. Every future may be dropped.
//!
//! # Observability
//! - [`Producer::metrics`] and [`Consumer::metrics`] return snapshots of the counters.
//! - [`Consumer::status`] says why each partition waits.
//! - [`ProducerInterceptor`](producer::ProducerInterceptor) sees each record and each result.
//! - [`Worker::status`] and [`Worker::metrics`] say the same of handlers.
//! - `tracing` receives the events of batches, requests and connections, under the targets
//!   `ottla::producer`, `ottla::consumer`, `ottla::worker`, `ottla::cluster` and `ottla::security`:
//!   WARN for losses and failures that persist, INFO for rare events, DEBUG for a span of each
//!   produce request and an event for each batch that is sent again. Every event has `client_id`
//!   and `role`, and for a consumer `group`.
//!
//! # Features
//! - `gzip`, `snappy`, `lz4`, `zstd` (default): the compression codecs.
//! - `tls` (default): TLS, with cryptography for x86_64 and aarch64; on other platforms the user
//!   supplies a provider.
//! - `oauth` (default): OAUTHBEARER. `aws-msk-iam` (default): AWS_MSK_IAM.
//! - `native-roots`: the system's certificate authorities.
//! - `pkcs12`: PKCS#12 key stores.
//! - `testkit`: the cluster inside the process.
//!
//! # Types of other crates
//! These are in public signatures on purpose, so that a new major version of their crate is a
//! breaking release of Ottla: `bytes::Bytes`, `futures_core::Stream`, `uuid::Uuid`,
//! `tokio::io::{AsyncRead, AsyncWrite}` (below [`net::Stream`]) and, with the feature `tls`,
//! `rustls`, which [`security`] re-exports for its `CryptoProvider`.

#![cfg_attr(docsrs, feature(doc_cfg))]
// The compiler's warnings are errors in the examples of the documentation and of the README,
// because readers copy them. Examples may define items and variables that only the reader uses.
#![doc(test(attr(deny(warnings), allow(dead_code, unused_variables))))]

pub mod admin;
pub(crate) mod cluster;
pub(crate) mod config;
pub mod consumer;
pub mod error;
#[cfg(all(any(test, fuzzing), feature = "testkit"))]
#[doc(hidden)]
pub mod fuzz;
mod histogram;
mod log;
pub mod metrics {
    //! Types that the metrics of every client share.
    //!
    //! The snapshots themselves are [`ProducerMetrics`](crate::producer::ProducerMetrics),
    //! [`ConsumerMetrics`](crate::consumer::ConsumerMetrics) and
    //! [`WorkerMetrics`](crate::worker::WorkerMetrics).

    pub use crate::{cluster::BrokerMetrics, histogram::Histogram};
}
pub mod net;
pub mod producer;
pub mod record;
pub mod security;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(feature = "testkit")]
mod testkit_clients;
#[cfg(all(test, feature = "testkit"))]
mod tests;
mod wire;
pub mod worker;

#[doc(no_inline)]
pub use admin::Admin;
pub use cluster::PartitionInfo;
#[doc(no_inline)]
pub use consumer::Consumer;
#[doc(no_inline)]
pub use error::{BoxError, DeliveryStatus, Error, ErrorCode, ErrorKind, Result};
#[doc(no_inline)]
pub use producer::{Delivery, Producer, Transaction, TransactionalProducer};
#[doc(no_inline)]
pub use record::{ConsumerRecord, Offset, Record, RecordMetadata, TopicPartition};
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub use wire::any_message;
pub use wire::{ApiKey, Compression};
#[doc(no_inline)]
pub use worker::Worker;

/// Compiles the README's programs as doc tests, and runs those that start their own broker.
#[cfg(all(doctest, feature = "testkit", feature = "tls"))]
#[doc = include_str!("../README.md")]
struct Readme;
