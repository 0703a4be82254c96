//! A client that only knows bytes.

use std::{net::SocketAddr, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::{
    messages::{self, ProduceRequest, ProduceResponse, RequestHeader, TopicName, produce_request},
    protocol::{Decodable, Encodable, Request, StrBytes},
    records::{self, RecordBatchEncoder, RecordEncodeOptions},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    net::{Network, Stream},
    testkit::{Cluster, Options},
};

/// A cluster on a network of its own.
pub(super) async fn cluster(options: Options) -> Cluster {
    Cluster::start(options.in_memory()).await.unwrap()
}

/// The address of a broker on its in-memory network.
pub(super) fn address(cluster: &Cluster, broker: usize) -> SocketAddr {
    let bootstrap = cluster.bootstrap();
    let port = bootstrap.split(',').nth(broker - 1).unwrap().rsplit(':').next().unwrap();
    SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()))
}

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn topic(name: &str) -> TopicName {
    TopicName(text(name))
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
        Ok(Self { stream: network.connect(address(cluster, broker)).await?, correlation: 0 })
    }

    /// Sends without waiting for an answer.
    pub(super) async fn send<R: Request>(&mut self, request: &R, version: i16) {
        let key = messages::ApiKey::try_from(R::KEY).unwrap();
        self.correlation += 1;
        let mut out = BytesMut::new();
        out.put_i32(0);
        let header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(text("tests")));
        header.encode(&mut out, key.request_header_version(version)).unwrap();
        request.encode(&mut out, version).unwrap();
        let length = u32::try_from(out.len() - 4).unwrap();
        out[..4].copy_from_slice(&length.to_be_bytes());
        self.write(&out).await;
    }

    pub(super) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// Reads the answer to the last request; `None` when the broker closed instead.
    pub(super) async fn receive<R: Request>(&mut self, version: i16) -> Option<R::Response> {
        let key = messages::ApiKey::try_from(R::KEY).unwrap();
        let mut body = self.frame().await?;
        let header = messages::ResponseHeader::decode(&mut body, key.response_header_version(version)).unwrap();
        assert_eq!(header.correlation_id, self.correlation);
        let response = R::Response::decode(&mut body, version).unwrap();
        assert!(body.is_empty(), "{} bytes are left behind {key:?} v{version}", body.len());
        Some(response)
    }

    /// The next frame; `None` when the broker closed.
    pub(super) async fn frame(&mut self) -> Option<Bytes> {
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(body.into())
    }

    /// The next bytes, whatever they are.
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

    /// Produces one batch and gives error and base offset.
    pub(super) async fn produce(&mut self, name: &str, partition: i32, batch: Bytes) -> (i16, i64) {
        let response = self.call(&produce_request(name, &[(partition, batch)], -1), 9).await;
        let [(_, error, offset)] = outcomes(&response)[..] else { panic!("one partition was asked for") };
        (error, offset)
    }
}

pub(super) fn produce_request(name: &str, batches: &[(i32, Bytes)], acks: i16) -> ProduceRequest {
    let data = batches.iter().map(|(partition, batch)| {
        produce_request::PartitionProduceData::default().with_index(*partition).with_records(Some(batch.clone()))
    });
    let data = produce_request::TopicProduceData::default().with_name(topic(name)).with_partition_data(data.collect());
    ProduceRequest::default().with_acks(acks).with_timeout_ms(1000).with_topic_data(vec![data])
}

/// (partition, error, base offset)
pub(super) fn outcomes(response: &ProduceResponse) -> Vec<(i32, i16, i64)> {
    let all = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    all.map(|partition| (partition.index, partition.error_code, partition.base_offset)).collect()
}

/// Who writes a batch: producer id, epoch, first sequence.
pub(super) const NOBODY: (i64, i16, i32) = (-1, -1, -1);

/// A batch as another implementation encodes it, with timestamps from 1,000 on.
pub(super) fn batch(by: (i64, i16, i32), values: &[&str]) -> Bytes {
    let (producer_id, producer_epoch, first) = by;
    let records: Vec<records::Record> = (0..)
        .zip(values)
        .map(|(i, value)| records::Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: records::TimestampType::Creation,
            offset: i64::from(i),
            sequence: first.wrapping_add(i),
            timestamp: 1000 + i64::from(i),
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: Default::default(),
        })
        .collect();
    let mut out = BytesMut::new();
    let options = RecordEncodeOptions { version: 2, compression: records::Compression::None };
    RecordBatchEncoder::encode(&mut out, &records, &options).unwrap();
    out.freeze()
}
