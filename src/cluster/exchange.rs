//! Sends one frame and reads one, with no other request under way; connections begin and
//! authenticate in this way.

use bytes::{BufMut, Bytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frames::broken;
use crate::{
    error::{Error, ErrorKind, Result},
    net::Stream,
    security::tls_failure,
    wire::frame::frame_length,
};

pub(super) enum Refusal {
    HungUp,
    Other(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Largest response that is accepted from a peer before it is known to be a broker and the login is
/// done (ApiVersions, SaslHandshake, SaslAuthenticate): as large as the largest request that a
/// broker accepts from a client before the login (`sasl.server.max.receive.size`).
const BEFORE_LOGIN: usize = 512 * 1024;

/// Writes one frame and reads one, of at most 512 KiB and at most `limit` bytes.
pub(super) async fn exchange(stream: &mut dyn Stream, frame: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    // In TLS 1.3 a peer rejects this client's certificate only after the handshake.
    let hung_up = |error| tls_failure(&error).map_or(Refusal::HungUp, Refusal::Other);
    stream.write_all(frame).await.map_err(hung_up)?;
    stream.flush().await.map_err(hung_up)?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.map_err(hung_up)?;
    let length = frame_length(prefix, limit.min(BEFORE_LOGIN)).map_err(|error| explained(prefix, error))?;
    // Grows as bytes arrive, because the announced length cannot be trusted.
    let mut body = Vec::new().limit(length);
    while body.has_remaining_mut() {
        if stream.read_buf(&mut body).await.map_err(|error| broken(&error))? == 0 {
            return Err(Refusal::HungUp);
        }
    }
    Ok(body.into_inner().into())
}

/// Explains an invalid frame length. If the bytes are TLS, the error is of kind `Authentication`,
/// so that calls end at once, because another attempt would meet the same listener.
fn explained(prefix: [u8; 4], error: Error) -> Error {
    match prefix {
        [0x15 | 0x16, 0x03, 0..=4, _] => Error::new(ErrorKind::Authentication, error.to_string()),
        _ => error.context(
            "the peer's first answers, before the login, are not those of a broker (check that the port is that of a \
             Kafka listener, and that security.protocol is the listener's own)",
        ),
    }
}
