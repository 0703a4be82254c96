//! Other instances with the same `transactional.id`, and transactions over their time.

use super::*;
use crate::record::GroupMetadata;

/// The step of the first instance's transaction before which the second one starts.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    Begin,
    Send,
    Offsets,
    Commit,
    Abort,
}

#[tokio::test(start_paused = true)]
async fn second_instance_fences_first_at_every_step() {
    for level in BOTH {
        for step in [Step::Begin, Step::Send, Step::Offsets, Step::Commit, Step::Abort] {
            let (cluster, mut first) = started(level).await;
            let mut second = transactional(&cluster).await;
            commit_one(&mut first, 0, "before").await;
            if step == Step::Begin {
                second.init().await.unwrap();
            }
            let transaction = first.begin().await.expect("it asks no broker");
            if step != Step::Send {
                // Fails later if the second instance is there.
                put(&transaction, 0, "fenced").await;
                transaction.flush(ms(10_000)).await;
            }
            if step == Step::Send {
                second.init().await.unwrap();
                put(&transaction, 0, "fenced").await;
            }
            if step == Step::Offsets {
                second.init().await.unwrap();
                let offsets = [(TopicPartition::new(TOPIC, 0), 5)];
                let error = transaction.send_offsets(offsets, &GroupMetadata::without_member("g")).await.unwrap_err();
                assert!(error.is_fatal() || error.is_abortable(), "{step:?}: {error:?}");
            }
            if step == Step::Commit || step == Step::Abort {
                second.init().await.unwrap();
            }
            if step == Step::Abort {
                let error = transaction.abort().await.unwrap_err();
                assert!(error.is_fatal(), "{error:?}");
            } else {
                let error = aborted(transaction.commit().await);
                assert!(error.is_fatal() || error.is_abortable(), "{step:?}: {error:?}");
            }
            let error = first.begin().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Fenced, "{step:?}");
            assert!(error.is_fatal() && error.to_string().contains("\"tx\""), "{error}");
            commit_one(&mut second, 0, "after").await;
            assert_eq!(visible(&cluster, 0).await, ["before", "after"], "{level} {step:?}");
            assert_eq!(cluster.committed("g", TOPIC, 0), None);
            first.close(ms(1_000)).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn init_aborts_transaction_of_older_instance() {
    for level in BOTH {
        let (cluster, mut first) = started(level).await;
        let transaction = first.begin().await.unwrap();
        transaction.send(record(0, "a")).await.unwrap().await.unwrap();
        let mut second = transactional(&cluster).await;
        second.init().await.unwrap();
        assert!(visible(&cluster, 0).await.is_empty());
        commit_one(&mut second, 0, "b").await;
        assert_eq!(visible(&cluster, 0).await, ["b"]);
        drop(transaction);
    }
}

/// The coordinator aborts a transaction that is over its time. The second protocol recovers from
/// that; in the first one the producer cannot tell it from another instance.
#[tokio::test(start_paused = true)]
async fn transaction_over_its_time_is_aborted() {
    for level in BOTH {
        for step in [Step::Send, Step::Offsets, Step::Commit, Step::Abort] {
            let cluster = cluster_with(options(level), 2).await;
            let builder = builder(&cluster).transactional_id(ID).transaction_timeout(ms(5_000));
            let mut producer = builder.build().await.unwrap();
            let transaction = producer.begin().await.unwrap();
            transaction.send(record(0, "a")).await.unwrap().await.unwrap();
            tokio::time::sleep(ms(20_000)).await;
            assert_eq!(cluster.transaction(ID).unwrap().state, "CompleteAbort");
            match step {
                Step::Send => put(&transaction, 0, "b").await,
                Step::Offsets => {
                    let offsets = [(TopicPartition::new(TOPIC, 0), 5)];
                    let group = GroupMetadata::without_member("g");
                    transaction.send_offsets(offsets, &group).await.unwrap_err();
                }
                Step::Begin | Step::Commit | Step::Abort => {}
            }
            if step == Step::Abort {
                assert_eq!(transaction.abort().await.is_ok(), level == 2, "{step:?}");
            } else {
                let error = aborted(transaction.commit().await);
                assert_eq!(error.is_abortable(), level == 2 || step == Step::Send, "{step:?}: {error:?}");
            }
            let next = producer.begin().await;
            assert_eq!(next.is_ok(), level == 2, "{step:?}: {next:?}");
            if let Ok(next) = next {
                put(&next, 0, "c").await;
                next.commit().await.unwrap();
                assert_eq!(visible(&cluster, 0).await, ["c"]);
            } else {
                assert!(visible(&cluster, 0).await.is_empty());
            }
            assert_eq!(cluster.committed("g", TOPIC, 0), None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn transaction_without_writes_has_no_timeout() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let builder = builder(&cluster).transactional_id(ID).transaction_timeout(ms(5_000));
        let mut producer = builder.build().await.unwrap();
        let transaction = producer.begin().await.unwrap();
        tokio::time::sleep(ms(20_000)).await;
        put(&transaction, 0, "a").await;
        transaction.commit().await.unwrap();
        assert_eq!(visible(&cluster, 0).await, ["a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn epochs_that_are_used_up_change_producer_id() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        cluster.set_producer_epoch(ID, 32_764).unwrap();
        let mut producer = transactional(&cluster).await;
        producer.init().await.unwrap();
        let first = producer.status().producer_id;
        assert_eq!(producer.status().producer_epoch, Some(32_765));
        let mut expected = Vec::new();
        for value in ["a", "b", "c", "d"] {
            // A lost answer makes the first protocol raise its epoch, too.
            cluster.fault(on(ApiKey::EndTxn).act_then_drop());
            commit_one(&mut producer, 0, value).await;
            expected.push(value);
        }
        assert_ne!(producer.status().producer_id, first);
        assert!(producer.status().producer_epoch.unwrap() < 4);
        assert_eq!(visible(&cluster, 0).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn init_at_last_epochs_gets_another_id() {
    for level in BOTH {
        for epoch in [32_765, 32_766] {
            let cluster = cluster_with(options(level), 2).await;
            cluster.set_producer_epoch(ID, epoch).unwrap();
            let mut producer = transactional(&cluster).await;
            commit_one(&mut producer, 0, "a").await;
            commit_one(&mut producer, 0, "b").await;
            assert_eq!(visible(&cluster, 0).await, ["a", "b"]);
        }
    }
}
