use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{
    error::ErrorKind,
    wire::{
        Compression,
        batch::{BatchBuilder, Compressor, RecordParts},
        byte_string::ByteString,
        encoder::Encode,
        message::encode_body,
        messages::{self as km, produce_request as kq, produce_response as kr},
        protocol::Message,
    },
};

const ID: Uuid = Uuid::from_bytes([9; 16]);

fn text(text: &'static str) -> ByteString {
    ByteString::from_static(text)
}

fn encoded(message: &(impl Message + Encode), version: i16) -> Bytes {
    let mut out = BytesMut::new();
    encode_body(&mut out, message, version).unwrap();
    out.freeze()
}

fn batch(value: &[u8]) -> SealedBatch {
    let mut builder = BatchBuilder::with_capacity(100);
    builder.append(&RecordParts { key: None, value: Some(value), record: None }, 1);
    builder.seal(&mut Compressor::new(Compression::None).unwrap()).unwrap()
}

#[test]
fn requests_equal_generated_encoding_in_every_version() {
    let (small, large) = (batch(b"small"), batch(&[7; 3000]));
    let stamp = ProducerStamp { producer_id: 5, producer_epoch: 1, base_sequence: 40, transactional: true };
    for version in PRODUCE_VERSIONS.0..=PRODUCE_VERSIONS.1 {
        let part = |topic, partition, batch| ProducePart { topic, topic_id: ID, partition, batch, stamp };
        let parts = [part("orders", 0, &small), part("orders", 9, &large), part("bills", 1, &small)];
        let mut head = BytesMut::from(&b"head"[..]);
        let bodies = encode_produce(&mut head, version, Some("tx"), -1, 30_000, parts.into_iter()).unwrap();
        assert!(bodies.iter().any(|(_, body)| body.as_ptr() == large.body().as_ptr()), "bodies are not copied");

        let partition = |index, batch: &SealedBatch| {
            let records = [&batch.header(stamp)[..], batch.body()].concat();
            kq::PartitionProduceData { index, records: Some(records.into()) }
        };
        let topic =
            |name, partitions| kq::TopicProduceData { name: text(name), topic_id: ID, partition_data: partitions };
        let orders = topic("orders", vec![partition(0, &small), partition(9, &large)]);
        let theirs = km::ProduceRequest {
            transactional_id: Some(text("tx")),
            acks: -1,
            timeout_ms: 30_000,
            topic_data: vec![orders, topic("bills", vec![partition(1, &small)])],
        };
        let mut ours = Vec::new();
        let mut from = 0;
        for (at, body) in bodies {
            ours.extend([&head[from..at], &body].concat());
            from = at;
        }
        ours.extend(&head[from..]);
        assert_eq!(ours, [b"head", &encoded(&theirs, version)[..]].concat(), "version {version}");

        let mut head = BytesMut::new();
        let bodies = encode_produce(&mut head, version, None, 0, 1, [].into_iter()).unwrap();
        let theirs = km::ProduceRequest { acks: 0, timeout_ms: 1, ..Default::default() };
        assert!(bodies.is_empty());
        assert_eq!(head, encoded(&theirs, version), "version {version}, nothing in it");
    }
    let long = "x".repeat(40_000);
    let error = encode_produce(&mut BytesMut::new(), 9, Some(&long), 0, 1, [].into_iter()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

fn response(version: i16) -> Bytes {
    let good = kr::PartitionProduceResponse {
        index: 0,
        base_offset: 1 << 33,
        log_append_time_ms: 17,
        log_start_offset: if version >= 5 { 4 } else { -1 },
        ..Default::default()
    };
    let mut bad = kr::PartitionProduceResponse {
        index: 1,
        error_code: 6,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        ..Default::default()
    };
    if version >= 8 {
        let error =
            |index, message| kr::BatchIndexAndErrorMessage { batch_index: index, batch_index_error_message: message };
        bad = kr::PartitionProduceResponse {
            record_errors: vec![error(2, None), error(3, Some(text("no key")))],
            error_message: Some(text("moved")),
            ..bad
        };
    }
    let mut response = km::ProduceResponse { throttle_time_ms: 12, ..Default::default() };
    if version >= 10 {
        let leader = kr::LeaderIdAndEpoch { leader_id: 5, leader_epoch: 12 };
        bad = kr::PartitionProduceResponse { current_leader: leader, ..bad };
        let endpoint = kr::NodeEndpoint { node_id: 5, host: text("b5"), port: 9092, rack: None };
        response = km::ProduceResponse { node_endpoints: vec![endpoint], ..response };
    }
    let topic = kr::TopicProduceResponse { name: text("orders"), topic_id: ID, partition_responses: vec![good, bad] };
    encoded(&km::ProduceResponse { responses: vec![topic], ..response }, version)
}

#[test]
fn decodes_generated_responses_of_every_version() {
    for version in PRODUCE_VERSIONS.0..=PRODUCE_VERSIONS.1 {
        let body = response(version);
        let found = decode_produce(&body, version).unwrap();
        assert_eq!(found.throttle_time_ms, 12);
        let [good, bad] = &found.partitions[..] else { panic!("{found:?}") };
        for partition in [good, bad] {
            let expected = if version >= 13 { ("", ID) } else { ("orders", Uuid::nil()) };
            assert_eq!((partition.topic, partition.topic_id), expected);
        }
        assert_eq!((good.partition, good.error, good.base_offset), (0, ErrorCode::NONE, 1 << 33));
        assert_eq!((good.log_append_time_ms, good.log_start_offset), (17, if version >= 5 { 4 } else { -1 }));
        assert_eq!((good.current_leader, good.record_errors.len()), (None, 0));
        assert_eq!((bad.partition, bad.error), (1, ErrorCode::NOT_LEADER_OR_FOLLOWER));
        let (errors, message): (&[_], _) = if version >= 8 {
            (&[(2, None), (3, Some("no key".to_owned()))], Some("moved".to_owned()))
        } else {
            (&[], None)
        };
        assert_eq!((&bad.record_errors[..], &bad.error_message), (errors, &message));
        assert_eq!(bad.current_leader, (version >= 10).then_some((5, 12)));
        let endpoint = NodeEndpoint { node: 5, host: "b5".to_owned(), port: 9092, rack: None };
        let expected: &[NodeEndpoint] = if version >= 10 { &[endpoint] } else { &[] };
        assert_eq!(found.node_endpoints, expected);

        for cut in 0..body.len() {
            let error = decode_produce(&body[..cut], version).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol);
        }
    }
}

proptest! {
    #[test]
    fn decodes_or_rejects_arbitrary_bytes(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        version in PRODUCE_VERSIONS.0..=PRODUCE_VERSIONS.1,
    ) {
        if let Ok(response) = decode_produce(&body, version) {
            prop_assert!(response.partitions.len() <= body.len());
        }
    }

    #[test]
    fn decodes_mutated_responses_without_panic(
        version in PRODUCE_VERSIONS.0..=PRODUCE_VERSIONS.1,
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut body = response(version).to_vec();
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        let _ = decode_produce(&body, version);
    }
}
