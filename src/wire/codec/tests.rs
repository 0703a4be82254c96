use proptest::prelude::*;

use super::*;

const LIMIT: usize = 1 << 22;

/// Returns every codec that is built in, with its lowest and highest levels.
fn every() -> Vec<Compression> {
    [
        Compression::Gzip(-1),
        Compression::Gzip(1),
        Compression::Gzip(9),
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd(-7),
        Compression::Zstd(0),
        Compression::Zstd(3),
        Compression::Zstd(4),
    ]
    .into_iter()
    .filter(|compression| check(*compression).is_ok())
    .collect()
}

fn unpack(compression: Compression, packed: &[u8], limit: usize) -> Result<Bytes> {
    decompress(compression.id(), &mut DecompressorState::default(), 2, packed, limit)
}

/// Returns words in a repeating order, which compress as well as records do.
fn prose(length: usize) -> Vec<u8> {
    let words = ["orders ", "shipped ", "billing ", "a customer ", "1234567 ", "{\"id\":"];
    let mut seed = 7u32;
    let mut out = Vec::with_capacity(length + 16);
    while out.len() < length {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.extend_from_slice(words[(seed >> 16) as usize % words.len()].as_bytes());
    }
    out.truncate(length);
    out
}

#[test]
fn round_trips_sizes_around_block_boundaries() {
    let (mut writing, mut reading) = (CompressorState::default(), DecompressorState::default());
    for compression in every() {
        for size in [0, 1, 15, 16, 17, 32_767, 32_768, 32_769, 65_534, 65_535, 65_536, 65_537, 200_000, 1 << 20] {
            let body = prose(size);
            let packed = compress(compression, &mut writing, &body).unwrap();
            let back = decompress(compression.id(), &mut reading, 2, &packed, size).unwrap();
            assert!(back == body, "{compression} of {size} bytes");
            assert!(size < 1000 || packed.len() < size / 2, "{compression} of {size} bytes takes {}", packed.len());
        }
    }
}

#[test]
#[cfg(debug_assertions)]
fn wrong_encoder_output_is_an_internal_error() {
    for compression in every() {
        let (body, other) = (prose(70_000), prose(69_999));
        let packed = compress(compression, &mut CompressorState::default(), &other).unwrap();
        let cut = &packed[..packed.len() - 1];
        let state = &mut DecompressorState::default();
        assert!(check_output(compression, state, &other, &packed).is_ok());
        for (body, packed) in [(&body, &packed[..]), (&other, cut), (&other, &[])] {
            let error = check_output(compression, state, body, packed).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Internal, "{error}");
            assert!(error.to_string().contains(&format!("the encoder of {compression} wrote")), "{error}");
        }
    }
}

