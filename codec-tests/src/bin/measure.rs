//! Compares Ottla's codecs with the C libraries on the same batches, in one run: size, and the time
//! of encoding and decoding, as ratios.
//!
//! `cargo run --profile measure --bin measure`. `measure CODEC LEVEL TIMES BYTES` only encodes a
//! batch of BYTES bytes TIMES times, to be counted by callgrind; CODEC is `ottla`, `c`, or
//! `librdkafka` for C zstd as librdkafka calls it.

use std::{hint::black_box, time::Duration, time::Instant};

use clap::{Parser, Subcommand};
use codec_tests::{
    c::C,
    inputs::Inputs,
    ours::{Codec, Ours},
    random::Random,
};

/// The time for which each encoder and decoder runs in each round.
const TIME: Duration = Duration::from_millis(100);
const ROUNDS: usize = 7;
/// A batch that grew because its records compress well, a batch of the `batch.size` of the
/// comparison with other clients, and a batch of a quiet partition.
const BATCHES: [usize; 3] = [1 << 20, 256 << 10, 16 << 10];
/// Codec and level, the same on both sides.
const LEVELS: [(Codec, i32); 9] = [
    (Codec::Gzip, 1),
    (Codec::Gzip, 6),
    (Codec::Snappy, 0),
    (Codec::Lz4, 0),
    (Codec::Zstd, -5),
    (Codec::Zstd, 1),
    (Codec::Zstd, 2),
    (Codec::Zstd, 3),
    (Codec::Zstd, 4),
];
/// zstd's default level in C and in Java.
const USUAL: i32 = 3;

/// Compares size and speed of Ottla's codecs with the C libraries.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    encoder: Option<Encoder>,
}

/// An encoder of zstd that only encodes, to be counted by callgrind.
#[derive(Subcommand)]
enum Encoder {
    /// Only encodes a batch, with Ottla's encoder.
    Ottla(Work),
    /// Only encodes a batch, with the C library.
    C(Work),
    /// Only encodes a batch, with the C library as librdkafka calls it.
    Librdkafka(Work),
}

#[derive(clap::Args)]
struct Work {
    #[arg(allow_negative_numbers = true)]
    level: i32,
    /// how often the batch is encoded
    times: u32,
    /// size of the batch
    bytes: usize,
}

fn main() {
    if let Some(encoder) = Args::parse().encoder {
        return encode_only(&encoder);
    }
    println!("medians of {ROUNDS} rounds; Ottla's bytes and time relative to the C library's at the same level");
    println!("{:<10}{:>8} {:<10}{:>8}{:>8}{:>8}{:>8}", "body", "batch", "codec", "ratio", "bytes", "encode", "decode");
    for (name, all) in bodies() {
        for size in BATCHES {
            let body = &all[..size];
            for (codec, level) in LEVELS {
                same_level(&format!("{name:<10}{size:>8}"), body, codec, level);
            }
            for level in 1..=4 {
                beside_librdkafka(&format!("{name:<10}{size:>8}"), body, level);
            }
        }
    }
}

fn same_level(name: &str, body: &[u8], codec: Codec, level: i32) {
    let (mut ours, mut c) = (Ours::default(), C::default());
    let packed = ours.encode(codec, level, body).expect("it encodes");
    let packed_by_c = c.encode_at(codec, level, body);
    let encode = ratio(
        || drop(black_box(ours.encode(codec, level, black_box(body)))),
        || drop(black_box(c.encode_at(codec, level, black_box(body)))),
    );
    // Both decode the C library's output.
    let decode = ratio(
        || drop(black_box(ours.decode(codec, black_box(&packed_by_c), body.len()))),
        || drop(black_box(c.decode(codec, black_box(&packed_by_c), body.len()))),
    );
    println!(
        "{name} {:<10}{:>8.2}{:>8.3}{encode:>8.2}{decode:>8.2}",
        format!("{codec:?} {level}").to_lowercase(),
        body.len() as f64 / packed.len() as f64,
        packed.len() as f64 / packed_by_c.len() as f64,
    );
}

fn beside_librdkafka(name: &str, body: &[u8], level: i32) {
    let (mut ours, mut c) = (Ours::default(), C::default());
    let bytes = ours.encode(Codec::Zstd, level, body).expect("it encodes").len() as f64;
    let encode = ratio(
        || drop(black_box(ours.encode(Codec::Zstd, level, black_box(body)))),
        || drop(black_box(c.zstd_like_librdkafka(black_box(body), USUAL))),
    );
    let share = bytes / c.zstd_like_librdkafka(body, USUAL).len() as f64;
    println!("{name} zstd {level} beside librdkafka's {USUAL}: {share:.3} of the bytes, {encode:.2} of the time");
}

