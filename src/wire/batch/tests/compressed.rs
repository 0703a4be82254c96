use super::{legacy_sets::message, *};
use crate::wire::codec::{CompressorState, compress};

const CODECS: [Compression; 4] = [Compression::Gzip(-1), Compression::Snappy, Compression::Lz4, Compression::Zstd(3)];

fn large(count: usize) -> BatchBuilder {
    let mut builder = BatchBuilder::with_capacity(1000);
    for index in 0..count {
        let record = Record::to("t").with_key(index.to_string()).with_value(vec![b'x'; 100]).with_header("h", "v");
        builder.append(&parts(&record), TIME + index as i64);
    }
    builder
}

#[test]
fn every_codec_round_trips_the_records() {
    let plain = large(500).seal(&mut Compressor::new(Compression::None).unwrap()).unwrap();
    let expected = read(&records(&one(whole(&plain, ProducerStamp::NONE))).unwrap()).unwrap();
    let mut decompressor = Decompressor::default();
    for codec in CODECS {
        let mut compressor = Compressor::new(codec).unwrap();
        for _ in 0..2 {
            let batch = large(500).seal(&mut compressor).unwrap();
            assert!(batch.size() < plain.size() / 5, "{codec:?}");
            assert_eq!(batch.uncompressed_size(), plain.size());
            let raw = one(whole(&batch, ProducerStamp::NONE));
            raw.check_crc().unwrap();
            assert!(raw.header.is_compressed());
            let found = raw.records(&mut decompressor, plain.size()).unwrap();
            assert_eq!(read(&found).unwrap(), expected, "{codec:?}");
            assert_eq!(read(&batch.records(&mut decompressor).unwrap()).unwrap(), expected);
            assert_eq!(found.size(), plain.body().len());

            let error = raw.records(&mut decompressor, plain.body().len() - 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().starts_with("the batch at offset 0: "), "{error}");
        }
    }
}

#[test]
fn reads_message_sets_inside_compressed_wrappers() {
    let mut decompressor = Decompressor::default();
    for (codec, id) in [(Compression::Gzip(6), 1), (Compression::Snappy, 2)] {
        let set = [0, 1, 2].map(|offset| message(1, offset, 0, TIME, None, Some(b"value"))).concat();
        let value = compress(codec, &mut CompressorState::default(), &set).unwrap();
        let raw = one(message(1, 102, id, TIME, None, Some(&value)));
        raw.check_crc().unwrap();
        let found = read(&raw.records(&mut decompressor, LIMIT).unwrap()).unwrap();
        assert_eq!(found.iter().map(|seen| seen.offset).collect::<Vec<_>>(), [100, 101, 102]);
        assert!(found.iter().all(|seen| seen.value.as_deref() == Some(b"value")));
    }
}

#[test]
fn unknown_codec_number_is_corruption_error() {
    let mut log = whole(&large(1).seal(&mut Compressor::new(Compression::None).unwrap()).unwrap(), ProducerStamp::NONE);
    log[22] |= 7;
    let error = records(&one(log)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

proptest! {
    #[test]
    fn damaged_compressed_batches_never_panic(
        codec in proptest::sample::select(&CODECS[..]),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let batch = large(20).seal(&mut Compressor::new(codec).unwrap()).unwrap();
        let mut log = whole(&batch, ProducerStamp::NONE);
        for (at, value) in changes {
            let at = at.index(log.len());
            log[at] = value;
        }
        for raw in Batches::new(log.into()).flatten() {
            if let Ok(records) = records(&raw) {
                prop_assert!(records.size() <= LIMIT);
                records.iter().for_each(drop);
            }
        }
    }
}
