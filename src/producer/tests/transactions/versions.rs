//! The two protocols: changes from one to the other, and brokers that lack requests.

use super::*;

fn with_quick_features(cluster: &Cluster) -> crate::producer::TransactionalProducerBuilder {
    builder(cluster).property("metadata.max.age.ms", "1000").transactional_id(ID)
}

/// Returns the versions of the requests of that kind, in order.
fn versions(cluster: &Cluster, key: ApiKey) -> Vec<i16> {
    cluster.journal().iter().filter(|request| request.key == key).map(|request| request.version).collect()
}

/// Commits transactions until the producer uses the protocol; returns the values.
async fn until_protocol(producer: &mut TransactionalProducer, protocol: u8, from: u32) -> Vec<String> {
    let mut values = Vec::new();
    for n in from..from + 5 {
        tokio::time::sleep(ms(2_000)).await;
        let transaction = producer.begin().await.unwrap();
        let value = n.to_string();
        put(&transaction, 0, &value).await;
        values.push(value);
        transaction.commit().await.unwrap();
        std::mem::forget(producer.begin().await.unwrap());
        if producer.status().protocol == Some(protocol) {
            return values;
        }
    }
    panic!("the protocol was not taken up");
}

#[tokio::test(start_paused = true)]
async fn raised_and_lowered_feature_needs_no_reconnect() {
    let cluster = cluster_with(options(0), 2).await;
    let mut producer = with_quick_features(&cluster).build().await.unwrap();
    let mut expected = until_protocol(&mut producer, 1, 0).await;
    assert!(versions(&cluster, ApiKey::EndTxn).iter().all(|version| *version <= 4));
    cluster.set_feature("transaction.version", 2);
    expected.extend(until_protocol(&mut producer, 2, 10).await);
    commit_one(&mut producer, 0, "20").await;
    expected.push("20".to_owned());
    assert_eq!(versions(&cluster, ApiKey::EndTxn).last(), Some(&5));
    let added = cluster.requests(ApiKey::AddPartitionsToTxn);
    commit_one(&mut producer, 0, "21").await;
    expected.push("21".to_owned());
    assert_eq!(cluster.requests(ApiKey::AddPartitionsToTxn), added);
    cluster.set_feature("transaction.version", 0);
    expected.extend(until_protocol(&mut producer, 1, 30).await);
    commit_one(&mut producer, 0, "40").await;
    expected.push("40".to_owned());
    assert!(cluster.requests(ApiKey::AddPartitionsToTxn) > added);
    assert_eq!(versions(&cluster, ApiKey::EndTxn).last(), Some(&4));
    assert_eq!(visible(&cluster, 0).await, expected);
}

#[tokio::test(start_paused = true)]
async fn change_inside_transaction_waits_for_next() {
    for (from, to) in [(0, 2), (2, 0)] {
        let cluster = cluster_with(options(from), 2).await;
        let mut producer = with_quick_features(&cluster).build().await.unwrap();
        commit_one(&mut producer, 0, "a").await;
        let transaction = producer.begin().await.unwrap();
        put(&transaction, 0, "b").await;
        transaction.flush(ms(1_000)).await;
        cluster.set_feature("transaction.version", to);
        cluster.disconnect(1);
        tokio::time::sleep(ms(3_000)).await;
        put(&transaction, 1, "c").await;
        transaction.commit().await.unwrap();
        commit_one(&mut producer, 0, "d").await;
        commit_one(&mut producer, 0, "e").await;
        assert_eq!(visible(&cluster, 0).await, ["a", "b", "d", "e"]);
        assert_eq!(visible(&cluster, 1).await, ["c"]);
    }
}

/// A broker that caps Produce below the second protocol must not get its records under the first.
#[tokio::test(start_paused = true)]
async fn second_protocol_never_falls_back_to_old_produce() {
    let (cluster, mut producer) = started_with(options(2).max_version(ApiKey::Produce, 11)).await;
    let transaction = producer.begin().await.unwrap();
    put(&transaction, 0, "a").await;
    let error = aborted(transaction.commit().await);
    assert_eq!(cause(&error).kind(), ErrorKind::UnsupportedVersion, "{error}");
    assert_eq!(cluster.requests(ApiKey::Produce), 0);
    assert!(visible(&cluster, 0).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn old_brokers_use_first_protocol() {
    let versions = [
        (ApiKey::Produce, 8),
        (ApiKey::Fetch, 12),
        (ApiKey::ListOffsets, 5),
        (ApiKey::Metadata, 9),
        (ApiKey::FindCoordinator, 3),
        (ApiKey::InitProducerId, 3),
        (ApiKey::AddPartitionsToTxn, 1),
        (ApiKey::AddOffsetsToTxn, 1),
        (ApiKey::TxnOffsetCommit, 3),
        (ApiKey::EndTxn, 1),
    ];
    let (cluster, mut producer) = started_with(Options::new().max_versions(versions)).await;
    let transaction = producer.begin().await.unwrap();
    put(&transaction, 0, "a").await;
    let group = crate::record::GroupMetadata::without_member("g");
    transaction.send_offsets([(TopicPartition::new(TOPIC, 0), 5)], &group).await.unwrap();
    transaction.commit().await.unwrap();
    cluster.fault(on(ApiKey::EndTxn).act_then_drop());
    commit_one(&mut producer, 0, "b").await;
    commit_one(&mut producer, 0, "c").await;
    assert_eq!(visible(&cluster, 0).await, ["a", "b", "c"]);
    assert_eq!(cluster.committed("g", TOPIC, 0), Some(5));
}
