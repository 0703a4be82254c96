//! Futures and transactions that are dropped, and calls that run out of time.

use super::*;
use crate::producer::TransactionalProducerBuilder;

/// Returns a builder with a `max.block.ms` of a second.
fn hurried(cluster: &Cluster) -> TransactionalProducerBuilder {
    builder(cluster).max_block(ms(1_000)).transactional_id(ID)
}

#[tokio::test(start_paused = true)]
async fn dropped_transaction_is_aborted() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(0, "a")).await.unwrap().await.unwrap();
        let unsent = transaction.send(record(1, "b")).await.unwrap();
        let sender = transaction.sender();
        drop(transaction);
        assert!(sender.send(record(0, "c")).await.is_err());
        assert_eq!(unsent.await.unwrap_err().kind(), ErrorKind::TransactionAborted);
        commit_one(&mut producer, 0, "d").await;
        assert_eq!(visible(&cluster, 0).await, ["d"]);
    }
}

#[tokio::test(start_paused = true)]
async fn leaked_transaction_is_aborted_by_next_begin() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(0, "a")).await.unwrap().await.unwrap();
        let sender = transaction.sender();
        std::mem::forget(transaction);
        drop(sender.send(record(0, "b")).await.unwrap());
        let next = producer.begin().await.unwrap();
        assert_eq!(sender.send(record(0, "c")).await.unwrap_err().to_string(), "transaction 1 has ended");
        put(&next, 0, "d").await;
        next.commit().await.unwrap();
        assert_eq!(visible(&cluster, 0).await, ["d"]);
    }
}

