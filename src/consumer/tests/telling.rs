use std::sync::Arc;

use super::*;
use crate::{ApiKey, ErrorCode, GroupState, OffsetReset, PartitionStatus, Waiting, testkit::on};

fn status(consumer: &Consumer, partition: i32) -> PartitionStatus {
    consumer.status().partitions.remove(&tp("t", partition)).expect("an assigned partition")
}

fn waits(consumer: &Consumer) -> &'static str {
    status(consumer, 0).waiting.name()
}

#[tokio::test(start_paused = true)]
async fn every_wait_has_its_reason() {
    let cluster = cluster(1).await;
    let consumer = Arc::new(reading(&cluster, "t", 10).await);
    let partition = tp("t", 0);
    tokio::time::sleep(SECOND).await;
    assert_eq!(waits(&consumer), "reader");
    let reader = consumer.clone();
    assert_eq!(numbers(&consumer, 10).await.len(), 10);
    assert_eq!(waits(&consumer), "records");
    assert_eq!(status(&consumer, 0).lag, Some(0));
    consumer.pause([&partition]).unwrap();
    assert_eq!(waits(&consumer), "paused");
    consumer.resume([&partition]).unwrap();
    let stream = consumer.split_partition(&partition).unwrap();
    append(&cluster, "t", 0, 10..11);
    tokio::time::sleep(SECOND).await;
    assert_eq!((waits(&consumer), status(&consumer, 0).split_off), ("partition_stream", true));
    drop(stream);
    assert_eq!(waits(&consumer), "reader");
    cluster.fault(on(ApiKey::ListOffsets).delay(5 * SECOND).times(1));
    consumer.seek_to_beginning([&partition]).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((waits(&consumer), status(&consumer, 0).position), ("finding_position", None));
    let refused = cluster.fault(on(ApiKey::Fetch).partition("t", 0).error(ErrorCode::KAFKA_STORAGE_ERROR).forever());
    consumer.seek(&partition, 0).unwrap();
    let waiting = tokio::spawn(async move { reader.recv().await.unwrap().unwrap() });
    tokio::time::sleep(20 * SECOND).await;
    let mut backing_off = 0;
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(130)).await;
        match status(&consumer, 0).waiting {
            Waiting::BackingOff(error) => {
                assert_eq!(error.code(), Some(ErrorCode::KAFKA_STORAGE_ERROR));
                backing_off += 1;
            }
            Waiting::Fetching => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(backing_off > 30, "most of the time: {backing_off}");
    refused.clear();
    waiting.await.unwrap();
    assert_eq!(numbers(&consumer, 10).await.len(), 10);
    let before = consumer.status();
    assert!(before.metadata_failure.is_none() && !before.ended, "{before:?}");
    consumer.close(SECOND).await.unwrap();
    assert!(consumer.status().ended && consumer.status().partitions.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_does_not_answer_is_waited_for() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Fetch).hang().forever());
    let consumer = reading(&cluster, "t", 1).await;
    tokio::time::sleep(20 * SECOND).await;
    let status = status(&consumer, 0);
    assert_eq!((status.waiting.name(), status.broker), ("fetching", cluster.leader("t", 0).unwrap()));
    assert!((18..=20).contains(&status.waiting_for.as_secs()), "{status:?}");
    assert_eq!((status.position, consumer.metrics().fetches_in_flight), (Some(0), 1));
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_has_no_leader_and_how_long_it_waits_is_said() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 7), 0)]).unwrap();
    tokio::time::sleep(45 * SECOND).await;
    let status = status(&consumer, 7);
    assert_eq!(status.waiting.name(), "no_leader");
    assert!((40..=45).contains(&status.waiting_for.as_secs()), "{status:?}");
    assert!(!status.waiting.is_for_user());
}

#[tokio::test(start_paused = true)]
async fn what_only_the_user_can_mend_is_told_apart() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..2);
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::None).build().await.unwrap();
    consumer.assign([(tp("t", 0), 77)]).unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.place(), Some(("t", 0, 77)));
    let no_offset = status(&consumer, 0).waiting;
    assert_eq!((no_offset.name(), no_offset.is_for_user()), ("no_offset", true));
    cluster.fault(on(ApiKey::Fetch).partition("t", 0).times(1).error(ErrorCode::CORRUPT_MESSAGE));
    consumer.seek(&tp("t", 0), 0).unwrap();
    next_error(&consumer, 60).await;
    assert_eq!(waits(&consumer), "corrupt");
    consumer.seek(&tp("t", 0), 0).unwrap();
    assert_eq!(numbers(&consumer, 2).await, [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn throttling_and_unreachable_brokers_are_named() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 1).await;
    let throttle = cluster.fault(on(ApiKey::Fetch).throttle(20 * SECOND).times(1));
    tokio::time::sleep(SECOND).await;
    assert_eq!(throttle.hits(), 1);
    assert_eq!(numbers(&consumer, 1).await, [0]);
    // Whoever has read all waits for records first of all, which the broker's silence holds back.
    assert_eq!(waits(&consumer), "throttled");
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(waits(&consumer), "records");
    cluster.fault(on(ApiKey::Fetch).drop_connection().forever());
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(130)).await;
        seen.insert(waits(&consumer));
    }
    assert!(seen.contains("backing_off"), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn the_group_says_where_it_stands() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let builder = builder(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    let consumer = builder.max_poll_interval(20 * SECOND).session_timeout(10 * SECOND).build().await.unwrap();
    let state = || consumer.status().group.expect("a group").state;
    assert!(matches!(state(), GroupState::Unsubscribed));
    let joining = cluster.fault(on(ApiKey::JoinGroup).hang().times(1));
    consumer.subscribe(["t"]).unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(joining.hits() == 1 && matches!(state(), GroupState::Rebalancing));
    assert_eq!(numbers(&consumer, 1).await, [0]);
    assert!(matches!(state(), GroupState::Stable { generation: 1.., .. }), "{:?}", state());
    tokio::time::sleep(5 * SECOND).await;
    let group = consumer.status().group.unwrap();
    assert!(&*group.group_id == "g" && group.for_how_long >= 5 * SECOND, "{group:?}");
    tokio::time::sleep(60 * SECOND).await;
    assert!(matches!(state(), GroupState::WaitingForReader), "{:?}", state());
}
