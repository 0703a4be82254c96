//! Tests of the beginning and end of fetch sessions at brokers (KIP-227), and of the tasks that own
//! them.

use super::*;
use crate::{ApiKey, ErrorCode, testkit::on};

/// Returns the number of sessions of each broker.
fn sessions(cluster: &Cluster) -> Vec<usize> {
    cluster.brokers().into_iter().map(|broker| cluster.fetch_sessions(broker)).collect()
}

/// Creates a consumer that has read a record from each of three partitions, which three brokers
/// lead.
async fn of_three(cluster: &Cluster) -> Consumer {
    cluster.create_topic("t", 3).unwrap();
    for partition in 0..3 {
        append(cluster, "t", partition, 0..1);
    }
    let consumer = consumer(cluster).await;
    consumer.assign((0..3).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    assert_eq!(numbers(&consumer, 3).await, [0, 0, 0]);
    consumer
}

#[tokio::test(start_paused = true)]
async fn close_ends_sessions_on_all_brokers() {
    let cluster = cluster(3).await;
    let consumer = of_three(&cluster).await;
    assert_eq!(sessions(&cluster), [1, 1, 1]);
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(sessions(&cluster), [0, 0, 0]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(sessions(&cluster), [0, 0, 0], "no session begins again");
}

#[tokio::test(start_paused = true)]
async fn close_does_not_wait_for_hanging_broker() {
    let cluster = cluster(3).await;
    let consumer = of_three(&cluster).await;
    let fault = cluster.fault(on(ApiKey::Fetch).broker(2).forever().hang());
    let begun = tokio::time::Instant::now();
    consumer.close(10 * SECOND).await.unwrap();
    assert!(fault.hits() > 0 && begun.elapsed() <= 2 * SECOND, "{} after {:?}", fault.hits(), begun.elapsed());
    assert_eq!(sessions(&cluster)[0], 0);
    assert_eq!(sessions(&cluster)[2], 0);
    // With a timeout of zero no request is sent.
    let consumer = reading(&cluster, "other", 3).await;
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    let begun = tokio::time::Instant::now();
    consumer.close(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn unused_broker_keeps_no_session() {
    let cluster = cluster(3).await;
    let consumer = of_three(&cluster).await;
    let from = cluster.leader("t", 1).unwrap().unwrap();
    let to = from % 3 + 1;
    cluster.move_leader("t", 1, to).unwrap();
    append(&cluster, "t", 1, 1..2);
    assert_eq!(numbers(&consumer, 1).await, [1]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(cluster.fetch_sessions(from), 0);
    // Back again, and away: each time a session begins, and ends.
    for (leader, other, n) in [(from, to, 2), (to, from, 3), (from, to, 4)] {
        cluster.move_leader("t", 1, leader).unwrap();
        append(&cluster, "t", 1, n..n + 1);
        assert_eq!(numbers(&consumer, 1).await, [n]);
        tokio::time::sleep(SECOND).await;
        assert_eq!((cluster.fetch_sessions(leader), cluster.fetch_sessions(other) <= 1), (1, true));
    }
    consumer.unsubscribe().unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(sessions(&cluster), [0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn reads_on_while_session_close_hangs() {
    let cluster = cluster(3).await;
    let consumer = of_three(&cluster).await;
    let from = cluster.leader("t", 1).unwrap().unwrap();
    let fetched: Vec<u64> = cluster
        .journal()
        .iter()
        .filter(|request| request.key == ApiKey::Fetch && !request.partitions.is_empty())
        .map(|request| request.connection)
        .collect();
    let close = move |request: &crate::testkit::Request| !fetched.contains(&request.connection);
    let fault = cluster.fault(on(ApiKey::Fetch).broker(from).when(close).forever().hang());
    consumer.assign([(tp("t", 0), Offset::At(1)), (tp("t", 2), Offset::At(1))]).unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!(fault.hits(), 1);
    // A partition that comes back does not wait for the response.
    consumer.assign((0..3).map(|partition| (tp("t", partition), Offset::At(1)))).unwrap();
    append(&cluster, "t", 1, 1..2);
    let begun = tokio::time::Instant::now();
    assert_eq!(numbers(&consumer, 1).await, [1]);
    assert!(begun.elapsed() < 2 * SECOND, "{:?}", begun.elapsed());
    consumer.close(10 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn failed_fetch_session_is_closed_when_unused() {
    let cluster = cluster(3).await;
    let consumer = of_three(&cluster).await;
    let from = cluster.leader("t", 1).unwrap().unwrap();
    let dies = cluster.fault(on(ApiKey::Fetch).broker(from).times(1).drop_connection());
    tokio::time::sleep(SECOND).await;
    assert_eq!((dies.hits(), cluster.fetch_sessions(from)), (1, 1), "taken anew");
    // From now on only requests that close a session pass.
    let names_any = |request: &crate::testkit::Request| !request.partitions.is_empty();
    let dies = cluster.fault(on(ApiKey::Fetch).broker(from).when(names_any).forever().drop_connection());
    tokio::time::sleep(10 * SECOND).await;
    assert!(dies.hits() > 0 && cluster.fetch_sessions(from) == 1);
    cluster.move_leader("t", 1, from % 3 + 1).unwrap();
    append(&cluster, "t", 1, 1..2);
    assert_eq!(numbers(&consumer, 1).await, [1]);
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(cluster.fetch_sessions(from), 0);
}

#[tokio::test(start_paused = true)]
async fn fetch_task_ends_and_restarts_with_broker() {
    let cluster = cluster(3).await;
    let consumer = of_three(&cluster).await;
    let nodes = |consumer: &Consumer| {
        let nodes = consumer
            .shared
            .buffer
            .with_state(|state| state.connections.ids().map(|connection| connection.broker).collect::<Vec<_>>());
        std::collections::BTreeSet::from_iter(nodes)
    };
    assert_eq!(nodes(&consumer).len(), 3);
    for round in 1..4 {
        let gone = cluster.leader("t", 0).unwrap().unwrap();
        cluster.kill(gone).await.unwrap();
        for partition in 0..3 {
            append(&cluster, "t", partition, round..round + 1);
        }
        assert_eq!(numbers(&consumer, 3).await, [round; 3]);
        tokio::time::sleep(120 * SECOND).await;
        assert!(!nodes(&consumer).contains(&gone), "{gone} is gone: {:?}", nodes(&consumer));
        assert!(!consumer.shared.buffer.with_state(|state| state.stats.brokers.contains_key(&gone.into())));
        cluster.restart(gone).await.unwrap();
        cluster.move_leader("t", 2, gone).unwrap();
        append(&cluster, "t", 2, 100 * round..100 * round + 1);
        assert_eq!(numbers(&consumer, 1).await, [100 * round]);
        assert!(nodes(&consumer).contains(&gone));
    }
}

#[tokio::test(start_paused = true)]
async fn buffered_records_of_dead_broker_are_delivered() {
    let cluster = cluster(2).await;
    let consumer = reading(&cluster, "t", 3).await;
    tokio::time::sleep(SECOND).await;
    let leader = cluster.leader("t", 0).unwrap().unwrap();
    cluster.kill(leader).await.unwrap();
    tokio::time::sleep(300 * SECOND).await;
    let there = |consumer: &Consumer| {
        consumer.shared.buffer.with_state(|state| state.connections.get(&leader.into()).is_some())
    };
    assert!(there(&consumer), "its bytes are still charged");
    assert_eq!(numbers(&consumer, 3).await, [0, 1, 2]);
    assert!(is_quiet(&consumer).await);
    tokio::time::sleep(120 * SECOND).await;
    assert!(!there(&consumer));
}

#[tokio::test(start_paused = true)]
async fn reads_without_session_when_broker_is_full() {
    let cluster = Cluster::start(Options::new().in_memory().fetch_sessions(1)).await.unwrap();
    let first = reading(&cluster, "t", 1).await;
    assert_eq!(numbers(&first, 1).await, [0]);
    let second = consumer(&cluster).await;
    second.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    for n in 1..20 {
        append(&cluster, "t", 0, n..n + 1);
        assert_eq!(numbers(&first, 1).await, [n]);
    }
    assert_eq!(numbers(&second, 20).await, (0..20).collect::<Vec<_>>());
    let refused = |consumer: &Consumer| {
        consumer.metrics().errors.get(&ErrorCode::FETCH_SESSION_ID_NOT_FOUND).copied().unwrap_or(0)
    };
    // Neither session ever replaced the other.
    assert_eq!((cluster.fetch_sessions(1), refused(&first), refused(&second)), (1, 0, 0));
    first.close(10 * SECOND).await.unwrap();
    append(&cluster, "t", 0, 20..21);
    assert_eq!(numbers(&second, 1).await, [20]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(cluster.fetch_sessions(1), 1);
    second.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.fetch_sessions(1), 0, "so it was the second one's");
}

#[tokio::test(start_paused = true)]
async fn evicted_session_is_requested_only_once() {
    let cluster = Cluster::start(Options::new().in_memory().fetch_sessions(1)).await.unwrap();
    let slow = reading(&cluster, "t", 1).await;
    assert_eq!(numbers(&slow, 1).await, [0]);
    // The session is not used for so long that another replaces it.
    slow.pause([&tp("t", 0)]).unwrap();
    tokio::time::sleep(180 * SECOND).await;
    let other = consumer(&cluster).await;
    other.assign([(tp("t", 0), Offset::Beginning)]).unwrap();
    assert_eq!(numbers(&other, 1).await, [0]);
    tokio::time::sleep(SECOND).await;
    slow.resume([&tp("t", 0)]).unwrap();
    for n in 1..30 {
        append(&cluster, "t", 0, n..n + 1);
        assert_eq!((numbers(&slow, 1).await, numbers(&other, 1).await), (vec![n], vec![n]));
    }
    let refused = |consumer: &Consumer| {
        consumer.metrics().errors.get(&ErrorCode::FETCH_SESSION_ID_NOT_FOUND).copied().unwrap_or(0)
    };
    assert_eq!((refused(&slow), refused(&other)), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_is_read_without_topic_ids() {
    // Kafka 2.8 and 3.0 speak version 12 and use topic ids in other requests; version 6 has no
    // sessions.
    for version in [12, 11, 7, 6] {
        let options = Options::new().in_memory().auto_create(false).max_version(ApiKey::Fetch, version);
        let cluster = Cluster::start(options).await.unwrap();
        cluster.create_topic("other", 1).unwrap();
        let consumer = builder(&cluster).property("metadata.max.age.ms", "5000").build().await.unwrap();
        consumer.assign([(tp("t", 0), Offset::Beginning), (tp("other", 0), Offset::Beginning)]).unwrap();
        for round in 0..4 {
            if round > 0 {
                // The new topic is as long as the one before, so that only the topic id
                // distinguishes them.
                cluster.delete_topic("t").unwrap();
            }
            cluster.create_topic("t", 1).unwrap();
            append(&cluster, "t", 0, 100 * round..100 * round + 5);
            let expected: Vec<_> = (100 * round..100 * round + 5).collect();
            assert_eq!(numbers(&consumer, 5).await, expected, "v{version}, round {round}");
            append(&cluster, "other", 0, round..round + 1);
            assert_eq!(numbers(&consumer, 1).await, [round], "v{version}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn recreated_topic_with_more_partitions_is_read() {
    for version in [18, 12] {
        let options = Options::new().brokers(3).in_memory().auto_create(false).max_version(ApiKey::Fetch, version);
        let cluster = Cluster::start(options).await.unwrap();
        cluster.create_topic("t", 3).unwrap();
        let builder = builder(&cluster).group("g").property("metadata.max.age.ms", "5000");
        let consumer = subscribed(builder.auto_offset_reset(crate::consumer::OffsetReset::Earliest), &["t"]).await;
        for (round, partitions) in [(0, 3), (1, 6), (2, 4)] {
            if round > 0 {
                cluster.delete_topic("t").unwrap();
                tokio::time::sleep(SECOND).await;
                cluster.create_topic("t", partitions).unwrap();
            }
            for partition in 0..partitions {
                let first = 1000 * round + 10 * i64::from(partition);
                append(&cluster, "t", partition, first..first + 2);
            }
            let mut seen = numbers(&consumer, 2 * partitions as usize).await;
            seen.sort_unstable();
            let of = |partition: i64| [1000 * round + 10 * partition, 1000 * round + 10 * partition + 1];
            let expected: Vec<_> = (0..i64::from(partitions)).flat_map(of).collect();
            assert_eq!(seen, expected, "v{version}, round {round}");
        }
        assert!(is_quiet(&consumer).await);
    }
}
