//! SASL on a connection: before its first request, and again when the broker asks for it (KIP-368).

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use rand::RngExt;
use zeroize::Zeroize;

use super::{
    ClientSettings,
    address::Address,
    encode::encode_frame,
    exchange::{Refusal, exchange},
    logins::Logins,
    versions::Versions,
};
use crate::cluster::request::{RawRequest, VersionBounds};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    net::Stream,
    security::{ConnectionSecurity, Exchange, Sasl, Step, scrubbed},
    wire::{
        ApiKey,
        byte_string::ByteString,
        message::{decode_response, decode_response_header, encode_body},
        messages::{SaslAuthenticateRequest, SaslHandshakeRequest},
        protocol::Request,
    },
};

/// SaslHandshake version 0 means that tokens follow without frames, as before Kafka 1.0.
const HANDSHAKE: i16 = 1;
/// Most turns of an exchange; mechanisms take fewer.
const MOST_TURNS: usize = 16;
/// Range of the share of the session lifetime that is left at re-authentication, as in Java, to
/// allow for network delay and differing clocks.
const MARGIN: (f64, f64) = (0.05, 0.15);
/// Least time left at re-authentication (or a third of the session lifetime, if that is less),
/// because requests that were sent before are queued at the broker, and it closes the connection if
/// it processes them too late.
const LEAST_MARGIN: Duration = Duration::from_millis(1500);

/// Authenticates one connection, once or many times.
#[derive(Debug)]
pub(super) struct Login {
    guard: Arc<ConnectionSecurity>,
    logins: Arc<Logins>,
    broker: Address,
    client_id: String,
    limit: usize,
    version: i16,
    timeout: Duration,
}

impl Login {
    /// Returns `None` if SASL is not configured.
    ///
    /// # Errors
    /// `UnsupportedVersion` for brokers older than 1.0.
    pub(super) fn new(
        guard: &Arc<ConnectionSecurity>,
        settings: &ClientSettings,
        (logins, broker): (&Arc<Logins>, &Address),
        versions: &Versions,
        timeout: Duration,
    ) -> Result<Option<Self>> {
        if guard.sasl().is_none() {
            return Ok(None);
        }
        if versions.pick(ApiKey::SaslHandshake, VersionBounds::ANY)? < HANDSHAKE {
            let message = "SASL: the broker is older than Kafka 1.0; this client does not support its SASL protocol";
            return Err(Error::new(ErrorKind::UnsupportedVersion, message));
        }
        Ok(Some(Self {
            guard: Arc::clone(guard),
            logins: Arc::clone(logins),
            broker: broker.clone(),
            client_id: settings.client_id.clone(),
            limit: settings.receive_message_max_bytes,
            version: versions.pick(ApiKey::SaslAuthenticate, VersionBounds::ANY)?,
            timeout,
        }))
    }

    fn mechanism(&self) -> &str {
        self.guard.sasl().map_or("", Sasl::name)
    }

    /// Prepares the exchange, which may mean fetching a token.
    ///
    /// # Errors
    /// The mechanism's own.
    pub(super) async fn begin(&self) -> Result<Box<dyn Exchange>> {
        match self.guard.sasl() {
            Some(sasl) => {
                let context = |error| sorted(error).context(format_args!("SASL {}", sasl.name()));
                sasl.begin(&self.broker.host).await.map_err(context)
            }
            None => Err(Error::new(ErrorKind::Internal, "SASL without a mechanism")),
        }
    }

    /// Authenticates, with no other request under way. Returns the time until re-authentication.
    ///
    /// # Errors
    /// `Authentication` if trying again cannot help.
    pub(super) async fn run(&self, exchange: Box<dyn Exchange>, stream: &mut dyn Stream) -> Result<Option<Duration>> {
        let mechanism = self.mechanism();
        self.handshake(stream, mechanism).await?;
        let (mut exchange, mut challenge, mut lifetime) = (exchange, None, 0);
        for turn in 1..=MOST_TURNS {
            // Deriving a key takes milliseconds, which would block the other tasks of this thread.
            let stepped = tokio::task::spawn_blocking(move || {
                let step = exchange.next(challenge.as_deref());
                (exchange, step)
            });
            let (back, step) = stepped.await.map_err(|error| {
                let message = format!("SASL {mechanism}: the mechanism ended without a result");
                Error::new(ErrorKind::Internal, message).with_source(error)
            })?;
            exchange = back;
            match step.map_err(|error| sorted(error).context(format_args!("SASL {mechanism}")))? {
                Step::Done => return Ok(reauthenticate_after(lifetime)),
                Step::Send(message) => {
                    let (answer, holds) = self.authenticate(stream, turn, message.expose(), mechanism).await?;
                    (challenge, lifetime) = (Some(answer), holds);
                }
            }
        }
        let message = format!("SASL {mechanism}: the broker continues the exchange after {MOST_TURNS} turns");
        Err(Error::new(ErrorKind::Authentication, message))
    }

    /// Runs [`begin`](Self::begin) and [`run`](Self::run) on a connection in use, within the
    /// timeout of a connection's setup.
    pub(super) async fn again(&self, stream: &mut dyn Stream) -> Result<Option<Duration>> {
        let run = async {
            let exchange = self.begin().await?;
            self.run(exchange, stream).await
        };
        let late = |_| {
            let message = format!("re-authentication took longer than {} ms", self.timeout.as_millis());
            Error::new(ErrorKind::Network, message)
        };
        let once = async { tokio::time::timeout(self.timeout, run).await.unwrap_or_else(|elapsed| Err(late(elapsed))) };
        self.logins.carry_out(&self.broker, once).await
    }

