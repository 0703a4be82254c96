//! Answers to EndTxn that are lost or refused.

use super::*;
use crate::{DeliveryStatus, error::ErrorCode};

#[tokio::test(start_paused = true)]
async fn lost_answer_to_commit_is_asked_again() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::EndTxn).act_then_drop());
        commit_one(&mut producer, 0, "a").await;
        assert_eq!(cluster.requests(ApiKey::EndTxn), 2);
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["a", "b"]);
        // Under the first protocol a late copy of the request must find another epoch.
        assert_eq!(cluster.requests(ApiKey::InitProducerId), if level == 0 { 2 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn lost_answer_to_abort_is_asked_again() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::EndTxn).act_then_drop());
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(0, "a")).await.unwrap().await.unwrap();
        transaction.abort().await.unwrap();
        assert_eq!(cluster.requests(ApiKey::EndTxn), 2);
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
        assert_eq!(cluster.requests(ApiKey::InitProducerId), if level == 0 { 2 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn refused_second_commit_is_unknown() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::EndTxn).act_then_drop());
        cluster.fault(on(ApiKey::EndTxn).error(ErrorCode::PRODUCER_FENCED));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let result = transaction.commit().await;
        let Err(CommitError::Unknown(error)) = &result else { panic!("unknown: {result:?}") };
        assert_eq!((error.kind(), error.code()), (ErrorKind::Fenced, Some(ErrorCode::PRODUCER_FENCED)));
        assert!(error.is_fatal() && !error.is_retriable() && !error.is_abortable());
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::PossiblyPersisted));
        assert!(error.to_string().starts_with("transaction 1 may have been committed"), "{error}");
        assert!(result.unwrap_err().advice().contains("make a new producer"));
        assert!(matches!(producer.last_outcome(), Some((1, Outcome::Unknown(_)))));
        assert!(producer.begin().await.unwrap_err().is_fatal());
        assert_eq!(visible(&cluster, 0).await, ["a"], "this time it was committed");
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_commit_leaves_usable_producer() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::EndTxn).drop_connection());
        cluster.fault(on(ApiKey::EndTxn).error(ErrorCode::UNKNOWN_PRODUCER_ID));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let result = transaction.commit().await;
        let Err(CommitError::Unknown(error)) = &result else { panic!("unknown: {result:?}") };
        assert!(!error.is_fatal(), "{error:?}");
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"], "this time it was aborted");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_first_commit_is_aborted() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::EndTxn).error(ErrorCode::TRANSACTION_ABORTABLE));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let error = aborted(transaction.commit().await);
        assert_eq!(cause(&error).code(), Some(ErrorCode::TRANSACTION_ABORTABLE));
        assert_eq!(error.delivery_status(), Some(DeliveryStatus::NotPersisted));
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn retried_code_puts_commit_in_doubt() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::EndTxn).error(ErrorCode::COORDINATOR_NOT_AVAILABLE));
        cluster.fault(on(ApiKey::EndTxn).error(ErrorCode::INVALID_PRODUCER_EPOCH));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let result = transaction.commit().await;
        assert!(matches!(result, Err(CommitError::Unknown(_))), "{result:?}");
    }
}
