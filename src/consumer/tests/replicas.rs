//! Tests of reading from followers nearby (KIP-392).

use super::{
    world::{World, head, rules},
    *,
};
use crate::{
    ApiKey, ErrorCode,
    consumer::{OffsetReset, subscription::rules::ConsumerRules},
    testkit::on,
    wire::fetch::FetchPartitionResponse,
};

/// Starts broker 1 in rack `a`, which leads the one partition of `t`, and broker 2 in rack `b`,
/// which follows.
async fn racks(rack_aware: bool) -> Cluster {
    let options = Options::new().brokers(2).racks(["a", "b"]).rack_aware(rack_aware).in_memory();
    let cluster = Cluster::start(options).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    assert_eq!(cluster.leader("t", 0).unwrap(), Some(1));
    cluster
}

/// Creates a consumer in rack `b` without a reset policy, so that a reset would be an error.
async fn near(cluster: &Cluster) -> Consumer {
    let builder = builder(cluster).client_rack("b").auto_offset_reset(OffsetReset::None);
    let consumer = builder.property("metadata.max.age.ms", "30000").build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    consumer
}

/// Returns the broker of each fetch that named partitions, oldest first.
fn fetches(cluster: &Cluster) -> Vec<i32> {
    let journal = cluster.journal();
    // A request that closes a session names no partitions.
    let asks = |request: &&crate::testkit::Request| request.key == ApiKey::Fetch && !request.partitions.is_empty();
    journal.iter().filter(asks).map(|request| request.broker).collect()
}

/// Returns the brokers of these fetches, without the first `before`.
fn fetches_since(cluster: &Cluster, before: usize) -> Vec<i32> {
    fetches(cluster).split_off(before)
}

