//! Finds planted bugs: a transactional copier and its faults in this process, judged by the checker
//! of histories, once for each bug that the library can be told to have.
//!
//! ```sh
//! scripts/planted-bugs        # builds with the bugs, and writes docs/planted-bugs.md
//! cargo run -p protocol-tests --example planted -- --seeds 50     # without bugs: no anomaly
//! ```
//! Each seed is one run: a cluster in memory, an input of a few hundred records, three members of a
//! group that copy it in transactions, and faults of the brokers and of the copiers, all chosen by
//! the seed. The clock is virtual. A bug counts as found by the first seed whose history has an
//! anomaly, or whose copiers make no progress for ten virtual minutes.
#![cfg(unix)]

mod copier;
mod faults;
mod run;

use std::process::ExitCode;

use clap::Command;
use protocol_tests::arguments::{self, option, value};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The bugs, as `producer/transaction/planted.rs` numbers them.
const BUGS: [&str; 11] = [
    "a commit without an answer counts as committed",
    "offsets are sent without the member and its generation",
    "a record that fails does not fail its transaction",
    "a record that `send` refuses does not fail its transaction",
    "a commit does not wait for the results of records",
    "a commit does not wait for the answer to offsets",
    "an abort does not wait until no batch is in flight",
    "the coordinator is asked to commit a transaction that the program aborts",
    "a refused commit counts as aborted, also after an attempt without an answer",
    "a dropped transaction is not aborted",
    "each offset is that of the record after the next",
];

fn main() -> ExitCode {
    let command = Command::new("planted").about("finds planted bugs by the checker of histories").args([
        option("seeds", "N", "number of seeds for each bug")
            .default_value("200")
            .value_parser(clap::value_parser!(u64)),
        option("first", "N", "the first seed").default_value("1").value_parser(clap::value_parser!(u64)),
    ]);
    let given = match command.try_get_matches() {
        Ok(given) => given,
        Err(error) => return arguments::exit(&error, 2),
    };
    let (seeds, first): (u64, u64) = (value(&given, "seeds"), value(&given, "first"));
    match find(first..first + seeds) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the seeds with the bug that the environment names, or without any; returns true if that
/// ended as it should: with an anomaly, or without any.
fn find(seeds: std::ops::Range<u64>) -> Result<bool, Failure> {
    let planted: Option<usize> = std::env::var("OTTLA_PLANTED").ok().map(|number| number.parse()).transpose()?;
    let runs = seeds.end - seeds.start;
    for seed in seeds.clone() {
        let found = run::run(seed).map_err(|error| format!("seed {seed}: {error}"))?;
        match (planted, found) {
            (_, None) => {}
            (Some(bug), Some(anomaly)) => {
                let what = BUGS.get(bug.wrapping_sub(1)).ok_or("there is no bug with that number")?;
                println!("| {bug} | {what} | {} | {anomaly} |", seed - seeds.start + 1);
                return Ok(true);
            }
            (None, Some(anomaly)) => {
                println!("seed {seed}: {anomaly}");
                return Ok(false);
            }
        }
    }
    match planted {
        Some(bug) => println!("| {bug} | not found in {runs} runs | | |"),
        None => println!("no anomaly in {runs} runs"),
    }
    Ok(planted.is_none())
}
