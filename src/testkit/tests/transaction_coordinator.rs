//! Tests of the transaction coordinator: fencing, timeouts, features, faults, and its lists.

use tokio::time::Duration;

use super::{
    client::{Client, cluster, text},
    transactional_producer::{Protocol, TIMEOUT_MS, TransactionalProducer, V1, V2, started, state},
};
use crate::{
    ApiKey, ErrorCode,
    testkit::{Cluster, Options, on},
    wire::{
        batch::{Batches, ControlRecord, Decompressor},
        messages::{
            ApiVersionsRequest, DescribeTransactionsRequest, FindCoordinatorRequest, InitProducerIdRequest,
            ListTransactionsRequest,
        },
    },
};

const TIMEOUT: Duration = Duration::from_millis(TIMEOUT_MS as u64);

#[tokio::test(start_paused = true)]
async fn fenced_producer_is_refused_by_every_api() {
    let (cluster, mut old) = started(Options::new(), V1).await;
    let new = TransactionalProducer::init(&cluster, "tx", V1).await;
    assert_eq!((new.producer_id, new.epoch), (old.producer_id, 1));
    let (fenced, epoch) = (ErrorCode::PRODUCER_FENCED.code(), ErrorCode::INVALID_PRODUCER_EPOCH.code());
    let own = Some((old.producer_id, old.epoch));
    assert_eq!(old.init_as(own, 3).await.error_code, epoch);
    assert_eq!(old.init_as(own, 4).await.error_code, fenced);
    for version in 0..=3 {
        assert_eq!(old.add_partition("t", 0, version).await, if version < 2 { epoch } else { fenced });
    }
    for version in 0..=4 {
        assert_eq!(old.add_group("g", version).await, if version < 2 { epoch } else { fenced });
    }
    for version in 0..=5 {
        let response = old.client.call(&old.end_request(true), version).await;
        assert_eq!(response.error_code, if version < 2 { epoch } else { fenced }, "v{version}");
    }
    for version in [3, 10, 11, 12] {
        old.protocol = Protocol { produce: version, ..V1 };
        assert_eq!(old.produce("t", 0, &["a"]).await.0, epoch, "v{version}");
    }
    for version in [0, 3, 4, 5] {
        old.protocol = Protocol { offsets: version, ..V1 };
        assert_eq!(old.commit_offset("g", 5).await, epoch, "v{version}");
    }
    assert_eq!((state(&cluster), cluster.log_end("t", 0).unwrap()), (("Empty", 1), 0));
}

#[tokio::test(start_paused = true)]
async fn unknown_producer_id_is_refused_by_every_api() {
    let (_cluster, mut producer) = started(Options::new(), V1).await;
    let mapping = ErrorCode::INVALID_PRODUCER_ID_MAPPING.code();
    producer.producer_id += 1;
    assert_eq!((producer.add_partition("t", 0, 3).await, producer.add_group("g", 4).await), (mapping, mapping));
    assert_eq!((producer.end(true).await, producer.produce("t", 0, &["a"]).await.0), (mapping, mapping));
    assert_eq!(producer.commit_offset("g", 5).await, mapping);
    producer.id = "unknown";
    assert_eq!((producer.add_partition("t", 0, 3).await, producer.end(true).await), (mapping, mapping));
}

#[tokio::test(start_paused = true)]
async fn new_producer_aborts_transaction_of_older_one() {
    for (level, protocol) in [(1, V1), (2, V2)] {
        let (cluster, mut old) = started(Options::new().feature("transaction.version", level), protocol).await;
        assert_eq!(old.send("t", 0, &["a"]).await, (0, 0));
        assert_eq!(old.send_offset("g", 5).await, 0);
        let first = old.init_as(None, 5).await;
        assert_eq!((first.error_code, first.producer_id), (ErrorCode::CONCURRENT_TRANSACTIONS.code(), -1));
        assert_eq!(state(&cluster), ("CompleteAbort", 1));
        assert_eq!(cluster.last_stable_offset("t", 0).unwrap(), 2);
        let mut new = TransactionalProducer::init(&cluster, "tx", protocol).await;
        assert_eq!((new.epoch, cluster.pending_offset("g", "t", 0)), (2, None));
        assert_eq!(old.produce("t", 0, &["b"]).await.0, ErrorCode::INVALID_PRODUCER_EPOCH.code());
        assert_eq!(old.end(true).await, ErrorCode::PRODUCER_FENCED.code());
        assert_eq!(new.send("t", 0, &["c"]).await, (0, 2));
    }
}

