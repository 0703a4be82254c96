use bytes::Buf;
use kafka_protocol::{
    messages::{self as km, BrokerId, TopicName, fetch_request as kq, fetch_response as kr},
    protocol::{Encodable, StrBytes},
};
use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;

const ID: Uuid = Uuid::from_bytes([9; 16]);

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

fn encoded(message: &impl Encodable, version: i16) -> Bytes {
    let mut out = BytesMut::new();
    message.encode(&mut out, version).unwrap();
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
        let partitions = topic.partitions.iter().map(|partition| {
            kq::FetchPartition::default()
                .with_partition(partition.partition)
                .with_current_leader_epoch(partition.current_leader_epoch)
                .with_fetch_offset(partition.fetch_offset)
                .with_last_fetched_epoch(-1)
                .with_log_start_offset(-1)
                .with_partition_max_bytes(partition.max_bytes)
        });
        kq::FetchTopic::default().with_topic(name("orders")).with_topic_id(ID).with_partitions(partitions.collect())
    });
    let forgotten = request.forgotten.iter().map(|topic| {
        kq::ForgottenTopic::default()
            .with_topic(name("audit"))
            .with_topic_id(ID)
            .with_partitions(topic.partitions.clone())
    });
    km::FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(request.max_wait_ms)
        .with_min_bytes(request.min_bytes)
        .with_max_bytes(request.max_bytes)
        .with_isolation_level(request.isolation_level)
        .with_session_id(request.session_id)
        .with_session_epoch(request.session_epoch)
        .with_topics(topics.collect())
        .with_forgotten_topics_data(if version >= 7 { forgotten.collect() } else { vec![] })
        .with_rack_id(StrBytes::from_static_str("r1"))
}

#[test]
fn requests_are_the_bytes_that_kafka_protocol_writes() {
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
    let aborted = |producer: i64, offset| {
        kr::AbortedTransaction::default().with_producer_id(producer.into()).with_first_offset(offset)
    };
    let mut first = kr::PartitionData::default()
        .with_partition_index(3)
        .with_high_watermark(100)
        .with_last_stable_offset(90)
        .with_log_start_offset(if version >= 5 { 10 } else { -1 })
        .with_aborted_transactions(Some(vec![aborted(8, 50), aborted(9, 40)]))
        .with_records(Some(Bytes::from_static(b"the records")));
    let mut second = kr::PartitionData::default()
        .with_partition_index(4)
        .with_error_code(6)
        .with_high_watermark(-1)
        .with_last_stable_offset(-1)
        .with_log_start_offset(-1)
        .with_aborted_transactions(None)
        .with_records(None);
    if version >= 11 {
        first = first.with_preferred_read_replica(BrokerId(2));
    }
    if version >= 12 {
        second = second
            .with_diverging_epoch(kr::EpochEndOffset::default().with_epoch(7).with_end_offset(55))
            .with_current_leader(kr::LeaderIdAndEpoch::default().with_leader_id(BrokerId(5)).with_leader_epoch(12))
            .with_snapshot_id(kr::SnapshotId::default().with_end_offset(1).with_epoch(1));
    }
    let topic = kr::FetchableTopicResponse::default()
        .with_topic(name("orders"))
        .with_topic_id(ID)
        .with_partitions(vec![first, second]);
    let mut response = km::FetchResponse::default().with_throttle_time_ms(12).with_responses(vec![topic]);
    if version >= 7 {
        response = response.with_error_code(70).with_session_id(33);
    }
    if version >= 16 {
        let endpoint = kr::NodeEndpoint::default()
            .with_node_id(BrokerId(5))
            .with_host(StrBytes::from_static_str("b5"))
            .with_port(9092)
            .with_rack(Some(StrBytes::from_static_str("r2")));
        response = response.with_node_endpoints(vec![endpoint]);
    }
    encoded(&response, version)
}

#[test]
fn responses_are_read_as_kafka_protocol_writes_them() {
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
fn hostile_lengths_are_refused() {
    let classic = [0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
    let compact = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    for (body, version) in [(&classic[..], 4), (&compact, 12)] {
        let error = decode_fetch(Bytes::copy_from_slice(body), version).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        version in FETCH_VERSIONS.0..=FETCH_VERSIONS.1,
    ) {
        if let Ok(response) = decode_fetch(body.clone().into(), version) {
            let records: usize = response.partitions.iter().map(|partition| partition.records.len()).sum();
            prop_assert!(records <= body.len());
        }
    }

    #[test]
    fn mutated_responses_never_panic(
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
fn what_is_asked_for_by_name_is_not_forgotten_under_the_same_name() {
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
    let read = <km::FetchRequest as kafka_protocol::protocol::Decodable>::decode(&mut out.freeze(), 12).unwrap();
    let left: Vec<_> = read.forgotten_topics_data.iter().map(|topic| topic.partitions.clone()).collect();
    assert_eq!(left, [vec![3], vec![0]]);
}