/// Returns the median of the rounds' ratios; the two sides alternate.
fn ratio(mut ours: impl FnMut(), mut theirs: impl FnMut()) -> f64 {
    let mut ratios: Vec<f64> = (0..ROUNDS).map(|_| each(&mut ours) / each(&mut theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    ratios[ROUNDS / 2]
}

/// Returns the seconds of the shortest of many calls, which other load of the machine disturbs
/// least.
fn each(work: &mut impl FnMut()) -> f64 {
    work();
    let (start, mut shortest) = (Instant::now(), f64::MAX);
    while start.elapsed() < TIME {
        let begun = Instant::now();
        work();
        shortest = shortest.min(begun.elapsed().as_secs_f64());
    }
    shortest
}

fn encode_only(encoder: &Encoder) {
    let (codec, &Work { level, times, bytes }) = match encoder {
        Encoder::Ottla(work) => ("ottla", work),
        Encoder::C(work) => ("c", work),
        Encoder::Librdkafka(work) => ("librdkafka", work),
    };
    let body = events(bytes, 1000);
    let body = &body[..bytes];
    let (mut ours, mut c) = (Ours::default(), C::default());
    let mut size = 0;
    for _ in 0..times {
        size = match encoder {
            Encoder::Ottla(_) => ours.encode(Codec::Zstd, level, black_box(body)).expect("it encodes").len(),
            Encoder::C(_) => c.encode_at(Codec::Zstd, level, black_box(body)).len(),
            Encoder::Librdkafka(_) => c.zstd_like_librdkafka(black_box(body), level).len(),
        };
    }
    println!("{codec} at level {level}: {} bytes become {size}, {times} times", body.len());
}

/// Returns batches of several kinds, each of the largest size.
fn bodies() -> [(&'static str, Vec<u8>); 5] {
    let size = BATCHES[0];
    let inputs = Inputs::new();
    let mut text = Vec::new();
    inputs.text(size, &mut text);
    let mut code = Vec::new();
    inputs.code(size, &mut code);
    [
        ("events", events(size, 1000)),
        ("small", events(size, 100)),
        ("orders", orders(size)),
        ("text", text),
        ("code", code),
    ]
}

/// Returns lines of JSON of one shape.
fn orders(size: usize) -> Vec<u8> {
    const STATES: [&str; 5] = ["created", "paid", "packed", "shipped", "returned"];
    let mut random = Random::new(42, 0);
    let mut out = Vec::new();
    while out.len() < size {
        let line = format!(
            "{{\"order\":{},\"customer\":\"c-{:06}\",\"state\":\"{}\",\"amount\":{}.{:02},\"at\":17{:011}}}\n",
            random.below(1 << 30),
            random.below(5_000),
            random.choose(&STATES),
            random.below(500),
            random.below(100),
            random.below(99_999_999_999),
        );
        out.extend_from_slice(line.as_bytes());
    }
    out
}

/// Returns records of 100 or 1,000 bytes of text like that of events, like those that the
/// comparison with other clients sends.
fn events(size: usize, value_size: usize) -> Vec<u8> {
    const FIELDS: [&str; 8] = ["user", "session", "amount", "page", "latency", "device", "region", "status"];
    const WORDS: [&str; 8] = ["checkout", "search", "eu-central", "mobile", "us-east", "accepted", "pending", "basket"];
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut all = Vec::with_capacity(size + 1100);
    for n in 0.. {
        if all.len() >= size {
            break;
        }
        let mut value = format!("{{\"id\":{n:08}");
        while value.len() < value_size {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let field = FIELDS[(random % 8) as usize];
            if random & 8 == 0 {
                value.push_str(&format!(",\"{field}\":{}", (random >> 8) % 10_000_000));
            } else {
                value.push_str(&format!(",\"{field}\":\"{}\"", WORDS[(random >> 8) as usize % 8]));
            }
        }
        // Length, attributes, deltas of time and offset, no key, the value's length; no headers.
        all.extend_from_slice(&[0xe4, 0x0f, 0, 2, (n as u8) << 1 | 0x80, 4, 1, 0xd0, 0x0f]);
        all.extend_from_slice(&value.as_bytes()[..value_size]);
        all.push(0);
    }
    all
}
