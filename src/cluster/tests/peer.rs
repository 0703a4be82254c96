//! The other end of a connection: a broker with only the features, and the faults, that these tests
//! need.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinHandle,
};

use crate::{
    cluster::{Attempt, Client, ClientSettings, ConnectionKind, VersionBounds},
    net::{MemoryListener, MemoryNetwork, Network},
    wire::{
        ApiKey,
        byte_string::ByteString,
        decoder::Decode,
        encoder::Encode,
        message::{client_versions, decode_body, encode_body, request_header_is_flexible, response_header_is_flexible},
        messages::{
            ApiVersionsResponse, MetadataResponse,
            api_versions_response::ApiVersion,
            metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
        },
        protocol::Message,
    },
};

/// A request, as the peer received it.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: ApiKey,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    pub(super) body: Bytes,
}

impl Asked {
    fn read(mut frame: Bytes) -> Self {
        let key = ApiKey::from_code(frame.get_i16()).unwrap();
        let version = frame.get_i16();
        let correlation_id = frame.get_i32();
        let client_id = usize::try_from(frame.get_i16()).unwrap_or(0);
        frame.advance(client_id);
        if request_header_is_flexible(key, version).unwrap() {
            assert_eq!(frame.get_u8(), 0, "no tagged fields in the header");
        }
        Self { key, version, correlation_id, body: frame }
    }

    pub(super) fn decode<R: Message + Decode>(&self) -> R {
        decode_body(self.body.clone(), self.version).unwrap()
    }

    /// Encodes the response as a frame.
    pub(super) fn frame(&self, response: &(impl Message + Encode)) -> Bytes {
        let mut body = BytesMut::new();
        encode_body(&mut body, response, self.version).unwrap();
        self.frame_of(&body)
    }

    pub(super) fn frame_of(&self, body: &[u8]) -> Bytes {
        let flexible = response_header_is_flexible(self.key, self.version).unwrap();
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(4 + usize::from(flexible) + body.len()).unwrap());
        frame.put_i32(self.correlation_id);
        frame.put_bytes(0, usize::from(flexible));
        frame.put_slice(body);
        frame.freeze()
    }
}

/// One connection, at the peer's end.
pub(super) struct Link(pub(super) DuplexStream);

impl Link {
    /// Reads the next request; `None` once the client has closed.
    pub(super) async fn request(&mut self) -> Option<Asked> {
        let mut frame = vec![0; self.0.read_i32().await.ok()?.try_into().unwrap()];
        self.0.read_exact(&mut frame).await.ok()?;
        Some(Asked::read(frame.into()))
    }

    pub(super) async fn answer(&mut self, asked: &Asked, response: &(impl Message + Encode)) {
        self.raw(&asked.frame(response)).await;
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Returns true if no request arrives within `time`.
    pub(super) async fn silent_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.0.read_u8()).await.is_err()
    }
}

/// The peer's reaction to a request.
pub(super) enum Reply {
    Frame(Bytes),
    Silence,
    HangUp,
}

pub(super) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(super) fn listen(network: &MemoryNetwork, port: u16) -> MemoryListener {
    network.listen(address(port)).unwrap()
}

pub(super) async fn accept(listener: &mut MemoryListener) -> Link {
    Link(listener.accept().await.unwrap())
}

/// Accepts a connection, and answers ApiVersions.
pub(super) async fn accept_agreed(listener: &mut MemoryListener) -> Link {
    let mut link = accept(listener).await;
    let asked = link.request().await.unwrap();
    link.answer(&asked, &api_versions()).await;
    link
}

/// Answers every request on every connection by `reply`, except ApiVersions, which it answers
/// itself. Dropping (or aborting) the task closes the port and all connections.
pub(super) fn serve(
    mut listener: MemoryListener,
    reply: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
) -> JoinHandle<()> {
    let reply = Arc::new(reply);
    tokio::spawn(async move {
        let mut links = tokio::task::JoinSet::new();
        while let Ok(stream) = listener.accept().await {
            let reply = Arc::clone(&reply);
            links.spawn(async move {
                let mut link = Link(stream);
                while let Some(asked) = link.request().await {
                    let reply = match asked.key {
                        ApiKey::ApiVersions => Reply::Frame(asked.frame(&api_versions())),
                        _ => reply(&asked),
                    };
                    match reply {
                        Reply::Frame(frame) => link.raw(&frame).await,
                        Reply::Silence => {}
                        Reply::HangUp => return,
                    }
                }
            });
        }
    })
}

/// A response with every version that the client speaks.
pub(super) fn api_versions() -> ApiVersionsResponse {
    let apis = (0..95).filter_map(ApiKey::from_code).filter_map(|key| Some((key, client_versions(key)?)));
    let apis = apis.map(|(key, (min, max))| ApiVersion { api_key: key.code(), min_version: min, max_version: max });
    ApiVersionsResponse { api_keys: apis.collect(), ..Default::default() }
}

/// A response with brokers by their ports (which are also their ids); the first one is the
/// controller.
pub(super) fn brokers(ports: &[u16]) -> MetadataResponse {
    let brokers = ports.iter().map(|port| MetadataResponseBroker {
        node_id: i32::from(*port),
        host: ByteString::from_static("127.0.0.1"),
        port: i32::from(*port),
        ..Default::default()
    });
    MetadataResponse {
        brokers: brokers.collect(),
        controller_id: ports.first().map_or(-1, |port| i32::from(*port)),
        ..Default::default()
    }
}

/// A topic with these leaders and epochs for its partitions.
pub(super) fn topic(name: &str, partitions: &[(i32, i32)]) -> MetadataResponseTopic {
    let partitions = (0..).zip(partitions).map(|(index, (leader, epoch))| MetadataResponsePartition {
        partition_index: index,
        leader_id: *leader,
        leader_epoch: *epoch,
        ..Default::default()
    });
    MetadataResponseTopic {
        name: Some(ByteString::from(name.to_owned())),
        partitions: partitions.collect(),
        ..Default::default()
    }
}

pub(super) fn settings(network: &impl AsNetwork, ports: &[u16]) -> ClientSettings {
    ClientSettings {
        bootstrap_servers: ports.iter().map(|port| format!("127.0.0.1:{port}")).collect(),
        network: network.shared(),
        seed: Some(42),
        ..ClientSettings::default()
    }
}

pub(super) trait AsNetwork {
    fn shared(&self) -> Arc<dyn Network>;
}

impl<T: Network + Clone> AsNetwork for T {
    fn shared(&self) -> Arc<dyn Network> {
        Arc::new(self.clone())
    }
}

/// Returns a client that knows the brokers on these ports, and uses the first as its bootstrap
/// server.
pub(super) async fn connected(network: &impl AsNetwork, ports: &[u16]) -> Client {
    let client = Client::new(settings(network, ports)).unwrap();
    client.newer_metadata(0, in_secs(10)).await.unwrap();
    client
}

pub(super) fn in_secs(secs: u64) -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(secs)
}

pub(super) fn to(node: i32, kind: ConnectionKind, secs: u64) -> Attempt {
    Attempt { node, kind, timeout: Duration::from_secs(secs), versions: VersionBounds::ANY }
}
