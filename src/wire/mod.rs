//! Kafka's bytes: frames, varints, checksums, record batches, codecs, messages. This room has no
//! IO, no clock and no state of a client.

#[cfg(feature = "testkit")]
pub mod any_message;
mod api_key;
pub(crate) mod batch;
pub(crate) mod byte_string;
pub(crate) mod codec;
mod crc;
pub(crate) mod decoder;
pub(crate) mod encoder;
pub(crate) mod fetch;
pub(crate) mod frame;
#[cfg(all(any(test, fuzzing), feature = "testkit"))]
pub(crate) mod fuzz;
#[cfg(all(any(test, fuzzing), feature = "testkit"))]
pub(crate) mod fuzz_messages;
pub(crate) mod message;
pub(crate) mod messages;
pub(crate) mod produce;
pub(crate) mod protocol;
mod read;
pub(crate) mod varint;
mod write;

pub use api_key::ApiKey;
pub use codec::Compression;
