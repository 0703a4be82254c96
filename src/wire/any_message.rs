//! Any generated message by its name, decoded and encoded, for tests outside of the crate.
//!
//! Only the feature `testkit` compiles decoders and encoders for both the request and the response
//! of every API, so this module needs it too.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::{
    ApiKey,
    decoder::{Decode, Decoder},
    encoder::{Encode, Encoder},
    messages::{self, each_message},
    protocol::Message,
};
use crate::error::{Error, ErrorKind, Result};

/// The request or the response of an API, in any version.
#[derive(Clone, Copy)]
pub struct AnyMessage {
    /// The name in Kafka's schema, such as `FetchResponse`.
    pub name: &'static str,
    /// The API.
    pub api: ApiKey,
    /// The first and the last version, without versions that Kafka's schema marks unstable.
    pub versions: (i16, i16),
    /// The first version with compact lengths and tagged fields (KIP-482); `i16::MAX` if there is
    /// none.
    pub first_flexible: i16,
    decode: fn(Bytes, i16) -> Result<()>,
    recode: fn(Bytes, i16) -> Result<Recoded>,
    default: fn(i16) -> Result<Vec<u8>>,
}

/// A message that was decoded and encoded again.
#[derive(Debug, PartialEq, Eq)]
pub struct Recoded {
    /// The encoded body.
    pub bytes: Vec<u8>,
    /// The decoded message as `Debug` prints it.
    pub text: String,
}

impl AnyMessage {
    /// Returns true for a request and false for a response.
    pub fn is_request(&self) -> bool {
        self.name.ends_with("Request")
    }

    /// Decodes a body without its header, and drops the message.
    ///
    /// # Errors
    /// `Protocol`, with the message, the version, the field and the position, if the bytes are not
    /// such a body or some are left over; `UnsupportedVersion` for a version that the message does
    /// not have.
    pub fn decode(&self, body: Bytes, version: i16) -> Result<()> {
        self.check(version)?;
        (self.decode)(body, version).map_err(|error| error.context(self.name))
    }

    /// Decodes a body without its header, and encodes the message again.
    ///
    /// # Errors
    /// Like [`decode`](Self::decode); `InvalidArgument` for a text that is too long to be encoded.
    pub fn recode(&self, body: Bytes, version: i16) -> Result<Recoded> {
        self.check(version)?;
        (self.recode)(body, version).map_err(|error| error.context(self.name))
    }

    /// Encodes a message of default values.
    ///
    /// # Errors
    /// `UnsupportedVersion` for a version that cannot express a default, or that the message does
    /// not have.
    pub fn default_body(&self, version: i16) -> Result<Vec<u8>> {
        self.check(version)?;
        (self.default)(version).map_err(|error| error.context(self.name))
    }

    fn check(&self, version: i16) -> Result<()> {
        let (first, last) = self.versions;
        if (first..=last).contains(&version) {
            return Ok(());
        }
        let message = format!("{} has the versions {first} to {last}, not {version}", self.name);
        Err(Error::new(ErrorKind::UnsupportedVersion, message))
    }
}

impl fmt::Debug for AnyMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

macro_rules! table {
    ($($name:ident,)*) => { &[$(entry::<messages::$name>(stringify!($name)),)*] };
}

/// Every message, by the keys of their APIs, each request before its response.
pub static MESSAGES: &[AnyMessage] = each_message!(table);

const fn entry<M: Message + Decode + Encode + Default + fmt::Debug>(name: &'static str) -> AnyMessage {
    AnyMessage {
        name,
        api: M::API,
        versions: M::VERSIONS,
        first_flexible: M::FLEXIBLE,
        decode: |body, version| decode::<M>(body, version).map(drop),
        recode: |body, version| {
            let message = decode::<M>(body, version)?;
            Ok(Recoded { bytes: encode(&message, version)?, text: format!("{message:?}") })
        },
        default: |version| encode(&M::default(), version),
    }
}

fn decode<M: Message + Decode>(body: Bytes, version: i16) -> Result<M> {
    let mut decoder = Decoder::new(body, version, version >= M::FLEXIBLE);
    let message = M::decode(&mut decoder)?;
    decoder.finish()?;
    Ok(message)
}

fn encode<M: Message + Encode>(message: &M, version: i16) -> Result<Vec<u8>> {
    let mut out = BytesMut::new();
    message.encode(&mut Encoder::new(&mut out, version, version >= M::FLEXIBLE))?;
    Ok(out.to_vec())
}
