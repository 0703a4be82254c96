//! A network that changes the brokers' responses, after the brokers have acted.

use std::{collections::HashMap, fmt, io, sync::Arc};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::Mutex,
};

use super::Cluster;
use crate::{
    net::{BoxFuture, Endpoint, Network, Stream},
    wire::{
        ApiKey,
        decoder::Decode,
        encoder::Encode,
        message::{decode_body, encode_body, response_header_is_flexible},
        protocol::Message,
    },
};

/// Changes a response's body, given the request's kind and version.
type Tamper = dyn Fn(ApiKey, i16, Bytes) -> Bytes + Send + Sync;

/// Requests of a connection that are not answered yet, by correlation id.
type Asked = Mutex<HashMap<i32, (ApiKey, i16)>>;

#[derive(Clone)]
struct Tampered {
    inner: Arc<dyn Network>,
    tamper: Arc<Tamper>,
}

/// Returns the cluster's network, on which responses to `key` pass through `change`, which is also
/// given the number of responses before.
pub(crate) fn tampered<R: Message + Decode + Encode>(
    cluster: &Cluster,
    key: ApiKey,
    change: impl Fn(u64, i16, &mut R) + Send + Sync + 'static,
) -> Arc<dyn Network> {
    let seen = std::sync::atomic::AtomicU64::new(0);
    let tamper = move |asked: ApiKey, version: i16, body: Bytes| {
        if asked != key {
            return body;
        }
        let mut response = decode_body::<R>(body, version).unwrap();
        change(seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed), version, &mut response);
        let mut out = BytesMut::new();
        encode_body(&mut out, &response, version).unwrap();
        out.freeze()
    };
    tampered_bytes(cluster, tamper)
}

/// Returns the cluster's network, on which the body of every response passes through `change`, with
/// the request's kind and version.
pub(crate) fn tampered_bytes(
    cluster: &Cluster,
    change: impl Fn(ApiKey, i16, Bytes) -> Bytes + Send + Sync + 'static,
) -> Arc<dyn Network> {
    Arc::new(Tampered { inner: cluster.network(), tamper: Arc::new(change) })
}

impl fmt::Debug for Tampered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tampered")
    }
}

impl Network for Tampered {
    fn resolve<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Vec<Endpoint>>> {
        self.inner.resolve(host, port)
    }

    fn connect(&self, endpoint: Endpoint) -> BoxFuture<'_, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            let (from_broker, to_broker) = tokio::io::split(self.inner.connect(endpoint).await?);
            let (client, ours) = tokio::io::duplex(1 << 20);
            let (from_client, to_client) = tokio::io::split(ours);
            let tamper = self.tamper.clone();
            tokio::spawn(async move {
                let asked = Asked::default();
                // If either side closes, the other is closed too.
                tokio::select! {
                    _ = requests(from_client, to_broker, &asked) => {}
                    _ = answers(from_broker, to_client, &asked, &*tamper) => {}
                }
            });
            Ok(Box::new(client) as Box<dyn Stream>)
        })
    }
}

async fn frame<S: Stream>(from: &mut ReadHalf<S>) -> io::Result<Bytes> {
    let mut frame = vec![0; from.read_i32().await? as usize];
    from.read_exact(&mut frame).await?;
    Ok(frame.into())
}

async fn requests<A: Stream, B: Stream>(mut from: ReadHalf<A>, mut to: WriteHalf<B>, asked: &Asked) -> io::Result<()> {
    loop {
        let frame = frame(&mut from).await?;
        let mut head = &frame[..8];
        let (key, version, id) = (ApiKey::from_code(head.get_i16()).unwrap(), head.get_i16(), head.get_i32());
        asked.lock().await.insert(id, (key, version));
        to.write_i32(frame.len() as i32).await?;
        to.write_all(&frame).await?;
    }
}

async fn answers<A: Stream, B: Stream>(
    mut from: ReadHalf<A>,
    mut to: WriteHalf<B>,
    asked: &Asked,
    tamper: &Tamper,
) -> io::Result<()> {
    loop {
        let mut frame = frame(&mut from).await?;
        let id = (&frame[..4]).get_i32();
        let (key, version) = asked.lock().await.remove(&id).unwrap();
        let flexible = response_header_is_flexible(key, version).unwrap();
        let header = frame.split_to(if flexible { 5 } else { 4 });
        let body = tamper(key, version, frame);
        let mut out = BytesMut::new();
        out.put_i32((header.len() + body.len()) as i32);
        out.put_slice(&header);
        out.put_slice(&body);
        to.write_all(&out).await?;
    }
}
