//! Measures each codec at the sizes of a small and of a large batch: `cargo bench --bench codec`.
//!
//! The codecs are not public, so their sources are compiled in here.

#[allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "only the codecs' own calls are measured")]
#[path = "../src/wire/codec/mod.rs"]
mod codec;
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "the codecs need only a part of it")]
#[path = "../src/error/mod.rs"]
mod error;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use codec::{Compression, CompressorState, DecompressorState, compress, decompress};

/// Duration of each measurement.
const TIME: Duration = Duration::from_millis(300);

fn main() -> error::Result<()> {
    println!("{:<10} {:>8} {:>8} {:>12} {:>12}", "codec", "bytes", "ratio", "pack MB/s", "unpack MB/s");
    for size in [16 << 10, 1 << 20] {
        let body = records(size);
        for name in ["gzip:1", "gzip", "snappy", "lz4", "zstd:-7", "zstd", "zstd:3"] {
            let compression: Compression = name.parse()?;
            let (mut writing, mut reading) = (CompressorState::default(), DecompressorState::default());
            let packed = compress(compression, &mut writing, &body)?;
            let pack = rate(size, || compress(compression, &mut writing, black_box(&body)).map(drop))?;
            let unpack =
                rate(size, || decompress(compression.id(), &mut reading, 2, black_box(&packed), size).map(drop))?;
            let ratio = size as f64 / packed.len() as f64;
            println!("{name:<10} {size:>8} {ratio:>8.2} {pack:>12.0} {unpack:>12.0}");
        }
    }
    Ok(())
}

/// Returns megabytes of the uncompressed size per second.
fn rate(size: usize, mut work: impl FnMut() -> error::Result<()>) -> error::Result<f64> {
    work()?;
    let (start, mut rounds) = (Instant::now(), 0u32);
    while start.elapsed() < TIME {
        work()?;
        rounds += 1;
    }
    Ok(size as f64 * f64::from(rounds) / start.elapsed().as_secs_f64() / 1e6)
}

/// Returns events in JSON, like those of many topics.
fn records(size: usize) -> Vec<u8> {
    let mut seed = 42u64;
    let mut next = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let states = ["created", "paid", "packed", "shipped", "returned"];
    let mut out = Vec::with_capacity(size + 200);
    while out.len() < size {
        let state = states.get(next(5) as usize).copied().unwrap_or_default();
        let line = format!(
            "{{\"order\":{},\"customer\":\"c-{:06}\",\"state\":\"{state}\",\"amount\":{}.{:02},\"at\":17{:011}}}\n",
            next(1 << 30),
            next(5_000),
            next(500),
            next(100),
            next(99_999_999_999),
        );
        out.extend_from_slice(line.as_bytes());
    }
    out.truncate(size);
    out
}
