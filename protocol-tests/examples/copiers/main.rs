//! Chains of copiers: each copies one partition of a topic to the next topic in transactions, with
//! the offsets of its records, while it and the nodes of a real three-node Kafka are killed, frozen
//! and restarted at random. The copiers are Ottla's (`examples/transactional_message_copier.rs`),
//! Kafka's own, or both in one chain.
//!
//! ```sh
//! cargo build --examples                                                        # Ottla's copier
//! cargo run -p protocol-tests --example copiers -- --rounds 10
//! cargo run -p protocol-tests --example copiers -- --clients mixed --kafka 4.4.0 --transaction-version 1
//! ```
//! The writer sends numbers to the first topic meanwhile. It ends with exit code 0 if
//! - each topic has the records of the first one, once and in order, in each partition;
//! - no consumer read a record of a transaction that did not commit, and no transaction is visible
//!   in part: the history of all events has no anomaly (see the crate `history`);
//! - the committed offsets of each group match its copies;
//! - no transaction hangs: the last stable offset of each partition reaches its end;
//! - the copies reached the last topic after each round.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

#[cfg(unix)]
mod args;
#[cfg(unix)]
mod fleet;
#[cfg(unix)]
#[path = "../chaos/hurt.rs"]
mod hurt;
#[cfg(unix)]
mod judge;
#[cfg(unix)]
#[path = "../chaos/plan.rs"]
#[allow(dead_code, reason = "chaos uses more of it")]
mod plan;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod seat;
#[cfg(unix)]
mod tail;
#[cfg(unix)]
mod writer;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[cfg(unix)]
#[tokio::main]
async fn main() -> std::process::ExitCode {
    run::main().await
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("this program sends signals, so it needs Unix");
    std::process::ExitCode::FAILURE
}
