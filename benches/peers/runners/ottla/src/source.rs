//! The source of all reading cases: a broker of the testkit that serves the same batches without
//! end, at increasing offsets.
//!
//! ```sh
//! source --topic perf --partitions 4 --values FILE --size 100 --compression lz4 --tls false
//! ```
//! With `--tls true` it has the testkit's certificate, and accepts TLS 1.3 only. It prints its
//! address, and ends when its standard input does, after a line with the size of the batches.

use std::{fs, path::PathBuf, process::ExitCode};

use bytes::Bytes;
use clap::{ArgAction, Parser, builder::RangedU64ValueParser};
use ottla::{
    Compression, Record,
    testkit::{Cluster, Options, Tls, batch},
};
use peers_common::Failure;
use serde_json::json;
use tokio::io::AsyncReadExt;

/// Bytes of values in a batch, like in the batches of busy producers.
const BATCH: usize = 64 * 1024;

/// Serves the same batches without end, until its standard input ends.
#[derive(Parser)]
struct Args {
    #[arg(long, default_value = "perf")]
    topic: String,
    /// number of the topic's partitions
    #[arg(long, default_value_t = 1)]
    partitions: i32,
    /// bytes of a value
    #[arg(long, default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    size: usize,
    #[arg(long, default_value = "none")]
    compression: Compression,
    /// file of the values, one after the other
    #[arg(long)]
    values: PathBuf,
    /// has the testkit's certificate, and accepts TLS 1.3 only
    #[arg(long, default_value_t = false, action = ArgAction::Set)]
    tls: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let Args { topic, partitions, size, compression, values, tls } = Args::parse();
    let values = fs::read(values)?;
    if values.len() < size {
        return Err("nothing to serve".into());
    }
    let batches = batches(&topic, &values, size, compression)?;
    let (bytes, records) = (batches.iter().map(Bytes::len).sum::<usize>(), values.len() / size);
    let mut options = Options::new().sink(true).default_partitions(partitions).prepared(topic, batches);
    if tls {
        options = options.tls(Tls::new().only_tls_1_3());
    }
    let cluster = Cluster::start(options).await?;
    println!("{}", cluster.bootstrap());
    let mut buffer = [0; 4096];
    while tokio::io::stdin().read(&mut buffer).await? > 0 {}
    println!("{}", json!({ "bytes": bytes, "records": records }));
    Ok(())
}

fn batches(topic: &str, values: &[u8], size: usize, compression: Compression) -> Result<Vec<Bytes>, Failure> {
    let values: Vec<&[u8]> = values.chunks_exact(size).collect();
    let mut batches = Vec::new();
    for values in values.chunks((BATCH / size).max(1)) {
        // All records have one timestamp, as if they had been sent together.
        let records: Vec<Record<'_>> = values
            .iter()
            .map(|value| Record::to(topic).with_value(*value).with_timestamp_millis(1_700_000_000_000))
            .collect();
        batches.push(batch(&records, compression)?);
    }
    Ok(batches)
}
