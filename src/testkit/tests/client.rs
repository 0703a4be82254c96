//! A client that sends and receives bytes only.

use std::{net::SocketAddr, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    net::{Network, Stream},
    testkit::{Cluster, Options},
    wire::{
        Compression,
        batch::{BatchBuilder, Compressor, ProducerStamp, RecordParts},
        byte_string::ByteString,
        message::{decode_body, decode_response_header, encode_body, encode_request_header},
        messages::{ProduceRequest, ProduceResponse, produce_request},
        protocol::Request,
    },
};

/// Starts a cluster on a network of its own.
pub(super) async fn cluster(options: Options) -> Cluster {
    Cluster::start(options.in_memory()).await.unwrap()
}

/// Returns the address of a broker on its in-memory network.
pub(super) fn address(cluster: &Cluster, broker: usize) -> SocketAddr {
    let bootstrap = cluster.bootstrap();
    let port = bootstrap.split(',').nth(broker - 1).unwrap().rsplit(':').next().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

pub(super) fn text(text: &str) -> ByteString {
    ByteString::from(text)
}

pub(super) struct Client {
    stream: Box<dyn Stream>,
    correlation: i32,
}

impl Client {
    /// Connects to a broker.
    pub(super) async fn to(cluster: &Cluster, broker: usize) -> Self {
        Self::try_to(cluster, broker).await.unwrap()
    }

    pub(super) async fn try_to(cluster: &Cluster, broker: usize) -> std::io::Result<Self> {
        let network: Arc<dyn Network> = cluster.network();
        Ok(Self { stream: network.connect(address(cluster, broker).into()).await?, correlation: 0 })
    }

    /// Sends a request without waiting for the response.
    pub(super) async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation += 1;
        let mut out = BytesMut::new();
        out.put_i32(0);
        encode_request_header(&mut out, R::API, version, self.correlation, "tests").unwrap();
        encode_body(&mut out, request, version).unwrap();
        let length = u32::try_from(out.len() - 4).unwrap();
        out[..4].copy_from_slice(&length.to_be_bytes());
        self.write(&out).await;
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads the response to the last request; `None` if the broker closed instead.
    pub(super) async fn receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let mut body = self.frame().await?;
        assert_eq!(decode_response_header(&mut body, R::API, version).unwrap(), self.correlation);
        Some(decode_body(body, version).unwrap())
    }

    /// Reads the next frame; `None` if the broker closed.
    pub(super) async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body.into())
    }

    /// Reads the next bytes, without interpreting them.
    pub(super) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    pub(super) async fn try_call<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        self.send(request, version).await;
        self.receive::<R>(version).await
    }

    pub(super) async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.try_call(request, version).await.expect("the broker closed the connection")
    }

    /// Produces one batch and returns error and base offset.
    pub(super) async fn produce(&mut self, name: &str, partition: i32, batch: Bytes) -> (i16, i64) {
        let response = self.call(&produce_request(name, &[(partition, batch)], -1), 9).await;
        let [(_, error, offset)] = outcomes(&response)[..] else { panic!("the request named one partition") };
        (error, offset)
    }
}

pub(super) fn produce_request(name: &str, batches: &[(i32, Bytes)], acks: i16) -> ProduceRequest {
    let data = batches.iter().map(|(partition, batch)| produce_request::PartitionProduceData {
        index: *partition,
        records: Some(batch.clone()),
    });
    let data =
        produce_request::TopicProduceData { name: text(name), partition_data: data.collect(), ..Default::default() };
    ProduceRequest { acks, timeout_ms: 1000, topic_data: vec![data], ..Default::default() }
}

/// (partition, error, base offset)
pub(super) fn outcomes(response: &ProduceResponse) -> Vec<(i32, i16, i64)> {
    let all = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    all.map(|partition| (partition.index, partition.error_code, partition.base_offset)).collect()
}

/// Producer id, epoch and first sequence of a batch without idempotence.
pub(super) const NOBODY: (i64, i16, i32) = (-1, -1, -1);

/// Encodes a batch with timestamps from 1,000 on.
pub(super) fn batch(by: (i64, i16, i32), values: &[&str]) -> Bytes {
    encode(by, values, false)
}

/// Encodes a batch of a transaction, with timestamps from 1,000 on.
pub(super) fn transactional_batch(by: (i64, i16, i32), values: &[&str]) -> Bytes {
    encode(by, values, true)
}

fn encode(by: (i64, i16, i32), values: &[&str], transactional: bool) -> Bytes {
    let (producer_id, producer_epoch, base_sequence) = by;
    let mut builder = BatchBuilder::with_capacity(1 << 16);
    for (i, value) in (0..).zip(values) {
        let parts = RecordParts { key: None, value: Some(value.as_bytes()), record: None };
        builder.append(&parts, 1000 + i);
    }
    let sealed = builder.seal(&mut Compressor::new(Compression::None).unwrap()).unwrap();
    let stamp = ProducerStamp { producer_id, producer_epoch, base_sequence, transactional };
    [&sealed.header(stamp)[..], sealed.body()].concat().into()
}
