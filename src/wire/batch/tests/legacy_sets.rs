use super::*;
use crate::wire::crc;

pub(super) fn message(
    magic: u8,
    offset: i64,
    attributes: u8,
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
) -> Vec<u8> {
    let mut checked = vec![magic, attributes];
    if magic == 1 {
        checked.extend(timestamp.to_be_bytes());
    }
    for field in [key, value] {
        checked.extend(field.map_or(-1, |bytes| bytes.len() as i32).to_be_bytes());
        checked.extend(field.unwrap_or_default());
    }
    let mut out = offset.to_be_bytes().to_vec();
    out.extend((checked.len() as i32 + 4).to_be_bytes());
    out.extend(crc::ieee(&checked).to_be_bytes());
    out.extend(checked);
    out
}

#[test]
fn reads_messages_of_magic_0_and_1() {
    let log = [
        message(0, 10, 0, 0, Some(b"k"), Some(b"v0")),
        message(1, 11, 0, TIME, None, Some(b"v1")),
        message(1, 12, 0x08, TIME + 1, Some(b""), None),
        message(1, 13, 0, TIME, None, None)[..20].to_vec(),
    ]
    .concat();
    let batches: Vec<RawBatch> = Batches::new(log.into()).collect::<Result<_>>().unwrap();
    assert_eq!(batches.len(), 3, "the last one is truncated");
    for batch in &batches {
        batch.check_crc().unwrap();
        assert_eq!((batch.header.producer_id, batch.header.partition_leader_epoch), (-1, -1));
        assert!(!batch.header.is_control());
    }
    let found: Vec<Seen> = batches.iter().flat_map(|batch| read(&records(batch).unwrap()).unwrap()).collect();
    let some = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(
        found,
        [
            Seen { offset: 10, timestamp: -1, key: some("k"), value: some("v0"), headers: vec![] },
            Seen { offset: 11, timestamp: TIME, key: None, value: some("v1"), headers: vec![] },
            Seen { offset: 12, timestamp: TIME + 1, key: some(""), value: None, headers: vec![] },
        ]
    );
    let types: Vec<_> = batches.iter().map(|batch| batch.header.timestamp_type()).collect();
    assert_eq!(types[1..], [TimestampType::CreateTime, TimestampType::LogAppendTime]);

    let mut damaged = batches[0].bytes().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(one(damaged).check_crc().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn damaged_message_error_names_its_offset() {
    let mut negative = message(0, 3, 0, 0, Some(b"key"), None);
    negative[18..22].copy_from_slice(&(-2i32).to_be_bytes());
    let mut long = message(1, 3, 0, 0, Some(b"key"), None);
    long[26..30].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut left_over = message(0, 3, 0, 0, None, None);
    left_over[11] += 1;
    left_over.push(0);
    for log in [negative, long, left_over] {
        let error = Batches::new(log.into()).next().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("offset 3"), "{error}");
    }
}

fn wrapper(magic: u8, offset: i64, attributes: u8) -> BatchHeader {
    let log = message(magic, offset, attributes, TIME + 9, None, Some(b"compressed"));
    let header = one(log).header;
    assert!(header.is_compressed());
    assert_eq!((header.last_offset(), header.record_count), (offset, 0));
    header
}

#[test]
fn wrapper_determines_offsets_of_compressed_set() {
    let set = |magic, offsets: [i64; 3]| -> Bytes {
        offsets.map(|offset| message(magic, offset, 0, TIME, None, Some(b"v"))).concat().into()
    };
    let places = |records: Records| -> Vec<_> {
        read(&records).unwrap().iter().map(|seen| (seen.offset, seen.timestamp)).collect()
    };
    // v0: the log's own offsets.
    let found = legacy::unwrapped(wrapper(0, 12, 1), set(0, [9, 10, 12])).unwrap();
    assert_eq!((found.header.base_offset, found.header.last_offset(), found.header.record_count), (9, 12, 3));
    assert_eq!(places(found), [(9, -1), (10, -1), (12, -1)]);
    // v1: counted from 0, or the rest of that after compaction, or counted from another offset.
    for inner in [[0, 1, 3], [5, 6, 8], [9, 10, 12]] {
        let found = legacy::unwrapped(wrapper(1, 12, 2), set(1, inner)).unwrap();
        assert_eq!(places(found), [(9, TIME), (10, TIME), (12, TIME)]);
    }
    // The wrapper has LogAppendTime.
    let found = legacy::unwrapped(wrapper(1, 12, 2 | 8), set(1, [0, 1, 3])).unwrap();
    assert_eq!(places(found.clone()), [(9, TIME + 9), (10, TIME + 9), (12, TIME + 9)]);
    let mut iter = found.iter();
    iter.next();
    let position = iter.position();
    assert_eq!(found.iter_from(position).next().unwrap().unwrap().offset, 10);
}

#[test]
fn rejects_impossible_compressed_sets() {
    let plain = |magic, offset| message(magic, offset, 0, TIME, None, None);
    for (header, body) in [
        (wrapper(1, 5, 1), vec![]),
        (wrapper(1, 5, 1), plain(0, 0)),
        (wrapper(1, 5, 1), message(1, 0, 1, TIME, None, Some(b"nested"))),
        (wrapper(1, 5, 1), [plain(1, 3), plain(1, 1)].concat()),
        (wrapper(1, 5, 1), [plain(1, 0), plain(1, 6)].concat()),
        (wrapper(1, 5, 1), [plain(1, i64::MIN), plain(1, i64::MAX)].concat()),
        (wrapper(0, 5, 1), plain(0, -7)),
        (wrapper(0, 5, 1), plain(0, i64::MAX)),
        (wrapper(1, 5, 1), plain(1, 0)[..20].to_vec()),
    ] {
        let error = legacy::unwrapped(header, body.into()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("offset 5"), "{error}");
    }
    // The offsets are out of order, but first and last are correct: the iteration finds the error.
    let body = [plain(1, 0), plain(1, 7), plain(1, 2)].concat();
    let records = legacy::unwrapped(wrapper(1, 5, 1), body.into()).unwrap();
    assert_eq!(read(&records).unwrap_err().kind(), ErrorKind::Corrupt);
}
