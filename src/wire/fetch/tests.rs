use bytes::Buf;
use proptest::prelude::*;

use super::*;
use crate::{
    error::ErrorKind,
    wire::{
        byte_string::ByteString,
        encoder::Encode,
        message::{decode_body, encode_body},
        messages::{self as km, fetch_request as kq, fetch_response as kr},
        protocol::Message,
    },
};

const ID: Uuid = Uuid::from_bytes([9; 16]);

fn name(text: &'static str) -> ByteString {
    ByteString::from_static(text)
}

fn encoded(message: &(impl Message + Encode), version: i16) -> Bytes {
    let mut out = BytesMut::new();
    encode_body(&mut out, message, version).unwrap();
    out.freeze()
}

fn request() -> FetchRequest {
    let partition =
        |partition| FetchPartition { partition, current_leader_epoch: 5, fetch_offset: 1 << 40, max_bytes: 1 << 20 };
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 50 << 20,
        isolation_level: 1,
        session_id: 77,
        session_epoch: 3,
        topics: vec![FetchTopic { name: "orders".into(), id: ID, partitions: vec![partition(0), partition(7)] }],
        forgotten: vec![ForgottenTopic { name: "audit".into(), id: ID, partitions: vec![1, 2] }],
        rack_id: "r1".to_owned(),
    }
}

fn theirs(request: &FetchRequest, version: i16) -> km::FetchRequest {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| kq::FetchPartition {
            partition: partition.partition,
            current_leader_epoch: partition.current_leader_epoch,
            fetch_offset: partition.fetch_offset,
            last_fetched_epoch: -1,
            log_start_offset: -1,
            partition_max_bytes: partition.max_bytes,
            ..Default::default()
        });
        kq::FetchTopic { topic: name("orders"), topic_id: ID, partitions: partitions.collect() }
    });
    let forgotten = request.forgotten.iter().map(|topic| kq::ForgottenTopic {
        topic: name("audit"),
        topic_id: ID,
        partitions: topic.partitions.clone(),
    });
    km::FetchRequest {
        replica_id: -1,
        max_wait_ms: request.max_wait_ms,
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes,
        isolation_level: request.isolation_level,
        session_id: request.session_id,
        session_epoch: request.session_epoch,
        topics: topics.collect(),
        forgotten_topics_data: if version >= 7 { forgotten.collect() } else { vec![] },
        rack_id: ByteString::from_static("r1"),
        ..Default::default()
    }
}

