//! Permissions that are refused, and settings that brokers or the client do not allow.

use super::*;
use crate::{error::ErrorCode, record::GroupMetadata};

#[tokio::test(start_paused = true)]
async fn refused_id_may_be_initialized_later() {
    for level in BOTH {
        for key in [ApiKey::FindCoordinator, ApiKey::InitProducerId] {
            let (cluster, mut producer) = started(level).await;
            cluster.fault(on(key).times(2).error(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED));
            for error in [producer.init().await.unwrap_err(), producer.begin().await.unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::Authorization, "{key:?}: {error}");
                assert!(!error.is_fatal() && !error.is_abortable(), "{error:?}");
                assert!(error.to_string().contains("\"tx\""), "{error}");
            }
            commit_one(&mut producer, 0, "a").await;
            assert_eq!(visible(&cluster, 0).await, ["a"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn id_refused_later_fails_producer() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::EndTxn).error(ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let error = aborted(transaction.commit().await);
        assert_eq!(error.kind(), ErrorKind::Authorization);
        assert!(error.is_fatal(), "{error:?}");
        assert!(matches!(producer.status().state, TransactionState::Fatal(_)));
        assert!(producer.init().await.unwrap_err().is_fatal());
    }
}

#[tokio::test(start_paused = true)]
async fn refused_topic_aborts_transaction() {
    for (level, key) in [(0, ApiKey::AddPartitionsToTxn), (0, ApiKey::Produce), (2, ApiKey::Produce)] {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(key).partition(TOPIC, 0).error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let error = aborted(transaction.commit().await);
        assert_eq!(cause(&error).kind(), ErrorKind::Authorization, "{key:?}: {error}");
        assert_eq!(error.code(), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn refused_group_aborts_transaction() {
    for (level, key) in [(0, ApiKey::AddOffsetsToTxn), (0, ApiKey::TxnOffsetCommit), (2, ApiKey::TxnOffsetCommit)] {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(key).error(ErrorCode::GROUP_AUTHORIZATION_FAILED));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let group = GroupMetadata::without_member("g");
        let error = transaction.send_offsets([(TopicPartition::new(TOPIC, 0), 5)], &group).await.unwrap_err();
        assert_eq!(cause(&error).code(), Some(ErrorCode::GROUP_AUTHORIZATION_FAILED), "{key:?}");
        let error = aborted(transaction.commit().await);
        assert_eq!(cause(&error).kind(), ErrorKind::Authorization);
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
        assert_eq!(cluster.committed("g", TOPIC, 0), None);
    }
}

#[tokio::test(start_paused = true)]
async fn rebalanced_group_aborts_transaction() {
    for level in BOTH {
        for code in [ErrorCode::ILLEGAL_GENERATION, ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::FENCED_INSTANCE_ID] {
            let (cluster, mut producer) = started(level).await;
            cluster.fault(on(ApiKey::TxnOffsetCommit).error(code));
            let transaction = producer.begin().await.unwrap();
            let group = GroupMetadata::without_member("g");
            let error = transaction.send_offsets([(TopicPartition::new(TOPIC, 0), 5)], &group).await.unwrap_err();
            assert_eq!((cause(&error).kind(), error.code()), (ErrorKind::NotAssigned, Some(code)));
            assert_eq!(aborted(transaction.commit().await).code(), Some(code));
            assert_eq!(cluster.committed("g", TOPIC, 0), None);
            commit_one(&mut producer, 0, "b").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn refused_timeout_names_setting_of_broker() {
    let (cluster, _) = started_with(options(2).max_transaction_timeout(ms(10_000))).await;
    let mut producer = transactional(&cluster).await;
    let error = producer.init().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::INVALID_TRANSACTION_TIMEOUT));
    assert!(error.is_fatal(), "{error:?}");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().contains("transaction.max.timeout.ms"), "{error}");
}

#[tokio::test]
async fn builder_refuses_contradictions() {
    let build = |pairs: &'static [(&str, &str)]| {
        let pairs = [("bootstrap.servers", "h:9092")].into_iter().chain(pairs.iter().copied());
        TransactionalProducer::from_properties(pairs)
    };
    for (pairs, part) in [
        (&[][..], "transactional.id is missing"),
        (&[("transactional.id", " ")], "transactional.id is missing"),
        (&[("transactional.id", "t"), ("acks", "1")], "transactional.id needs acks=all"),
        (&[("transactional.id", "t"), ("enable.idempotence", "false")], "enable.idempotence=true"),
        (&[("transactional.id", "t"), ("retries", "0")], "retries of 1 or more"),
        (&[("transactional.id", "t"), ("max.in.flight", "6")], "5 or less"),
        (&[("transactional.id", "t"), ("transaction.timeout.ms", "0")], "transaction.timeout.ms"),
        (&[("transactional.id", "t"), ("transaction.two.phase.commit.enable", "true")], "KIP-939"),
    ] {
        let error = build(pairs).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
    }
    build(&[("transactional.id", "t"), ("acks", "all"), ("transaction.timeout.ms", "1")]).await.unwrap();
    let pairs = [("bootstrap.servers", "h:9092"), ("transactional.id", "t")];
    let error = Producer::from_properties(pairs).await.unwrap_err();
    assert!(error.to_string().contains("`TransactionalProducer`"), "{error}");
    let empty = TransactionalProducer::builder("h:9092", "").build().await.unwrap_err();
    assert!(empty.to_string().contains("transactional.id is missing"), "{empty}");
    assert!(format!("{:?}", TransactionalProducer::builder("h:9092", "t").build().await.unwrap()).contains("\"t\""));
}
