//! Tests that the brokers survive anything that a client sends.

use bytes::{Bytes, BytesMut};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::client::{Client, NOBODY, batch, cluster, produce_request, text};
use crate::{
    ApiKey,
    testkit::{Cluster, Options},
    wire::{
        message::encode_body,
        messages::{
            ApiVersionsRequest, CreatePartitionsRequest, DeleteRecordsRequest, DescribeClusterRequest,
            JoinGroupRequest, MetadataRequest, OffsetCommitRequest,
            create_partitions_request::CreatePartitionsTopic,
            delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
        },
        protocol::Request,
    },
};

/// Asserts that the cluster still answers.
async fn lives(cluster: &Cluster) {
    let mut client = Client::to(cluster, 1).await;
    let response = client.call(&ApiVersionsRequest::default(), 0).await;
    assert_eq!(response.error_code, 0);
}

#[tokio::test(start_paused = true)]
async fn garbage_closes_its_connection_alone() {
    let cluster = cluster(Options::new()).await;
    let mut other = Client::to(&cluster, 1).await;
    other.call(&ApiVersionsRequest::default(), 0).await;
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 0, 0, 0],
        &[0, 0, 0, 10, 0x7f, 0xff, 0, 0, 0, 0, 0, 0, 0, 0],
        // Metadata v9 that claims four billion topics.
        &[0, 0, 0, 16, 0, 3, 0, 9, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x0f],
        // Metadata v1 that claims two billion topics.
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
        // A request that is not served, and a version that is not.
        &[0, 0, 0, 10, 0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff],
    ] {
        let mut client = Client::to(&cluster, 1).await;
        client.write(garbage).await;
        assert!(client.frame().await.is_none(), "{garbage:?}");
    }
    other.call(&ApiVersionsRequest::default(), 0).await;
    lives(&cluster).await;
}

#[tokio::test(start_paused = true)]
async fn mangled_requests_never_stop_broker() {
    let cluster = cluster(Options::new().max_request_bytes(1 << 20)).await;
    cluster.create_topic("t", 1).unwrap();
    let mut rng = StdRng::seed_from_u64(7);
    let produce = encoded(&produce_request("t", &[(0, batch(NOBODY, &["a", "b"]))], -1), 9);
    let metadata = encoded(&MetadataRequest::default(), 12);
    let join = encoded(&JoinGroupRequest { protocol_type: text("consumer"), ..Default::default() }, 9);
    let commit = encoded(&OffsetCommitRequest { group_id: text("g"), ..Default::default() }, 8);
    let sound = [
        (ApiKey::Produce, 9, produce),
        (ApiKey::Metadata, 12, metadata),
        (ApiKey::JoinGroup, 9, join),
        (ApiKey::OffsetCommit, 8, commit),
    ];
    for round in 0..2000 {
        let (key, version, body) = &sound[round % sound.len()];
        let mut bytes = vec![0, 0, 0, 0];
        bytes.extend_from_slice(&key.code().to_be_bytes());
        bytes.extend_from_slice(&i16::to_be_bytes(*version));
        bytes.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff, 0]);
        let start = bytes.len();
        bytes.extend_from_slice(body);
        for _ in 0..rng.random_range(1..4) {
            let at = rng.random_range(start..bytes.len());
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(start..=bytes.len()));
        let length = u32::try_from(bytes.len() - 4).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        let mut client = Client::to(&cluster, 1).await;
        client.write(&bytes).await;
    }
    lives(&cluster).await;
}

fn encoded<R: Request>(request: &R, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    encode_body(&mut out, request, version).unwrap();
    out.freeze()
}

#[tokio::test(start_paused = true)]
async fn small_admin_requests_work_in_every_version() {
    let cluster = cluster(Options::new().brokers(2)).await;
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    for version in 0..=2 {
        let described = client.call(&DescribeClusterRequest::default(), version).await;
        assert_eq!((described.error_code, described.brokers.len()), (0, 2));
    }
    for version in 0..=3 {
        let more = CreatePartitionsTopic { name: text("t"), count: i32::from(version) + 2, ..Default::default() };
        let more = CreatePartitionsTopic { assignments: None, ..more };
        let request = CreatePartitionsRequest { topics: vec![more], ..Default::default() };
        assert_eq!(client.call(&request, version).await.results[0].error_code, 0);
        assert_ne!(client.call(&request, version).await.results[0].error_code, 0);
    }
    assert_eq!(cluster.log_end("t", 4).unwrap(), 0);
    for version in 0..=2 {
        client.produce("t", 0, batch(NOBODY, &["a"])).await;
        let all = DeleteRecordsPartition { offset: -1, ..Default::default() };
        let all = DeleteRecordsTopic { name: text("t"), partitions: vec![all] };
        let request = DeleteRecordsRequest { topics: vec![all], ..Default::default() };
        let deleted = client.call(&request, version).await;
        assert_eq!(deleted.topics[0].partitions[0].low_watermark, i64::from(version) + 1);
    }
    assert!(cluster.records("t", 0).unwrap().is_empty());
}

/// Loopback sockets: all other tests run in memory, so this one only checks that bytes pass.
#[tokio::test]
async fn brokers_listen_on_loopback_ports() {
    let cluster = Cluster::start(Options::new().brokers(2)).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    let mut client = Client::to(&cluster, 1).await;
    let large = "x".repeat(600_000);
    assert_eq!(client.produce("t", 0, batch(NOBODY, &[&large])).await, (0, 0));
    cluster.kill(1).await.unwrap();
    assert!(Client::try_to(&cluster, 1).await.is_err());
    cluster.restart(1).await.unwrap();
    lives(&cluster).await;
    let bootstrap = cluster.bootstrap();
    drop(cluster);
    let address: std::net::SocketAddr = bootstrap.split(',').next().unwrap().parse().unwrap();
    // The tasks end when they are next scheduled.
    for _ in 0..1000 {
        if tokio::net::TcpStream::connect(address).await.is_err() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the port is still open");
}
