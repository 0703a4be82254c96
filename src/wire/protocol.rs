//! The traits that the generated messages share.

use super::{ApiKey, decoder::Decode, encoder::Encode};

/// One half of an API: its request or its response.
pub(crate) trait Message {
    const API: ApiKey;
    /// The first and the last version, without versions that Kafka's schema marks unstable.
    const VERSIONS: (i16, i16);
    /// The first version with compact lengths and tagged fields (KIP-482).
    const FLEXIBLE: i16;
}

/// A request, with the type of its response.
pub(crate) trait Request: Message + Encode {
    type Response: Message + Decode;
}
