use super::*;
use crate::{ApiKey, ErrorCode, ErrorKind, consumer::OffsetReset, testkit::on};

#[tokio::test(start_paused = true)]
async fn follows_partition_leader_after_each_move() {
    let cluster = cluster(3).await;
    let consumer = reading(&cluster, "t", 5).await;
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
    for round in 1..6 {
        let leader = cluster.leader("t", 0).unwrap().unwrap();
        let brokers = cluster.brokers();
        let to = brokers.into_iter().find(|broker| *broker != leader).unwrap();
        cluster.move_leader("t", 0, to).unwrap();
        append(&cluster, "t", 0, round * 5..round * 5 + 5);
        assert_eq!(numbers(&consumer, 5).await, (round * 5..round * 5 + 5).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn survives_broker_failures_and_restarts() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 4).unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign((0..4).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    let mut expected = 0;
    for round in 0..4 {
        for partition in 0..4 {
            append(&cluster, "t", partition, round..round + 1);
        }
        expected += 4;
        assert_eq!(numbers(&consumer, 4).await, [round; 4], "after {expected}");
        let broker = cluster.brokers()[round as usize % 2];
        cluster.kill(broker).await.unwrap();
        tokio::time::sleep(SECOND).await;
        cluster.restart(broker).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn broken_connections_lose_no_records() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 0).await;
    cluster.fault(on(ApiKey::Fetch).times(20).act_then_drop());
    for n in 0..30 {
        append(&cluster, "t", 0, n..n + 1);
        assert_eq!(number(&next(&consumer).await), n);
    }
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn garbage_and_truncated_responses_lose_nothing() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 50).await;
    cluster.fault(on(ApiKey::Fetch).times(2).truncate_response());
    cluster.fault(on(ApiKey::Fetch).skip(2).times(2).respond_garbage(&b"\xff\x00garbage"[..]));
    assert_eq!(numbers(&consumer, 50).await, (0..50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn retries_when_broker_never_answers() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 3).await;
    let fault = cluster.fault(on(ApiKey::Fetch).times(1).hang());
    let read = tokio::time::timeout(120 * SECOND, async { numbers_slowly(&consumer, 3).await }).await.unwrap();
    assert_eq!((read, fault.hits()), (vec![0, 1, 2], 1));
}

async fn numbers_slowly(consumer: &Consumer, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        numbers.push(number(&consumer.recv().await.unwrap().unwrap()));
    }
    numbers
}

#[tokio::test(start_paused = true)]
async fn renews_lost_fetch_sessions() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 0).await;
    for code in [
        ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
        ErrorCode::INVALID_FETCH_SESSION_EPOCH,
        ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
    ] {
        cluster.fault(on(ApiKey::Fetch).skip(1).times(2).error(code));
        for n in 0..4 {
            append(&cluster, "t", 0, n..n + 1);
            assert_eq!(number(&next(&consumer).await), n, "{code}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn partition_error_does_not_stop_others() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    for code in [
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode::NOT_LEADER_OR_FOLLOWER,
        ErrorCode::REPLICA_NOT_AVAILABLE,
        ErrorCode::KAFKA_STORAGE_ERROR,
        ErrorCode::FENCED_LEADER_EPOCH,
        ErrorCode::UNKNOWN_LEADER_EPOCH,
        ErrorCode::OFFSET_NOT_AVAILABLE,
        ErrorCode::UNKNOWN_TOPIC_ID,
        ErrorCode::INCONSISTENT_TOPIC_ID,
        ErrorCode::UNKNOWN_SERVER_ERROR,
    ] {
        let fault = cluster.fault(on(ApiKey::Fetch).partition("t", 0).times(3).error(code));
        for n in 0..3 {
            // The first record completes the fetch that was waiting when the fault was set.
            append(&cluster, "t", 1, n..n + 1);
            assert_eq!(number(&next(&consumer).await), n, "the other partition goes on: {code}");
        }
        append(&cluster, "t", 0, 1000..1001);
        assert_eq!(number(&next(&consumer).await), 1000, "{code}");
        assert_eq!(fault.hits(), 3, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn reports_authorization_error_once_and_retries() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 1).await;
    cluster.fault(on(ApiKey::Fetch).partition("t", 0).times(5).error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let error = next_error(&consumer, 60).await;
    assert_eq!((error.kind(), error.code()), (ErrorKind::Authorization, Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED)));
    assert!(error.to_string().contains("t[0]"), "{error}");
    assert_eq!(number(&next(&consumer).await), 0);
}

#[tokio::test(start_paused = true)]
async fn out_of_range_offset_follows_reset_policy() {
    for (reset, expected) in
        [(OffsetReset::Earliest, Some(5)), (OffsetReset::Latest, Some(20)), (OffsetReset::None, None)]
    {
        let cluster = cluster(1).await;
        cluster.create_topic("t", 1).unwrap();
        append(&cluster, "t", 0, 0..5);
        append(&cluster, "t", 0, 5..10);
        cluster.delete_records("t", 0, 5).unwrap();
        let consumer = builder(&cluster).auto_offset_reset(reset).build().await.unwrap();
        consumer.assign([(tp("t", 0), 2)]).unwrap();
        if let Some(expected) = expected {
            let waiting = consumer.poll(SECOND).await.unwrap();
            let first = waiting.iter().next().map(|record| record.offset());
            drop(waiting);
            append(&cluster, "t", 0, 10..20);
            append(&cluster, "t", 0, 20..21);
            let first = match first {
                Some(first) => first,
                None => next(&consumer).await.offset,
            };
            assert!(first == expected || (reset == OffsetReset::Latest && first == 10), "{reset:?}: {first}");
        } else {
            let error = next_error(&consumer, 10).await;
            assert_eq!(error.kind(), ErrorKind::NoOffset);
            assert!(error.to_string().contains("t[0]") && error.to_string().contains("offset 2)"), "{error}");
            assert!(is_quiet(&consumer).await, "told once");
            consumer.seek(&tp("t", 0), 7).unwrap();
            assert_eq!(next(&consumer).await.offset, 7);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn delivers_buffered_records_before_offset_error() {
    let cluster = cluster(1).await;
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::None).build().await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..5);
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    assert_eq!(number(&next(&consumer).await), 0);
    cluster.fault(on(ApiKey::Fetch).partition("t", 0).times(1).error(ErrorCode::OFFSET_OUT_OF_RANGE));
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(numbers(&consumer, 4).await, [1, 2, 3, 4]);
    assert_eq!(next_error(&consumer, 10).await.kind(), ErrorKind::NoOffset);
}

#[tokio::test(start_paused = true)]
async fn truncated_log_resumes_at_divergence() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 1).unwrap();
    for n in 0..10 {
        append(&cluster, "t", 0, n..n + 1);
    }
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::Latest).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
    cluster.truncate("t", 0, 6).unwrap();
    append(&cluster, "t", 0, 106..112);
    let seen = numbers(&consumer, 6).await;
    assert_eq!(seen, (106..112).collect::<Vec<_>>(), "from the divergence, although the old offset is still in range");
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_is_read_from_beginning() {
    let cluster = Cluster::start(Options::new().brokers(1).in_memory().auto_create(false)).await.unwrap();
    let consumer = reading(&cluster, "t", 10).await;
    assert_eq!(numbers(&consumer, 10).await, (0..10).collect::<Vec<_>>());
    cluster.delete_topic("t").unwrap();
    tokio::time::sleep(SECOND).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 100..105);
    append(&cluster, "t", 0, 105..120);
    assert_eq!(numbers(&consumer, 20).await, (100..120).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn reports_missing_topic_and_reads_once_created() {
    let cluster = Cluster::start(Options::new().brokers(1).in_memory().auto_create(false)).await.unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("late", 0), Offset::Beginning)]).unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
    assert!(error.to_string().contains("late"), "{error}");
    cluster.create_topic("late", 1).unwrap();
    append(&cluster, "late", 0, 0..3);
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
}

