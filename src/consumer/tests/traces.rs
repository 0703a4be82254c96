//! Tests of the `tracing` events about partitions that wait.

use tracing::Level;

use super::*;
use crate::{ApiKey, ErrorCode, log::capture::Lines, testkit::on};

#[tokio::test(start_paused = true)]
async fn warns_of_stalled_partition_with_reason() {
    let lines = Lines::capture();
    let stalled = || lines.with(Level::WARN, "make no progress");
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    assert_eq!(numbers(&consumer, 5).await.len(), 5);
    // Idle, paused, and waiting for its reader: there are no lines about those, however long they
    // last.
    tokio::time::sleep(100 * SECOND).await;
    consumer.pause([&tp("t", 0)]).unwrap();
    tokio::time::sleep(100 * SECOND).await;
    consumer.resume([&tp("t", 0)]).unwrap();
    append(&cluster, "t", 0, 5..6);
    tokio::time::sleep(100 * SECOND).await;
    assert_eq!(stalled(), [""; 0]);
    for reason in ["reason=records", "reason=paused", "reason=reader"] {
        assert!(!lines.with(Level::DEBUG, reason).is_empty(), "{reason}");
    }
    let refused = cluster.fault(on(ApiKey::ListOffsets).error(ErrorCode::LEADER_NOT_AVAILABLE).forever());
    consumer.seek_to_beginning([&tp("t", 0)]).unwrap();
    tokio::time::sleep(300 * SECOND).await;
    let warned = stalled();
    assert!((4..=6).contains(&warned.len()) && warned[0].contains("partitions=t[0]"), "{warned:#?}");
    let told = lines.with(Level::DEBUG, "reason=backing_off");
    assert!(told.iter().any(|line| line.contains("LEADER_NOT_AVAILABLE")), "{told:#?}");
    refused.clear();
    assert_eq!(numbers(&consumer, 6).await.len(), 6);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(lines.with(Level::INFO, "make progress again").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn warns_when_broker_hangs_after_last_record() {
    let lines = Lines::capture();
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 5).await;
    assert_eq!(numbers(&consumer, 5).await.len(), 5);
    let silent = cluster.fault(on(ApiKey::Fetch).hang().forever());
    tokio::time::sleep(200 * SECOND).await;
    let status = consumer.status().partitions.remove(&tp("t", 0)).unwrap();
    assert!(["fetching", "backing_off"].contains(&status.waiting.name()), "{status:?}");
    let warned = lines.with(Level::WARN, "make no progress");
    assert!((2..=4).contains(&warned.len()), "{warned:#?}");
    silent.clear();
    append(&cluster, "t", 0, 5..6);
    assert_eq!(number(&next(&consumer).await), 5);
}
