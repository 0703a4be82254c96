//! Runs the same scenarios, with the same assertions, for Ottla's verifiable programs and for
//! Kafka's own (`org.apache.kafka.tools.VerifiableProducer` and `VerifiableConsumer`), on a real
//! three-node Kafka, as Kafka's system tests run theirs.
//!
//! ```sh
//! cargo build --examples                                             # Ottla's two programs
//! cargo run -p protocol-tests --example verifiable                   # all scenarios, all clients
//! cargo run -p protocol-tests --example verifiable -- --clients ottla,mixed \
//!     --scenarios member-hard,fencing
//! ```
//! For every run it is asserted that
//! - each acknowledged record is consumed, at its offset and with its value;
//! - members consume only partitions that they were assigned, in order and without a gap;
//! - they commit only such partitions, and never beyond the records that they consumed;
//! - no partition has two owners among the members that are not hurt;
//! - with clean stops only, no record is consumed twice (except those that Java's program could not
//!   commit in the middle of a cooperative rebalance);
//! - and the assertions of each scenario hold (`scenarios`).
#![cfg_attr(not(unix), allow(dead_code, unused_imports))]

#[cfg(unix)]
mod args;
#[cfg(unix)]
mod event;
#[cfg(unix)]
mod ledger;
#[cfg(unix)]
mod scenarios;
#[cfg(unix)]
mod stage;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[cfg(unix)]
#[tokio::main]
async fn main() -> std::process::ExitCode {
    let args = match args::Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => return protocol_tests::arguments::exit(&why, 1),
    };
    match run(&args).await {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(unix)]
async fn run(args: &args::Args) -> Result<bool, Failure> {
    use std::time::Instant;

    use protocol_tests::{Jars, Kafka};

    let mut builder = Kafka::builder().version(&args.version).nodes(3);
    for (key, value) in [
        ("offsets.topic.num.partitions", "3"),
        ("group.initial.rebalance.delay.ms", "500"),
        ("group.consumer.min.session.timeout.ms", "6000"),
    ] {
        builder = builder.config(key, value);
    }
    let kafka = builder.start().await?;
    let jars = Jars::get(kafka.version().clone()).await?;
    let mut failed = 0;
    for scenario in &args.scenarios {
        for clients in &args.clients {
            for setting in &args.settings {
                let began = Instant::now();
                let result = match stage::Stage::new(&kafka, &jars, *clients, *setting).await {
                    Ok(stage) => scenarios::run(*scenario, stage).await,
                    Err(error) => Err(error),
                };
                let name = format!("{:13} {:5} {setting}", scenario.name(), clients.name());
                let secs = began.elapsed().as_secs_f64();
                match result {
                    Ok(told) => println!("PASSED {name} ({secs:.0} s): {told}"),
                    Err(error) => {
                        failed += 1;
                        println!("FAILED {name} ({secs:.0} s): {error}");
                    }
                }
                // Nodes that are down are started for the next scenario.
                for node in kafka.nodes().iter().filter(|node| !node.is_up()) {
                    node.start()?;
                }
                kafka.ready().await?;
            }
        }
    }
    Ok(failed == 0)
}

#[cfg(not(unix))]
fn main() -> std::process::ExitCode {
    eprintln!("this program sends signals, so it needs Unix");
    std::process::ExitCode::FAILURE
}