#[tokio::test(start_paused = true)]
async fn reports_unreachable_cluster_address_once() {
    let network = std::sync::Arc::new(crate::net::MemoryNetwork::new());
    let consumer = Consumer::builder("127.0.0.1:1").network(network).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    let error = next_error(&consumer, 120).await;
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    assert!(consumer.poll(300 * SECOND).await.unwrap().is_empty(), "told once");
    let error = consumer.partitions_for("t").await.unwrap_err();
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn unsubscribes_after_partition_is_deleted() {
    let cluster = Cluster::start(Options::new().brokers(1).in_memory().auto_create(false)).await.unwrap();
    let consumer = reading(&cluster, "t", 1).await;
    assert_eq!(number(&next(&consumer).await), 0);
    cluster.delete_topic("t").unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::UnknownTopicOrPartition);
    consumer.unsubscribe().unwrap();
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn reports_damaged_batch_once_until_seek() {
    use crate::consumer::test_batches::{Sort, batch};
    let mut bad = batch(0, 3, Sort::Plain).to_vec();
    bad[70] ^= 0x40;
    let batches = vec![batch(0, 3, Sort::Plain), bad.into(), batch(0, 3, Sort::Plain)];
    let options = Options::new().brokers(1).in_memory().sink(true).prepared("t", batches);
    let cluster = Cluster::start(options).await.unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), 1)]).unwrap();
    assert_eq!(next(&consumer).await.offset, 1);
    assert_eq!(next(&consumer).await.offset, 2);
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("t[0]") && error.to_string().contains("offset 3"), "{error}");
    assert!(is_quiet(&consumer).await, "told once, and read no further");
    consumer.seek(&tp("t", 0), 6).unwrap();
    assert_eq!(next(&consumer).await.offset, 6);
    // Now through polls, which return the intact records first.
    consumer.seek(&tp("t", 0), 9).unwrap();
    let records = consumer.poll(60 * SECOND).await.unwrap();
    assert_eq!(records.iter().map(|record| record.offset()).collect::<Vec<_>>(), [9, 10, 11]);
    drop(records);
    assert_eq!(consumer.poll(60 * SECOND).await.unwrap_err().kind(), ErrorKind::Corrupt);
    let unchecked = builder(&cluster).check_crcs(false).build().await.unwrap();
    unchecked.assign([(tp("t", 0), 3)]).unwrap();
    assert_eq!(next(&unchecked).await.offset, 3);
}
