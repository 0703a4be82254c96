//! Checks that each record is delivered once and in order, whatever happens to the brokers:
//! consumers read while the nodes of a real three-node Kafka are killed, frozen and restarted at
//! random (as in the `chaos` example). Each consumer is near a different node (KIP-392), and one
//! after the other is itself closed and started again at its position.
//!
//! ```sh
//! cargo run --release -p protocol-tests --example along -- --rounds 10
//! cargo run --release -p protocol-tests --example along -- --rounds 10 --transactions yes
//! ```
//! With `--transactions yes` Kafka's own client writes transactions that commit and abort at
//! random, and the consumers read the committed records. It ends with exit code 0 if
//! - no consumer skipped a record, received one twice or one too early;
//! - all of them received the same records;
//! - they received all records of committed transactions, none of aborted ones, and either all or
//!   none of a transaction with an unknown result;
//! - each of them reached the end of the log after each round.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

#[cfg(unix)]
#[path = "../chaos/hurt.rs"]
mod hurt;
#[cfg(unix)]
mod load;
#[cfg(unix)]
#[path = "../chaos/plan.rs"]
#[allow(dead_code, reason = "chaos uses more of it")]
mod plan;
#[cfg(unix)]
mod reader;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod seen;

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
