//! Tests of faults between the consumer and one broker, beyond a single partition's errors.

use super::{
    world::{World, head, rules},
    *,
};
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{
        IsolationLevel, OffsetReset,
        fetch::{batch_scan::scan_batches, scanned::ScannedPartition},
        subscription::rules::ConsumerRules,
        test_batches::{Sort, batch},
    },
    testkit::on,
};

#[tokio::test(start_paused = true)]
async fn rejected_sessions_cause_no_tight_loop() {
    for code in [
        ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
        ErrorCode::INVALID_FETCH_SESSION_EPOCH,
        ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
    ] {
        let cluster = cluster(1).await;
        let consumer = reading(&cluster, "t", 3).await;
        let fault = cluster.fault(on(ApiKey::Fetch).forever().error(code));
        tokio::time::sleep(10 * SECOND).await;
        assert!((2..100).contains(&fault.hits()), "{code}: {} times in 10 s", fault.hits());
        fault.clear();
        assert_eq!(numbers(&consumer, 3).await, [0, 1, 2], "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn reports_unsupported_fetch_version_once() {
    let options = Options::new().brokers(1).in_memory().max_version(ApiKey::Fetch, 3);
    let cluster = Cluster::start(options).await.unwrap();
    let consumer = reading(&cluster, "t", 3).await;
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::UnsupportedVersion);
    assert!(error.to_string().contains("broker 1"), "{error}");
    assert!(consumer.poll(100 * SECOND).await.unwrap().is_empty(), "told once");
}

#[tokio::test(start_paused = true)]
async fn reads_all_when_broker_keeps_disconnecting() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 3).unwrap();
    for partition in 0..3 {
        for n in 0..20 {
            append(&cluster, "t", partition, n..n + 1);
        }
    }
    // The response is truncated, and the connection closed, each time.
    let fault = cluster.fault(on(ApiKey::Fetch).times(30).truncate_response());
    let consumer = builder(&cluster).max_partition_fetch_bytes(200).build().await.unwrap();
    consumer.assign((0..3).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    let mut next_of = [0; 3];
    for _ in 0..60 {
        if fault.hits() < 30 {
            cluster.disconnect(1);
        }
        let record = next(&consumer).await;
        let expected = &mut next_of[record.partition as usize];
        assert_eq!(record.offset, *expected, "in order, none skipped, none twice");
        *expected += 1;
    }
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn reads_partition_added_during_pending_fetch() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 1).await;
    assert_eq!(number(&next(&consumer).await), 0);
    // A fetch is waiting at the broker; the new partition joins the session with the next one.
    for total in 2..6 {
        cluster.add_partitions("t", total).unwrap();
        append(&cluster, "t", total - 1, 0..2);
        consumer.assign((0..total).map(|partition| (tp("t", partition), Offset::End))).unwrap();
        consumer.seek(&tp("t", total - 1), Offset::Beginning).unwrap();
        let (first, second) = (next(&consumer).await, next(&consumer).await);
        assert_eq!([first.partition, second.partition], [total - 1; 2]);
        assert_eq!([first.offset, second.offset], [0, 1]);
        assert!(is_quiet(&consumer).await);
    }
}

#[tokio::test(start_paused = true)]
async fn follows_leader_named_in_fetch_response() {
    let cluster = cluster(2).await;
    let consumer = reading(&cluster, "t", 1).await;
    assert_eq!(number(&next(&consumer).await), 0);
    cluster.fault(on(ApiKey::Metadata).forever().hang());
    let leader = cluster.leader("t", 0).unwrap().unwrap();
    let to = 3 - leader;
    cluster.move_leader("t", 0, to).unwrap();
    append(&cluster, "t", 0, 1..2);
    let record = tokio::time::timeout(5 * SECOND, consumer.recv()).await.expect("long before metadata would time out");
    assert_eq!(number(&record.unwrap().unwrap()), 1);
}

