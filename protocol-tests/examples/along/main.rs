//! Each record is handed out once and in order, whatever happens to the brokers: consumers read
//! along while a real three-node Kafka is killed, frozen and restarted at random (as by the `chaos`
//! example), each near a node of its own (KIP-392), and one after the other is itself closed and
//! started again where it was.
//!
//! ```sh
//! cargo run --release -p protocol-tests --example along -- --rounds 10
//! cargo run --release -p protocol-tests --example along -- --rounds 10 --transactions yes
//! ```
//! With `--transactions yes` Kafka's own client writes transactions that commit and abort at
//! random, and the consumers read what is committed. It ends with exit code 0 if
//! - no consumer skipped a record, got one twice or one too early;
//! - all of them got the same records;
//! - of transactions, they got all of what was committed, nothing of what was aborted, and of one
//!   whose end is not known everything or nothing;
//! - each of them came to the end of the log after each round.
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
    eprintln!("signals are sent here, so this needs Unix");
    std::process::ExitCode::FAILURE
}