#[test]
#[cfg(feature = "zstd")]
fn zstd_checksum_detects_changed_literals() {
    // Bytes without a repetition are stored, so that one of them can be changed without a trace in
    // the frame's own structure.
    let body: Vec<u8> = (0..=255).collect();
    let compression = Compression::Zstd(1);
    let mut packed = compress(compression, &mut CompressorState::default(), &body).unwrap();
    let middle = packed.len() / 2;
    packed[middle] ^= 1;
    let error = unpack(compression, &packed, LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn output_capacity_stays_near_its_length() {
    for compression in every() {
        for size in [0, 100, 16_384, 500_000, 1 << 20] {
            let packed = compress(compression, &mut CompressorState::default(), &prose(size)).unwrap();
            assert!(packed.capacity() <= packed.len() + packed.len() / 8 + 64, "{compression} of {size} bytes");
        }
    }
}

#[test]
fn rejects_output_one_byte_above_limit() {
    for compression in every() {
        for body in [vec![0u8; 1 << 20], prose(100_000)] {
            let packed = compress(compression, &mut CompressorState::default(), &body).unwrap();
            for limit in [0, 1, 1000, 65_536, body.len() - 1] {
                let error = unpack(compression, &packed, limit).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                assert!(error.to_string().contains("larger than the limit"), "{compression} at {limit}: {error}");
            }
            assert_eq!(unpack(compression, &packed, body.len()).unwrap(), body);
        }
    }
}

#[test]
fn rejects_truncated_input_of_every_codec() {
    for compression in every() {
        let packed = compress(compression, &mut CompressorState::default(), &prose(70_000)).unwrap();
        for cut in [0, 1, 3, 4, 7, 9, 16, 18, packed.len() / 2, packed.len() - 1] {
            let result = unpack(compression, &packed[..cut], LIMIT);
            // Snappy's framing has no end mark, so input cut between two of its blocks is complete,
            // and empty input is zero zstd frames.
            let complete_by_chance = match compression {
                Compression::Snappy => cut == 16,
                Compression::Zstd(_) => cut == 0,
                _ => false,
            };
            assert_eq!(result.is_ok(), complete_by_chance, "{compression} cut at {cut}: {result:?}");
        }
    }
}

#[test]
fn unknown_codec_error_names_its_number() {
    let error = decompress(6, &mut DecompressorState::default(), 2, b"", LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("codec 6"));
}

#[cfg(not(feature = "gzip"))]
#[test]
fn missing_codec_error_names_cargo_feature() {
    let error = compress(Compression::Gzip(-1), &mut CompressorState::default(), b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("feature \"gzip\""));
    let error = unpack(Compression::Gzip(-1), b"x", LIMIT).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.to_string().contains("feature \"gzip\""));
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_reads_several_members_ignoring_padding() {
    let mut state = CompressorState::default();
    let mut packed = compress(Compression::Gzip(6), &mut state, b"first, ").unwrap();
    packed.extend(compress(Compression::Gzip(6), &mut state, b"second").unwrap());
    packed.extend([0; 9]);
    assert_eq!(unpack(Compression::Gzip(6), &packed, LIMIT).unwrap(), "first, second");
    assert!(unpack(Compression::Gzip(6), &packed, 9).is_err());
}

#[cfg(feature = "gzip")]
#[test]
fn gzip_reads_output_of_gzip_program() {
    // printf 'kafka kafka kafka' | gzip -n
    let packed = [
        0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 0x03, 0xcb, 0x4e, 0x4c, 0xcb, 0x4e, 0x54, 0xc8, 0x46, 0x90, 0x00, 0xd5,
        0xa9, 0x07, 0xa8, 0x11, 0, 0, 0,
    ];
    assert_eq!(unpack(Compression::Gzip(6), &packed, LIMIT).unwrap(), "kafka kafka kafka");
}

#[cfg(feature = "snappy")]
#[test]
fn snappy_reads_raw_and_framed_input() {
    let body = prose(100_000);
    let raw = snap::raw::Encoder::new().compress_vec(&body).unwrap();
    assert_eq!(unpack(Compression::Snappy, &raw, body.len()).unwrap(), body);
    let framed = compress(Compression::Snappy, &mut CompressorState::default(), &body).unwrap();
    assert_eq!(framed[..16], [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0, 0, 0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(unpack(Compression::Snappy, &framed.repeat(2), LIMIT).unwrap(), body.repeat(2));
    // The length of the first block is that of the raw Snappy data after it.
    let length = u32::from_be_bytes(framed[16..20].try_into().unwrap()) as usize;
    assert_eq!(snap::raw::Decoder::new().decompress_vec(&framed[20..20 + length]).unwrap(), body[..32_768]);
}

#[cfg(feature = "lz4")]
mod lz4_frames {
    use super::super::xxh32::xxh32;
    use super::*;

    fn read(magic: i8, frame: &[u8], limit: usize) -> Result<Bytes> {
        decompress(Compression::Lz4.id(), &mut DecompressorState::default(), magic, frame, limit)
    }

    /// Builds a frame by hand: `flags` after the version, blocks as given, checksums if the flags
    /// ask for them.
    fn frame(flags: u8, content: &[u8], blocks: &[(bool, Vec<u8>)]) -> Vec<u8> {
        let mut descriptor = vec![0b0100_0000 | flags, 4 << 4];
        if flags & 8 != 0 {
            descriptor.extend((content.len() as u64).to_le_bytes());
        }
        let mut out = 0x184D_2204u32.to_le_bytes().to_vec();
        out.extend_from_slice(&descriptor);
        out.push((xxh32(&descriptor) >> 8) as u8);
        for (stored, block) in blocks {
            out.extend((block.len() as u32 | if *stored { 1 << 31 } else { 0 }).to_le_bytes());
            out.extend_from_slice(block);
            if flags & 16 != 0 {
                out.extend(xxh32(block).to_le_bytes());
            }
        }
        out.extend([0; 4]);
        if flags & 4 != 0 {
            out.extend(xxh32(content).to_le_bytes());
        }
        out
    }

    #[test]
    fn lz4_reads_every_option_of_format() {
        let content = prose(90_000);
        let (first, second) = content.split_at(50_000);
        let independent: Vec<(bool, Vec<u8>)> =
            vec![(false, lz4_flex::block::compress(first)), (true, second.to_vec())];
        let dependent = vec![(true, first.to_vec()), (false, lz4_flex::block::compress_with_dict(second, first))];
        for options in [0, 4, 8, 16, 28] {
            for (blocks, independence) in [(&independent, 32), (&dependent, 0)] {
                let good = frame(options | independence, &content, blocks);
                assert_eq!(read(2, &good, content.len()).unwrap(), content, "flags {options}");
                assert!(read(2, &good, content.len() - 1).unwrap_err().to_string().contains("limit"));
                let mut twice = good.clone();
                twice.extend([0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]);
                twice.extend_from_slice(&good);
                assert_eq!(read(2, &twice, LIMIT).unwrap(), content.repeat(2));
                if options & 20 != 0 {
                    let mut bad = good.clone();
                    let at = bad.len() - if options & 4 != 0 { 2 } else { 6 };
                    bad[at] ^= 1;
                    assert!(read(2, &bad, LIMIT).unwrap_err().to_string().contains("checksum"), "flags {options}");
                }
            }
        }
    }

    #[test]
    fn legacy_lz4_checksum_accepted_below_magic_2() {
        let mut old = frame(32, b"value", &[(true, b"value".to_vec())]);
        old[6] = (xxh32(&old[..6]) >> 8) as u8;
        for magic in [0, 1] {
            assert_eq!(read(magic, &old, LIMIT).unwrap(), "value");
        }
        assert!(read(2, &old, LIMIT).unwrap_err().to_string().contains("header's checksum"));
        old[6] ^= 0x55;
        assert!(read(0, &old, LIMIT).is_err());
    }

    #[test]
    fn lz4_frame_has_bytes_of_java() {
        let packed = compress(Compression::Lz4, &mut CompressorState::default(), b"x").unwrap();
        assert_eq!(packed, [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82, 1, 0, 0, 0x80, b'x', 0, 0, 0, 0]);
    }
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..3000),
        (0usize..80_000).prop_map(prose),
        (any::<u8>(), 0usize..80_000).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn round_trips_arbitrary_bodies_in_every_codec(body in bodies()) {
        for compression in every() {
            let packed = compress(compression, &mut CompressorState::default(), &body).unwrap();
            prop_assert!(unpack(compression, &packed, body.len()).unwrap() == body, "{}", compression);
        }
    }

    #[test]
    fn damaged_input_respects_limit_and_state(
        body in bodies(),
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<proptest::sample::Index>(),
        limit in 0usize..200_000,
    ) {
        let (mut writing, mut reading) = (CompressorState::default(), DecompressorState::default());
        for compression in every() {
            let good = compress(compression, &mut writing, &body).unwrap();
            let mut bad = good.clone();
            for (at, byte) in &changes {
                let at = at.index(bad.len().max(1));
                if let Some(place) = bad.get_mut(at) {
                    *place = *byte;
                }
            }
            bad.truncate(cut.index(bad.len() * 4 + 1));
            for magic in [1, 2] {
                match decompress(compression.id(), &mut reading, magic, &bad, limit) {
                    Ok(out) => prop_assert!(out.len() <= limit),
                    Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
                }
            }
            let back = decompress(compression.id(), &mut reading, 2, &good, body.len()).unwrap();
            prop_assert!(back == body, "{}", compression);
        }
    }

    #[test]
    fn decompresses_random_bytes_without_panic(noise in proptest::collection::vec(any::<u8>(), 0..400), magic in 0i8..3) {
        let mut reading = DecompressorState::default();
        for id in 0..8 {
            if let Err(error) = decompress(id, &mut reading, magic, &noise, 10_000) {
                prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
            }
        }
    }
}
