//! Transactions without faults.

use super::*;
use crate::record::GroupMetadata;

#[tokio::test(start_paused = true)]
async fn commit_makes_records_of_two_leaders_visible() {
    for level in BOTH {
        let (cluster, mut producer) = started_with(options(level).brokers(2)).await;
        assert_ne!(cluster.leader(TOPIC, 0).unwrap(), cluster.leader(TOPIC, 1).unwrap());
        for (number, values) in [(1, ["a", "b"]), (2, ["c", "d"])] {
            let transaction = producer.begin().await.unwrap();
            assert_eq!(transaction.number(), number);
            let delivery = transaction.send(record(0, values[0])).await.unwrap();
            put(&transaction, 1, values[1]).await;
            assert_eq!(delivery.await.unwrap().partition, 0);
            assert!(!visible(&cluster, 0).await.contains(&values[0].to_owned()), "before the commit");
            transaction.commit().await.unwrap();
            assert!(matches!(producer.last_outcome(), Some((last, Outcome::Committed)) if last == number));
        }
        assert_eq!(visible(&cluster, 0).await, ["a", "c"]);
        assert_eq!(visible(&cluster, 1).await, ["b", "d"]);
        assert_eq!(cluster.requests(ApiKey::EndTxn), 2);
        assert_eq!(cluster.requests(ApiKey::InitProducerId), 1);
        assert_eq!(cluster.requests(ApiKey::AddPartitionsToTxn) > 0, level == 0);
        producer.close(ms(10_000)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn abort_hides_records_and_begins_anew() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let transaction = producer.begin().await.unwrap();
        transaction.send(record(0, "in the log")).await.unwrap().await.unwrap();
        let unsent = transaction.send(record(1, "in the buffer")).await.unwrap();
        transaction.abort().await.unwrap();
        let error = unsent.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TransactionAborted);
        assert_eq!(error.delivery_status(), Some(crate::DeliveryStatus::NotPersisted));
        assert!(matches!(producer.last_outcome(), Some((1, Outcome::Aborted(None)))));
        commit_one(&mut producer, 0, "next").await;
        assert_eq!(visible(&cluster, 0).await, ["next"]);
        assert!(visible(&cluster, 1).await.is_empty());
        assert_eq!(cluster.transaction(ID).unwrap().state, "CompleteCommit");
        let metrics = producer.metrics().transactions.unwrap();
        assert_eq!((metrics.begun, metrics.committed, metrics.aborted, metrics.unknown), (2, 1, 1, 0));
        assert_eq!((metrics.init_micros.count(), metrics.commit_micros.count()), (1, 1));
        assert_eq!(metrics.abort_micros.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn linger_ends_at_commit() {
    for level in BOTH {
        let cluster = cluster_with(options(level), 2).await;
        let builder = builder(&cluster).linger(ms(3_600_000)).delivery_timeout(ms(7_200_000));
        let mut producer = builder.transactional_id(ID).build().await.unwrap();
        // The first record waits for its topic, the second one lingers.
        for value in ["a", "b"] {
            commit_one(&mut producer, 0, value).await;
        }
        assert_eq!(visible(&cluster, 0).await, ["a", "b"]);
    }
}

#[tokio::test(start_paused = true)]
async fn empty_transaction_sends_nothing() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        producer.begin().await.unwrap().commit().await.unwrap();
        assert!(matches!(producer.last_outcome(), Some((1, Outcome::Committed))));
        producer.begin().await.unwrap().abort().await.unwrap();
        assert!(matches!(producer.last_outcome(), Some((2, Outcome::Aborted(None)))));
        drop(producer.begin().await.unwrap());
        assert_eq!(producer.begin().await.unwrap().number(), 4);
        assert_eq!(cluster.requests(ApiKey::EndTxn), 0);
        assert_eq!(cluster.requests(ApiKey::AddPartitionsToTxn), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn offsets_follow_outcome_of_transaction() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let group = GroupMetadata::without_member("g");
        let orders = || TopicPartition::new(TOPIC, 0);
        let transaction = producer.begin().await.unwrap();
        transaction.send_offsets([(orders(), 4)], &group).await.unwrap();
        transaction.send_offsets([(orders(), 5)], &group).await.unwrap();
        transaction.send_offsets::<i64>([], &group).await.unwrap();
        assert_eq!((cluster.pending_offset("g", TOPIC, 0), cluster.committed("g", TOPIC, 0)), (Some(5), None));
        transaction.commit().await.unwrap();
        assert_eq!(cluster.committed("g", TOPIC, 0), Some(5));
        let transaction = producer.begin().await.unwrap();
        transaction.send_offsets([(orders(), 9)], &group).await.unwrap();
        transaction.abort().await.unwrap();
        producer.begin().await.unwrap().commit().await.unwrap();
        assert_eq!((cluster.pending_offset("g", TOPIC, 0), cluster.committed("g", TOPIC, 0)), (None, Some(5)));
    }
}

#[tokio::test(start_paused = true)]
async fn unusable_offsets_leave_transaction_open() {
    let (cluster, mut producer) = started(2).await;
    let transaction = producer.begin().await.unwrap();
    put(&transaction, 0, "a").await;
    for (group, offset, part) in [
        (GroupMetadata::without_member(""), 1, "no group.id"),
        (GroupMetadata::without_member("g"), -1, "negative"),
        (GroupMetadata::without_member("g").with_cluster_id(Some("another".into())), 1, "cluster another"),
    ] {
        let error = transaction.send_offsets([(TopicPartition::new(TOPIC, 0), offset)], &group).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains(part), "{error}");
    }
    transaction.commit().await.unwrap();
    assert_eq!(visible(&cluster, 0).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn sender_of_task_ends_with_transaction() {
    for level in BOTH {
        let (cluster, mut producer) = started(level).await;
        let transaction = producer.begin().await.unwrap();
        let sender = transaction.sender();
        let of_task = sender.clone();
        let task = tokio::spawn(async move {
            drop(of_task.send(record(0, "a")).await.unwrap());
            drop(of_task.try_send(record(0, "b")).unwrap());
            of_task.send_batch([record(0, "c"), record(0, "d")]).await.await.ok().unwrap();
        });
        task.await.unwrap();
        transaction.commit().await.unwrap();
        let next = producer.begin().await.unwrap();
        for error in [
            sender.send(record(0, "late")).await.unwrap_err(),
            sender.try_send(record(0, "late")).unwrap_err().into(),
            sender.send_batch([record(0, "late")]).await.await.ok().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
            assert_eq!(error.to_string(), "transaction 1 has ended");
            assert_eq!(error.delivery_status(), Some(crate::DeliveryStatus::NotPersisted));
        }
        put(&next, 0, "e").await;
        next.commit().await.unwrap();
        assert_eq!(visible(&cluster, 0).await, ["a", "b", "c", "d", "e"]);
        producer.close(ms(1_000)).await.unwrap();
        assert!(sender.send(record(0, "late")).await.is_err(), "a sender does not keep the producer open");
    }
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_records_in_transaction() {
    let (cluster, mut producer) = started(2).await;
    let transaction = producer.begin().await.unwrap();
    let delivery = transaction.send(record(0, "a")).await.unwrap();
    assert_eq!(transaction.flush(ms(10_000)).await, 0);
    assert_eq!(cluster.log_end(TOPIC, 0).unwrap(), 1);
    delivery.await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(visible(&cluster, 0).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn status_follows_transaction() {
    let (cluster, mut producer) = started(2).await;
    assert!(matches!(producer.status().state, TransactionState::Uninitialized));
    producer.init().await.unwrap();
    let status = producer.status();
    let view = cluster.transaction(ID).unwrap();
    assert!(matches!(status.state, TransactionState::Ready));
    assert_eq!((status.producer_id, status.producer_epoch), (Some(view.producer_id), Some(view.producer_epoch)));
    assert_eq!((status.number, status.protocol), (0, None));
    std::mem::forget(producer.begin().await.unwrap());
    let status = producer.status();
    assert!(matches!(status.state, TransactionState::Open));
    assert_eq!((status.number, status.protocol), (1, Some(2)));
    assert!(status.since.is_some() && status.failure.is_none() && status.repeated.is_none());
}
