//! The source of all reading cases: a broker of the testkit that serves the same batches without
//! end, at increasing offsets.
//!
//! ```sh
//! source --topic perf --partitions 4 --values FILE --size 100 --compression lz4 --tls false
//! ```
//! With `--tls true` it has the testkit's certificate, and accepts TLS 1.3 only. It prints its
//! address, and ends when its standard input does, after a line with the size of the batches.

use std::{fs, process::ExitCode};

use bytes::Bytes;
use ottla::{
    Compression, Record,
    testkit::{Cluster, Options, Tls, batch},
};
use peers_common::Failure;
use tokio::io::AsyncReadExt;

/// Bytes of values in a batch, like in the batches of busy producers.
const BATCH: usize = 64 * 1024;

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
    let (mut topic, mut partitions, mut size, mut compression, mut file, mut tls) =
        ("perf".to_owned(), 1, 100_usize, Compression::None, None, false);
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().ok_or_else(|| format!("{name} requires a value"))?;
        match name.as_str() {
            "--topic" => topic = value,
            "--partitions" => partitions = value.parse()?,
            "--size" => size = value.parse()?,
            "--compression" => compression = value.parse()?,
            "--values" => file = Some(value),
            "--tls" => tls = value.parse()?,
            other => return Err(format!("unknown option {other}").into()),
        }
    }
    let values = fs::read(file.ok_or("--values requires a file")?)?;
    if size == 0 || values.len() < size {
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
    println!("{{\"bytes\":{bytes},\"records\":{records}}}");
    Ok(())
}

fn batches(topic: &str, values: &[u8], size: usize, compression: Compression) -> Result<Vec<Bytes>, Failure> {
    let values: Vec<&[u8]> = values.chunks_exact(size).collect();
    let mut batches = Vec::new();
    for values in values.chunks((BATCH / size).max(1)) {
        // All records have one timestamp, as if they had been sent together.
        let records: Vec<Record<'_>> =
            values.iter().map(|value| Record::to(topic).with_value(*value).with_timestamp_millis(1_700_000_000_000)).collect();
        batches.push(batch(&records, compression)?);
    }
    Ok(batches)
}
