//! Makes a connection from an address, and agrees on the versions.
//!
//! TLS comes between `Network::connect` and `agree`: it takes the stream and returns one. SASL
//! comes after `agree`, as in Java, because a broker tells its versions to unauthenticated clients.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::BytesMut;
use tokio::time::{Instant, timeout_at};

use super::{
    ClientSettings,
    address::Address,
    connection::Connection,
    connection_task::ConnectionDriver,
    encode::encode_frame,
    exchange::{Refusal, exchange},
    frames::FrameReader,
    login::Login,
    logins::Logins,
    pipeline::Limits,
    resolution::Resolution,
    versions::Versions,
};
use crate::cluster::deadline::saturating_tokio_deadline;
use crate::cluster::request::RawRequest;
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result, clean},
    log::event,
    net::{Endpoint, Stream},
    security::ConnectionSecurity,
    wire::{
        ApiKey,
        byte_string::ByteString,
        message::{client_versions, decode_response, decode_response_header, encode_body},
        messages::{ApiVersionsRequest, ApiVersionsResponse},
    },
};

/// Shortest idle time; with less, a connection could close before the request that it was made for
/// arrives.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

/// A connection that was just made.
pub(super) struct Established {
    pub(super) connection: Connection,
    pub(super) driver: ConnectionDriver,
    pub(super) api_versions: ApiVersionsResponse,
}

/// The node that a connection is meant for (KIP-1242). A broker of another cluster, or another
/// node, that has taken over the address answers REBOOTSTRAP_REQUIRED; brokers before 4.4 do not
/// check.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    pub(super) cluster_id: String,
    pub(super) node: i32,
}

/// Resolves an address and connects to the first of its IP addresses that accepts, within
/// `setup_timeout` for each, TLS and SASL included.
///
/// # Errors
/// The failure of the last address, which it names. A refusal (kind `Authentication`) ends the
/// attempt, because the other addresses belong to the same broker.
pub(super) async fn establish(
    settings: &ClientSettings,
    guard: &Arc<ConnectionSecurity>,
    resolution: &Resolution,
    logins: &Arc<Logins>,
    (address, expected): (&Address, Option<&Expected>),
    setup_timeout: Duration,
) -> Result<Established> {
    let limit = SetupLimit::new(setup_timeout);
    let resolved = limit.keep("resolving the name", settings.network.resolve(&address.host, address.port)).await;
    let resolved =
        resolved.and_then(|resolved| resolved.map_err(unresolved)).map_err(|error| error.context(address))?;
    if !resolved.is_empty() {
        resolution.succeed();
    }
    let mut failure = Error::new(ErrorKind::Network, "the name has no address").context(address);
    let mut misrouted = None;
    for endpoint in resolved {
        let attempt = ConnectAttempt {
            settings,
            guard,
            logins,
            address,
            expected,
            endpoint: endpoint.clone(),
            limit: SetupLimit::new(setup_timeout),
        };
        match attempt.connect().await {
            Ok(established) => return Ok(established),
            Err(error) => {
                failure = error.context(NamedAddress { address, endpoint: &endpoint });
                event!(DEBUG, settings.origin, %failure, "an attempt to connect failed");
                if failure.kind() == ErrorKind::Authentication {
                    break;
                }
                // One of several addresses may be reused by another broker.
                if failure.code() == Some(ErrorCode::REBOOTSTRAP_REQUIRED) {
                    misrouted = Some(failure.clone());
                }
            }
        }
    }
    Err(misrouted.unwrap_or(failure))
}

fn unresolved(error: io::Error) -> Error {
    let kind = match error.kind() {
        // Such a name never resolves to an address.
        io::ErrorKind::InvalidInput => ErrorKind::Configuration,
        _ => ErrorKind::Network,
    };
    Error::new(kind, error.to_string())
}

/// A time limit that all steps share; the error names the step that exceeded it.
#[derive(Clone, Copy)]
struct SetupLimit {
    timeout: Duration,
    until: Instant,
}

impl SetupLimit {
    fn new(timeout: Duration) -> Self {
        Self { timeout, until: saturating_tokio_deadline(Instant::now(), timeout) }
    }

    async fn keep<T>(&self, what: &str, step: impl Future<Output = T>) -> Result<T> {
        timeout_at(self.until, step).await.map_err(|_| {
            let message = format!("{what} took longer than {} ms", self.timeout.as_millis());
            Error::new(ErrorKind::Network, message)
        })
    }
}

/// One attempt at one IP address.
struct ConnectAttempt<'a> {
    settings: &'a ClientSettings,
    guard: &'a Arc<ConnectionSecurity>,
    logins: &'a Arc<Logins>,
    address: &'a Address,
    expected: Option<&'a Expected>,
    endpoint: Endpoint,
    limit: SetupLimit,
}

