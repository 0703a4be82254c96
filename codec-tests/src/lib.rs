//! Compares Ottla's codecs with the C libraries of zstd, LZ4, zlib and Snappy.
//!
//! `cargo run --release` is the differential test (see `main.rs`);
//! `cargo run --profile measure --bin measure` compares speed and size.

pub mod c;
pub mod check;
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "only the codecs' own calls are compared")]
#[path = "../../src/wire/codec/mod.rs"]
mod codec;
#[allow(dead_code, unused_imports, unreachable_pub, missing_docs, reason = "needed by the codecs")]
#[path = "../../src/error/mod.rs"]
mod error;
pub mod inputs;
pub mod ours;
pub mod random;
pub mod versions;
