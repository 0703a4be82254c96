use std::sync::Arc;

use super::*;
use crate::{
    ApiKey, ErrorCode,
    consumer::{GroupState, OffsetReset, PartitionStatus, WaitReason},
    testkit::on,
};

fn status(consumer: &Consumer, partition: i32) -> PartitionStatus {
    consumer.status().partitions.remove(&tp("t", partition)).expect("an assigned partition")
}

fn waits(consumer: &Consumer) -> &'static str {
    status(consumer, 0).waiting.name()
}

#[tokio::test(start_paused = true)]
async fn status_names_reason_for_every_wait() {
    let cluster = cluster(1).await;
    let consumer = Arc::new(reading(&cluster, "t", 10).await);
    let partition = tp("t", 0);
    tokio::time::sleep(SECOND).await;
    assert_eq!(waits(&consumer), "reader");
    assert_eq!(status(&consumer, 0).next_attempt_in, None, "it is up to the user");
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
        let status = status(&consumer, 0);
        match status.waiting {
            WaitReason::BackingOff(error) => {
                let left = status.next_attempt_in.expect("a back-off ends");
                assert!(left > Duration::ZERO && left <= 2 * SECOND, "{left:?}");
                assert_eq!(error.code(), Some(ErrorCode::KAFKA_STORAGE_ERROR));
                backing_off += 1;
            }
            WaitReason::Fetching => {}
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
async fn hanging_broker_status_shows_request_timeout() {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Fetch).hang().forever());
    let consumer = reading(&cluster, "t", 1).await;
    tokio::time::sleep(20 * SECOND).await;
    let status = status(&consumer, 0);
    assert_eq!((status.waiting.name(), status.broker), ("fetching", cluster.leader("t", 0).unwrap()));
    // request.timeout.ms, and the time for which the broker may wait for records.
    assert!((9..=11).contains(&status.next_attempt_in.unwrap().as_secs()), "{status:?}");
    assert!((18..=20).contains(&status.waiting_for.as_secs()), "{status:?}");
    assert_eq!((status.position, consumer.metrics().fetches_in_flight), (Some(0), 1));
}

#[tokio::test(start_paused = true)]
async fn missing_partition_status_is_no_leader() {
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
async fn status_marks_waits_that_need_user_action() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..2);
    let consumer = builder(&cluster).auto_offset_reset(OffsetReset::None).build().await.unwrap();
    consumer.assign([(tp("t", 0), 77)]).unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.location().map(|at| (&*at.topic, at.partition, at.offset)), Some(("t", 0, 77)));
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
async fn status_names_throttling_and_backoff() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 1).await;
    let throttle = cluster.fault(on(ApiKey::Fetch).throttle(20 * SECOND).times(1));
    tokio::time::sleep(SECOND).await;
    assert_eq!(throttle.hits(), 1);
    assert_eq!(numbers(&consumer, 1).await, [0]);
    // A consumer that has read everything waits for records in the first place, which the
    // throttling delays.
    assert_eq!(waits(&consumer), "throttled");
    assert!((15..=20).contains(&status(&consumer, 0).next_attempt_in.unwrap().as_secs()));
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
async fn group_status_follows_membership_state() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, "t", 0, 0..3);
    let builder = group_builder(&cluster, GroupProtocol::Classic);
    let consumer = builder.max_poll_interval(20 * SECOND).session_timeout(10 * SECOND).build().await.unwrap();
    let state = || consumer.status().group.expect("a group").state;
    assert!(matches!(state(), GroupState::Unsubscribed));
    let joining = cluster.fault(on(ApiKey::JoinGroup).hang().times(1));
    consumer.subscribe(["t"]).unwrap();
    tokio::time::sleep(SECOND).await;
    assert!(joining.hits() == 1 && matches!(state(), GroupState::Joining));
    assert_eq!(numbers(&consumer, 1).await, [0]);
    assert!(matches!(state(), GroupState::Stable { generation: 1.., .. }), "{:?}", state());
    tokio::time::sleep(5 * SECOND).await;
    let group = consumer.status().group.unwrap();
    assert!(&*group.group_id == "g" && group.for_how_long >= 5 * SECOND, "{group:?}");
    tokio::time::sleep(60 * SECOND).await;
    assert!(matches!(state(), GroupState::WaitingForReader), "{:?}", state());
    cluster.fault(on(ApiKey::JoinGroup).delay(3 * SECOND).times(1));
    assert!(consumer.poll(SECOND).await.is_err(), "why it is out");
    assert!(consumer.poll(SECOND).await.unwrap().is_empty());
    assert!(matches!(state(), GroupState::Joining), "it joins again: {:?}", state());
    drop(consumer.poll(30 * SECOND).await.unwrap());
    assert!(matches!(state(), GroupState::Stable { .. }), "{:?}", state());
}