#[tokio::test(start_paused = true)]
async fn reads_from_follower_in_same_rack() {
    let cluster = racks(true).await;
    append(&cluster, "t", 0, 0..5);
    let consumer = near(&cluster).await;
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
    let before = fetches(&cluster).len();
    for n in 5..20 {
        append(&cluster, "t", 0, n..n + 1);
        assert_eq!(number(&next(&consumer).await), n);
    }
    let later = fetches_since(&cluster, before);
    assert!(later.len() >= 15 && later.iter().all(|broker| *broker == 2), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn reads_from_leader_without_rack_or_support() {
    let cluster = racks(true).await;
    append(&cluster, "t", 0, 0..5);
    let consumer = consumer(&cluster).await;
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
    let options = Options::new().brokers(2).racks(["a", "b"]).rack_aware(true).max_version(ApiKey::Fetch, 10);
    let old = Cluster::start(options.in_memory()).await.unwrap();
    old.create_topic("t", 1).unwrap();
    append(&old, "t", 0, 0..5);
    let consumer = near(&old).await;
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
    for cluster in [cluster, old] {
        assert!(fetches(&cluster).iter().all(|broker| *broker == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn preferred_replica_expires_with_metadata_age() {
    let cluster = racks(true).await;
    append(&cluster, "t", 0, 0..1);
    let consumer = near(&cluster).await;
    assert_eq!(number(&next(&consumer).await), 0);
    let before = fetches(&cluster).len();
    tokio::time::sleep(100 * SECOND).await;
    let asked = fetches_since(&cluster, before).iter().filter(|broker| **broker == 1).count();
    assert!((2..=5).contains(&asked), "the leader was asked {asked} times in 100 s");
    append(&cluster, "t", 0, 1..2);
    assert_eq!(number(&next(&consumer).await), 1);
}

#[tokio::test(start_paused = true)]
async fn returns_to_leader_until_follower_recovers() {
    let cluster = racks(true).await;
    append(&cluster, "t", 0, 0..1);
    let consumer = near(&cluster).await;
    assert_eq!(number(&next(&consumer).await), 0);
    for round in 0..3 {
        cluster.kill(2).await.unwrap();
        append(&cluster, "t", 0, 2 * round + 1..2 * round + 2);
        assert_eq!(number(&next(&consumer).await), 2 * round + 1);
        cluster.restart(2).await.unwrap();
        tokio::time::sleep(90 * SECOND).await;
        let before = fetches(&cluster).len();
        append(&cluster, "t", 0, 2 * round + 2..2 * round + 3);
        assert_eq!(number(&next(&consumer).await), 2 * round + 2);
        assert!(fetches_since(&cluster, before).contains(&2), "it is near again");
    }
}

#[tokio::test(start_paused = true)]
async fn hanging_follower_is_replaced_by_leader() {
    let cluster = racks(true).await;
    append(&cluster, "t", 0, 0..1);
    let consumer = near(&cluster).await;
    assert_eq!(number(&next(&consumer).await), 0);
    // The follower neither answers nor closes; the leader continues to recommend it.
    let frozen = cluster.fault(on(ApiKey::Fetch).broker(2).forever().hang());
    for n in 1..10 {
        append(&cluster, "t", 0, n..n + 1);
        let waited = tokio::time::timeout(120 * SECOND, consumer.recv()).await.unwrap();
        assert_eq!(number(&waited.unwrap().unwrap()), n);
    }
    assert!(frozen.hits() >= 1 && frozen.hits() <= 3, "{}", frozen.hits());
}

#[tokio::test(start_paused = true)]
async fn lagging_follower_neither_resets_nor_duplicates() {
    let cluster = racks(false).await;
    cluster.prefer_replica("t", 0, Some(2)).unwrap();
    for n in 0..10 {
        append(&cluster, "t", 0, n..n + 1);
    }
    cluster.lag_follower("t", 0, 2, Some(5)).unwrap();
    let consumer = near(&cluster).await;
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
    consumer.seek(&tp("t", 0), 8).unwrap();
    // Beyond the follower's end: the leader, which has the records, is read.
    assert_eq!(numbers(&consumer, 2).await, [8, 9]);
    append(&cluster, "t", 0, 10..11);
    assert_eq!(number(&next(&consumer).await), 10);
    let before = fetches(&cluster).len();
    tokio::time::sleep(10 * SECOND).await;
    let asked = fetches_since(&cluster, before).len();
    assert!(asked < 200, "it is not asked over and over: {asked} fetches in 10 s");
    cluster.lag_follower("t", 0, 2, None).unwrap();
    append(&cluster, "t", 0, 11..30);
    assert_eq!(numbers(&consumer, 19).await, (11..30).collect::<Vec<_>>());
    assert!(is_quiet(&consumer).await);
}

#[tokio::test(start_paused = true)]
async fn deleted_offsets_are_still_out_of_range() {
    let cluster = racks(true).await;
    append(&cluster, "t", 0, 0..5);
    append(&cluster, "t", 0, 5..10);
    cluster.delete_records("t", 0, 5).unwrap();
    let consumer = near(&cluster).await;
    assert_eq!(next_error(&consumer, 60).await.kind(), crate::ErrorKind::NoOffset);
    consumer.seek(&tp("t", 0), 5).unwrap();
    assert_eq!(numbers(&consumer, 5).await, [5, 6, 7, 8, 9]);
}

#[tokio::test(start_paused = true)]
async fn ignores_unknown_preferred_replica() {
    let cluster = racks(false).await;
    cluster.prefer_replica("t", 0, Some(77)).unwrap();
    append(&cluster, "t", 0, 0..5);
    let consumer = near(&cluster).await;
    assert_eq!(numbers(&consumer, 5).await, [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn follower_reads_continue_across_elections() {
    let cluster = racks(true).await;
    append(&cluster, "t", 0, 0..1);
    let consumer = near(&cluster).await;
    assert_eq!(number(&next(&consumer).await), 0);
    for n in 1..9 {
        cluster.move_leader("t", 0, 1 + (n % 2) as i32).unwrap();
        append(&cluster, "t", 0, n..n + 1);
        assert_eq!(number(&next(&consumer).await), n);
    }
    assert!(is_quiet(&consumer).await);
}

fn preferred(node: i32) -> FetchPartitionResponse {
    FetchPartitionResponse { preferred_read_replica: node, ..head(1, ErrorCode::NONE) }
}

#[test]
fn ignores_late_error_from_former_replica() {
    let mut world = World::new(ConsumerRules { reset: OffsetReset::None, ..rules() });
    world.send(1).unwrap();
    world.answer_head(1, preferred(0));
    world.send(0).unwrap();
    // Before it answers, the follower leaves the cluster: the partition goes back to its leader.
    world.leaders[1] = (1, 2);
    world.drop_broker(0);
    world.answer_head(0, head(1, ErrorCode::OFFSET_OUT_OF_RANGE));
    assert!(World::asked(&world.send(1).unwrap()).contains(&(1, 0)), "the position stayed");
    world.answer(1, 1);
    assert_eq!(world.take(), Some((tp("t", 1), 0)));
}

#[test]
fn leader_and_follower_responses_deliver_records_once() {
    let mut world = World::new(rules());
    world.send(1).unwrap();
    world.answer_head(1, preferred(0));
    world.send(0).unwrap();
    world.now += 301 * SECOND;
    world.tell();
    // The leader is asked again while the follower's response is still in flight.
    assert_eq!(World::asked(&world.send(1).unwrap()), [], "its session still has it at 0");
    world.answer(0, 3);
    world.answer(1, 3);
    let taken: Vec<i64> =
        std::iter::from_fn(|| world.take()).filter(|(p, _)| p.partition == 1).map(|(_, o)| o).collect();
    assert_eq!(taken, (0..12).collect::<Vec<_>>());
}

#[test]
fn failed_preferred_replica_is_retried_with_backoff() {
    let mut world = World::new(ConsumerRules { rack: Some("b".to_owned()), ..rules() });
    world.leaders = vec![(1, 2); 3];
    world.tell();
    let (mut to_leader, mut to_follower) = (0, 0);
    let start = world.now;
    while world.now < start + 10 * SECOND {
        if world.send(1).is_some() {
            to_leader += 1;
            world.answer_head(1, preferred(0));
        }
        if world.send(0).is_some() {
            to_follower += 1;
            world.answer_head(0, head(1, ErrorCode::OFFSET_OUT_OF_RANGE));
        }
        world.now += SECOND / 100;
    }
    assert!((2..20).contains(&to_follower), "{to_follower} fetches from the follower in 10 s");
    assert!(to_leader > to_follower, "{to_leader} fetches from the leader, which has other partitions");
}
