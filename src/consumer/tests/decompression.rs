//! Tests of batches on their way from bytes to records, decompressed by the reader or in advance:
//! in order, once, with the right leader epoch, and each error with its offset.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::{
    world::{World, head, rules},
    *,
};
use crate::{
    Compression, ErrorCode, ErrorKind,
    consumer::{
        IsolationLevel,
        buffer::fetched_batch::{HEAVY, UNLUCKY},
        fetch::{batch_scan::scan_batches, scanned::ScannedPartition},
        lock::lock,
        subscription::rules::ConsumerRules,
        test_batches::{Sort, batch, built, noise},
    },
};

const CODECS: [Compression; 4] = [Compression::Gzip(1), Compression::Snappy, Compression::Lz4, Compression::Zstd(1)];

fn roomy() -> World {
    World::new(ConsumerRules { partition_bytes: 1 << 20, queued_bytes: 1 << 30, ..rules() })
}

/// Answers the first broker's fetch with these bytes for the first partition; returns the number of
/// batches that are then being decompressed.
fn answer(world: &mut World, bytes: Vec<u8>) -> usize {
    let mut reservation = world.waiting.remove(&0).expect("a request");
    reservation.resize(bytes.len());
    let walk = scan_batches(bytes.into(), IsolationLevel::ReadUncommitted, &[]);
    let arrived = vec![ScannedPartition { head: head(0, ErrorCode::NONE), scan: walk }];
    let now = world.now;
    world.buffer.with_state(|state| {
        state.handle_fetch_response(0, 7, ErrorCode::NONE, arrived, reservation, now);
        state.delivery.running_jobs()
    })
}

/// Builds a batch that is decompressed on the blocking pool.
fn heavy(base_offset: i64, count: i64, compression: Compression) -> Bytes {
    let batch = built(base_offset, count, Sort::Plain, compression, &noise(60_000));
    assert!(batch.len() > HEAVY, "{compression:?}: {} bytes", batch.len());
    batch
}

/// Returns the same batch with another leader epoch, which is not part of its checksum.
fn under(epoch: i32, batch: &Bytes) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    bytes.into()
}

