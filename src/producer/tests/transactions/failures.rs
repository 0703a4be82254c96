//! Records that fail inside a transaction.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::*;
use crate::{error::ErrorCode, producer::PurgeScope};

#[tokio::test(start_paused = true)]
async fn failed_record_aborts_commit_with_first_cause() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let reports = Arc::new(AtomicU64::new(0));
        let counted = reports.clone();
        let builder = builder(&cluster).on_delivery(move |_| _ = counted.fetch_add(1, Ordering::Relaxed));
        let mut producer = builder.transactional_id(ID).build().await.unwrap();
        cluster.fault(on(ApiKey::Produce).partition(TOPIC, 0).error(ErrorCode::INVALID_RECORD));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 1, "a").await;
        let error = transaction.send(record(0, "b")).await.unwrap().await.unwrap_err();
        assert_eq!(error.code(), Some(ErrorCode::INVALID_RECORD));
        for error in [
            transaction.send(record(1, "c")).await.unwrap_err(),
            transaction.try_send(record(1, "c")).unwrap_err().into(),
            transaction.send_batch([record(1, "c")]).await.await.ok().unwrap_err(),
        ] {
            assert!(error.is_abortable() && !error.is_retriable() && !error.is_fatal(), "{error:?}");
            assert_eq!(cause(&error).code(), Some(ErrorCode::INVALID_RECORD), "refused at once");
        }
        let error = aborted(transaction.commit().await);
        assert_eq!((error.code(), cause(&error).code()), (Some(ErrorCode::INVALID_RECORD), error.code()));
        assert!(matches!(producer.last_outcome(), Some((1, Outcome::Aborted(Some(_))))));
        commit_one(&mut producer, 0, "d").await;
        assert_eq!(reports.load(Ordering::Relaxed), 3, "one for each record that was taken");
        assert_eq!(visible(&cluster, 0).await, ["d"]);
        assert!(visible(&cluster, 1).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn record_that_fails_while_committing_aborts() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        cluster.fault(on(ApiKey::Produce).partition(TOPIC, 0).error(ErrorCode::INVALID_RECORD));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        put(&transaction, 1, "b").await;
        let error = aborted(transaction.commit().await);
        assert_eq!(cause(&error).code(), Some(ErrorCode::INVALID_RECORD));
        commit_one(&mut producer, 1, "c").await;
        assert_eq!(visible(&cluster, 1).await, ["c"]);
        assert!(visible(&cluster, 0).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn record_refused_by_send_fails_transaction() {
    let (cluster, mut producer) = started(2).await;
    let large = "x".repeat(2_000_000);
    let transaction = producer.begin().await.unwrap();
    put(&transaction, 0, "a").await;
    let error = transaction.send(record(0, &large)).await.unwrap_err();
    assert_eq!(cause(&error).kind(), ErrorKind::RecordTooLarge);
    assert_eq!(cause(&aborted(transaction.commit().await)).kind(), ErrorKind::RecordTooLarge);
    let transaction = producer.begin().await.unwrap();
    let results = transaction.send_batch([record(0, "b"), record(0, &large)]).await.await;
    assert_eq!(results.failures().map(|(at, error)| (at, error.kind())).last(), Some((1, ErrorKind::RecordTooLarge)));
    assert_eq!(cause(&aborted(transaction.commit().await)).kind(), ErrorKind::RecordTooLarge);
    let transaction = producer.begin().await.unwrap();
    put(&transaction, 0, "c").await;
    let refused = transaction.try_send(record(0, &large)).unwrap_err();
    assert_eq!(refused.error().kind(), ErrorKind::RecordTooLarge);
    transaction.commit().await.expect("the caller of try_send has the record back");
    assert_eq!(visible(&cluster, 0).await, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn missing_topic_fails_without_request() {
    for level in BOTH {
        let (cluster, mut producer) = started_with(options(level).auto_create(false)).await;
        let transaction = producer.begin().await.unwrap();
        drop(transaction.send(Record::to("missing").with_value("a")).await.unwrap());
        let mut result = transaction.commit().await;
        while let Err(CommitError::Pending(commit)) = result {
            result = commit.wait().await;
        }
        assert_eq!(cause(&aborted(result)).kind(), ErrorKind::UnknownTopicOrPartition);
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
        assert_eq!(cluster.requests(ApiKey::EndTxn), 1);
        assert_eq!(cluster.requests(ApiKey::InitProducerId), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn numbered_record_over_time_raises_epoch() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let builder = builder(&cluster).delivery_timeout(ms(5_000)).request_timeout(ms(2_000));
        let mut producer = builder.transactional_id(ID).build().await.unwrap();
        let transaction = producer.begin().await.unwrap();
        let fault = cluster.fault(on(ApiKey::Produce).forever().hang());
        put(&transaction, 0, "a").await;
        let error = aborted(transaction.commit().await);
        assert_eq!(cause(&error).kind(), ErrorKind::Timeout, "{error}");
        fault.clear();
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
        assert_eq!(cluster.requests(ApiKey::InitProducerId), if level == 0 { 2 } else { 1 });
    }
}

#[tokio::test(start_paused = true)]
async fn purge_fails_transaction() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let fault = cluster.fault(on(ApiKey::Produce).forever().hang());
        let transaction = producer.begin().await.unwrap();
        assert_eq!(transaction.purge(PurgeScope::All).await, 0);
        let delivery = transaction.send(record(0, "a")).await.unwrap();
        tokio::time::sleep(ms(100)).await;
        assert_eq!(transaction.purge(PurgeScope::All).await, 1);
        assert_eq!(delivery.await.unwrap_err().kind(), ErrorKind::Purged);
        fault.clear();
        assert_eq!(cause(&aborted(transaction.commit().await)).kind(), ErrorKind::Purged);
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
    }
}

/// A record waits for room in the buffer while the transaction fails.
#[tokio::test(start_paused = true)]
async fn record_behind_failure_is_not_sent() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let builder = builder(&cluster).buffer_memory(1_000).batch_size(100);
        let mut producer = builder.transactional_id(ID).build().await.unwrap();
        cluster.fault(on(ApiKey::Produce).delay(ms(1_000)).error(ErrorCode::INVALID_RECORD));
        let transaction = producer.begin().await.unwrap();
        let large = "x".repeat(800);
        put(&transaction, 0, &large).await;
        if let Ok(delivery) = transaction.send(record(1, &large)).await {
            assert_eq!(delivery.await.unwrap_err().kind(), ErrorKind::TransactionAborted);
        }
        assert_eq!(cause(&aborted(transaction.commit().await)).code(), Some(ErrorCode::INVALID_RECORD));
        commit_one(&mut producer, 1, "next").await;
        assert_eq!(visible(&cluster, 1).await, ["next"]);
    }
}
