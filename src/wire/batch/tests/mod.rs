#[cfg(all(feature = "gzip", feature = "snappy", feature = "lz4", feature = "zstd"))]
mod compressed;
mod legacy_sets;

use bytes::Bytes;
use legacy_sets::message;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    error::{ErrorKind, Result},
    record::{Record, TimestampType},
    wire::Compression,
};

const LIMIT: usize = 1 << 20;
const TIME: i64 = 1_700_000_000_000;

fn bytes(hex: &str) -> Bytes {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect::<Vec<u8>>().into()
}

fn parts<'a>(record: &'a Record<'a>) -> RecordParts<'a> {
    RecordParts { key: record.key(), value: record.value(), record: Some(record) }
}

fn sealed(records: &[(Record<'_>, i64)]) -> SealedBatch {
    let mut builder = BatchBuilder::with_capacity(16);
    for (index, (record, timestamp)) in records.iter().enumerate() {
        let before = builder.size();
        assert_eq!(builder.append(&parts(record), *timestamp), index as u32);
        let (size, bound) = (builder.size() - before, record_size_bound(&parts(record)));
        // The bound does not know the record's length and its two deltas, which take at least one
        // byte each.
        assert!((size..size + 5 + 10 + 5 - 2).contains(&bound), "{size} {bound}");
    }
    assert_eq!(builder.count() as usize, records.len());
    let size = builder.size();
    let sealed = builder.seal(&mut Compressor::new(Compression::None).unwrap()).unwrap();
    assert_eq!((sealed.size(), sealed.uncompressed_size()), (size, size));
    sealed
}

fn whole(batch: &SealedBatch, stamp: ProducerStamp) -> Vec<u8> {
    [&batch.header(stamp)[..], batch.body()].concat()
}

fn one(log: impl Into<Bytes>) -> RawBatch {
    let mut batches = Batches::new(log.into());
    let batch = batches.next().unwrap().unwrap();
    assert!(batches.next().is_none());
    batch
}

fn records(batch: &RawBatch) -> Result<Records> {
    batch.records(&mut Decompressor::default(), LIMIT)
}

/// The content of a record that a reader sees.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn seen(view: RecordView<'_>) -> Seen {
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    Seen {
        offset: view.offset,
        timestamp: view.timestamp,
        key: owned(view.key),
        value: owned(view.value),
        headers: view.headers.map(|(name, value)| (name.to_vec(), owned(value))).collect(),
    }
}

fn read(records: &Records) -> Result<Vec<Seen>> {
    records.iter().map(|record| record.map(seen)).collect()
}

fn three() -> Vec<(Record<'static>, i64)> {
    vec![
        (
            Record::to("t")
                .with_key("k")
                .with_value("v")
                .with_header("a", "1")
                .with_null_header("a")
                .with_header("b", ""),
            TIME,
        ),
        (Record::to("t").with_value(vec![7; 300]), TIME - 5),
        (Record::to("t").with_key(""), TIME + 70_000),
    ]
}

#[test]
fn single_record_has_bytes_of_kafka() {
    let golden = bytes(concat!(
        "00000000000000000000003affffffff02e99b8dd80000000000000000018bcfe568000000018bcfe56800ffffffffffffffff",
        "ffffffffffff0000000110000000026b027600"
    ));
    let batch = sealed(&[(Record::to("t").with_key("k").with_value("v"), TIME)]);
    assert_eq!(whole(&batch, ProducerStamp::NONE), golden);

    let raw = one(golden.clone());
    raw.check_crc().unwrap();
    assert_eq!(raw.bytes(), &golden);
    assert_eq!(raw.header.next_offset(), 1);
    let found = read(&records(&raw).unwrap()).unwrap();
    let expected =
        Seen { offset: 0, timestamp: TIME, key: Some(b"k".to_vec()), value: Some(b"v".to_vec()), headers: vec![] };
    assert_eq!(found, [expected]);
}

#[test]
fn abort_marker_has_bytes_of_kafka() {
    let golden = bytes(concat!(
        "000000000000002a0000004200000003022bfe63ee0030000000000000018bcfe568000000018bcfe568000000000000000009",
        "0002ffffffff000000012000000008000000000c00000000000b00"
    ));
    let abort = ControlRecord::Abort { coordinator_epoch: 11 };
    let stamp = ProducerStamp { producer_id: 9, producer_epoch: 2, ..ProducerStamp::NONE };
    assert_eq!(marker_batch(abort, 42, 3, stamp, TIME).unwrap(), golden);

    let raw = one(golden);
    raw.check_crc().unwrap();
    assert!(raw.header.is_control() && raw.header.is_transactional() && !raw.header.is_compressed());
    assert_eq!((raw.header.producer_id, raw.header.partition_leader_epoch, raw.header.last_offset()), (9, 3, 42));
    let records = records(&raw).unwrap();
    let view = records.iter().next().unwrap().unwrap();
    assert_eq!(ControlRecord::parse(&view).unwrap(), abort);

    let commit = ControlRecord::Commit { coordinator_epoch: 1 };
    let raw = one(marker_batch(commit, 0, 0, stamp, TIME).unwrap());
    let view = |raw: &RawBatch| raw.records(&mut Decompressor::default(), LIMIT).unwrap();
    assert_eq!(ControlRecord::parse(&view(&raw).iter().next().unwrap().unwrap()).unwrap(), commit);
    let error = marker_batch(ControlRecord::Other(2), 0, 0, stamp, TIME).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}

#[test]
fn parses_unknown_control_types_but_rejects_truncated() {
    let parsed = |key: Option<&[u8]>, value: Option<&[u8]>| {
        ControlRecord::parse(&RecordView { offset: 5, timestamp: 0, key, value, headers: HeadersIter::default() })
    };
    assert_eq!(parsed(Some(&[0, 0, 0, 9]), None).unwrap(), ControlRecord::Other(9));
    let later = parsed(Some(&[0, 1, 0, 0, 7]), Some(&[0, 1, 0, 0, 0, 4, 1, 2])).unwrap();
    assert_eq!(later, ControlRecord::Abort { coordinator_epoch: 4 });
    for (key, value) in [(None, None), (Some(&[0, 0, 0][..]), None), (Some(&[0, 0, 0, 1]), Some(&[0, 0, 0, 0, 1][..]))]
    {
        assert_eq!(parsed(key, value).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn keeps_header_order_and_repeated_names() {
    let raw = one(whole(&sealed(&three()), ProducerStamp::NONE));
    let found = read(&records(&raw).unwrap()).unwrap();
    assert_eq!(
        found[0].headers,
        [(b"a".to_vec(), Some(b"1".to_vec())), (b"a".to_vec(), None), (b"b".to_vec(), Some(vec![]))]
    );
    assert_eq!(found.iter().map(|seen| seen.timestamp).collect::<Vec<_>>(), [TIME, TIME - 5, TIME + 70_000]);
    assert_eq!((&found[2].key, &found[2].value), (&Some(vec![]), &None));
    assert_eq!((raw.header.base_timestamp, raw.header.max_timestamp), (TIME, TIME + 70_000));
}

#[test]
fn same_body_serves_different_producer_stamps() {
    let batch = sealed(&three());
    let stamp = ProducerStamp { producer_id: 7, producer_epoch: 3, base_sequence: 19, transactional: true };
    let raw = one(whole(&batch, stamp));
    raw.check_crc().unwrap();
    let header = raw.header;
    assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (7, 3, 19));
    assert!(header.is_transactional() && !header.is_control());
    assert_eq!((header.record_count, header.last_offset_delta), (3, 2));
    one(whole(&batch, ProducerStamp::NONE)).check_crc().unwrap();
}

#[test]
fn rebuilding_record_by_record_gives_same_batch() {
    let batch = sealed(&three());
    let records = batch.records(&mut Decompressor::default()).unwrap();
    let mut builder = BatchBuilder::with_capacity(0);
    for record in records.iter() {
        builder.append_view(&record.unwrap());
    }
    let again = builder.seal(&mut Compressor::new(Compression::None).unwrap()).unwrap();
    assert_eq!(again.body(), batch.body());
    assert_eq!(again.header(ProducerStamp::NONE), batch.header(ProducerStamp::NONE));
}

#[test]
fn rejects_sealing_batch_without_records() {
    let error = BatchBuilder::with_capacity(0).seal(&mut Compressor::new(Compression::None).unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[test]
fn place_sets_offset_epoch_and_timestamp() {
    let mut log = whole(&sealed(&three()), ProducerStamp::NONE);
    BatchHeader::place(&mut log, 100, 6, None).unwrap();
    let raw = one(log.clone());
    raw.check_crc().unwrap();
    assert_eq!((raw.header.base_offset, raw.header.partition_leader_epoch), (100, 6));
    assert_eq!(raw.header.timestamp_type(), TimestampType::CreateTime);

    BatchHeader::place(&mut log, 200, 7, Some(42)).unwrap();
    let raw = one(log.clone());
    raw.check_crc().unwrap();
    assert_eq!(raw.header.timestamp_type(), TimestampType::LogAppendTime);
    let found = read(&records(&raw).unwrap()).unwrap();
    assert_eq!(
        found.iter().map(|seen| (seen.offset, seen.timestamp)).collect::<Vec<_>>(),
        [(200, 42), (201, 42), (202, 42)]
    );
    log.pop();
    assert_eq!(BatchHeader::place(&mut log, 0, 0, None).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn iteration_ends_before_truncated_batch() {
    let batch = whole(&sealed(&three()), ProducerStamp::NONE);
    for cut in 0..batch.len() {
        let mut log = batch.clone();
        log.extend_from_slice(&batch[..cut]);
        let mut batches = Batches::new(log.into());
        assert!(batches.next().unwrap().is_ok());
        assert!(batches.next().is_none(), "cut at {cut}");
        assert_eq!(batches.remaining(), cut);
    }
}

#[test]
fn damaged_header_error_names_batch_offset() {
    let mut batch = whole(&sealed(&three()), ProducerStamp::NONE);
    BatchHeader::place(&mut batch, 77, 0, None).unwrap();
    for (at, value, what) in [
        (8, &(-1i32).to_be_bytes()[..], "length -1"),
        (8, &[0; 4], "length 0"),
        (8, &48i32.to_be_bytes(), "below that of the header"),
        (16, &[3], "magic 3"),
        (57, &(-2i32).to_be_bytes(), "record count -2"),
        (23, &(-1i32).to_be_bytes(), "last offset delta -1"),
    ] {
        let mut damaged = batch.clone();
        damaged[at..at + value.len()].copy_from_slice(value);
        let mut batches = Batches::new(damaged.into());
        let error = batches.next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("offset 77") && error.to_string().contains(what), "{error}");
        assert!(batches.next().is_none());
    }
    for offset in [-1, i64::MAX] {
        let mut damaged = batch.clone();
        damaged[0..8].copy_from_slice(&i64::to_be_bytes(offset));
        assert!(Batches::new(damaged.into()).next().unwrap().is_err());
    }
}

#[test]
fn crc_detects_any_flipped_bit() {
    let batch = whole(&sealed(&three()), ProducerStamp::NONE);
    for at in 17..batch.len() {
        let mut damaged = batch.clone();
        damaged[at] ^= 0x10;
        if let Some(Ok(raw)) = Batches::new(damaged.into()).next() {
            assert_eq!(raw.check_crc().unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        }
    }
}

#[test]
fn rejects_record_count_differing_from_body() {
    let batch = whole(&sealed(&three()), ProducerStamp::NONE);
    for count in [0i32, 2, 4, i32::MAX] {
        let mut damaged = batch.clone();
        damaged[57..61].copy_from_slice(&count.to_be_bytes());
        let records = records(&one(damaged)).unwrap();
        let mut iter = records.iter();
        let good = iter.by_ref().take_while(Result::is_ok).count();
        assert_eq!(good, count.min(3) as usize);
        assert!(iter.next().is_none(), "the end comes after the error");
        assert_eq!(read(&records).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn rejects_records_with_invalid_fields() {
    // length, attributes, timestamp delta, offset delta, key, value, headers
    for body in [
        &[0x0e, 0, 0, 0, 0x01, 0x01, 0x00][..],      // ends after the batch
        &[0x0c, 0, 0, 0, 0x02, 0x01, 0x00],          // the key takes the value's length
        &[0x0c, 0, 0, 0, 0x03, 0x01, 0x00],          // key length −2
        &[0x0c, 0, 0, 0x02, 0x01, 0x01, 0x00],       // offset outside of the batch
        &[0x0c, 0, 0, 0x01, 0x01, 0x01, 0x00],       // offset before the batch
        &[0x0c, 0, 0, 0, 0x01, 0x01, 0x02],          // a header that is not there
        &[0x0c, 0, 0, 0, 0x01, 0x01, 0x01],          // −1 headers
        &[0x10, 0, 0, 0, 0x01, 0x01, 0x02, 0x01, 1], // a header without a name
        &[0x0e, 0, 0, 0, 0x01, 0x01, 0x00, 0x00],    // a byte after the headers
        &[0x0c, 0, 0, 0, 0x01, 0x01, 0x00, 0x00],    // a byte after the record
        &[0x01, 0, 0, 0, 0x01, 0x01, 0x00],          // length −1
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00], // no length at all
        &[],
    ] {
        let mut log = whole(&sealed(&[(Record::to("t"), TIME)]), ProducerStamp::NONE);
        log.truncate(BATCH_HEADER_SIZE);
        log.extend_from_slice(body);
        let length = (log.len() - 12) as i32;
        log[8..12].copy_from_slice(&length.to_be_bytes());
        let error = read(&records(&one(log)).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{body:?}");
    }
}

#[test]
fn iteration_resumes_at_saved_position() {
    let records = records(&one(whole(&sealed(&three()), ProducerStamp::NONE))).unwrap();
    let all = read(&records).unwrap();
    let mut position = RecordPosition::default();
    for expected in &all {
        let mut iter = records.iter_from(position);
        assert_eq!(&seen(iter.next().unwrap().unwrap()), expected);
        position = iter.position();
    }
    assert!(records.iter_from(position).next().is_none());
}

#[test]
fn shares_own_bytes_and_copies_others() {
    let raw = one(whole(&sealed(&three()), ProducerStamp::NONE));
    let records = records(&raw).unwrap();
    let second = records.iter().nth(1).unwrap().unwrap();
    let shared = records.share(second.value.unwrap());
    assert_eq!(shared.as_ptr(), second.value.unwrap().as_ptr());
    assert_eq!(records.share(&[]).len(), 0);
    assert_eq!(records.share(b"elsewhere"), "elsewhere");
    assert_eq!(records.size(), raw.bytes().len() - BATCH_HEADER_SIZE, "an uncompressed body is not copied");
}

/// Calls everything on arbitrary bytes: every call must end without a panic.
fn walk(log: Vec<u8>) {
    let size = log.len();
    for batch in Batches::new(log.into()) {
        let Ok(batch) = batch else { continue };
        let _ = batch.check_crc();
        assert!(batch.header.next_offset() > batch.header.base_offset);
        if batch.header.is_compressed() {
            continue; // the codecs have tests of their own
        }
        let Ok(records) = records(&batch) else { continue };
        assert!(records.iter().count() <= size);
        for record in records.iter().flatten() {
            assert!(record.offset <= batch.header.last_offset());
            record.headers.for_each(drop);
            let _ = ControlRecord::parse(&record);
        }
    }
}

prop_compose! {
    fn any_record()(
        key in proptest::option::of(vec(any::<u8>(), 0..200)),
        value in proptest::option::of(vec(any::<u8>(), 0..200)),
        headers in vec(("[a-c]{0,2}", proptest::option::of(vec(any::<u8>(), 0..70))), 0..4),
        timestamp: i64,
    ) -> (Record<'static>, i64) {
        let mut record = Record::to("t");
        if let Some(key) = key {
            record = record.with_key(key);
        }
        if let Some(value) = value {
            record = record.with_value(value);
        }
        for (name, value) in headers {
            record = match value {
                Some(value) => record.with_header(name, value),
                None => record.with_null_header(name),
            };
        }
        (record, timestamp)
    }
}

proptest! {
    #[test]
    fn written_records_are_read_back_equal(written in vec(any_record(), 1..150), base in 0..i64::MAX / 2) {
        let mut log = whole(&sealed(&written), ProducerStamp::NONE);
        BatchHeader::place(&mut log, base, 1, None).unwrap();
        let raw = one(log);
        raw.check_crc().unwrap();
        prop_assert_eq!(raw.header.max_timestamp, written.iter().map(|(_, time)| *time).max().unwrap());
        let found = read(&records(&raw).unwrap()).unwrap();
        prop_assert_eq!(found.len(), written.len());
        for (index, (found, (record, timestamp))) in found.iter().zip(&written).enumerate() {
            let headers = record.headers.iter().map(|(name, value)| {
                (name.as_bytes().to_vec(), value.as_ref().map(|value| value.as_slice().to_vec()))
            });
            prop_assert_eq!(found, &Seen {
                offset: base + index as i64,
                timestamp: *timestamp,
                key: record.key().map(<[u8]>::to_vec),
                value: record.value().map(<[u8]>::to_vec),
                headers: headers.collect(),
            });
        }
    }

    #[test]
    fn reads_random_bytes_without_panic(log in vec(any::<u8>(), 0..300)) {
        walk(log);
    }

    #[test]
    fn reads_mutated_batches_without_panic(
        records in vec(any_record(), 1..5),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        magic in 0u8..3,
    ) {
        let mut log = match magic {
            2 => whole(&sealed(&records), ProducerStamp::NONE),
            magic => message(magic, 4, 0, TIME, Some(b"key"), Some(b"value")),
        };
        for (at, value) in changes {
            let at = at.index(log.len());
            log[at] = value;
        }
        walk(log);
    }
}
