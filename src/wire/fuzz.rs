//! The fuzz targets for the decoders of this room.

use bytes::{Bytes, BytesMut};

use super::{
    Compression,
    batch::{
        BatchBuilder, BatchHeader, Batches, Compressor, ControlRecord, Decompressor, ProducerStamp, RecordParts,
        marker_batch,
    },
    codec,
    fetch::{FETCH_VERSIONS, decode_fetch},
    message::encode_body,
    produce::{PRODUCE_VERSIONS, decode_produce},
};
use crate::{
    record::Record,
    wire::{encoder::Encode, messages, protocol::Message},
};

/// Maximum decompressed bytes of a batch.
pub(crate) const LIMIT: usize = 1 << 20;

/// Returns a number below `end` from the first byte, and the rest.
fn pick(input: &[u8], end: usize) -> (usize, &[u8]) {
    match input.split_first() {
        Some((first, rest)) => (usize::from(*first) % end.max(1), rest),
        None => (0, input),
    }
}

/// Returns a version within bounds from the first byte, and the rest.
fn version(input: &[u8], (min, max): (i16, i16)) -> (i16, &[u8]) {
    let (pick, rest) = pick(input, usize::try_from(max - min + 1).unwrap_or(1));
    (min + i16::try_from(pick).unwrap_or(0), rest)
}

/// Decodes record batches of every format and codec, down to the last header, and searches for the
/// next batch after unreadable bytes.
pub(crate) fn batch(input: &[u8]) {
    let mut decompressor = Decompressor::default();
    let mut batches = Batches::new(Bytes::copy_from_slice(input));
    for batch in batches.by_ref() {
        let Ok(batch) = batch else { break };
        // A wrong checksum does not end the run, so that the fuzzer gets to the records.
        let _ = batch.check_crc();
        let Ok(records) = batch.records(&mut decompressor, LIMIT) else { continue };
        assert!(records.size() <= LIMIT.max(input.len()));
        let mut iter = records.iter();
        let mut middle = iter.position();
        let mut count = 0;
        while let Some(record) = iter.next() {
            let Ok(record) = record else { break };
            assert!((records.header.base_offset..=records.header.last_offset()).contains(&record.offset));
            let parts = record.headers.flat_map(|(name, value)| [Some(name), value]).chain([record.key, record.value]);
            for part in parts.flatten() {
                assert_eq!(records.share(part), part);
            }
            if records.header.is_control() {
                let _ = ControlRecord::parse(&record);
            }
            count += 1;
            if count == 2 {
                middle = iter.position();
            }
        }
        // Iterating from the middle gives the remaining records.
        let rest = records.iter_from(middle).filter(Result::is_ok).count();
        assert_eq!(rest, if count >= 2 { count - 2 } else { count });
    }
    let left = batches.remaining();
    assert!(left <= input.len());
    if let Some(offset) = batches.next_sound(7) {
        assert!(offset >= 7);
    }
}

pub(crate) fn batch_seeds() -> Vec<Vec<u8>> {
    let codecs = [
        Compression::None,
        #[cfg(feature = "gzip")]
        Compression::Gzip(1),
        #[cfg(feature = "snappy")]
        Compression::Snappy,
        #[cfg(feature = "lz4")]
        Compression::Lz4,
        #[cfg(feature = "zstd")]
        Compression::Zstd(1),
    ];
    let mut seeds: Vec<Vec<u8>> = codecs.into_iter().filter_map(|codec| sealed(codec, 3)).collect();
    let stamp = ProducerStamp { producer_id: 7, producer_epoch: 0, base_sequence: 0, transactional: true };
    let marker = marker_batch(ControlRecord::Abort { coordinator_epoch: 1 }, 10, 0, stamp, 5);
    seeds.extend(marker.map(|bytes| bytes.to_vec()));
    // Two message sets of old brokers: plain messages of both formats.
    seeds.push(legacy(0, 0, b"value"));
    seeds.push(legacy(1, 0, b"value"));
    #[cfg(feature = "gzip")]
    if let Ok(inner) =
        codec::compress(Compression::Gzip(1), &mut codec::CompressorState::default(), &legacy(1, 0, b"v"))
    {
        seeds.push(legacy(1, 1, &inner));
    }
    if let [first, second, ..] = &seeds[..] {
        seeds.push([&first[..], second, first].concat());
    }
    seeds
}

fn sealed(compression: Compression, records: u32) -> Option<Vec<u8>> {
    let mut builder = BatchBuilder::with_capacity(100);
    for n in 0..records {
        let record = Record::to("t").with_header("name", "value").with_null_header("null");
        let parts = RecordParts { key: Some(b"key"), value: (n > 0).then_some(b"value"), record: Some(&record) };
        builder.append(&parts, 1000 + i64::from(n));
    }
    let sealed = builder.seal(&mut Compressor::new(compression).ok()?).ok()?;
    let mut bytes = [&sealed.header(ProducerStamp::NONE)[..], sealed.body()].concat();
    BatchHeader::place(&mut bytes, 40, 1, None).ok()?;
    Some(bytes)
}

