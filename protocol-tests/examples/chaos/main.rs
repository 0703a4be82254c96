//! Nothing acknowledged is lost or doubled, whatever happens to the brokers: a real three-node
//! Kafka under load is killed, frozen and restarted at random for as many rounds as one likes,
//! while producers with different weak points send. After each round, and at the end, the log is
//! compared with what the producers said of each record.
//!
//! ```sh
//! cargo run --release -p protocol-tests --example chaos
//! cargo run --release -p protocol-tests --example chaos -- --rounds 500 --seed 7 --rate 20000
//! ```
//! It ends with a summary, one line of JSON, and exit code 0 if
//! - each acknowledged record is in the log once, where its result says;
//! - those of one producer and partition that are there, acknowledged or not, are in the order in
//!   which they were sent;
//! - none that is said not to be persisted is there, and none that possibly is there twice, then or
//!   in any later round;
//! - every record got exactly one result, and those that are reported are so in the order of
//!   sending, per partition;
//! - no partition was without acknowledgements for longer than `--stall`.
//!
//! The seed, printed first, repeats what is done; what the cluster makes of it is its own.
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
    eprintln!("signals are sent here, so this needs Unix");
    std::process::ExitCode::FAILURE
}
