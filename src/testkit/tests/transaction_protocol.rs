//! Tests of a transaction's path under both protocols: partitions, batches, markers.

use tokio::time::{Duration, Instant};

use super::{
    client::{Client, cluster, outcomes, text, transactional_batch},
    transactional_producer::{Protocol, TransactionalProducer, V1, V2, started, state},
    transactions::{aborted, fetch, offsets},
};
use crate::{
    ApiKey, ErrorCode,
    testkit::{Options, on},
    wire::messages::{
        AddPartitionsToTxnRequest, ProduceRequest,
        add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
        produce_request,
    },
};

#[tokio::test(start_paused = true)]
async fn committed_records_become_readable_with_their_marker() {
    for (protocol, epoch) in [(V1, 0), (V2, 1)] {
        let (cluster, mut producer) = started(Options::new(), protocol).await;
        assert_eq!(producer.send("t", 0, &["a", "b"]).await, (0, 0));
        assert_eq!(producer.produce("t", 0, &["c"]).await, (0, 2));
        let transaction = cluster.transaction("tx").unwrap();
        assert_eq!((transaction.state, transaction.partitions.len()), ("Ongoing", 1));
        let open = fetch(&mut producer.client, 11, 0, true).await;
        assert_eq!((offsets(&open), open.last_stable_offset), (vec![], 0));
        assert_eq!(producer.end(true).await, 0);
        assert_eq!(state(&cluster), ("CompleteCommit", epoch));
        let read = fetch(&mut producer.client, 11, 0, true).await;
        assert_eq!((offsets(&read), aborted(&read)), (vec![0, 2, 3], Some(vec![])));
        assert_eq!(producer.epoch, epoch, "EndTxn 5 returns the next epoch");
        producer.sequence = if protocol == V1 { 3 } else { 0 };
        assert_eq!(producer.send("t", 0, &["d"]).await, (0, 4), "the next transaction");
        assert_eq!(producer.end(true).await, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn aborted_records_are_listed_as_aborted() {
    for protocol in [V1, V2] {
        let (cluster, mut producer) = started(Options::new(), protocol).await;
        let id = producer.producer_id;
        assert_eq!(producer.send("t", 0, &["a"]).await, (0, 0));
        assert_eq!(producer.end(false).await, 0);
        assert_eq!(state(&cluster).0, "CompleteAbort");
        let read = fetch(&mut producer.client, 11, 0, true).await;
        assert_eq!((read.last_stable_offset, aborted(&read)), (2, Some(vec![(id, 0)])));
    }
}

#[tokio::test(start_paused = true)]
async fn transaction_ends_in_all_its_partitions() {
    for protocol in [V1, V2] {
        let (cluster, mut producer) = started(Options::new(), protocol).await;
        assert_eq!(producer.send("t", 0, &["a"]).await, (0, 0));
        producer.sequence = 0;
        assert_eq!(producer.send("t", 1, &["b"]).await, (0, 0));
        assert_eq!(producer.end(true).await, 0);
        for partition in [0, 1] {
            assert_eq!(cluster.last_stable_offset("t", partition).unwrap(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn batch_is_refused_if_partition_was_not_added() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    for (version, error) in [(10, ErrorCode::INVALID_TXN_STATE), (11, ErrorCode::TRANSACTION_ABORTABLE)] {
        producer.protocol = Protocol { produce: version, ..V1 };
        assert_eq!(producer.produce("t", 0, &["a"]).await.0, error.code(), "v{version}");
    }
    assert_eq!(cluster.log_end("t", 0).unwrap(), 0);
    let (_cluster, mut producer) = started(Options::new().transaction_verification(false), V1).await;
    assert_eq!(producer.produce("t", 0, &["a"]).await, (0, 0), "brokers before 3.6 do not ask");
}

#[tokio::test(start_paused = true)]
async fn transactional_batches_need_their_id_and_one_producer() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    let anonymous = ProduceRequest { transactional_id: None, ..producer.produce_request("t", 0, &["a"]) };
    let denied = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED.code();
    for version in [3, 9, 12] {
        let response = producer.client.call(&anonymous, version).await;
        assert_eq!(outcomes(&response), [(0, denied, -1)], "v{version}");
    }
    let mut mixed = producer.produce_request("t", 0, &["a"]);
    let other = transactional_batch((producer.producer_id + 1, 0, 0), &["b"]);
    let other = produce_request::PartitionProduceData { index: 1, records: Some(other) };
    mixed.topic_data[0].partition_data.push(other);
    let response = producer.client.call(&mixed, 12).await;
    let mapping = ErrorCode::INVALID_PRODUCER_ID_MAPPING.code();
    assert_eq!(outcomes(&response), [(0, mapping, -1), (1, mapping, -1)]);
    assert_eq!((cluster.log_end("t", 0).unwrap(), cluster.log_end("t", 1).unwrap()), (0, 0));
    assert_eq!(state(&cluster).0, "Empty");
}

#[tokio::test(start_paused = true)]
async fn batch_of_v2_must_start_at_sequence_zero() {
    let (_cluster, mut producer) = started(Options::new(), V2).await;
    producer.sequence = 4;
    assert_eq!(producer.produce("t", 0, &["a"]).await.0, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER.code());
    producer.sequence = 0;
    assert_eq!(producer.produce("t", 0, &["a"]).await, (0, 0));
    producer.sequence = 0;
    assert_eq!(producer.produce("t", 0, &["a"]).await, (0, 0), "a repeated batch has its first offset");
}

#[tokio::test(start_paused = true)]
async fn repeated_end_of_v2_returns_same_epoch() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    producer.send("t", 0, &["a"]).await;
    let request = producer.end_request(true);
    for _ in 0..3 {
        let response = producer.client.call(&request, 5).await;
        assert_eq!((response.error_code, response.producer_epoch), (0, 1));
    }
    assert_eq!(cluster.log_end("t", 0).unwrap(), 2, "one marker");
    let old = producer.client.call(&producer.end_request(true), 4).await;
    assert_eq!((old.error_code, old.producer_id), (ErrorCode::PRODUCER_FENCED.code(), -1), "v4 knows no repetition");
}

#[tokio::test(start_paused = true)]
async fn abort_of_nothing_raises_epoch_only_under_v2() {
    let (_cluster, mut producer) = started(Options::new(), V2).await;
    assert_eq!((producer.end(false).await, producer.epoch), (0, 1));
    assert_eq!(producer.end(true).await, ErrorCode::INVALID_TXN_STATE.code());
    let (_cluster, mut producer) = started(Options::new(), V1).await;
    assert_eq!(producer.end(false).await, ErrorCode::INVALID_TXN_STATE.code());
}

#[tokio::test(start_paused = true)]
async fn v2_end_changes_id_after_last_epoch() {
    let cluster = cluster(Options::new()).await;
    cluster.create_topic("t", 1).unwrap();
    cluster.set_producer_epoch("tx", i16::MAX - 2).unwrap();
    let mut producer = TransactionalProducer::init(&cluster, "tx", V2).await;
    let id = producer.producer_id;
    assert_eq!(producer.epoch, i16::MAX - 1);
    assert_eq!(producer.send("t", 0, &["a"]).await, (0, 0));
    assert!(cluster.set_producer_epoch("tx", 0).is_err(), "not within a transaction");
    assert_eq!((producer.end(true).await, producer.epoch), (0, 0));
    assert_ne!(producer.producer_id, id);
    assert_eq!(producer.send("t", 0, &["b"]).await, (0, 2));
    assert_eq!((producer.end(true).await, producer.epoch), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn partitions_are_added_all_or_none() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    let topic = AddPartitionsToTxnTopic { name: text("t"), partitions: vec![0, 7] };
    let request = AddPartitionsToTxnRequest {
        v3_and_below_transactional_id: text("tx"),
        v3_and_below_producer_id: producer.producer_id,
        v3_and_below_topics: vec![topic],
        ..Default::default()
    };
    for version in 0..=3 {
        let response = producer.client.call(&request, version).await;
        let results = &response.results_by_topic_v3_and_below[0].results_by_partition;
        let codes: Vec<_> = results.iter().map(|result| ErrorCode::new(result.partition_error_code)).collect();
        assert_eq!(codes, [ErrorCode::OPERATION_NOT_ATTEMPTED, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION], "v{version}");
    }
    assert_eq!(state(&cluster).0, "Empty");
    let denied = on(ApiKey::AddPartitionsToTxn).topic("t").error(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    cluster.fault(denied);
    assert_eq!(producer.add_partition("t", 0, 3).await, ErrorCode::TOPIC_AUTHORIZATION_FAILED.code());
    assert_eq!(producer.add_partition("t", 0, 3).await, 0);
    assert_eq!(state(&cluster).0, "Ongoing");
}

#[tokio::test(start_paused = true)]
async fn brokers_add_and_verify_several_transactions() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    let other = TransactionalProducer::init(&cluster, "other", V2).await;
    let transaction = |producer: &TransactionalProducer, verify_only: bool, partition: i32| {
        let topic = AddPartitionsToTxnTopic { name: text("t"), partitions: vec![partition] };
        AddPartitionsToTxnTransaction {
            transactional_id: text(producer.id),
            producer_id: producer.producer_id,
            producer_epoch: producer.epoch,
            verify_only,
            topics: vec![topic],
        }
    };
    for version in [4, 5] {
        let transactions = vec![
            transaction(&producer, false, 0),
            transaction(&producer, true, 0),
            transaction(&producer, true, 1),
            transaction(&other, true, 0),
        ];
        let request = AddPartitionsToTxnRequest { transactions, ..Default::default() };
        let response = producer.client.call(&request, version).await;
        let results = response.results_by_transaction.iter();
        let codes: Vec<_> =
            results.map(|result| result.topic_results[0].results_by_partition[0].partition_error_code).collect();
        let abortable = ErrorCode::TRANSACTION_ABORTABLE.code();
        assert_eq!(codes, [0, 0, abortable, abortable], "v{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn next_transaction_waits_for_markers() {
    let delay = Duration::from_secs(5);
    for protocol in [V1, V2] {
        let (cluster, mut producer) = started(Options::new().marker_delay(delay), protocol).await;
        producer.send("t", 0, &["a"]).await;
        assert_eq!(producer.end(true).await, 0, "answered before the markers are written");
        assert_eq!((state(&cluster).0, cluster.last_stable_offset("t", 0).unwrap()), ("PrepareCommit", 0));
        let busy = ErrorCode::CONCURRENT_TRANSACTIONS.code();
        assert_eq!(producer.add_partition("t", 0, 3).await, busy);
        assert_eq!(producer.add_group("g", 4).await, busy);
        let end = producer.client.call(&producer.end_request(true), protocol.end).await;
        assert_eq!(end.error_code, busy);
        assert_eq!(producer.init_as(None, 5).await.error_code, busy);
        tokio::time::advance(delay).await;
        assert_eq!((state(&cluster).0, cluster.last_stable_offset("t", 0).unwrap()), ("CompleteCommit", 2));
        assert_eq!(producer.send("t", 0, &["b"]).await, (0, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn batch_waits_at_leader_for_markers() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    cluster.set_marker_delay(Duration::from_secs(5));
    producer.send("t", 0, &["a"]).await;
    producer.end(true).await;
    let since = Instant::now();
    assert_eq!(producer.produce("t", 0, &["b"]).await.0, ErrorCode::CONCURRENT_TRANSACTIONS.code());
    assert_eq!(since.elapsed(), Duration::from_millis(100), "the leader's patience");
    tokio::time::advance(Duration::from_secs(5)).await;
    cluster.set_marker_delay(Duration::from_millis(50));
    assert_eq!(producer.produce("t", 0, &["b"]).await, (0, 2));
    producer.end(true).await;
    let since = Instant::now();
    assert_eq!(producer.produce("t", 0, &["c"]).await, (0, 4));
    assert_eq!(since.elapsed(), Duration::from_millis(50));
    producer.protocol = Protocol { produce: 11, ..V2 };
    producer.end(true).await;
    let retried = producer.produce("t", 0, &["d"]).await.0;
    assert_eq!(retried, ErrorCode::NOT_ENOUGH_REPLICAS.code(), "older clients do not know the error");
}

#[tokio::test(start_paused = true)]
async fn waiting_fetch_returns_when_markers_are_written() {
    let (cluster, mut producer) = started(Options::new().marker_delay(Duration::from_secs(2)), V2).await;
    producer.send("t", 0, &["a"]).await;
    let mut reader = Client::to(&cluster, 1).await;
    let since = Instant::now();
    let read = tokio::spawn(async move { fetch_for(&mut reader, 30_000).await });
    tokio::time::sleep(Duration::from_secs(3)).await;
    producer.end(true).await;
    assert_eq!(read.await.unwrap(), [0, 1]);
    assert_eq!(since.elapsed(), Duration::from_secs(5));
}

/// Fetches committed records of t[0], and waits for them so long.
async fn fetch_for(client: &mut Client, max_wait_ms: i32) -> Vec<i64> {
    use crate::wire::messages::{
        FetchRequest,
        fetch_request::{FetchPartition, FetchTopic},
    };
    let partition = FetchPartition { partition_max_bytes: 1 << 20, current_leader_epoch: -1, ..Default::default() };
    let topics = vec![FetchTopic { topic: text("t"), partitions: vec![partition], ..Default::default() }];
    let request = FetchRequest { max_wait_ms, min_bytes: 1, max_bytes: 1 << 20, topics, ..Default::default() };
    let request = FetchRequest { isolation_level: 1, session_epoch: -1, ..request };
    let response = client.call(&request, 11).await;
    offsets(&response.responses[0].partitions[0])
}

#[tokio::test(start_paused = true)]
async fn partition_without_leader_gets_its_marker_later() {
    let cluster = cluster(Options::new().brokers(2).replication_factor(1)).await;
    cluster.create_topic("t", 2).unwrap();
    cluster.move_coordinator("tx", 1).unwrap();
    let mut producer = TransactionalProducer::init(&cluster, "tx", V1).await;
    assert_eq!(producer.send("t", 0, &["a"]).await, (0, 0));
    assert_eq!(producer.add_partition("t", 1, 3).await, 0);
    cluster.kill(2).await.unwrap();
    assert_eq!(producer.end(true).await, 0);
    assert_eq!((state(&cluster).0, cluster.last_stable_offset("t", 0).unwrap()), ("PrepareCommit", 2));
    assert_eq!(cluster.transaction("tx").unwrap().partitions.len(), 1, "one marker is left");
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.restart(2).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((state(&cluster).0, cluster.log_end("t", 1).unwrap()), ("CompleteCommit", 1));
}

#[tokio::test(start_paused = true)]
async fn deleted_topic_needs_no_marker() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    producer.send("t", 0, &["a"]).await;
    cluster.delete_topic("t").unwrap();
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(state(&cluster).0, "CompleteCommit");
}

#[tokio::test(start_paused = true)]
async fn sink_ends_transactions_and_keeps_no_markers() {
    for (protocol, epoch) in [(V1, 0), (V2, 2)] {
        let (cluster, mut producer) = started(Options::new().sink(true), protocol).await;
        for _ in 0..2 {
            assert_eq!(producer.send("t", 0, &["a", "b"]).await, (0, 0));
            assert_eq!(producer.end(true).await, 0);
            assert_eq!(state(&cluster), ("CompleteCommit", producer.epoch));
        }
        assert_eq!(producer.epoch, epoch);
        assert_eq!((cluster.received().records, cluster.log_end("t", 0).unwrap()), (4, 0));
        let adds = if protocol.adds { 2 } else { 0 };
        assert_eq!(cluster.requests(ApiKey::AddPartitionsToTxn), adds);
    }
}