#[test]
fn requests_equal_generated_encoding_in_every_version() {
    let request = request();
    for version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1 {
        let mut out = BytesMut::new();
        encode_fetch(&mut out, version, &request).unwrap();
        assert_eq!(out, encoded(&theirs(&request, version), version), "version {version}");
    }
    let request = FetchRequest { rack_id: "r".repeat(40_000), ..request };
    let error = encode_fetch(&mut BytesMut::new(), 11, &request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

fn response(version: i16) -> Bytes {
    let aborted = |producer: i64, offset| kr::AbortedTransaction { producer_id: producer, first_offset: offset };
    let mut first = kr::PartitionData {
        partition_index: 3,
        high_watermark: 100,
        last_stable_offset: 90,
        log_start_offset: if version >= 5 { 10 } else { -1 },
        aborted_transactions: Some(vec![aborted(8, 50), aborted(9, 40)]),
        records: Some(Bytes::from_static(b"the records")),
        ..Default::default()
    };
    let mut second = kr::PartitionData {
        partition_index: 4,
        error_code: 6,
        high_watermark: -1,
        last_stable_offset: -1,
        log_start_offset: -1,
        aborted_transactions: None,
        records: None,
        ..Default::default()
    };
    if version >= 11 {
        first = kr::PartitionData { preferred_read_replica: 2, ..first };
    }
    if version >= 12 {
        second = kr::PartitionData {
            diverging_epoch: kr::EpochEndOffset { epoch: 7, end_offset: 55 },
            current_leader: kr::LeaderIdAndEpoch { leader_id: 5, leader_epoch: 12 },
            snapshot_id: kr::SnapshotId { end_offset: 1, epoch: 1 },
            ..second
        };
    }
    let topic = kr::FetchableTopicResponse { topic: name("orders"), topic_id: ID, partitions: vec![first, second] };
    let mut response = km::FetchResponse { throttle_time_ms: 12, responses: vec![topic], ..Default::default() };
    if version >= 7 {
        response = km::FetchResponse { error_code: 70, session_id: 33, ..response };
    }
    if version >= 16 {
        let endpoint = kr::NodeEndpoint {
            node_id: 5,
            host: ByteString::from_static("b5"),
            port: 9092,
            rack: Some(ByteString::from_static("r2")),
        };
        response = km::FetchResponse { node_endpoints: vec![endpoint], ..response };
    }
    encoded(&response, version)
}

#[test]
fn decodes_generated_responses_of_every_version() {
    for version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1 {
        let body = response(version);
        let inside = body.as_ptr_range();
        let found = decode_fetch(body.clone(), version).unwrap();
        let (error, session, replica) = match version {
            ..7 => (0, 0, -1),
            7..11 => (70, 33, -1),
            _ => (70, 33, 2),
        };
        assert_eq!((found.throttle_time_ms, found.error.code(), found.session_id), (12, error, session));
        let [first, second] = &found.partitions[..] else { panic!("{found:?}") };
        for partition in [first, second] {
            let expected = if version >= 13 { ("", ID) } else { ("orders", Uuid::nil()) };
            assert_eq!((&*partition.topic, partition.topic_id), expected);
        }
        assert_eq!((first.partition, first.error), (3, ErrorCode::NONE));
        assert_eq!((first.high_watermark, first.last_stable_offset), (100, 90));
        assert_eq!(first.log_start_offset, if version >= 5 { 10 } else { -1 });
        assert_eq!(first.aborted_transactions, [(8, 50), (9, 40)]);
        assert_eq!(first.preferred_read_replica, replica);
        assert_eq!(first.records, "the records");
        assert!(inside.contains(&first.records.as_ptr()), "records are not copied");
        assert_eq!(first.current_leader, None);
        assert_eq!((second.partition, second.error), (4, ErrorCode::NOT_LEADER_OR_FOLLOWER));
        assert_eq!((second.records.remaining(), second.aborted_transactions.len()), (0, 0));
        assert_eq!(second.current_leader, (version >= 12).then_some((5, 12)));
        let endpoint = NodeEndpoint { node: 5, host: "b5".to_owned(), port: 9092, rack: Some("r2".to_owned()) };
        let expected: &[NodeEndpoint] = if version >= 16 { &[endpoint] } else { &[] };
        assert_eq!(found.node_endpoints, expected);

        for cut in 0..body.len() {
            let error = decode_fetch(body.slice(..cut), version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
        let longer = Bytes::from([&body[..], &[0]].concat());
        assert_eq!(decode_fetch(longer, version).unwrap_err().kind(), ErrorKind::Protocol);
    }
}

#[test]
fn rejects_counts_beyond_response_size() {
    let classic = [0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    let compact = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    for (body, version) in [(&classic[..], 4), (&compact, 12)] {
        let error = decode_fetch(Bytes::copy_from_slice(body), version).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}

proptest! {
    #[test]
    fn decodes_or_rejects_arbitrary_bytes(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1,
    ) {
        if let Ok(response) = decode_fetch(body.clone().into(), version) {
            let records: usize = response.partitions.iter().map(|partition| partition.records.len()).sum();
            prop_assert!(records <= body.len());
        }
    }

    #[test]
    fn decodes_mutated_responses_without_panic(
        version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = response(version).to_vec();
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        let _ = decode_fetch(body.into(), version);
    }
}

#[test]
fn recreated_topic_is_not_forgotten_by_name() {
    let partition = |partition| FetchPartition { partition, current_leader_epoch: 5, fetch_offset: 0, max_bytes: 1 };
    let anew = Uuid::from_bytes([8; 16]);
    let request = FetchRequest {
        topics: vec![FetchTopic { name: "orders".into(), id: anew, partitions: vec![partition(0), partition(7)] }],
        forgotten: vec![
            ForgottenTopic { name: "orders".into(), id: ID, partitions: vec![0, 3, 7] },
            ForgottenTopic { name: "gone".into(), id: ID, partitions: vec![0] },
            ForgottenTopic { name: "orders".into(), id: anew, partitions: vec![7] },
        ],
        ..request()
    };
    let shown = |version| {
        let left = request.forgotten_in(version);
        left.iter().map(|topic| format!("{}{:?}", topic.name, topic.partitions)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(shown(12), "orders[3] gone[0]");
    assert_eq!(shown(13), "orders[0, 3, 7] gone[0] orders[7]");
    let mut out = BytesMut::new();
    encode_fetch(&mut out, 12, &request).unwrap();
    let read = decode_body::<km::FetchRequest>(out.freeze(), 12).unwrap();
    let left: Vec<_> = read.forgotten_topics_data.iter().map(|topic| topic.partitions.clone()).collect();
    assert_eq!(left, [vec![3], vec![0]]);
}
