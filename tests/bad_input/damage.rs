//! Damaged batches in a log are reported once with their place, and all sound records before, after
//! and beside them can be read.

use ottla::{Consumer, ErrorKind, Offset};

use crate::common::*;

/// Reads a partition that has three sound records, damaged bytes in the place of three more, and
/// three sound ones again, beside a sound partition.
async fn read_around(what: &str, bytes: Vec<u8>, by_poll: bool) {
    let cluster = cluster().await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..3);
    cluster.append_raw("t", 0, bytes, 3).unwrap();
    append(&cluster, "t", 0, 6..9);
    append(&cluster, "t", 1, 100..103);
    let consumer = consumer(&cluster).max_decompressed_batch_bytes(1 << 20).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    let (mut offsets, mut beside, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let mut quiet = 0;
    while quiet < 2 {
        match step(&consumer, by_poll).await {
            Ok(Some((0, offset))) => offsets.push(offset),
            Ok(Some((_, offset))) => beside.push(offset),
            Ok(None) => quiet += 1,
            Err(error) => errors.push(error),
        }
        assert!(errors.len() < 10 && offsets.len() < 20, "{what}: no end: {offsets:?} {errors:?}");
    }
    assert_eq!(beside, [0, 1, 2], "{what}: the other partition");
    assert!(offsets.starts_with(&[0, 1, 2]), "{what}: the sound records come first: {offsets:?}");
    assert!(offsets.iter().copied().eq(0..offsets.len() as i64), "{what}: in order: {offsets:?}");
    assert!(offsets.len() <= 6, "{what}: no record after the damage: {offsets:?}");
    assert_eq!(errors.len(), 1, "{what}: reported once: {errors:?}");
    assert_eq!(errors[0].kind(), ErrorKind::Corrupt, "{what}: {errors:?}");
    assert!(errors[0].to_string().contains("t[0]"), "{what}: {errors:?}");

    append(&cluster, "t", 1, 103..104);
    consumer.seek(&tp("t", 0), 6).unwrap();
    let mut after = Vec::new();
    while after.len() < 4 {
        after.extend(step(&consumer, by_poll).await.unwrap());
    }
    after.sort_unstable();
    assert_eq!(after, [(0, 6), (0, 7), (0, 8), (1, 3)], "{what}: after the damage");
    consumer.seek(&tp("t", 0), 1).unwrap();
    let before = [step(&consumer, by_poll).await.unwrap(), step(&consumer, by_poll).await.unwrap()];
    assert_eq!(before, [Some((0, 1)), Some((0, 2))], "{what}: before the damage");
}

/// Returns the next record's partition and offset, or `None` if no record comes for a while.
async fn step(consumer: &Consumer, by_poll: bool) -> ottla::Result<Option<(i32, i64)>> {
    if by_poll {
        let records = consumer.poll(30 * SECOND).await?;
        // Takes one record only: the others are returned again.
        return Ok(records.iter().next().map(|record| (record.partition(), record.offset())));
    }
    match tokio::time::timeout(30 * SECOND, consumer.recv()).await {
        Ok(next) => next.expect("the consumer is not closed").map(|record| Some((record.partition, record.offset))),
        Err(_) => Ok(None),
    }
}

async fn read_around_both_ways(what: &str, bytes: Vec<u8>) {
    for by_poll in [false, true] {
        read_around(what, bytes.clone(), by_poll).await;
    }
}

/// Returns a batch with other bytes written into it, and a correct checksum.
fn with<const N: usize>(at: usize, part: [u8; N]) -> Vec<u8> {
    let mut bytes = batch();
    put(&mut bytes, at, part);
    sign(&mut bytes);
    bytes
}

#[tokio::test(start_paused = true)]
async fn reads_sample_batch_before_any_damage() {
    let cluster = cluster().await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    cluster.append_raw("t", 0, batch(), 3).unwrap();
    let consumer = consumer(&cluster).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 6).await, [0, 1, 2, 3, 4, 5]);
}

#[tokio::test(start_paused = true)]
async fn skips_batch_with_wrong_checksum() {
    let mut bytes = batch();
    bytes[HEADER + 6] ^= 1;
    read_around_both_ways("a flipped bit", bytes).await;
}

#[tokio::test(start_paused = true)]
async fn skips_batches_with_invalid_headers() {
    for (what, bytes) in [
        ("magic 3", with(MAGIC, [3])),
        ("magic -1", with(MAGIC, [0xff])),
        ("length 0", with(LENGTH, [0; 4])),
        ("length -1", with(LENGTH, [0xff; 4])),
        ("a length that cuts the last record off", with(LENGTH, 68_i32.to_be_bytes())),
        ("a length into the next batch", with(LENGTH, 100_i32.to_be_bytes())),
        ("count -1", with(COUNT, [0xff; 4])),
        ("a count above the number of records", with(COUNT, 4_i32.to_be_bytes())),
        ("a count of two thousand millions", with(COUNT, i32::MAX.to_be_bytes())),
        ("last offset delta -1", with(LAST_OFFSET_DELTA, [0xff; 4])),
        ("codec 7", with(ATTRIBUTES, [0, 7])),
    ] {
        read_around_both_ways(what, bytes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn skips_batch_with_maximum_length() {
    read_around_both_ways("length 2147483647", with(LENGTH, i32::MAX.to_be_bytes())).await;
}

#[tokio::test(start_paused = true)]
async fn skips_batches_with_invalid_records() {
    for (what, bytes) in [
        ("a record longer than the batch", with(HEADER, [0x7e])),
        ("a record of negative length", with(HEADER, [1])),
        ("a length without an end", with(HEADER, [0xff; 12])),
        ("a key of length -2", with(HEADER + 4, [3])),
        ("a value beyond its record", with(HEADER + 5, [120])),
        ("more headers than bytes", with(HEADER + 7, [0x7e])),
        ("no records at all", batch_of(0, &[])),
    ] {
        read_around_both_ways(what, bytes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn skips_batches_with_invalid_compressed_bytes() {
    for codec in 1..=4 {
        read_around_both_ways(&format!("codec {codec}: garbage"), batch_of(codec, b"this was never compressed")).await;
        read_around_both_ways(&format!("codec {codec}: nothing"), batch_of(codec, &[])).await;
        read_around_both_ways(&format!("codec {codec}: ones"), batch_of(codec, &[0xff; 300])).await;
    }
}

#[cfg(feature = "gzip")]
#[tokio::test(start_paused = true)]
async fn skips_batch_that_decompresses_beyond_limit() {
    use std::io::Write;

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    // The bytes are four times the limit; compressed they are a thousandth of it.
    gzip.write_all(&[0; 4 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 1 << 16);
    read_around_both_ways("4 MiB of zeros", batch_of(1, &bomb)).await;
}

#[tokio::test(start_paused = true)]
async fn skips_bytes_that_form_no_batch() {
    for (what, bytes) in [
        ("a few bytes", vec![0x55; 20]),
        ("text", b"GET / HTTP/1.1\r\nHost: kafka\r\n\r\n".repeat(10)),
        ("zeros", vec![0; 200]),
        ("ones", vec![0xff; 200]),
    ] {
        read_around_both_ways(what, bytes).await;
    }
}
