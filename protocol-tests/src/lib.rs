//! Real Apache Kafka for tests and programs, and other clients to compare Ottla with.
//!
//! ```no_run
//! # async fn example() -> Result<(), protocol_tests::Error> {
//! use protocol_tests::Kafka;
//!
//! let builder = Kafka::builder().version("4.4.0").nodes(3).config("num.partitions", "4");
//! let kafka = builder.start().await?;
//! println!("bootstrap.servers={}", kafka.bootstrap());
//! kafka.node(1).kill()?;
//! kafka.ready().await?; // the other two have noticed it
//! kafka.node(1).start()?;
//! # Ok(()) }
//! ```
//!
//! Needs `java` (17 or newer) and, the first time, `mvn` with a reachable repository. If they are
//! missing a test says so in one line and passes, or fails if `CI=true` is set in the environment:
//! see [`or_skip`] and [`shared`].
//!
//! | module | purpose |
//! |---|---|
//! | `builder`, `kafka`, `node` | the cluster: [`Kafka`], [`Node`] |
//! | `jars` | Maven, once for each version |
//! | `leashed` | processes that cannot outlive the test process |
//! | `program` | programs beside a test, read line by line: [`Program`] |
//! | `wire` | the requests that the fixture encodes itself |
//! | `shared` | one cluster for all tests of a binary; skipping tests |
//! | [`tools`], [`kcat`] | Kafka's console clients and librdkafka's |
//! | [`transact`] | transactions written by Kafka's own client |
//! | [`dump`] | a partition's log, read by Kafka's own tool |
//! | [`golden`] | bytes from Kafka's own serializers |
#![forbid(unsafe_code)]
// Signals, process groups and `sh`: the crate is empty on Windows.
#![cfg(unix)]

pub mod arguments;
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

pub use builder::{Builder, DEFAULT_VERSION, default_version};
pub use error::Error;
pub use jars::{Jars, Version};
pub use kafka::Kafka;
pub use message::{Consumed, Message};
pub use node::Node;
pub use program::Program;
pub use shared::{at_least, has_producer_ids, needs, or_skip, shared, unique};
pub use wire::{ClusterView, PartitionView, TopicView};

/// Prints a line for the person that runs the tests. It is written to the stream itself, because
/// the harness hides the output of passing tests.
pub(crate) fn say(line: &str) {
    use std::io::Write;
    // If standard error is closed, the line cannot be printed anywhere.
    let _ = writeln!(std::io::stderr(), "[protocol-tests] {line}");
}