/// Builds one message of an old format.
fn legacy(magic: u8, attributes: u8, value: &[u8]) -> Vec<u8> {
    let mut checked = vec![magic, attributes];
    if magic == 1 {
        checked.extend(5_i64.to_be_bytes());
    }
    checked.extend((-1_i32).to_be_bytes());
    checked.extend((value.len() as i32).to_be_bytes());
    checked.extend(value);
    let crc = super::crc::ieee(&checked);
    let length = checked.len() as i32 + 4;
    [&3_i64.to_be_bytes()[..], &length.to_be_bytes(), &crc.to_be_bytes(), &checked].concat()
}

/// Decompresses arbitrary bytes with each codec.
pub(crate) fn codec(input: &[u8]) {
    let (id, input) = pick(input, 6);
    let (magic, input) = pick(input, 3);
    let mut state = codec::DecompressorState::default();
    // A state decodes after an error as well as a new one.
    for _ in 0..2 {
        let read = codec::decompress(id as u8, &mut state, magic as i8, input, LIMIT);
        assert!(read.is_err() || read.is_ok_and(|bytes| bytes.len() <= LIMIT));
    }
}

pub(crate) fn codec_seeds() -> Vec<Vec<u8>> {
    let text = b"words that repeat and so compress, words that repeat and so compress, and an end";
    let mut seeds = Vec::new();
    for id in 1..=4 {
        let compression = match id {
            #[cfg(feature = "gzip")]
            1 => Compression::Gzip(6),
            #[cfg(feature = "snappy")]
            2 => Compression::Snappy,
            #[cfg(feature = "lz4")]
            3 => Compression::Lz4,
            #[cfg(feature = "zstd")]
            4 => Compression::Zstd(3),
            _ => continue,
        };
        for size in [0, 1, 20, text.len()] {
            let state = &mut codec::CompressorState::default();
            let bytes = codec::compress(compression, state, text.get(..size).unwrap_or_default());
            seeds.extend(bytes.map(|bytes| [&[id, 2][..], &bytes].concat()));
        }
    }
    seeds
}

/// Decodes Fetch responses; the first byte is the version.
pub(crate) fn fetch(input: &[u8]) {
    let (version, body) = version(input, FETCH_VERSIONS);
    let Ok(response) = decode_fetch(Bytes::copy_from_slice(body), version) else { return };
    let records: usize = response.partitions.iter().map(|partition| partition.records.len()).sum();
    assert!(records <= body.len());
}

pub(crate) fn fetch_seeds() -> Vec<Vec<u8>> {
    use messages::fetch_response::{AbortedTransaction, FetchResponse, FetchableTopicResponse, PartitionData};
    let records = sealed(Compression::None, 1).map(Bytes::from);
    let aborted = AbortedTransaction { producer_id: 7, first_offset: 3 };
    let data = PartitionData { aborted_transactions: Some(vec![aborted]), records, ..Default::default() };
    let topic = FetchableTopicResponse { partitions: vec![data.clone(), data], ..Default::default() };
    let full = FetchResponse { responses: vec![topic], ..Default::default() };
    encoded(FETCH_VERSIONS, &[FetchResponse::default(), full])
}

/// Encodes messages in every version, each after the byte that selects the version.
fn encoded<T: Message + Encode>((min, max): (i16, i16), messages: &[T]) -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for version in min..=max {
        for message in messages {
            let mut out = BytesMut::new();
            if encode_body(&mut out, message, version).is_ok() {
                seeds.push([&[(version - min) as u8][..], &out].concat());
            }
        }
    }
    seeds
}

/// Decodes Produce responses; the first byte is the version.
pub(crate) fn produce(input: &[u8]) {
    let (version, body) = version(input, PRODUCE_VERSIONS);
    let _ = decode_produce(body, version);
}

pub(crate) fn produce_seeds() -> Vec<Vec<u8>> {
    use messages::produce_response::{
        BatchIndexAndErrorMessage, PartitionProduceResponse, ProduceResponse, TopicProduceResponse,
    };
    let error = BatchIndexAndErrorMessage { batch_index: 2, ..Default::default() };
    let partition = PartitionProduceResponse { record_errors: vec![error], ..Default::default() };
    let topic = TopicProduceResponse { partition_responses: vec![partition.clone(), partition], ..Default::default() };
    let full = ProduceResponse { responses: vec![topic], ..Default::default() };
    encoded(PRODUCE_VERSIONS, &[ProduceResponse::default(), full])
}
