//! The testkit's cluster as a process of its own, for programs that are not written in Rust, and
//! for measurements.
//!
//! ```sh
//! broker --brokers 3 --topic orders:6
//! broker --sink --topic perf:4 --feature transaction.version=2
//! broker --sink --serve big:200:16:65536
//! ```
//! The first line on standard output is the bootstrap address. The program ends when its standard
//! input does; with `--sink` it then prints its totals on a second line, as JSON.

mod common;

use std::{io::Write, process::ExitCode};

use bytes::Bytes;
use common::{Args, Failure};
use ottla::{
    ApiKey, Compression, Record,
    testkit::{Cluster, Options, Received, Tls, batch},
};
use tokio::io::AsyncReadExt;

const HELP: &str = "\
usage: broker [--brokers N] [--topic NAME:PARTITIONS]... [--feature NAME=LEVEL]... [--tls]
              [--sink [--serve NAME:PARTITIONS:RECORDS:SIZE[:CODEC]]]

starts a Kafka cluster of N brokers (1) on loopback, in memory, and prints its bootstrap address
--feature  a finalized feature of the cluster, such as transaction.version=2 (transactions v2, KIP-890)
--tls      TLS 1.3 with the testkit's certificate, whose authority is src/testkit/certificates/authority.pem
--sink     answers at once and keeps no records, so that only the client is measured
--serve    a topic whose partitions serve batches of RECORDS records of SIZE bytes without end, compressed by CODEC
           (gzip, snappy, lz4 or zstd at their default levels)
the program runs until its standard input ends";

#[tokio::main]
async fn main() -> ExitCode {
    common::exit(run().await)
}

async fn run() -> Result<(), Failure> {
    let (mut brokers, mut sink, mut tls, mut topics, mut served) = (1, false, false, Vec::new(), None);
    let mut features: Vec<(String, i16)> = Vec::new();
    let mut args = Args::from_env();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--brokers" => brokers = args.number(&arg)?,
            "--sink" => sink = true,
            "--tls" => tls = true,
            "--serve" => served = Some(serve(&args.value(&arg)?)?),
            "-t" | "--topic" => {
                let text = args.repeated(&arg)?;
                let (name, partitions) = text.rsplit_once(':').unwrap_or((text.as_str(), "1"));
                let partitions = partitions.parse().map_err(|_| format!("{text:?} is not NAME:PARTITIONS"))?;
                topics.push((name.to_owned(), partitions));
            }
            "--feature" => {
                let text = args.repeated(&arg)?;
                let wrong = || format!("{text:?} is not NAME=LEVEL");
                let (name, level) = text.split_once('=').ok_or_else(wrong)?;
                features.push((name.to_owned(), level.parse().map_err(|_| wrong())?));
            }
            "-h" | "--help" => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(format!("unknown argument {other:?}\n{HELP}").into()),
        }
    }
    let mut options = Options::new().brokers(brokers).sink(sink);
    if let Some((name, partitions, batch)) = served {
        options = options.default_partitions(partitions).prepared(name, vec![batch]);
    }
    for (name, level) in features {
        options = options.feature(name, level);
    }
    if tls {
        options = options.tls(Tls::new().only_tls_1_3());
    }
    let cluster = Cluster::start(options).await?;
    for (name, partitions) in topics {
        cluster.create_topic(&name, partitions)?;
    }
    println!("{}", cluster.bootstrap());
    let mut buffer = [0; 4096];
    while tokio::io::stdin().read(&mut buffer).await? > 0 {}
    if sink {
        let Received { requests, batches, records, record_bytes, bytes, .. } = cluster.received();
        // Only transactions v1 add partitions by requests of their own.
        let added = cluster.requests(ApiKey::AddPartitionsToTxn);
        // The program that started this one may already have closed its end.
        let _ = writeln!(
            std::io::stdout(),
            "{{\"requests\":{requests},\"batches\":{batches},\"records\":{records},\
             \"record_bytes\":{record_bytes},\"bytes\":{bytes},\
             \"add_partitions_to_txn\":{added}}}"
        );
    }
    Ok(())
}

/// Parses a topic's name, its number of partitions and the batch that they serve, from
/// `NAME:PARTITIONS:RECORDS:SIZE[:CODEC]`.
fn serve(text: &str) -> Result<(String, i32, Bytes), Failure> {
    let wrong = || format!("{text:?} is not NAME:PARTITIONS:RECORDS:SIZE[:CODEC]");
    let parts: Vec<&str> = text.split(':').collect();
    let (name, partitions, records, size, codec) = match parts[..] {
        [name, partitions, records, size] => (name, partitions, records, size, "none"),
        [name, partitions, records, size, codec] => (name, partitions, records, size, codec),
        _ => return Err(wrong().into()),
    };
    let compression = match codec {
        "none" => Compression::None,
        "gzip" => Compression::Gzip(6),
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd(3),
        _ => return Err(wrong().into()),
    };
    let (partitions, records): (_, usize) =
        (partitions.parse().map_err(|_| wrong())?, records.parse().map_err(|_| wrong())?);
    let size = size.parse().map_err(|_| wrong())?;
    let values: Vec<Vec<u8>> = (0..records).map(|n| letters(size, n as u64)).collect();
    let records: Vec<Record<'_>> = values.iter().map(|value| Record::to(name).with_value(&value[..])).collect();
    Ok((name.to_owned(), partitions, batch(&records, compression)?))
}

/// Returns text of sixteen letters in pseudorandom order, which a codec can halve.
fn letters(size: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let letter = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        b'a' + (state >> 60) as u8
    };
    (0..size).map(letter).collect()
}
