//! Length-prefixed frames with a limit.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::{Error, ErrorKind, Result};

/// The chunks after a frame's head, to be written one after the other; those of four batches fit
/// without an allocation.
pub(crate) type Chunks = SmallVec<[Bytes; 8]>;

/// Zero-copy inserts into a request: (offset in the request's own bytes, bytes to write there).
pub(crate) type Inserts = SmallVec<[(usize, Bytes); 4]>;

/// Reads the length before a frame. It is refused if it is negative or above `limit`; the error
/// names the protocol of the peer if the four bytes are the start of HTTP, of a TLS record, or of
/// text.
pub(crate) fn frame_length(prefix: [u8; 4], limit: usize) -> Result<usize> {
    if let Some(hint) = foreign(prefix) {
        return Err(Error::new(ErrorKind::Protocol, hint));
    }
    if prefix.iter().all(|byte| matches!(byte, b' '..=b'~')) && u32::from_be_bytes(prefix) as usize > limit {
        let text: String = prefix.iter().map(|byte| char::from(*byte)).collect();
        let message = format!(
            "the peer answers with the text {text:?}…, and not in the Kafka protocol: check host and port in \
             bootstrap.servers"
        );
        return Err(Error::new(ErrorKind::Protocol, message));
    }
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Ok(length) if length <= limit => Ok(length),
        Ok(length) => Err(Error::new(
            ErrorKind::Protocol,
            format!("the peer announces a response of {length} bytes, more than the limit of {limit}"),
        )),
        Err(_) => Err(Error::new(
            ErrorKind::Protocol,
            format!("the peer announces a response of {length} bytes: it does not seem to speak the Kafka protocol"),
        )),
    }
}

/// Returns a hint about the peer's protocol if these bytes cannot be a length. As lengths they
/// would be above 350 MB.
fn foreign(prefix: [u8; 4]) -> Option<&'static str> {
    match prefix {
        [b'H', b'T', b'T', b'P'] => {
            Some("the peer answers in HTTP: this is the port of a web server or proxy, not of a Kafka listener")
        }
        [0x15, 0x03, 0..=4, _] => Some(
            "the peer answers with a TLS alert: this listener asks for TLS, so set security.protocol to SSL or SASL_SSL",
        ),
        [0x16, 0x03, 0..=4, _] => Some(
            "the peer answers with a TLS handshake: this listener asks for TLS, so set security.protocol to SSL or \
             SASL_SSL",
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_lengths_up_to_limit() {
        assert_eq!(frame_length([0, 0, 0, 0], 10).unwrap(), 0);
        assert_eq!(frame_length([0, 0, 0, 10], 10).unwrap(), 10);
        for prefix in [[0, 0, 0, 11], [0xff; 4], [0x7f, 0xff, 0xff, 0xff]] {
            assert_eq!(frame_length(prefix, 10).unwrap_err().kind(), ErrorKind::Protocol);
        }
    }

    #[test]
    fn error_quotes_text_received_as_length() {
        for prefix in [*b"SSH-", *b"220 ", *b"-ERR", *b"<htm"] {
            let error = frame_length(prefix, 100_000_000).unwrap_err();
            assert!(error.to_string().contains(std::str::from_utf8(&prefix).unwrap()), "{error}");
            assert!(error.to_string().contains("bootstrap.servers"), "{error}");
        }
        assert!(frame_length(*b"    ", usize::MAX).is_ok(), "a length within the limit is accepted");
    }

    #[test]
    fn error_names_http_or_tls_peer() {
        for (prefix, name) in
            [(*b"HTTP", "HTTP"), ([0x15, 0x03, 0x03, 0x00], "TLS alert"), ([0x16, 0x03, 0x01, 0x02], "TLS handshake")]
        {
            let error = frame_length(prefix, usize::MAX).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
