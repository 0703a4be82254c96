//! Real Apache Kafka for tests and programs, and other people's clients to hold Ottla against.
//!
//! ```no_run
//! # async fn example() -> Result<(), protocol_tests::Error> {
//! use protocol_tests::Kafka;
//!
//! let kafka = Kafka::builder().version("4.4.0").nodes(3).config("num.partitions", "4").start().await?;
//! println!("bootstrap.servers={}", kafka.bootstrap());
//! kafka.node(1).kill()?;
//! kafka.ready().await?; // the other two have noticed
//! kafka.node(1).start()?;
//! # Ok(()) }
//! ```
//!
//! Needs `java` (17 or newer) and, the first time, `mvn` with a repository in reach. Where they are
//! missing a test says so in one line and passes, and fails when the environment says `CI=true`:
//! see [`or_skip`] and [`shared`].
//!
//! | module | what it is |
//! |---|---|
//! | `builder`, `kafka`, `node` | the cluster: [`Kafka`], [`Node`] |
//! | `jars` | Maven, once for each version |
//! | `leashed` | processes that cannot outlive us |
//! | `program` | programs beside a test, read line by line: [`Program`] |
//! | `wire` | the requests that the fixture speaks by itself |
//! | `shared` | one cluster for all tests of a binary; leaving tests out |
//! | [`tools`], [`kcat`] | Kafka's console clients and librdkafka's |
//! | [`transact`] | transactions written by Kafka's own client |
//! | [`dump`] | a partition's log as Kafka's own tool reads it |
//! | [`golden`] | bytes from Kafka's own serializers |
#![forbid(unsafe_code)]
// Signals, process groups and `sh`: on Windows there is nothing here.
#![cfg(unix)]

mod arguments;
mod builder;
pub mod dump;
mod error;
pub mod golden;
mod jars;
mod kafka;
pub mod kcat;
mod leashed;
mod message;
mod node;
mod places;
mod program;
pub mod secured;
mod shared;
pub mod tools;
pub mod transact;
mod wire;

pub use arguments::given_once;
pub use builder::{Builder, DEFAULT_VERSION, default_version};
pub use error::Error;
pub use jars::{Jars, Version};
pub use kafka::Kafka;
pub use message::{Consumed, Message};
pub use node::Node;
pub use program::Program;
pub use shared::{at_least, has_producer_ids, needs, or_skip, shared, unique};
pub use wire::{ClusterView, PartitionView, TopicView};

/// Tells whoever runs the tests. Written to the stream itself, because the harness hides what
/// passing tests print.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // Standard error that is closed leaves nobody to tell.
    let _ = writeln!(std::io::stderr(), "[protocol-tests] {line}");
}
