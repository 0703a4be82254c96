//! Bytes from Kafka's own serializers, for comparison with Ottla's.
//!
//! A small Java program (`Golden.java`) runs from the jars of Kafka [`VERSION`] as long as the test
//! process does, and encodes and decodes with Kafka's classes. Its results are kept in
//! `target/kafka/golden`, so that a second run need not start it.
//!
//! ```no_run
//! use protocol_tests::{Message, golden, or_skip};
//!
//! let json = r#"{"clientSoftwareName": "ottla", "clientSoftwareVersion": "0.1.0"}"#;
//! let Some(bytes) = or_skip(golden::request("ApiVersions", 3, json)) else { return Ok(()) };
//! // … compare with Ottla's bytes, and decode them:
//! let json = golden::decode("ApiVersionsRequest", 3, &bytes)?;
//!
//! let batch = golden::Batch::new(golden::Codec::Zstd);
//! let batch = batch.record(1_700_000_000_000, Message::value("hello"));
//! let bytes = golden::batch(&batch)?;
//! for read in golden::read_batches(&bytes)? {
//!     assert_eq!(read.records[0].message.value.as_deref(), Some(&b"hello"[..]));
//! }
//! # Ok::<(), protocol_tests::Error>(())
//! ```
//!
//! The functions block, so that plain `#[test]`s can use them.

mod batch;
mod service;

pub use batch::{Batch, Codec, ReadBatch, ReadRecord, Timestamps};

use crate::error::Error;

/// The version of Kafka that encodes and decodes: the one from which Ottla's messages are
/// generated.
pub const VERSION: &str = "4.4.0";

/// One of Kafka's messages with random content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The name in Kafka's schema, such as `ProduceRequest`, `FetchResponse`, `RequestHeader`,
    /// `ConsumerProtocolAssignment`.
    pub name: String,
    /// The API's key; `None` for messages other than requests and responses.
    pub api_key: Option<i16>,
    /// The version of the message.
    pub version: i16,
    /// The version of its header; `None` for messages other than requests and responses.
    pub header_version: Option<i16>,
    /// The message without its header.
    pub bytes: Vec<u8>,
    /// The content, as Kafka prints it.
    pub json: String,
}

/// Returns the body of a request, such as `("Metadata", 9, …)`, with the content given as Kafka's
/// JSON: every field of the version must be present, in camel case, bytes and records in base64.
///
/// # Errors
/// `Unavailable`; `Rejected` when there is no such message or version, or the JSON does not match
/// it.
pub fn request(api: &str, version: i16, json: &str) -> Result<Vec<u8>, Error> {
    encode(&format!("{api}Request"), version, json)
}

/// Returns the body of a response; otherwise like [`request`].
///
/// # Errors
/// Those of [`request`].
pub fn response(api: &str, version: i16, json: &str) -> Result<Vec<u8>, Error> {
    encode(&format!("{api}Response"), version, json)
}

/// Encodes any message of `org.apache.kafka.common.message`, by its name there without `Data`;
/// otherwise like [`request`].
///
/// # Errors
/// Those of [`request`].
pub fn encode(message: &str, version: i16, json: &str) -> Result<Vec<u8>, Error> {
    let json = json.replace(['\n', '\r', '\t'], " ");
    match service::ask_once(&format!("encode\t{message}\t{version}\t{json}"))?.as_slice() {
        [hex] => unhex(hex)?.ok_or_else(|| garbled(hex)),
        other => Err(garbled(&other.join("\n"))),
    }
}

/// Decodes a message with Kafka's classes and returns its content as JSON, on one line.
///
/// # Errors
/// `Unavailable`; `Rejected` when Kafka cannot decode it or bytes are left over.
pub fn decode(message: &str, version: i16, bytes: &[u8]) -> Result<String, Error> {
    Ok(service::ask(&format!("decode\t{message}\t{version}\t{}", hex(Some(bytes))))?.join("\n"))
}

/// Decodes a message with Kafka's classes and returns its content as JSON, and the bytes that they
/// encode from that JSON.
///
/// # Errors
/// Those of [`decode`].
pub fn through_json(message: &str, version: i16, bytes: &[u8]) -> Result<(String, Vec<u8>), Error> {
    match service::ask(&format!("through\t{message}\t{version}\t{}", hex(Some(bytes))))?.as_slice() {
        [json, hex] => Ok((json.clone(), unhex(hex)?.ok_or_else(|| garbled(hex))?)),
        other => Err(garbled(&other.join("\n"))),
    }
}

/// Returns one message for each type and version that Kafka knows, filled at random from the seed:
/// some 600 of them.
///
/// # Errors
/// `Unavailable`.
pub fn samples(seed: u64) -> Result<Vec<Sample>, Error> {
    let optional =
        |text: &str| -> Option<Option<i16>> { text.parse().ok().map(|number: i16| (number >= 0).then_some(number)) };
    let read = |line: &String| -> Option<Sample> {
        let mut fields = line.splitn(6, '\t');
        Some(Sample {
            name: fields.next()?.to_owned(),
            api_key: optional(fields.next()?)?,
            version: fields.next()?.parse().ok()?,
            header_version: optional(fields.next()?)?,
            bytes: unhex(fields.next()?).ok()??,
            json: fields.next()?.to_owned(),
        })
    };
    // Java's seeds are signed; any one-to-one mapping will do.
    let lines = service::ask_once(&format!("samples\t{}", seed.cast_signed()))?;
    lines.iter().map(|line| read(line).ok_or_else(|| garbled(line))).collect()
}

/// Encodes record batches with Kafka's `MemoryRecords`.
///
/// # Errors
/// `Unavailable`; `Rejected` when Kafka refuses, such as headers in an old format.
pub fn batch(batch: &Batch) -> Result<Vec<u8>, Error> {
    match service::ask_once(&batch.question())?.as_slice() {
        [hex] => unhex(hex)?.ok_or_else(|| garbled(hex)),
        other => Err(garbled(&other.join("\n"))),
    }
}

/// Decodes record batches with Kafka's `MemoryRecords`, which checks the checksums. The bytes must
/// be whole batches.
///
/// # Errors
/// `Unavailable`; `Rejected` when Kafka cannot read them or bytes are left over.
pub fn read_batches(bytes: &[u8]) -> Result<Vec<ReadBatch>, Error> {
    batch::read(&service::ask(&format!("read\t{}", hex(Some(bytes))))?)
}

/// Encodes null as a dash, so that it differs from empty.
fn hex(bytes: Option<&[u8]>) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let Some(bytes) = bytes else {
        return "-".to_owned();
    };
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn unhex(text: &str) -> Result<Option<Vec<u8>>, Error> {
    if text == "-" {
        return Ok(None);
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect();
    match bytes {
        Some(bytes) if rest.is_empty() => Ok(Some(bytes)),
        _ => Err(garbled(text)),
    }
}

fn garbled(answer: &str) -> Error {
    Error::Garbled { what: "Golden.java".into(), answer: answer.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_encoding_distinguishes_null_from_empty() {
        for bytes in [None, Some(&b""[..]), Some(&[0, 0x7f, 0xff][..])] {
            assert_eq!(unhex(&hex(bytes)).expect("what we wrote").as_deref(), bytes);
        }
        assert!(unhex("0").is_err());
        assert!(unhex("0g").is_err());
        assert!(unhex("é").is_err());
    }
}