/// Waits, in real time, until no batch is being decompressed.
fn wait_for_jobs(world: &World) {
    for _ in 0..10_000 {
        if world.buffer.with_state(|state| state.delivery.running_jobs()) == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("a batch is still being opened");
}

#[test]
fn overlapping_batches_are_polled_once_in_order() {
    let parts = [(0, 4), (100, 4), (0, 4), (102, 6), (103, 2), (108, 1)];
    let expected: Vec<i64> = (0..4).chain(100..109).collect();
    type Build = fn(i64, i64) -> Bytes;
    let builds: [(&str, Build); 3] = [
        ("plain", |base, count| batch(base, count, Sort::Plain)),
        ("compressed", |base, count| built(base, count, Sort::Plain, Compression::Lz4, "v")),
        ("opened ahead", |base, count| heavy(base, count, Compression::Gzip(1))),
    ];
    for (name, build) in builds {
        for max in [1, 3, 500] {
            let mut world = roomy();
            world.send(0).unwrap();
            answer(&mut world, parts.map(|(base, count)| build(base, count)).concat());
            let mut seen = Vec::new();
            while seen.last() != Some(&108) {
                wait_for_jobs(&world);
                let records = world.poll(max);
                assert!(!records.is_empty(), "{name}: it goes on behind {seen:?}");
                seen.extend(records.iter().map(|record| record.offset()));
            }
            assert_eq!(seen, expected, "{name}, {max} at a time");
        }
    }
}

#[test]
fn stream_polls_overlapping_batches_once() {
    let mut world = roomy();
    world.send(0).unwrap();
    let (_, reader) = world.buffer.split(&tp("t", 0), false).unwrap();
    answer(&mut world, [batch(0, 4, Sort::Plain), batch(2, 4, Sort::Plain)].concat());
    let cx = &mut Context::from_waker(Waker::noop());
    let Poll::Ready(Some(Ok(portions))) = world.buffer.poll_slices(&mut lock(&reader), 500, cx) else { panic!() };
    let offsets = portions.iter().flat_map(|portion| portion.batch.content.iter().map(|record| record.unwrap().offset));
    assert_eq!(offsets.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn evicted_overlapping_batch_is_refetched_from_position() {
    let mut world = roomy();
    world.send(0).unwrap();
    answer(&mut world, [batch(0, 4, Sort::Plain), batch(2, 4, Sort::Plain)].concat());
    assert_eq!(world.take().map(|(_, offset)| offset), Some(0));
    drop(world.poll(500));
    // Both batches return to the queue, and the reader takes the first one again.
    world.buffer.with_state_and_readers(|state| state.partitions.get_mut(&tp("t", 0)).unwrap().paused = true);
    let evicted = world.buffer.with_state(|state| {
        let state = state.partitions.get_mut(&tp("t", 0)).unwrap();
        state.queue.take(1, &mut Vec::new());
        state.queue.evict(true)
    });
    assert_eq!(evicted, Some(4));
}

#[test]
fn concurrent_decompression_keeps_order_and_leader_epochs() {
    for codec in CODECS {
        let mut world = World::new(ConsumerRules {
            partition_bytes: 1 << 20,
            queued_bytes: 1 << 30,
            max_decompressions: 3,
            ..rules()
        });
        world.send(0).unwrap();
        let parts = [
            under(3, &heavy(0, 15, codec)),
            under(4, &heavy(15, 1, codec)),
            under(5, &built(16, 3, Sort::Plain, codec, "v")),
            under(6, &heavy(19, 2, codec)),
        ];
        assert!(answer(&mut world, parts.concat()) >= 1);
        let progress =
            world.buffer.with_state(|state| state.partitions.get(&tp("t", 0)).unwrap().progress.clone()).unwrap();
        for expected in 0..21 {
            wait_for_jobs(&world);
            assert_eq!(world.take().map(|(_, offset)| offset), Some(expected), "{codec:?}");
            let epoch = match expected {
                0..15 => 3,
                15 => 4,
                16..19 => 5,
                _ => 6,
            };
            assert_eq!(progress.to_commit(expected + 1).leader_epoch, Some(epoch), "{codec:?}: behind {expected}");
        }
    }
}

#[test]
fn two_partitions_are_decompressed_at_once() {
    let mut world =
        World::new(ConsumerRules { partition_bytes: 1 << 20, queued_bytes: 1 << 30, max_decompressions: 2, ..rules() });
    world.send(0).unwrap();
    let mut reservation = world.waiting.remove(&0).unwrap();
    let bytes = [0, 2].map(|_| heavy(0, 2, Compression::Gzip(1)));
    reservation.resize(bytes.iter().map(Bytes::len).sum());
    let arrived = [0, 2].into_iter().zip(bytes).map(|(partition, bytes)| {
        let walk = scan_batches(bytes, IsolationLevel::ReadUncommitted, &[]);
        ScannedPartition { head: head(partition, ErrorCode::NONE), scan: walk }
    });
    let (arrived, now) = (arrived.collect(), world.now);
    let running = world.buffer.with_state(|state| {
        state.handle_fetch_response(0, 7, ErrorCode::NONE, arrived, reservation, now);
        state.delivery.running_jobs()
    });
    assert_eq!(running, 2);
    wait_for_jobs(&world);
    let mut seen: Vec<_> = std::iter::from_fn(|| world.take()).collect();
    seen.sort_unstable();
    assert_eq!(seen, [0, 2].map(|partition| [0, 1].map(|offset| (tp("t", partition), offset))).concat());
}

/// Creates a log of three intact records, the given ones, and three more, and a consumer of it.
async fn around(bad: Bytes, count: u32, check_crcs: bool, limit: usize) -> (Cluster, Consumer) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    cluster.append_raw("t", 0, bad, count).unwrap();
    append(&cluster, "t", 0, 50..53);
    let consumer = builder(&cluster).check_crcs(check_crcs).max_decompressed_batch_bytes(limit).build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    (cluster, consumer)
}

/// Asserts that the intact records are delivered, then an error with this text for the batch at
/// offset 3, and after a skip the records behind it.
async fn is_told_and_skipped(bad: Bytes, count: u32, check_crcs: bool, limit: usize, says: &str) {
    let (_cluster, consumer) = around(bad.clone(), count, check_crcs, limit).await;
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2], "{says}");
    let error = next_error(&consumer, 60).await;
    assert_eq!(
        (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
        (ErrorKind::Corrupt, Some(("t", 0, 3))),
        "{error}"
    );
    assert!(error.to_string().contains(says), "{says}: {error}");
    assert_eq!(consumer.skip_corrupt(&tp("t", 0)).unwrap(), 3 + i64::from(count));
    assert_eq!(numbers(&consumer, 3).await, [50, 51, 52], "{says}");

    // Now by polls, with the damage after records of the same response.
    let (_cluster, consumer) = around(bad, count, check_crcs, limit).await;
    tokio::time::sleep(SECOND).await;
    let mut seen = Vec::new();
    let mut errors = 0;
    while seen.len() < 6 {
        match consumer.poll(60 * SECOND).await {
            Ok(records) if records.is_empty() => panic!("{says}: nothing more comes behind {seen:?}"),
            Ok(records) => seen.extend(records.iter().map(|record| record.offset())),
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
                    (ErrorKind::Corrupt, Some(("t", 0, 3))),
                    "{error}"
                );
                consumer.skip_corrupt(&tp("t", 0)).unwrap();
                errors += 1;
            }
        }
    }
    let behind = 3 + i64::from(count);
    assert_eq!((seen, errors), (vec![0, 1, 2, behind, behind + 1, behind + 2], 1), "{says}");
}

const LIMIT: usize = 64 << 20;

#[tokio::test(start_paused = true)]
async fn corrupt_large_batch_is_reported_and_skipped() {
    for codec in CODECS {
        let mut flipped = heavy(3, 4, codec).to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 0x10;
        is_told_and_skipped(flipped.into(), 4, true, LIMIT, "checksum").await;
        let mut garbled = heavy(3, 4, codec).to_vec();
        garbled[61..77].fill(0xff);
        is_told_and_skipped(garbled.into(), 4, false, LIMIT, "offset 3").await;
    }
}

#[tokio::test(start_paused = true)]
async fn oversized_decompressed_batch_is_reported_and_skipped() {
    for codec in CODECS {
        let bomb = built(3, 1, Sort::Plain, codec, &(noise(60_000) + &"0".repeat(400_000)));
        assert!((HEAVY..200_000).contains(&bomb.len()), "{codec:?}: {}", bomb.len());
        is_told_and_skipped(bomb, 1, true, 200_000, "offset 3").await;
    }
}

#[tokio::test(start_paused = true)]
async fn codec_panic_costs_only_its_batch() {
    for codec in CODECS {
        let small = built(3, i64::from(UNLUCKY), Sort::Plain, codec, "v");
        assert!(small.len() < HEAVY);
        for bad in [small, heavy(3, i64::from(UNLUCKY), codec)] {
            is_told_and_skipped(bad, UNLUCKY as u32, true, LIMIT, "the codec panicked").await;
        }
    }
}
