//! Tests of offsets that an open transaction is about to commit: nothing is read before it ends.

use tracing::Level;

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::WaitReason,
    log::capture::Lines,
    record::GroupMetadata,
    testkit::{
        on,
        tests::transactional_producer::{TransactionalProducer, V2},
    },
};

for_each_group_protocol!(assignment_waits_for_open_transaction, endless_transaction_is_bounded_and_visible,);

/// Starts a cluster with a topic `t` of two partitions, and a producer with an open transaction
/// that moves the offset of t[0] in the group `g` to 6.
async fn started() -> (Cluster, TransactionalProducer) {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..10);
    append(&cluster, "t", 1, 100..110);
    let mut producer = TransactionalProducer::init(&cluster, "tx", V2).await;
    assert_eq!(producer.send_offset_of(&GroupMetadata::without_member("g"), 6).await, 0);
    assert_eq!(cluster.pending_offset("g", "t", 0), Some(6));
    (cluster, producer)
}

async fn member(cluster: &Cluster, protocol: GroupProtocol) -> Consumer {
    let builder = group_builder(cluster, protocol).auto_commit(false).default_api_timeout(5 * SECOND);
    subscribed(builder.client_id("c7"), &["t"]).await
}

async fn assignment_waits_for_open_transaction(protocol: GroupProtocol) {
    for commits in [true, false] {
        let (cluster, mut producer) = started().await;
        let consumer = member(&cluster, protocol).await;
        let others = tokio::time::timeout(5 * SECOND, numbers(&consumer, 10));
        assert_eq!(others.await.expect("t[1] does not wait"), (100..110).collect::<Vec<_>>());
        assert!(is_quiet(&consumer).await);
        assert_eq!(consumer.position(&tp("t", 0)), None, "auto.offset.reset does not apply");
        assert_eq!(producer.end(commits).await, 0);
        let first = if commits { 6 } else { 0 };
        assert_eq!(numbers(&consumer, 2).await, [first, first + 1]);
    }
}

async fn endless_transaction_is_bounded_and_visible(protocol: GroupProtocol) {
    let lines = Lines::capture();
    let (cluster, mut producer) = started().await;
    assert_eq!(producer.end(true).await, 0);
    // A transaction that lasted would be aborted after its timeout.
    let open = on(ApiKey::OffsetFetch).partition("t", 0).forever().error(ErrorCode::UNSTABLE_OFFSET_COMMIT);
    let open = cluster.fault(open);
    let consumer = member(&cluster, protocol).await;
    assert_eq!(numbers(&consumer, 10).await, (100..110).collect::<Vec<_>>());
    for round in 0..2 {
        let before = cluster.requests(ApiKey::OffsetFetch);
        for _ in 0..12 {
            assert!(is_quiet(&consumer).await);
        }
        let requests = cluster.requests(ApiKey::OffsetFetch) - before;
        assert!((60..360).contains(&requests), "{requests} look-ups in two minutes");
        let status = consumer.status().partitions.remove(&tp("t", 0)).unwrap();
        let WaitReason::BackingOff(error) = &status.waiting else { panic!("{status:?}") };
        assert_eq!(error.code(), Some(ErrorCode::UNSTABLE_OFFSET_COMMIT), "{error}");
        assert_eq!(status.position, None);
        let warned = lines.with(Level::WARN, "UNSTABLE_OFFSET_COMMIT");
        assert!((1..=3).contains(&warned.len()), "at once and every minute: {warned:#?}");
        assert!(warned.iter().all(|line| line.contains("t[0]")), "{warned:#?}");
        lines.clear();
        if round > 0 {
            break;
        }
        // A rewind that does not succeed continues in the same way.
        let begun = tokio::time::Instant::now();
        let error = consumer.rewind_to_committed([&tp("t", 0)]).await.unwrap_err();
        assert_eq!(begun.elapsed().as_secs(), 5, "default.api.timeout.ms");
        assert_eq!((error.kind(), error.code()), (ErrorKind::Timeout, Some(ErrorCode::UNSTABLE_OFFSET_COMMIT)));
        assert!(error.is_retriable() && error.to_string().contains("t[0]"), "{error}");
    }
    open.clear();
    assert_eq!(numbers(&consumer, 4).await, [6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn committed_waits_for_open_transaction() {
    let (cluster, mut producer) = started().await;
    let consumer = builder(&cluster).group("g").default_api_timeout(5 * SECOND).build().await.unwrap();
    let before = cluster.requests(ApiKey::OffsetFetch);
    let error = consumer.committed([tp("t", 0), tp("t", 1)]).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UNSTABLE_OFFSET_COMMIT), "{error}");
    let requests = cluster.requests(ApiKey::OffsetFetch) - before;
    assert!((3..30).contains(&requests), "{requests} look-ups in five seconds");
    let asking = consumer.clone();
    let asking = tokio::spawn(async move { asking.committed([tp("t", 0), tp("t", 1)]).await });
    tokio::time::sleep(SECOND).await;
    assert_eq!(producer.end(true).await, 0);
    let committed = asking.await.unwrap().unwrap();
    assert_eq!(committed[&tp("t", 0)].as_ref().map(|committed| committed.offset), Some(6));
    assert!(committed[&tp("t", 1)].is_none());
}
