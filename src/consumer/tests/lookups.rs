use std::time::UNIX_EPOCH;

use super::*;
use crate::{ApiKey, ErrorCode, ErrorKind, Result, testkit::on};

/// Makes every look-up, and returns its name and result.
async fn look_ups(consumer: &Consumer) -> Vec<(&'static str, Result<()>)> {
    let one = || [tp("t", 0)];
    vec![
        ("beginning_offsets", consumer.beginning_offsets(one()).await.map(drop)),
        ("end_offsets", consumer.end_offsets(one()).await.map(drop)),
        ("offsets_for_times", consumer.offsets_for_times([(tp("t", 0), UNIX_EPOCH)]).await.map(drop)),
        ("committed", consumer.committed(one()).await.map(drop)),
        ("partitions_for", consumer.partitions_for("t").await.map(drop)),
        ("list_topics", consumer.list_topics().await.map(drop)),
    ]
}

async fn asking(cluster: &Cluster) -> Consumer {
    builder(cluster).group("g").default_api_timeout(5 * SECOND).build().await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn fails_at_deadline_when_brokers_hang() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let kinds = [ApiKey::ListOffsets, ApiKey::OffsetFetch, ApiKey::Metadata, ApiKey::FindCoordinator];
    for key in kinds {
        cluster.fault(on(key).hang().forever());
    }
    let consumer = asking(&cluster).await;
    let begun = tokio::time::Instant::now();
    for (name, result) in look_ups(&consumer).await {
        let error = result.expect_err(name);
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Network), "{name}: {error:?}");
    }
    assert!(begun.elapsed() <= 6 * 6 * SECOND, "each takes default.api.timeout.ms at most: {:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn retries_leader_coordinator_and_connection_errors() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 1).unwrap();
    cluster.fault(on(ApiKey::ListOffsets).times(2).error(ErrorCode::NOT_LEADER_OR_FOLLOWER));
    cluster.fault(on(ApiKey::ListOffsets).skip(2).times(1).drop_connection());
    cluster.fault(on(ApiKey::OffsetFetch).times(1).error(ErrorCode::NOT_COORDINATOR));
    let consumer = asking(&cluster).await;
    for (name, result) in look_ups(&consumer).await {
        result.expect(name);
    }
}

#[tokio::test(start_paused = true)]
async fn reports_invalid_arguments_and_authorization_errors() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let consumer = asking(&cluster).await;
    for bad in [tp("no/name", 0), tp("t", -1)] {
        let kinds = [
            consumer.beginning_offsets([bad.clone()]).await.unwrap_err().kind(),
            consumer.end_offsets([bad.clone()]).await.unwrap_err().kind(),
            consumer.offsets_for_times([(bad.clone(), UNIX_EPOCH)]).await.unwrap_err().kind(),
            consumer.committed([bad.clone()]).await.unwrap_err().kind(),
        ];
        assert_eq!(kinds, [ErrorKind::InvalidArgument; 4], "{bad}");
    }
    assert_eq!(consumer.partitions_for("").await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    let refused = cluster.fault(on(ApiKey::ListOffsets).forever().error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    assert_eq!(consumer.end_offsets([tp("t", 0)]).await.unwrap_err().kind(), ErrorKind::Authorization);
    refused.clear();
    let alone = super::consumer(&cluster).await;
    assert_eq!(alone.committed([tp("t", 0)]).await.unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert!(consumer.committed([tp("t", 0)]).await.unwrap()[&tp("t", 0)].is_none());
    assert!(consumer.end_offsets([]).await.unwrap().is_empty());
}
