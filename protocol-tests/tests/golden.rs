//! Tests of the golden bytes: Kafka's own serializers, called through Java, on which the tests of
//! Ottla's wire format are based.
#![cfg(unix)]

use std::collections::BTreeMap;

use protocol_tests::golden::{self, Batch, Codec, Timestamps};
use protocol_tests::{Error, Message, or_skip};

#[test]
fn encodes_messages_to_bytes_of_protocol() -> Result<(), Error> {
    let json = r#"{"clientSoftwareName": "ab", "clientSoftwareVersion": "c"}"#;
    let Some(bytes) = or_skip(golden::request("ApiVersions", 3, json)) else {
        return Ok(());
    };
    // Compact strings with a length one greater than their size, and no tagged fields.
    assert_eq!(bytes, [3, b'a', b'b', 2, b'c', 0]);
    assert_eq!(
        golden::decode("ApiVersionsRequest", 3, &bytes)?,
        r#"{"clientSoftwareName":"ab","clientSoftwareVersion":"c"}"#
    );
    // The second time from the cache, with the same bytes.
    assert_eq!(golden::request("ApiVersions", 3, json)?, bytes);

    let header = r#"{"requestApiKey": 18, "requestApiVersion": 3, "correlationId": 7, "clientId": null}"#;
    assert_eq!(golden::encode("RequestHeader", 2, header)?, [0, 18, 0, 3, 0, 0, 0, 7, 0xff, 0xff, 0]);
    assert_eq!(golden::response("Heartbeat", 0, r#"{"errorCode": 27}"#)?, [0, 27]);
    Ok(())
}

#[test]
fn works_again_after_rejected_input() -> Result<(), Error> {
    let Some(_) = or_skip(golden::response("Heartbeat", 0, r#"{"errorCode": 0}"#)) else {
        return Ok(());
    };
    for rejected in [
        golden::request("NoSuchThing", 0, "{}").map(drop),
        golden::request("Heartbeat", 0, "{}").map(drop),
        golden::decode("HeartbeatResponse", 0, &[0, 27, 1]).map(drop),
        golden::decode("HeartbeatResponse", 0, &[0]).map(drop),
        golden::read_batches(&[0; 70]).map(drop),
    ] {
        assert!(matches!(rejected, Err(Error::Rejected { .. })), "{rejected:?}");
    }
    assert_eq!(golden::decode("HeartbeatResponse", 0, &[0, 27])?, r#"{"errorCode":27}"#);
    Ok(())
}

fn batch(codec: Codec) -> Batch {
    let headers = vec![("h".to_owned(), Some(Vec::new())), ("h".to_owned(), None)];
    Batch {
        base_offset: 1000,
        producer_id: 77,
        producer_epoch: 3,
        base_sequence: 41,
        transactional: true,
        leader_epoch: 9,
        ..Batch::new(codec)
    }
    .record(1_700_000_000_000, Message::value("value").key(""))
    .record(1_700_000_000_005, Message { headers, ..Message::default() })
    .record(1_699_999_999_999, Message::value(vec![b'x'; 5000]))
}

#[test]
fn every_codec_round_trips_through_kafka() -> Result<(), Error> {
    for codec in Codec::ALL {
        let written = batch(codec);
        let Some(bytes) = or_skip(golden::batch(&written)) else {
            return Ok(());
        };
        if codec != Codec::None {
            assert!(bytes.len() < 1000, "{codec:?} did not compress: {} bytes", bytes.len());
        }
        let [read] = golden::read_batches(&bytes)?.try_into().expect("one batch");
        assert_eq!((read.magic, read.codec.as_str(), read.size), (2, codec.name(), bytes.len()));
        assert_eq!((read.base_offset, read.last_offset, read.max_timestamp), (1000, 1002, 1_700_000_000_005));
        assert_eq!((read.producer_id, read.producer_epoch, read.base_sequence), (77, 3, 41));
        assert!(read.transactional && !read.control);
        assert_eq!((read.leader_epoch, read.timestamps.as_str()), (9, "CreateTime"));
        let records: Vec<_> = read.records.iter().map(|record| (record.timestamp, record.message.clone())).collect();
        assert_eq!(records, written.records);
        assert_eq!(read.records.iter().map(|record| record.offset).collect::<Vec<_>>(), [1000, 1001, 1002]);

        // Kafka checks the batches that it reads.
        let mut broken = bytes.clone();
        *broken.last_mut().expect("bytes") ^= 1;
        assert!(matches!(golden::read_batches(&broken), Err(Error::Rejected { .. })));
    }
    Ok(())
}

#[test]
fn writes_batches_of_magic_0_and_1() -> Result<(), Error> {
    for (magic, timestamps) in [(0, Timestamps::None), (1, Timestamps::Create), (1, Timestamps::Append(5))] {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4] {
            let old = Batch { magic, timestamps, ..Batch::new(codec) }
                .record(if magic == 0 { -1 } else { 10 }, Message::value("one").key("k"))
                .record(if magic == 0 { -1 } else { 20 }, Message::value("two"));
            let Some(bytes) = or_skip(golden::batch(&old)) else {
                return Ok(());
            };
            let read = golden::read_batches(&bytes)?;
            assert!(read.iter().all(|batch| batch.magic == magic));
            let records: Vec<_> = read.into_iter().flat_map(|batch| batch.records).collect();
            let values: Vec<_> = records.iter().map(|record| record.message.value.as_deref()).collect();
            assert_eq!(values, [Some(&b"one"[..]), Some(b"two")], "{magic} {codec:?}");
        }
    }
    Ok(())
}

#[test]
fn kafka_decodes_samples_of_every_message() -> Result<(), Error> {
    let Some(samples) = or_skip(golden::samples(1)) else {
        return Ok(());
    };
    let mut versions: BTreeMap<&str, Vec<i16>> = BTreeMap::new();
    for sample in &samples {
        versions.entry(&sample.name).or_default().push(sample.version);
    }
    assert_eq!(versions["ProduceRequest"], (3..=13).collect::<Vec<_>>());
    assert_eq!(versions["ApiVersionsResponse"], (0..=5).collect::<Vec<_>>());
    assert_eq!(versions["ConsumerProtocolSubscription"], (0..=3).collect::<Vec<_>>());
    for sample in &samples {
        assert_eq!(sample.api_key.is_some(), sample.header_version.is_some());
        let json = golden::decode(&sample.name, sample.version, &sample.bytes)?;
        assert_eq!(json, sample.json, "{} {}", sample.name, sample.version);
    }
    assert_ne!(samples, golden::samples(2)?);
    Ok(())
}