#[tokio::test(start_paused = true)]
async fn polled_commit_stands_when_dropped() {
    for level in BOTH {
        for polls in 0.. {
            let (cluster, mut producer) = started(level).await;
            let transaction = producer.begin().await.unwrap();
            put(&transaction, 0, "a").await;
            put(&transaction, 1, "b").await;
            let ended = polled(transaction.commit(), polls).await.map(|result| result.map_err(Error::from));
            commit_one(&mut producer, 0, "c").await;
            let expected: &[&str] = if polls == 0 { &["c"] } else { &["a", "c"] };
            assert_eq!(visible(&cluster, 0).await, expected, "{polls} polls");
            assert_eq!(visible(&cluster, 1).await.len(), usize::from(polls > 0), "{polls} polls");
            if let Some(result) = ended {
                result.unwrap();
                assert!(polls > 1);
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_commit_leaves_its_outcome() {
    for level in BOTH {
        let (_cluster, mut producer) = started(level).await;
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        assert!(polled(transaction.commit(), 1).await.is_none());
        while producer.last_outcome().is_none() {
            tokio::time::sleep(ms(1)).await;
        }
        assert!(matches!(producer.last_outcome(), Some((1, Outcome::Committed))));
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_begin_leaves_no_transaction() {
    for level in BOTH {
        for polls in 0.. {
            let (cluster, mut producer) = started(level).await;
            let ended = polled(producer.begin(), polls).await.is_some();
            tokio::time::sleep(ms(1_000)).await;
            assert!(!matches!(producer.status().state, TransactionState::Open), "{polls} polls");
            commit_one(&mut producer, 0, "a").await;
            assert_eq!(cluster.requests(ApiKey::EndTxn), 1, "{polls} polls");
            assert_eq!(visible(&cluster, 0).await, ["a"]);
            if ended {
                assert!(polls > 1);
                break;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_abort_goes_on() {
    for level in BOTH {
        for polls in 0..3 {
            let (cluster, mut producer) = started(level).await;
            let transaction = producer.begin().await.unwrap();
            transaction.send(record(0, "a")).await.unwrap().await.unwrap();
            polled(transaction.abort(), polls).await;
            commit_one(&mut producer, 0, "b").await;
            assert_eq!(visible(&cluster, 0).await, ["b"], "{polls} polls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pending_commit_can_be_waited_for_again() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let mut producer = hurried(&cluster).build().await.unwrap();
        cluster.fault(on(ApiKey::EndTxn).delay_response(ms(4_500)));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let mut result = transaction.commit().await;
        let mut waits = 0;
        while let Err(CommitError::Pending(commit)) = result {
            assert_eq!(commit.cause().kind(), ErrorKind::Timeout);
            assert_eq!(commit.cause().delivery_status(), Some(crate::DeliveryStatus::PossiblyPersisted));
            waits += 1;
            result = commit.wait().await;
        }
        result.unwrap();
        assert_eq!(waits, 4);
        assert_eq!(cluster.requests(ApiKey::EndTxn), 1);
        assert_eq!(visible(&cluster, 0).await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_pending_commit_is_awaited_by_begin() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let mut producer = hurried(&cluster).build().await.unwrap();
        cluster.fault(on(ApiKey::EndTxn).delay_response(ms(2_500)));
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let result = transaction.commit().await;
        let Err(pending @ CommitError::Pending(_)) = result else { panic!("pending: {result:?}") };
        let error = Error::from(pending);
        assert!(error.is_retriable() && error.to_string().contains("max.block.ms (1000)"), "{error}");
        let error = producer.begin().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn begin_and_init_may_be_repeated_after_timeout() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let mut producer = hurried(&cluster).build().await.unwrap();
        let fault =
            cluster.fault(on(ApiKey::InitProducerId).forever().error(crate::ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
        let error = producer.begin().await.unwrap_err();
        assert!(error.is_retriable() && error.kind() == ErrorKind::Timeout, "{error:?}");
        assert!(error.to_string().contains("COORDINATOR_LOAD_IN_PROGRESS"), "the last cause: {error}");
        assert_eq!(producer.init().await.unwrap_err().kind(), ErrorKind::Timeout);
        let repeated = producer.status().repeated.expect("the request is being repeated");
        assert!(repeated.failures > 1);
        fault.clear();
        producer.init().await.unwrap();
        commit_one(&mut producer, 0, "a").await;
        assert_eq!(visible(&cluster, 0).await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn abort_that_timed_out_is_continued_by_begin() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let mut producer = hurried(&cluster).build().await.unwrap();
        cluster.fault(on(ApiKey::EndTxn).delay_response(ms(1_500)));
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(0, "a")).await.unwrap().await.unwrap();
        assert_eq!(transaction.abort().await.unwrap_err().kind(), ErrorKind::Timeout);
        commit_one(&mut producer, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_that_timed_out_are_part_of_commit() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let mut producer = hurried(&cluster).build().await.unwrap();
        cluster.fault(on(ApiKey::TxnOffsetCommit).delay_response(ms(1_500)));
        let transaction = producer.begin().await.unwrap();
        let group = crate::record::GroupMetadata::without_member("g");
        let offsets = [(TopicPartition::new(TOPIC, 0), 5)];
        let error = transaction.send_offsets(offsets, &group).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        transaction.commit().await.unwrap();
        assert_eq!(cluster.committed("g", TOPIC, 0), Some(5));
    }
}

/// The sender's record waits for room in the buffer while the transaction is committed.
#[tokio::test(start_paused = true)]
async fn commit_includes_records_of_calls_in_progress() {
    for level in BOTH {
        for polls in [1, usize::MAX] {
            let cluster = cluster_with(options(level), 2).await;
            let builder = builder(&cluster).buffer_memory(1_000).batch_size(100);
            let mut producer = builder.transactional_id(ID).build().await.unwrap();
            cluster.fault(on(ApiKey::Produce).delay(ms(5_000)));
            let transaction = producer.begin().await.unwrap();
            let large = "x".repeat(800);
            put(&transaction, 0, &large).await;
            let sender = transaction.sender();
            let waiting = tokio::spawn({
                let large = large.clone();
                async move { sender.send(record(1, &large)).await.map(drop) }
            });
            tokio::time::sleep(ms(100)).await;
            assert!(!waiting.is_finished(), "the buffer is full");
            if let Some(result) = polled(transaction.commit(), polls).await {
                result.unwrap();
            }
            waiting.await.unwrap().unwrap();
            producer.begin().await.unwrap().commit().await.unwrap();
            assert_eq!(visible(&cluster, 0).await.len(), 1);
            assert_eq!(visible(&cluster, 1).await.len(), 1, "{polls} polls");
        }
    }
}

/// The sender's record waits for room in the buffer while the transaction is dropped.
#[tokio::test(start_paused = true)]
async fn dropped_transaction_waits_for_calls_in_progress() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let builder = builder(&cluster).buffer_memory(1_000).batch_size(100);
        let mut producer = builder.transactional_id(ID).build().await.unwrap();
        cluster.fault(on(ApiKey::Produce).delay(ms(5_000)));
        let transaction = producer.begin().await.unwrap();
        let large = "x".repeat(800);
        put(&transaction, 0, &large).await;
        let sender = transaction.sender();
        let waiting = tokio::spawn({
            let large = large.clone();
            async move { sender.send(record(1, &large)).await }
        });
        tokio::time::sleep(ms(100)).await;
        drop(transaction);
        commit_one(&mut producer, 0, "next").await;
        if let Ok(delivery) = waiting.await.unwrap() {
            assert_eq!(delivery.await.unwrap_err().kind(), ErrorKind::TransactionAborted);
        }
        assert_eq!(visible(&cluster, 0).await, ["next"]);
        assert!(visible(&cluster, 1).await.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn close_aborts_dropped_transaction() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(0, "a")).await.unwrap().await.unwrap();
        drop(transaction);
        producer.close(ms(10_000)).await.unwrap();
        assert_eq!(cluster.transaction(ID).unwrap().state, "CompleteAbort");
    }
}

#[tokio::test(start_paused = true)]
async fn dropped_producer_finishes_dropped_commit() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        let sender = transaction.sender();
        assert!(polled(transaction.commit(), 1).await.is_none());
        drop(producer);
        tokio::time::sleep(ms(10_000)).await;
        assert_eq!(visible(&cluster, 0).await, ["a"]);
        assert_eq!(cluster.transaction(ID).unwrap().state, "CompleteCommit");
        drop(sender);
    }
}

#[tokio::test(start_paused = true)]
async fn close_without_answer_says_what_is_unknown() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let mut producer = hurried(&cluster).build().await.unwrap();
        cluster.fault(on(ApiKey::EndTxn).forever().hang());
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "a").await;
        assert!(matches!(transaction.commit().await, Err(CommitError::Pending(_))));
        let error = producer.close(ms(2_000)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains("transaction 1 may have been committed"), "{error}");
    }
}

/// The end of an empty transaction must not fail records that another thread sends as soon as the
/// next one is begun.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_empty_transaction_leaves_next_one_alone() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        for round in 0..1_000 {
            drop(producer.begin().await.unwrap());
            let transaction = producer.begin().await.unwrap();
            for partition in [0, 1] {
                put(&transaction, partition, "a").await;
            }
            let committed = transaction.commit().await;
            assert!(committed.is_ok(), "level {level}, round {round}: {committed:?}");
        }
        assert_eq!(visible(&cluster, 1).await.len(), 1_000);
    }
}