impl ConnectAttempt<'_> {
    async fn connect(&self) -> Result<Established> {
        let Self { settings, guard, logins, address, expected, limit, .. } = *self;
        let newest = client_versions(ApiKey::ApiVersions).map_or(0, |(_, newest)| newest);
        let mut stream = self.open().await?;
        let api_versions =
            match limit.keep("the ApiVersions request", agree(&mut *stream, settings, expected, newest)).await? {
                // Brokers before 0.10 hang up on versions that they do not know. A broker that is
                // expected to be a node of a known cluster is newer; version 0 would not check the
                // cluster.
                Err(Refusal::HungUp) if newest > 0 && expected.is_none() => {
                    stream = self.open().await?;
                    limit.keep("the ApiVersions request", agree(&mut *stream, settings, expected, 0)).await?
                }
                agreed => agreed,
            };
        let api_versions = api_versions.map_err(|refusal| match refusal {
            Refusal::HungUp => Error::new(
                ErrorKind::Network,
                "the peer closed the connection at the ApiVersions request (does the listener require TLS or SASL, \
                 or is it a proxy or a broker older than 0.10?)",
            ),
            Refusal::Other(error) => error,
        })?;
        let code = ErrorCode::new(api_versions.error_code);
        if !code.is_ok() {
            return Err(match expected {
                // Another broker has the address: the client looks this one up again.
                Some(Expected { cluster_id, node }) if code == ErrorCode::REBOOTSTRAP_REQUIRED => {
                    let cluster_id = clean(cluster_id);
                    let context = format_args!("the broker at this address is not node {node} of cluster {cluster_id}");
                    Error::broker(code, context).with_retriable(true)
                }
                _ => Error::broker(code, "ApiVersions"),
            });
        }
        let peer = address.to_string();
        let versions = Versions::new(peer.clone(), &api_versions);
        let login = Login::new(guard, settings, (logins, address), &versions, limit.timeout)?;
        let mut again_after = None;
        if let Some(login) = &login {
            let once = async {
                let exchange = limit.keep("preparing SASL (such as fetching a token)", login.begin()).await??;
                limit.keep("authentication with SASL", login.run(exchange, &mut *stream)).await?
            };
            again_after = logins.carry_out(address, once).await?;
        }
        let limits = Limits {
            max_in_flight: settings.max_in_flight_per_connection,
            max_idle: settings.connections_max_idle.max(SHORTEST_IDLE),
        };
        let reader = FrameReader::new(settings.receive_message_max_bytes);
        let (connection, mut driver) =
            Connection::new(peer, stream, reader, versions, settings.client_id.clone(), limits);
        if let Some(login) = login {
            driver.authenticated(login, again_after);
        }
        Ok(Established { connection, driver, api_versions })
    }

    /// Opens a stream without sending a request, under TLS if configured.
    async fn open(&self) -> Result<Box<dyn Stream>> {
        let connected = self.limit.keep("connecting", self.settings.network.connect(self.endpoint.clone())).await?;
        let stream = connected.map_err(|error| Error::new(ErrorKind::Network, error.to_string()))?;
        self.limit.keep("the TLS handshake", self.guard.secure(stream, &self.address.host)).await?
    }
}

/// Asks for the broker's versions, at most twice: with the newest version of ApiVersions that this
/// client has, and if the broker does not know that one, with the newest that it does (KIP-511).
async fn agree(
    stream: &mut dyn Stream,
    settings: &ClientSettings,
    expected: Option<&Expected>,
    newest: i16,
) -> Result<ApiVersionsResponse, Refusal> {
    let first = ask(stream, settings, expected, newest, 0).await?;
    if ErrorCode::new(first.error_code) != ErrorCode::UNSUPPORTED_VERSION || newest == 0 {
        return Ok(first);
    }
    let named = first.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.code());
    let theirs = named.map_or(0, |api| api.max_version).clamp(0, newest - 1);
    ask(stream, settings, expected, theirs, 1).await
}

/// Returns an ApiVersions request, with the broker that should answer it, if that is known.
pub(super) fn api_versions_request(expected: Option<&Expected>) -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: ByteString::from_static("ottla"),
        client_software_version: ByteString::from_static(env!("CARGO_PKG_VERSION")),
        cluster_id: expected.map(|expected| ByteString::from(&*expected.cluster_id)),
        node_id: expected.map_or(-1, |expected| expected.node),
    }
}

async fn ask(
    stream: &mut dyn Stream,
    settings: &ClientSettings,
    expected: Option<&Expected>,
    version: i16,
    correlation_id: i32,
) -> Result<ApiVersionsResponse, Refusal> {
    let key = ApiKey::ApiVersions;
    let request = api_versions_request(expected);
    let frame = encode_frame(&mut BytesMut::new(), key, version, correlation_id, &settings.client_id, |head| {
        encode_body(head, &request, version)?;
        Ok(RawRequest::whole())
    })?;
    let mut body = exchange(stream, &frame.head, settings.receive_message_max_bytes).await?;
    let answered = decode_response_header(&mut body, key, version)?;
    if answered != correlation_id {
        let message = format!("the response to ApiVersions has correlation id {answered}, expected {correlation_id}");
        return Err(Error::new(ErrorKind::Protocol, message).into());
    }
    Ok(decode_response::<ApiVersionsRequest>(body, version)?)
}

/// An address as configured, and its IP address if that differs.
struct NamedAddress<'a> {
    address: &'a Address,
    endpoint: &'a Endpoint,
}

impl fmt::Display for NamedAddress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, endpoint) = (self.address.to_string(), self.endpoint.to_string());
        if address == endpoint { f.write_str(&address) } else { write!(f, "{address} ({endpoint})") }
    }
}
