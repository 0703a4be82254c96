//! The testkit's cluster as a process of its own, for programs that are not written in Rust, or to measure against.
//!
//! ```sh
//! broker --brokers 3 --topic orders:6
//! broker --sink --topic perf:4
//! ```
//! The first line on standard output is the bootstrap address. It ends when standard input does; a sink then says on a
//! second line what it received, as JSON.

mod common;

use std::{io::Write, process::ExitCode};

use common::{Args, Failure};
use ottla::testkit::{Cluster, Options, Received};
use tokio::io::AsyncReadExt;

const HELP: &str = "\
usage: broker [--brokers N] [--topic NAME:PARTITIONS]... [--sink]

starts a Kafka cluster of N brokers (1) on loopback, in memory, and prints its bootstrap address
--sink   answers at once and keeps nothing: what is left to be measured is the client
it runs until its standard input ends";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Failure> {
    let (mut brokers, mut sink, mut topics) = (1, false, Vec::new());
    let mut args = Args::from_env();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--brokers" => brokers = args.number(&arg)?,
            "--sink" => sink = true,
            "-t" | "--topic" => {
                let text = args.value(&arg)?;
                let (name, partitions) = text.rsplit_once(':').unwrap_or((text.as_str(), "1"));
                let partitions = partitions.parse().map_err(|_| format!("{text:?} wants to be NAME:PARTITIONS"))?;
                topics.push((name.to_owned(), partitions));
            }
            "-h" | "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(format!("unknown argument {other:?}\n{HELP}").into()),
        }
    }
    let cluster = Cluster::start(Options::new().brokers(brokers).sink(sink)).await?;
    for (name, partitions) in topics {
        cluster.create_topic(&name, partitions)?;
    }
    println!("{}", cluster.bootstrap());
    let mut buffer = [0; 4096];
    while tokio::io::stdin().read(&mut buffer).await? > 0 {}
    if sink {
        let Received { requests, batches, records, record_bytes, bytes, .. } = cluster.received();
        // Whoever started it may not wait for this.
        let _ = writeln!(
            std::io::stdout(),
            "{{\"requests\":{requests},\"batches\":{batches},\"records\":{records},\
             \"record_bytes\":{record_bytes},\"bytes\":{bytes}}}"
        );
    }
    Ok(())
}
