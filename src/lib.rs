//! Ottla: a Kafka client in Rust with nothing of C in it.
//!
//! - [`Consumer::run`] calls a handler for every record: [`Worker`] keeps order, retries, dead
//!   letters, commits and rebalances.
//! - [`Producer`] sends [`Record`]s: idempotent by default, with one result for each record.
//! - [`Consumer`] reads [`ConsumerRecord`]s, or borrowed [`Records`](consumer::Records), of partitions that it was
//!   assigned or that its group gives it.
//! - [`Admin`] creates, deletes, lists and describes topics.
//! - [`security`] is TLS and SASL, for all of them.
//! - `testkit` (a feature) is a Kafka cluster inside the process, with faults, to test against.
//!
//! All of them run on the tokio runtime that they are built on, multi-threaded or current-thread,
//! and none blocks a thread. They are made by builders, or from the property names of Kafka's Java
//! client (librdkafka's are accepted where they differ).
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
//! let delivery = producer.send(Record::to("orders").with_key("42").with_value("shipped")).await?; // in the buffer
//! let at = delivery.await?; // in the log
//! assert_eq!(at.offset, Some(0));
//! producer.close(Duration::from_secs(10)).await?;
//!
//! let consumer = cluster.consumer().group("billing").auto_offset_reset(OffsetReset::Earliest).build().await?;
//! consumer.subscribe(["orders", "^audit\\..*"])?;
//! let (handled, mut records) = tokio::sync::mpsc::unbounded_channel();
//! let worker = consumer.worker().concurrency(64).start(move |record| {
//!     let handled = handled.clone();
//!     async move { handled.send(record) } // done when this is `Ok`; an error is tried again
//! })?;
//! let record = records.recv().await.expect("a record");
//! assert_eq!(record.value.as_deref(), Some(&b"shipped"[..]));
//! worker.close(Duration::from_secs(10)).await?; // lets handlers end, commits what is done, and leaves the group
//!
//! // Or a loop of one's own: a record is done when the next one is asked for.
//! let reader = cluster.consumer().group("audit").auto_offset_reset(OffsetReset::Earliest).build().await?;
//! reader.subscribe(["orders"])?;
//! let record = reader.recv().await.transpose()?.expect("a subscribed consumer does not end");
//! assert_eq!(record.offset, 0);
//! reader.close(Duration::from_secs(10)).await?;
//! # Ok(()) }
//! # #[cfg(not(feature = "testkit"))]
//! # fn main() {}
//! ```
//!
//! # What is promised
//! A record that was acknowledged is in the log; with idempotence it is there once and in order. A
//! record that was not says whether it may be there ([`Error::delivery_status`]). A consumer
//! commits only what its reader, or the worker's handler, is done with. Memory is bounded by
//! configured bytes; every wait but the one for records has a deadline; every future may be
//! dropped.
//!
//! # Observability
//! [`Producer::metrics`] and [`Consumer::metrics`] are snapshots of what was counted,
//! [`Consumer::status`] says what each partition waits for, [`ProducerInterceptor`](producer::ProducerInterceptor) sees each
//! record and each result, and [`Worker::status`] and [`Worker::metrics`] are the same for
//! handlers, and `tracing` is told what happens to batches, requests and connections, under the
//! targets `ottla::producer`, `ottla::consumer`, `ottla::worker`, `ottla::cluster` and
//! `ottla::security`: at WARN what was lost or is in the way, at INFO what is rare, at DEBUG a span
//! for each produce request and an event for each batch that is sent again. Every event has
//! `client_id`, `role` and, of a consumer, `group`.
//!
//! # Features
//! `gzip`, `snappy`, `lz4`, `zstd` (default): the codecs. `tls` (default): TLS, with cryptography
//! for x86_64 and aarch64; elsewhere the user brings a provider. `native-roots`: the system's
//! certificate authorities. `pkcs12`: stores in PKCS#12. `testkit`: the cluster in the process.

#![cfg_attr(docsrs, feature(doc_cfg))]
// A warning in an example of the documentation or of the README is a mistake that readers would
// copy. Examples may define and bind what only the reader uses.
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
    //! Types that the metrics of every client are made of.
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
pub use producer::{Delivery, Producer};
#[doc(no_inline)]
pub use record::{ConsumerRecord, Offset, Record, RecordMetadata, TopicPartition};
#[cfg(feature = "testkit")]
#[doc(hidden)]
pub use wire::any_message;
pub use wire::{ApiKey, Compression};
#[doc(no_inline)]
pub use worker::Worker;

/// The README's programs, held to compile and, where they bring their broker along, to run.
#[cfg(all(doctest, feature = "testkit", feature = "tls"))]
#[doc = include_str!("../README.md")]
struct Readme;
