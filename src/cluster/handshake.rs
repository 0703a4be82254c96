//! From an address to a connection on which the versions are agreed.
//!
//! What secures a connection stands between `connect` and `agree`: it takes the stream and gives one back.

use std::{fmt, net::SocketAddr, time::Duration};

use bytes::{BufMut, Bytes};
use kafka_protocol::{
    messages::{ApiVersionsRequest, ApiVersionsResponse},
    protocol::StrBytes,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    ClientSettings,
    address::Address,
    client::RawRequest,
    connection::{Connection, encode_frame},
    connection_task::Driver,
    frames::{FrameReader, broken},
    pipeline::Limits,
    versions::Versions,
};
use crate::{
    error::{Error, ErrorCode, ErrorKind, Result},
    net::Stream,
    wire::{
        ApiKey,
        frame::Chunks,
        frame::frame_length,
        message::{client_versions, decode_response, decode_response_header, encode_request},
    },
};

/// With less, a connection could close before the request that it was made for is there.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);

/// A connection that was just made.
pub(super) struct Established {
    pub(super) connection: Connection,
    pub(super) driver: Driver,
    pub(super) api_versions: ApiVersionsResponse,
}

/// Resolves an address and connects to the first of its IP addresses that lets us, within `setup_timeout` for each.
///
/// # Errors
/// The last address's failure, naming the address.
pub(super) async fn establish(
    settings: &ClientSettings,
    address: &Address,
    setup_timeout: Duration,
) -> Result<Established> {
    let in_time = |what: &'static str| {
        move |_| Error::new(ErrorKind::Network, format!("{what} took longer than {} ms", setup_timeout.as_millis()))
    };
    let resolved = timeout(setup_timeout, settings.network.resolve(&address.host, address.port))
        .await
        .map_err(in_time("resolving the name"))
        .and_then(|resolved| resolved.map_err(|error| Error::new(ErrorKind::Network, error.to_string())))
        .map_err(|error| error.context(address))?;
    let mut failure = Error::new(ErrorKind::Network, "the name has no address").context(address);
    for ip in resolved {
        let connected = timeout(setup_timeout, connect(settings, address, ip)).await;
        match connected.map_err(in_time("connecting")).and_then(|connected| connected) {
            Ok(established) => return Ok(established),
            Err(error) => {
                failure = error.context(Named { address, ip });
                tracing::debug!(%failure, "no connection");
            }
        }
    }
    Err(failure)
}

async fn connect(settings: &ClientSettings, address: &Address, ip: SocketAddr) -> Result<Established> {
    let mut stream = open(settings, ip).await?;
    let newest = client_versions(ApiKey::ApiVersions).map_or(0, |(_, newest)| newest);
    let api_versions = match agree(&mut *stream, settings, newest).await {
        // Brokers before 0.10 hang up on versions that they do not know.
        Err(Refusal::HungUp) if newest > 0 => {
            stream = open(settings, ip).await?;
            agree(&mut *stream, settings, 0).await
        }
        agreed => agreed,
    };
    let api_versions = api_versions.map_err(|refusal| match refusal {
        Refusal::HungUp => Error::new(
            ErrorKind::Network,
            "the peer closed the connection when it was asked for its versions (a listener that wants TLS or SASL, \
             a proxy, or a broker older than 0.10?)",
        ),
        Refusal::Other(error) => error,
    })?;
    let code = ErrorCode::new(api_versions.error_code);
    if !code.is_ok() {
        return Err(Error::broker(code, "ApiVersions"));
    }
    let peer = address.to_string();
    let versions = Versions::new(peer.clone(), &api_versions);
    let limits = Limits {
        max_in_flight: settings.max_in_flight_per_connection,
        max_idle: settings.connections_max_idle.max(SHORTEST_IDLE),
    };
    let reader = FrameReader::new(settings.receive_message_max_bytes);
    let (connection, driver) = Connection::new(peer, stream, reader, versions, settings.client_id.clone(), limits);
    Ok(Established { connection, driver, api_versions })
}

async fn open(settings: &ClientSettings, ip: SocketAddr) -> Result<Box<dyn Stream>> {
    settings.network.connect(ip).await.map_err(|error| Error::new(ErrorKind::Network, error.to_string()))
}

enum Refusal {
    HungUp,
    Other(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Asks for the broker's versions, at most twice: with the newest version of the question that we know, and if the broker
/// does not know that one, with the newest that it does (KIP-511).
async fn agree(
    stream: &mut dyn Stream,
    settings: &ClientSettings,
    newest: i16,
) -> Result<ApiVersionsResponse, Refusal> {
    let first = ask(stream, settings, newest, 0).await?;
    if ErrorCode::new(first.error_code) != ErrorCode::UNSUPPORTED_VERSION || newest == 0 {
        return Ok(first);
    }
    let named = first.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.code());
    let theirs = named.map_or(0, |api| api.max_version).clamp(0, newest - 1);
    ask(stream, settings, theirs, 1).await
}

async fn ask(
    stream: &mut dyn Stream,
    settings: &ClientSettings,
    version: i16,
    correlation_id: i32,
) -> Result<ApiVersionsResponse, Refusal> {
    let key = ApiKey::ApiVersions;
    let request = ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("ottla"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
    let (frame, _) = encode_frame(key, version, correlation_id, &settings.client_id, |head| {
        encode_request(head, &request, version)?;
        Ok(RawRequest { chunks: Chunks::new(), answered: true })
    })?;
    let mut body = exchange(stream, &frame, settings.receive_message_max_bytes).await?;
    let answered = decode_response_header(&mut body, key, version)?;
    if answered != correlation_id {
        let message = format!("the answer to ApiVersions has correlation id {answered} in place of {correlation_id}");
        return Err(Error::new(ErrorKind::Protocol, message).into());
    }
    Ok(decode_response::<ApiVersionsRequest>(body, version)?)
}

/// Writes one frame and reads one, with nothing else under way.
async fn exchange(stream: &mut dyn Stream, frame: &[u8], limit: usize) -> Result<Bytes, Refusal> {
    let hung_up = |_| Refusal::HungUp;
    stream.write_all(frame).await.map_err(hung_up)?;
    stream.flush().await.map_err(hung_up)?;
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).await.map_err(hung_up)?;
    let length = frame_length(prefix, limit)?;
    // Grows with what arrives: the length is a stranger's word.
    let mut body = Vec::new().limit(length);
    while body.has_remaining_mut() {
        if stream.read_buf(&mut body).await.map_err(|error| broken(&error))? == 0 {
            return Err(Refusal::HungUp);
        }
    }
    Ok(body.into_inner().into())
}

/// An address as it was given, and the IP address behind it where that is not the same.
struct Named<'a> {
    address: &'a Address,
    ip: SocketAddr,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (address, ip) = (self.address.to_string(), self.ip.to_string());
        if address == ip { f.write_str(&ip) } else { write!(f, "{address} ({ip})") }
    }
}