#[tokio::test(start_paused = true)]
async fn deleted_log_start_follows_reset_policy() {
    for (reset, expected) in [(OffsetReset::Earliest, Some(15)), (OffsetReset::None, None)] {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 1).unwrap();
        for n in 0..20 {
            append(&cluster, "t", 0, n..n + 1);
        }
        let consumer = builder(&cluster).auto_offset_reset(reset).max_partition_fetch_bytes(100).build().await.unwrap();
        consumer.assign([(tp("t", 0), 0)]).unwrap();
        assert_eq!(number(&next(&consumer).await), 0);
        cluster.delete_records("t", 0, 15).unwrap();
        // Buffered records are delivered first and in order; then reading continues from the new
        // log start, or an error is returned.
        let mut last = 0;
        loop {
            match consumer.recv().await.unwrap() {
                Ok(record) if record.offset == last + 1 && record.offset < 15 => last = record.offset,
                Ok(record) => {
                    assert_eq!(Some(record.offset), expected);
                    break;
                }
                Err(error) => {
                    assert_eq!((error.kind(), expected), (ErrorKind::NoOffset, None));
                    assert!(error.to_string().contains("t[0]"), "{error}");
                    break;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reports_truncation_once_without_reset_policy() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    for n in 0..10 {
        append(&cluster, "t", 0, n..n + 1);
    }
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::None).build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
    cluster.truncate("t", 0, 6).unwrap();
    append(&cluster, "t", 0, 106..112);
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::NoOffset);
    assert!(error.to_string().contains("truncated") && error.to_string().contains("offset 6"), "{error}");
    assert!(is_quiet(&consumer).await, "told once, and nothing of the other log is handed out");
    consumer.seek(&tp("t", 0), 6).unwrap();
    assert_eq!(numbers(&consumer, 6).await, (106..112).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_commits_no_old_offset() {
    for reset in [OffsetReset::Earliest, OffsetReset::None] {
        let cluster = Cluster::start(Options::new().brokers(1).in_memory().auto_create(false)).await.unwrap();
        cluster.create_topic("t", 1).unwrap();
        append(&cluster, "t", 0, 0..10);
        let builder = builder(&cluster).group("g").auto_offset_reset(reset).auto_commit_interval(SECOND);
        let consumer = builder.build().await.unwrap();
        consumer.assign([(tp("t", 0), 0)]).unwrap();
        assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
        cluster.delete_topic("t").unwrap();
        cluster.create_topic("t", 1).unwrap();
        append(&cluster, "t", 0, 100..110);
        if reset == OffsetReset::None {
            assert_eq!(next_error(&consumer, 600).await.kind(), ErrorKind::NoOffset);
        } else {
            assert_eq!(numbers(&consumer, 10).await, (100..110).collect::<Vec<_>>());
        }
        let before = cluster.requests(ApiKey::OffsetCommit);
        drop(consumer.poll(10 * SECOND).await.unwrap());
        // The offset is that of a commit for the old topic, and has to be committed all the same.
        match reset {
            OffsetReset::None => {
                assert_eq!(cluster.requests(ApiKey::OffsetCommit), before, "nothing is known to be read")
            }
            _ => assert_eq!(cluster.committed("g", "t", 0), Some(10)),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn by_duration_reset_starts_at_young_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let young = |n: i64, age: i64| Record::to("t").with_value(n.to_string()).with_timestamp_millis(now - age * 1000);
    cluster.delete_records("t", 0, 5).unwrap();
    for (n, age) in [(5, 9000), (6, 7300), (7, 3000), (8, 10)] {
        cluster.append("t", 0, &[young(n, age)]).unwrap();
    }
    for (duration, expected) in [("PT2H", 7), ("PT1M", 8), ("P1D", 5)] {
        let builder = builder(&cluster).property("auto.offset.reset", format!("by_duration:{duration}"));
        let consumer = builder.build().await.unwrap();
        consumer.assign([(tp("t", 0), 0)]).unwrap();
        assert_eq!(next(&consumer).await.offset, expected, "{duration}");
    }
    // No record is that recent; reading begins with those that are appended from now on.
    let consumer = builder(&cluster).property("auto.offset.reset", "by_duration:PT1S").build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    assert!(is_quiet(&consumer).await);
    append(&cluster, "t", 0, 9..10);
    assert_eq!(next(&consumer).await.offset, 9);
}

/// Answers broker 1's fetch with these bytes for partition 1.
fn answer_raw(world: &mut World, bytes: Vec<u8>) {
    let mut reservation = world.waiting.remove(&1).expect("a request");
    reservation.resize(bytes.len());
    let walk = scan_batches(bytes.into(), IsolationLevel::ReadUncommitted, &[]);
    world.respond(1, vec![ScannedPartition { head: head(1, ErrorCode::NONE), scan: walk }], reservation);
}

#[test]
fn reports_repeated_offsets_once_and_backs_off() {
    let mut world = World::new(ConsumerRules { partition_bytes: 100_000, queued_bytes: 1 << 30, ..rules() });
    world.send(1).unwrap();
    answer_raw(&mut world, batch(0, 4, Sort::Plain).to_vec());
    assert_eq!(World::asked(&world.send(1).unwrap()), [(1, 4)]);
    // The same batches again, although the fetch was for an offset behind them.
    answer_raw(&mut world, batch(0, 4, Sort::Plain).to_vec());
    assert!(world.send(1).is_none(), "not at once");
    let error = world.buffer.with_state(|state| state.readers.pop_error()).expect("told");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("t[1]") && error.to_string().contains("offset 4"), "{error}");
    for _ in 0..5 {
        world.now += SECOND;
        world.send(1).unwrap();
        answer_raw(&mut world, batch(0, 4, Sort::Plain).to_vec());
    }
    assert!(world.buffer.with_state(|state| state.readers.pop_error()).is_none(), "once");
    world.now += SECOND;
    world.send(1).unwrap();
    answer_raw(&mut world, batch(4, 4, Sort::Plain).to_vec());
    let offsets: Vec<i64> = std::iter::from_fn(|| world.take()).map(|(_, offset)| offset).collect();
    assert_eq!(offsets, (0..8).collect::<Vec<_>>());
}

#[test]
fn overlapping_batches_are_delivered_once_in_order() {
    let mut world = World::new(ConsumerRules { partition_bytes: 100_000, queued_bytes: 1 << 30, ..rules() });
    world.send(1).unwrap();
    // A hole from compaction, then an older batch again, and one that overlaps.
    let parts = [(0, 4), (100, 4), (0, 4), (102, 6)].map(|(base, count)| batch(base, count, Sort::Plain));
    answer_raw(&mut world, parts.concat());
    assert_eq!(World::asked(&world.send(1).unwrap()), [(1, 108)]);
    let offsets: Vec<i64> = std::iter::from_fn(|| world.take()).map(|(_, offset)| offset).collect();
    assert_eq!(offsets, (0..4).chain(100..108).collect::<Vec<_>>());
}

/// Damages a batch of three records at offset 3; its bytes begin with the base offset.
type Spoil = fn(&mut Vec<u8>);

#[tokio::test(start_paused = true)]
async fn reports_any_batch_damage_with_offset() {
    let cases: [(&str, bool, Spoil); 10] = [
        ("checksum", true, |bytes| bytes[70] ^= 0x40),
        ("magic", true, |bytes| bytes[16] = 9),
        ("length below the header's", true, |bytes| bytes[8..12].copy_from_slice(&20_i32.to_be_bytes())),
        ("negative length", true, |bytes| bytes[8..12].copy_from_slice(&(-5_i32).to_be_bytes())),
        ("length beyond the log", true, |bytes| bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes())),
        ("negative offsets", true, |bytes| bytes[23..27].copy_from_slice(&(-1_i32).to_be_bytes())),
        ("more records than there are", false, |bytes| bytes[57..61].copy_from_slice(&1000_i32.to_be_bytes())),
        ("negative count", false, |bytes| bytes[57..61].copy_from_slice(&(-1_i32).to_be_bytes())),
        ("unknown codec", false, |bytes| bytes[22] |= 7),
        ("a varint without an end", false, |bytes| bytes[61..].fill(0xff)),
    ];
    for (name, check_crcs, spoil) in cases {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 1).unwrap();
        append(&cluster, "t", 0, 0..3);
        let mut bad = batch(0, 3, Sort::Plain).to_vec();
        spoil(&mut bad);
        cluster.append_raw("t", 0, bad, 3).unwrap();
        append(&cluster, "t", 0, 6..9);
        let consumer = builder(&cluster).check_crcs(check_crcs).build().await.unwrap();
        consumer.assign([(tp("t", 0), 0)]).unwrap();
        assert_eq!(numbers(&consumer, 3).await, [0, 1, 2], "{name}: what is sound comes first");
        // If checksums are not verified, the records before the damage may be delivered.
        let mut last = 2;
        let error = loop {
            match tokio::time::timeout(600 * SECOND, consumer.recv()).await.expect(name).expect(name) {
                Ok(record) => {
                    assert!(!check_crcs && record.offset == last + 1 && record.offset < 6, "{name}: {}", record.offset);
                    last = record.offset;
                }
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
        assert!(error.to_string().contains("t[0]") && error.to_string().contains("offset"), "{name}: {error}");
        assert!(is_quiet(&consumer).await, "{name}: told once, and read no further");
        consumer.seek(&tp("t", 0), 6).unwrap();
        assert_eq!(numbers(&consumer, 3).await, [6, 7, 8], "{name}");
    }
}
