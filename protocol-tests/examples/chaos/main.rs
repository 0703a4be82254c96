//! Checks that no acknowledged record is lost or duplicated, whatever happens to the brokers: the
//! nodes of a real three-node Kafka under load are killed, frozen and restarted at random for any
//! number of rounds, while producers with different risks send. After each round, and at the end,
//! the log is compared with the results of all records.
//!
//! ```sh
//! cargo run --release -p protocol-tests --example chaos
//! cargo run --release -p protocol-tests --example chaos -- --rounds 500 --seed 7 --rate 20000
//! ```
//! It ends with a summary, one line of JSON, and exit code 0 if
//! - each acknowledged record is in the log once, at the place in its result;
//! - the records of one producer and partition in the log, acknowledged or not, are in the order in
//!   which they were sent;
//! - no record reported as not persisted is in the log, and no possibly persisted one is there
//!   twice, then or in any later round;
//! - every record got exactly one result, and reports are in the order of sending, per partition;
//! - no partition was without acknowledgements for longer than `--stall`.
//!
//! The seed, which is printed first, repeats the same actions, but not the cluster's reactions.
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

#[cfg(unix)]
mod args;
#[cfg(unix)]
mod drive;
#[cfg(unix)]
mod hurt;
#[cfg(unix)]
mod ledger;
#[cfg(unix)]
mod load;
#[cfg(unix)]
mod plan;
#[cfg(unix)]
mod profile;
#[cfg(unix)]
mod pulse;
#[cfg(unix)]
mod report;
#[cfg(unix)]
mod run;
#[cfg(unix)]
mod verify;

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