    async fn handshake(&self, stream: &mut dyn Stream, mechanism: &str) -> Result<()> {
        let request = SaslHandshakeRequest { mechanism: ByteString::from(mechanism.to_owned()) };
        let response = self.ask(stream, &request, HANDSHAKE, 0).await?;
        let code = ErrorCode::new(response.error_code);
        match code {
            ErrorCode::NONE => Ok(()),
            ErrorCode::UNSUPPORTED_SASL_MECHANISM => {
                let theirs = response
                    .mechanisms
                    .iter()
                    .take(16)
                    .map(|name| scrubbed(name, 300, []))
                    .collect::<Vec<_>>()
                    .join(", ");
                let context = format!("SASL: the listener has no mechanism {mechanism}, but: {theirs}");
                Err(Error::broker(code, context))
            }
            ErrorCode::ILLEGAL_SASL_STATE => {
                let context = "SASL: the listener has no SASL (set security.protocol to PLAINTEXT or SSL), or the \
                               broker is in another state";
                Err(Error::broker(code, context))
            }
            code => Err(Error::broker(code, "SASL: SaslHandshake")),
        }
    }

    async fn authenticate(
        &self,
        stream: &mut dyn Stream,
        turn: usize,
        message: &[u8],
        mechanism: &str,
    ) -> Result<(Bytes, i64)> {
        let request = SaslAuthenticateRequest { auth_bytes: Bytes::copy_from_slice(message) };
        let turn = i32::try_from(turn).unwrap_or(i32::MAX);
        let response = self.ask(stream, &request, self.version, turn).await;
        wipe(request.auth_bytes);
        let response = response?;
        let code = ErrorCode::new(response.error_code);
        if code.is_ok() {
            return Ok((response.auth_bytes, response.session_lifetime_ms));
        }
        if code == ErrorCode::SASL_AUTHENTICATION_FAILED
            && let Some(sasl) = self.guard.sasl()
        {
            sasl.refused();
        }
        // Control characters separate the parts of a message in all mechanisms that send secrets as
        // they are.
        let parts = message.split(|byte| *byte < b' ').filter_map(|part| std::str::from_utf8(part).ok());
        let said = response.error_message.as_deref();
        let said = said.map(|said| format!(" ({})", scrubbed(said, 300, parts))).unwrap_or_default();
        Err(Error::broker(code, format_args!("SASL {mechanism}: the broker refuses the credentials{said}")))
    }

    async fn ask<R: Request>(
        &self,
        stream: &mut dyn Stream,
        request: &R,
        version: i16,
        correlation_id: i32,
    ) -> Result<R::Response> {
        let key = R::API;
        let frame = encode_frame(&mut BytesMut::new(), key, version, correlation_id, &self.client_id, |head| {
            encode_body(head, request, version)?;
            Ok(RawRequest::whole())
        })?;
        let answer = exchange(stream, &frame.head, self.limit).await;
        wipe(frame.head);
        let mut body = answer.map_err(|refusal| match refusal {
            Refusal::HungUp => Error::new(
                ErrorKind::Network,
                format!("the broker closed the connection at {key}, as some do when they refuse the credentials"),
            ),
            Refusal::Other(error) => error,
        })?;
        let answered = decode_response_header(&mut body, key, version)?;
        if answered != correlation_id {
            let message = format!("the response to {key} has correlation id {answered}, expected {correlation_id}");
            return Err(Error::new(ErrorKind::Protocol, message));
        }
        decode_response::<R>(body, version)
    }
}

/// Returns the time until re-authentication for a session lifetime; `None` if the lifetime is
/// unlimited.
fn reauthenticate_after(lifetime_ms: i64) -> Option<Duration> {
    let lifetime = u64::try_from(lifetime_ms).ok().filter(|lifetime| *lifetime > 0)?;
    // Ten years are practically for ever, and short enough for every clock.
    let lifetime = Duration::from_millis(lifetime.min(315_360_000_000));
    let margin = lifetime.mul_f64(rand::rng().random_range(MARGIN.0..MARGIN.1));
    Some(lifetime - margin.max(LEAST_MARGIN.min(lifetime / 3)))
}

/// Zeroes memory that held a secret before it is freed.
fn wipe(bytes: Bytes) {
    // Another owner is about to drop the bytes as well.
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.as_mut().zeroize();
    }
}

/// Gives a mechanism's error the kind by which the client decides if it tries again: the mechanism
/// expresses that by the kind, or else by [`Error::with_retriable`].
fn sorted(error: Error) -> Error {
    match (error.kind(), error.is_retriable()) {
        (ErrorKind::Authentication, true) => error.with_kind(ErrorKind::Network),
        (ErrorKind::Network | ErrorKind::Timeout, false) => error.with_kind(ErrorKind::Authentication),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reauthenticates_before_session_lifetime_ends() {
        assert_eq!((reauthenticate_after(0), reauthenticate_after(-1)), (None, None));
        for lifetime in [1, 5000, i64::MAX] {
            let after = reauthenticate_after(lifetime).unwrap();
            assert!(after < Duration::from_millis(u64::try_from(lifetime).unwrap()));
        }
        for (lifetime, from, to) in [(3_600_000, 3_060_000, 3_420_000), (5000, 3500, 3500), (300, 200, 200)] {
            let after = reauthenticate_after(lifetime).unwrap();
            assert!(after >= Duration::from_millis(from) && after <= Duration::from_millis(to), "{after:?}");
        }
    }
}
