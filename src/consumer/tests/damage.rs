//! Tests of skipping damaged data: one call skips all of it, whatever it contains.

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::test_batches::{Sort, batch},
    testkit::on,
};

/// Waits for the error about the damage, skips it, and returns the offset from the call.
async fn skip(consumer: &Consumer, at: i64) -> i64 {
    let error = next_error(consumer, 600).await;
    assert_eq!(
        (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
        (ErrorKind::Corrupt, Some(("t", 0, at))),
        "{error}"
    );
    consumer.skip_corrupt(&tp("t", 0)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn skips_damaged_log_range_in_few_fetches() {
    for (before, damaged, behind) in [(3, 1000, 5), (0, 1, 1), (1, 64, 0), (7, 12_345, 3)] {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 1).unwrap();
        let mut first = 0;
        for size in [before, damaged, behind].into_iter().filter(|size| *size > 0) {
            append(&cluster, "t", 0, first..first + size);
            first += size;
        }
        assert!(cluster.spoil_batch("t", 0, before).unwrap());
        let consumer = consumer(&cluster).await;
        consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
        assert_eq!(numbers(&consumer, before as usize).await, (0..before).collect::<Vec<_>>());
        let fetches = cluster.requests(ApiKey::Fetch);
        assert_eq!(skip(&consumer, before).await, before + 1, "no less is known");
        let end = before + damaged;
        assert_eq!(numbers(&consumer, behind as usize).await, (end..end + behind).collect::<Vec<_>>());
        assert!(is_quiet(&consumer).await);
        let bits = u64::from(64 - damaged.leading_zeros());
        let took = cluster.requests(ApiKey::Fetch) - fetches;
        assert!(took <= 2 * bits + 30, "{took} fetches for {damaged} offsets, those of ten quiet seconds among them");
        assert_eq!(consumer.position(&tp("t", 0)), Some(end + behind));
        append(&cluster, "t", 0, 1_000_000..1_000_002);
        assert_eq!(numbers(&consumer, 2).await, [1_000_000, 1_000_001]);
    }
}

#[tokio::test(start_paused = true)]
async fn transient_corruption_skips_only_reported_offset() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    cluster.fault(on(ApiKey::Fetch).partition("t", 0).times(2).error(ErrorCode::CORRUPT_MESSAGE));
    assert_eq!(skip(&consumer, 0).await, 1);
    assert_eq!(numbers(&consumer, 3).await, [2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn corruption_skip_resumes_at_next_sound_batch() {
    type Spoil = fn(&mut Vec<u8>);
    let cases: [(&str, Spoil); 7] = [
        ("checksum", |bytes| bytes[70] ^= 0x40),
        ("unknown magic", |bytes| bytes[16] = 9),
        ("short length", |bytes| bytes[8..12].copy_from_slice(&20_i32.to_be_bytes())),
        ("negative length", |bytes| bytes[8..12].copy_from_slice(&(-5_i32).to_be_bytes())),
        ("length beyond the log", |bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes())),
        ("negative offsets", |bytes| bytes[23..27].copy_from_slice(&(-1_i32).to_be_bytes())),
        ("nothing as it was", |bytes| bytes[8..].fill(0x77)),
    ];
    for (name, spoil) in cases {
        for (behind, level) in [(3, "with more behind it"), (0, "at the log's end")] {
            let cluster = cluster(1).await;
            cluster.create_topic("t", 1).unwrap();
            append(&cluster, "t", 0, 0..3);
            let mut bad = batch(0, 300, Sort::Plain).to_vec();
            spoil(&mut bad);
            cluster.append_raw("t", 0, bad, 300).unwrap();
            if behind > 0 {
                append(&cluster, "t", 0, 303..303 + behind);
            }
            let consumer = consumer(&cluster).await;
            consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
            assert_eq!(numbers(&consumer, 3).await, [0, 1, 2], "{name}, {level}");
            let said = skip(&consumer, 3).await;
            assert!(said == 303 || behind == 0, "{name}, {level}: {said}");
            assert_eq!(
                numbers(&consumer, behind as usize).await,
                (303..303 + behind).collect::<Vec<_>>(),
                "{name}, {level}"
            );
            assert!(is_quiet(&consumer).await, "{name}, {level}: one call is enough");
            append(&cluster, "t", 0, 500..501);
            assert_eq!(numbers(&consumer, 1).await, [500], "{name}, {level}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn corruption_skip_ends_on_seek_only() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..500);
    append(&cluster, "t", 0, 500..505);
    cluster.spoil_batch("t", 0, 0).unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // A seek to another offset during the skip.
    let hung = cluster.fault(on(ApiKey::Fetch).skip(3).times(1).delay(10 * SECOND));
    consumer.skip_corrupt(&tp("t", 0)).unwrap();
    hung.reached(1).await;
    consumer.seek(&tp("t", 0), 503).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [503, 504]);
    // A new leader, temporary errors, and a pause.
    consumer.seek(&tp("t", 0), Offset::Beginning).unwrap();
    assert_eq!(next_error(&consumer, 60).await.kind(), ErrorKind::Corrupt);
    cluster.fault(on(ApiKey::Fetch).partition("t", 0).skip(2).times(2).error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    consumer.skip_corrupt(&tp("t", 0)).unwrap();
    let leader = cluster.leader("t", 0).unwrap().unwrap();
    cluster.move_leader("t", 0, 3 - leader).unwrap();
    consumer.pause([&tp("t", 0)]).unwrap();
    tokio::time::sleep(5 * SECOND).await;
    consumer.resume([&tp("t", 0)]).unwrap();
    assert_eq!(numbers(&consumer, 5).await, [500, 501, 502, 503, 504]);
}