#[tokio::test(start_paused = true)]
async fn transaction_is_aborted_after_its_timeout() {
    for (level, protocol, ended) in [(1, V1, ErrorCode::PRODUCER_FENCED), (2, V2, ErrorCode::NONE)] {
        let (cluster, mut producer) = started(Options::new().feature("transaction.version", level), protocol).await;
        assert_eq!(producer.send("t", 0, &["a"]).await, (0, 0));
        tokio::time::advance(TIMEOUT - Duration::from_millis(1)).await;
        assert_eq!((state(&cluster).0, cluster.last_stable_offset("t", 0).unwrap()), ("Ongoing", 0));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!((state(&cluster), cluster.last_stable_offset("t", 0).unwrap()), (("CompleteAbort", 1), 2));
        let late = producer.produce("t", 0, &["b"]).await.0;
        assert_eq!(late, ErrorCode::INVALID_PRODUCER_EPOCH.code());
        let commit = producer.client.call(&producer.end_request(true), protocol.end).await.error_code;
        let refused = if level == 1 { ErrorCode::PRODUCER_FENCED } else { ErrorCode::INVALID_TXN_STATE };
        assert_eq!(commit, refused.code());
        assert_eq!(producer.end(false).await, ended.code());
        assert_eq!(producer.epoch, if level == 1 { 0 } else { 1 }, "v2 lets the producer go on");
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_is_checked_by_coordinator() {
    let cluster = cluster(Options::new().max_transaction_timeout(Duration::from_secs(10))).await;
    let mut client = Client::to(&cluster, 1).await;
    let invalid = ErrorCode::INVALID_TRANSACTION_TIMEOUT.code();
    for (timeout, error) in [(-1, invalid), (0, invalid), (1, 0), (10_000, 0), (10_001, invalid)] {
        let request = InitProducerIdRequest { transactional_id: Some(text("tx")), ..Default::default() };
        let request = InitProducerIdRequest { transaction_timeout_ms: timeout, ..request };
        assert_eq!(client.call(&request, 5).await.error_code, error, "{timeout}");
    }
    let half = InitProducerIdRequest { transactional_id: Some(text("tx")), producer_id: 5, ..Default::default() };
    let half = InitProducerIdRequest { transaction_timeout_ms: 1, ..half };
    assert_eq!(client.call(&half, 5).await.error_code, ErrorCode::INVALID_REQUEST.code());
    let empty = InitProducerIdRequest { transactional_id: Some(text("")), ..Default::default() };
    assert_eq!(client.call(&empty, 5).await.error_code, ErrorCode::INVALID_REQUEST.code());
}

#[tokio::test(start_paused = true)]
async fn feature_changes_while_connection_is_open() {
    let cluster = cluster(Options::new()).await;
    let mut client = Client::to(&cluster, 1).await;
    let name = "transaction.version";
    let mut told = async || {
        let request = ApiVersionsRequest {
            client_software_name: text("some-client"),
            client_software_version: text("1.0"),
            ..Default::default()
        };
        let response = client.call(&request, 3).await;
        let feature = response.finalized_features.iter().find(|feature| *feature.name == *name);
        let supported = response.supported_features.iter().find(|feature| *feature.name == *name);
        assert!(supported.is_none_or(|supported| supported.max_version == 2));
        (response.finalized_features_epoch, feature.map(|feature| feature.max_version_level))
    };
    assert_eq!(told().await, (-1, None));
    cluster.set_feature(name, 2);
    assert_eq!(told().await, (2, Some(2)));
    cluster.set_feature(name, 1);
    assert_eq!(told().await, (3, Some(1)));
    cluster.set_feature(name, 0);
    assert_eq!(told().await, (4, None), "level 0 is no feature");
}

#[tokio::test(start_paused = true)]
async fn only_the_coordinator_serves_transactional_id() {
    let cluster = cluster(Options::new().brokers(2)).await;
    cluster.create_topic("t", 1).unwrap();
    cluster.move_coordinator("tx", 1).unwrap();
    let mut producer = TransactionalProducer::init(&cluster, "tx", V1).await;
    assert_eq!(producer.send("t", 0, &["a"]).await, (0, 0));
    cluster.move_coordinator("tx", 2).unwrap();
    let moved = ErrorCode::NOT_COORDINATOR.code();
    assert_eq!((producer.add_partition("t", 0, 3).await, producer.add_group("g", 4).await), (moved, moved));
    assert_eq!((producer.end(true).await, producer.init_as(None, 5).await.error_code), (moved, moved));
    let found = FindCoordinatorRequest { key_type: 1, key: text("tx"), ..Default::default() };
    assert_eq!(producer.client.call(&found, 3).await.node_id, 2);
    assert_eq!(producer.produce("t", 0, &["b"]).await, (0, 1), "leaders ask the coordinator wherever it is");
    producer.client = Client::to(&cluster, 2).await;
    assert_eq!(producer.end(true).await, 0);
    assert_eq!(marker(&cluster, 2), ControlRecord::Commit { coordinator_epoch: 0 });
    producer.client = Client::to(&cluster, 1).await;
    cluster.move_coordinator("tx", 1).unwrap();
    assert_eq!(producer.send("t", 0, &["c"]).await, (0, 3));
    assert_eq!(producer.end(false).await, 0);
    assert_eq!(marker(&cluster, 4), ControlRecord::Abort { coordinator_epoch: 1 }, "another coordinator's term");
}

/// Returns the marker at that offset of t[0].
fn marker(cluster: &Cluster, offset: i64) -> ControlRecord {
    let state = cluster.shared.lock();
    let log = &state.topics.partition("t", 0).unwrap().log;
    let slice = log.read(offset, log.end(), log.end(), 1, true).unwrap();
    let batch = Batches::new(slice.batches[0].clone()).next().unwrap().unwrap();
    let records = batch.records(&mut Decompressor::default(), 1 << 20).unwrap();
    let record = records.iter().next().unwrap().unwrap();
    ControlRecord::parse(&record).unwrap()
}

#[tokio::test(start_paused = true)]
async fn faults_strike_requests_of_a_transactional_id() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    let mut other = TransactionalProducer::init(&cluster, "other", V2).await;
    let lost = cluster.fault(on(ApiKey::EndTxn).transactional_id("tx").act_then_drop());
    producer.send("t", 0, &["a"]).await;
    other.sequence = 0;
    assert_eq!(other.send("t", 0, &["b"]).await, (0, 1));
    assert_eq!((other.end(true).await, lost.hits()), (0, 0));
    assert!(producer.client.try_call(&producer.end_request(true), 5).await.is_none());
    assert_eq!((lost.hits(), state(&cluster)), (1, ("CompleteCommit", 1)), "carried out without an answer");
    producer.client = Client::to(&cluster, 1).await;
    assert_eq!((producer.end(true).await, producer.epoch), (0, 1));
    let refused = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
    cluster.fault(on(ApiKey::Produce).transactional_id("tx").forever().error(refused));
    assert_eq!(producer.produce("t", 0, &["c"]).await.0, refused.code());
    assert_eq!(state(&cluster).0, "CompleteCommit", "a refused batch adds no partition");
    let journal = cluster.journal();
    let named = journal.iter().filter(|request| request.transactional_id.as_deref() == Some("tx"));
    let named: Vec<_> = named.map(|request| request.key).collect();
    let expected = [ApiKey::InitProducerId, ApiKey::Produce, ApiKey::EndTxn, ApiKey::EndTxn, ApiKey::Produce];
    assert_eq!(named, expected);
}

#[tokio::test(start_paused = true)]
async fn every_transactional_api_answers_with_injected_errors() {
    let (cluster, mut producer) = started(Options::new(), V1).await;
    let code = ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    let keys = [ApiKey::InitProducerId, ApiKey::AddPartitionsToTxn, ApiKey::AddOffsetsToTxn, ApiKey::EndTxn];
    for acts in [false, true] {
        for key in keys {
            cluster.fault(if acts { on(key).act_then_error(code) } else { on(key).error(code) });
        }
        assert_eq!(producer.add_partition("t", 0, 3).await, code.code());
        assert_eq!(state(&cluster).0, if acts { "Ongoing" } else { "Empty" });
        assert_eq!(producer.add_group("g", 4).await, code.code());
        assert_eq!(producer.end(true).await, code.code());
        assert_eq!(state(&cluster).0, if acts { "CompleteCommit" } else { "Empty" });
        assert_eq!(producer.init_as(None, 5).await.error_code, code.code());
    }
    assert_eq!(state(&cluster), ("Empty", 1));
}

#[tokio::test(start_paused = true)]
async fn old_clusters_serve_no_newer_versions() {
    let old = [(ApiKey::InitProducerId, 1), (ApiKey::AddPartitionsToTxn, 1), (ApiKey::EndTxn, 1)];
    let cluster = cluster(Options::new().max_versions(old)).await;
    let mut client = Client::to(&cluster, 1).await;
    let response = client.call(&ApiVersionsRequest::default(), 0).await;
    let version = |key: ApiKey| {
        let found = response.api_keys.iter().find(|api| api.api_key == key.code());
        found.map(|api| api.max_version)
    };
    assert_eq!((version(ApiKey::EndTxn), version(ApiKey::AddOffsetsToTxn)), (Some(1), None));
    let all = Cluster::start(Options::new().in_memory()).await.unwrap();
    let mut client = Client::to(&all, 1).await;
    let response = client.call(&ApiVersionsRequest::default(), 0).await;
    for (key, newest) in [
        (ApiKey::InitProducerId, 5),
        (ApiKey::AddPartitionsToTxn, 5),
        (ApiKey::AddOffsetsToTxn, 4),
        (ApiKey::EndTxn, 5),
        (ApiKey::TxnOffsetCommit, 6),
        (ApiKey::DescribeTransactions, 0),
        (ApiKey::ListTransactions, 2),
    ] {
        let found = response.api_keys.iter().find(|api| api.api_key == key.code()).unwrap();
        assert_eq!((found.min_version, found.max_version), (0, newest), "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn transactions_are_described_and_listed() {
    let (cluster, mut producer) = started(Options::new(), V2).await;
    TransactionalProducer::init(&cluster, "idle", V2).await;
    producer.send("t", 0, &["a"]).await;
    producer.send_offset("my-group", 5).await;
    tokio::time::advance(Duration::from_secs(10)).await;
    let asked =
        DescribeTransactionsRequest { transactional_ids: vec![text("tx"), text("idle"), text("unknown"), text("")] };
    let described = producer.client.call(&asked, 0).await.transaction_states;
    let codes: Vec<_> = described.iter().map(|state| ErrorCode::new(state.error_code)).collect();
    let missing = ErrorCode::TRANSACTIONAL_ID_NOT_FOUND;
    assert_eq!(codes, [ErrorCode::NONE, ErrorCode::NONE, missing, ErrorCode::INVALID_REQUEST]);
    let open = &described[0];
    assert_eq!((&*open.transaction_state, open.transaction_timeout_ms), ("Ongoing", TIMEOUT_MS));
    assert_eq!((open.producer_id, open.producer_epoch), (producer.producer_id, 0));
    let topics: Vec<_> = open.topics.iter().map(|topic| (&*topic.topic, topic.partitions.clone())).collect();
    // Java's "my-group".hashCode() is -1906497762.
    assert_eq!(topics, [("__consumer_offsets", vec![12]), ("t", vec![0])]);

    let mut list = async |request: ListTransactionsRequest, version: i16| {
        let response = producer.client.call(&request, version).await;
        let ids = response.transaction_states.iter().map(|state| state.transactional_id.to_string());
        (response.error_code, ids.collect::<Vec<_>>(), response.unknown_state_filters)
    };
    let all = ListTransactionsRequest { duration_filter: -1, ..Default::default() };
    assert_eq!(list(all.clone(), 0).await, (0, vec!["idle".to_owned(), "tx".to_owned()], vec![]));
    let ongoing = ListTransactionsRequest { state_filters: vec![text("Ongoing"), text("Odd")], ..all.clone() };
    assert_eq!(list(ongoing, 0).await, (0, vec!["tx".to_owned()], vec![text("Odd")]));
    let transient = ["Dead", "PrepareEpochFence"].map(text).to_vec();
    let transient = ListTransactionsRequest { state_filters: transient, ..all.clone() };
    assert_eq!(list(transient, 0).await, (0, vec![], vec![]), "known, and never shown");
    let old = |least| ListTransactionsRequest {
        duration_filter: least,
        state_filters: vec![text("Ongoing")],
        ..Default::default()
    };
    assert_eq!((list(old(9_999), 1).await.1.len(), list(old(10_000), 1).await.1.len()), (1, 0));
    let pattern =
        |pattern: &str| ListTransactionsRequest { transactional_id_pattern: Some(text(pattern)), ..all.clone() };
    assert_eq!(list(pattern("t."), 2).await.1, ["tx"]);
    assert_eq!(list(pattern("("), 2).await.0, ErrorCode::INVALID_REGULAR_EXPRESSION.code());
    let by_id = ListTransactionsRequest { producer_id_filters: vec![-7], ..all.clone() };
    assert!(list(by_id, 0).await.1.is_empty());
}