#[tokio::test(start_paused = true)]
async fn counts_rebalances_and_their_latency() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    append(&cluster, "t", 0, 0..3);
    append(&cluster, "t", 1, 0..3);
    let member = async || {
        let builder = group_builder(&cluster, GroupProtocol::Classic);
        subscribed(builder, &["t"]).await
    };
    let first = member().await;
    assert_eq!(numbers(&first, 1).await, [0]);
    let metrics = first.metrics();
    assert_eq!((metrics.rebalances, metrics.partitions_assigned), (1, 2));
    assert_eq!((metrics.revocations, metrics.losses, metrics.rebalance_latency_micros.count()), (0, 0, 1));
    tokio::time::sleep(7 * SECOND).await;
    assert!(first.metrics().last_rebalance_age.unwrap() >= 7 * SECOND);
    // A record that is being processed delays the rebalance.
    let second = member().await;
    tokio::time::sleep(10 * SECOND).await;
    let [one, other] = [&first, &second].map(|consumer| consumer.status().group.unwrap().state);
    assert!(matches!(other, GroupState::Joining), "{other:?}");
    assert!(matches!(one, GroupState::Rebalancing | GroupState::Stable { .. }), "{one:?}");
    let waits: Vec<_> = first.status().partitions.into_values().map(|status| status.waiting).collect();
    let revoking = waits.iter().find(|waiting| waiting.name() == "revoking").expect("what is in hand keeps it");
    assert!(revoking.is_for_user(), "{waits:?}");
    let (mut seen, mut rest) = (1, 60);
    while seen < 6 && rest > 0 {
        seen += first.poll(SECOND).await.unwrap().iter().count() + second.poll(SECOND).await.unwrap().iter().count();
        rest -= 1;
    }
    let [one, other] = [&first, &second].map(|consumer| consumer.metrics());
    assert!(one.rebalances >= 2 && one.revocations >= 1 && one.partitions_revoked >= 1, "{one:?}");
    assert_eq!((one.losses, other.rebalances >= 1, other.partitions_assigned), (0, true, 1));
    assert!(one.rebalance_latency_micros.max() >= 5_000_000, "from when the group asked, which a heartbeat told");
    for consumer in [first, second] {
        assert!(matches!(consumer.status().group.unwrap().state, GroupState::Stable { .. }));
        consumer.unsubscribe().unwrap();
        tokio::time::sleep(SECOND).await;
        assert!(matches!(consumer.status().group.unwrap().state, GroupState::Unsubscribed));
    }
}

#[tokio::test(start_paused = true)]
async fn measures_interval_between_polls() {
    let cluster = cluster(1).await;
    let consumer = reading(&cluster, "t", 1).await;
    assert_eq!(consumer.metrics().last_poll_age, None);
    assert_eq!(consumer.poll(SECOND).await.unwrap().iter().count(), 1);
    for _ in 0..3 {
        tokio::time::sleep(2 * SECOND).await;
        assert!(consumer.poll(SECOND).await.unwrap().is_empty());
    }
    tokio::time::sleep(5 * SECOND).await;
    let metrics = consumer.metrics();
    assert_eq!(metrics.poll_interval_micros.count(), 3);
    assert!(metrics.poll_interval_micros.max() >= 3_000_000, "the wait of the poll before it is part of it");
    assert_eq!(metrics.last_poll_age, Some(6 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn status_names_wait_for_memory() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    for _ in 0..100 {
        cluster.append("t", 0, &[Record::to("t").with_value(vec![7; 10_000])]).unwrap();
    }
    let builder = builder(&cluster).queued_max_bytes(120_000).max_partition_fetch_bytes(100_000);
    let consumer = builder.build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(consumer.metrics().fetches_in_flight, 0, "there is room for none");
    assert_eq!(waits(&consumer), "reader");
    let waiting = status(&consumer, 1).waiting;
    assert_eq!((waiting.name(), waiting.is_for_user()), ("memory", false));
    append(&cluster, "t", 1, 0..1);
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(status(&consumer, 1).waiting.name(), "memory");
    let mut seen = 0;
    while seen < 101 {
        seen += consumer.poll(60 * SECOND).await.unwrap().iter().count();
    }
    tokio::time::sleep(SECOND).await;
    assert_eq!([0, 1].map(|partition| status(&consumer, partition).waiting.name()), ["records"; 2]);
}

#[test]
fn status_names_wait_for_decompression() {
    use super::world::{World, head, rules};
    use crate::{
        Compression,
        consumer::{
            IsolationLevel,
            fetch::{batch_scan::scan_batches, scanned::ScannedPartition},
            subscription::rules::ConsumerRules,
            test_batches::{Sort, built, noise},
        },
    };
    // The decompression never gets a turn.
    let mut world =
        World::new(ConsumerRules { partition_bytes: 1 << 20, queued_bytes: 1 << 30, max_decompressions: 0, ..rules() });
    world.send(1).unwrap();
    let reservation = world.waiting.remove(&1).unwrap();
    let large = built(0, 2, Sort::Plain, Compression::Gzip(1), &noise(60_000));
    let walk = scan_batches(large, IsolationLevel::ReadUncommitted, &[]);
    world.respond(1, vec![ScannedPartition { head: head(1, ErrorCode::NONE), scan: walk }], reservation);
    let reason = |world: &World| {
        let status = world.buffer.with_state(|state| state.status(world.now));
        let (_, state) = status.into_iter().find(|(partition, _)| *partition == tp("t", 1)).unwrap();
        state.waiting.name()
    };
    assert_eq!(reason(&world), "reader");
    assert_eq!(world.take(), None);
    assert_eq!(reason(&world), "decompressing");
    world.buffer.with_state_and_readers(|state| {
        state.partitions.get_mut(&tp("t", 1)).unwrap().of_group = true;
        let ownerships = state.partitions.ownerships(&[tp("t", 1)]);
        state.revoke(&ownerships);
    });
    assert_eq!(reason(&world), "revoking");
}
