//! Coordinators that are busy, move or die.

use super::*;
use crate::error::ErrorCode;

/// Every request meets this code for a minute; the transaction then goes on.
async fn code_for_a_minute(key: ApiKey, code: ErrorCode, level: i16) {
    let cluster = cluster_with(options(level), 2).await;
    let builder = builder(&cluster).max_block(ms(600_000)).delivery_timeout(ms(600_000));
    let mut producer = builder.transactional_id(ID).transaction_timeout(ms(600_000)).build().await.unwrap();
    if key != ApiKey::InitProducerId {
        commit_one(&mut producer, 0, "first").await;
    }
    let before = cluster.requests(key);
    let fault = cluster.fault(on(key).forever().error(code));
    let work = async {
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let group = crate::record::GroupMetadata::without_member("g");
        transaction.send_offsets([(TopicPartition::new(TOPIC, 0), 5)], &group).await.unwrap();
        transaction.commit().await.unwrap();
    };
    let end = async {
        tokio::time::sleep(ms(60_000)).await;
        let asked = cluster.requests(key) - before;
        assert!((10..600).contains(&asked), "{key:?} {code}: {asked} requests in a minute");
        fault.clear();
    };
    tokio::join!(work, end);
    assert_eq!(visible(&cluster, 0).await.last().map(String::as_str), Some("a"));
    assert_eq!(cluster.committed("g", TOPIC, 0), Some(5));
}

#[tokio::test(start_paused = true)]
async fn concurrent_transactions_for_minute_is_waited_for() {
    for key in [ApiKey::InitProducerId, ApiKey::AddPartitionsToTxn, ApiKey::AddOffsetsToTxn, ApiKey::EndTxn] {
        code_for_a_minute(key, ErrorCode::CONCURRENT_TRANSACTIONS, 0).await;
    }
    for key in [ApiKey::InitProducerId, ApiKey::Produce, ApiKey::TxnOffsetCommit, ApiKey::EndTxn] {
        code_for_a_minute(key, ErrorCode::CONCURRENT_TRANSACTIONS, 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn loading_coordinator_for_minute_is_waited_for() {
    for level in BOTH {
        for code in [ErrorCode::COORDINATOR_LOAD_IN_PROGRESS, ErrorCode::COORDINATOR_NOT_AVAILABLE] {
            for key in [ApiKey::InitProducerId, ApiKey::TxnOffsetCommit, ApiKey::EndTxn] {
                code_for_a_minute(key, code, level).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn markers_of_previous_transaction_are_waited_for() {
    for level in BOTH {
        let (cluster, mut producer) = started_with(options(level).marker_delay(ms(3_000))).await;
        for value in ["a", "b", "c"] {
            commit_one(&mut producer, 0, value).await;
        }
        tokio::time::sleep(ms(5_000)).await;
        assert_eq!(visible(&cluster, 0).await, ["a", "b", "c"]);
    }
}

#[tokio::test(start_paused = true)]
async fn coordinator_that_moves_is_found_again() {
    for level in BOTH {
        let (cluster, mut producer) = started_with(options(level).brokers(3)).await;
        for (broker, value) in [(1, "a"), (2, "b"), (3, "c")] {
            let transaction = producer.begin().await.unwrap();
            transaction.send(record(0, value)).await.unwrap().await.unwrap();
            cluster.move_coordinator(ID, broker).unwrap();
            transaction.commit().await.unwrap();
        }
        assert_eq!(visible(&cluster, 0).await, ["a", "b", "c"]);
    }
}

#[tokio::test(start_paused = true)]
async fn coordinator_that_dies_is_replaced() {
    for level in BOTH {
        let (cluster, mut producer) = started_with(options(level).brokers(3)).await;
        producer.init().await.unwrap();
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(0, "a")).await.unwrap().await.unwrap();
        let dead = cluster.coordinator(ID).unwrap();
        cluster.kill(dead).await.unwrap();
        transaction.commit().await.unwrap();
        commit_one(&mut producer, 0, "b").await;
        cluster.restart(dead).await.unwrap();
        commit_one(&mut producer, 1, "c").await;
        assert_eq!(visible(&cluster, 0).await, ["a", "b"]);
        assert_eq!(visible(&cluster, 1).await, ["c"]);
    }
}

#[tokio::test(start_paused = true)]
async fn broker_that_dies_before_answer_leaves_commit() {
    for level in BOTH {
        let (cluster, mut producer) = started_with(options(level).brokers(3)).await;
        let fault = cluster.fault(on(ApiKey::EndTxn).delay_response(ms(10_000)));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let dies = async {
            fault.reached(1).await;
            cluster.kill(cluster.coordinator(ID).unwrap()).await.unwrap();
        };
        let (result, ()) = tokio::join!(transaction.commit(), dies);
        result.unwrap();
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["a", "b"]);
    }
}
