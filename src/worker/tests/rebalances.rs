//! Scenarios of workers whose partitions move.

use super::*;
use crate::{
    ErrorCode,
    testkit::{on, on_any_of},
    tests::heartbeat,
    worker::OrderBy,
};

for_each_group_protocol!(
    rebalances_handle_each_record_once_by_partition,
    rebalances_handle_each_record_once_by_key,
    revoked_partitions_drain_without_repeating_records,
    partition_loss_cancels_running_handlers,
    pending_retry_moves_with_its_partition,
    coordinator_change_and_loss_lose_no_records,
    close_is_bounded_during_rebalance_without_coordinator,
);

async fn slow(cluster: &Cluster, protocol: GroupProtocol, seen: &Seen, order: OrderBy, time: Duration) -> Worker {
    seen.started(worker_by(cluster, protocol).await.order_by(order), time)
}

/// Lets members come and go while records are written; with clean closes every record is handled
/// exactly once, in order.
async fn come_and_go(protocol: GroupProtocol, order: OrderBy) {
    let cluster = Arc::new(cluster(2).await);
    cluster.create_topic("t", 6).unwrap();
    let seen = Seen::default();
    let writer = cluster.clone();
    // In bursts, so that many records wait when partitions are revoked.
    let writing = tokio::spawn(async move {
        for n in 0..5 {
            for partition in 0..6 {
                append(&writer, partition, n * 30..n * 30 + 30);
            }
            sleep(6 * SECOND).await;
        }
    });
    let time = Duration::from_millis(70);
    let mut members = vec![slow(&cluster, protocol, &seen, order, time).await];
    for round in 0..6 {
        sleep(4 * SECOND).await;
        if round % 3 == 2 {
            close(&members.remove(0)).await;
        } else {
            members.push(slow(&cluster, protocol, &seen, order, time).await);
        }
    }
    writing.await.unwrap();
    seen.reaches(900).await;
    sleep(5 * SECOND).await;
    for member in &members {
        close(member).await;
    }
    for partition in 0..6 {
        let mut done = seen.of(partition);
        if order == OrderBy::Key {
            for key in 0..5 {
                let of_key: Vec<_> = done.iter().copied().filter(|offset| offset % 5 == key).collect();
                assert!(of_key.is_sorted(), "key {key} of partition {partition}: {of_key:?}");
            }
            done.sort_unstable();
        }
        assert_eq!(done, numbers(0..150), "partition {partition}");
        assert_eq!(cluster.committed("g", "t", partition), Some(150));
    }
}

async fn rebalances_handle_each_record_once_by_partition(protocol: GroupProtocol) {
    come_and_go(protocol, OrderBy::Partition).await;
}

async fn rebalances_handle_each_record_once_by_key(protocol: GroupProtocol) {
    come_and_go(protocol, OrderBy::Key).await;
}

async fn revoked_partitions_drain_without_repeating_records(protocol: GroupProtocol) {
    let cluster = filled(4, 20).await;
    let (one, other) = (Seen::default(), Seen::default());
    let first = slow(&cluster, protocol, &one, OrderBy::Partition, 8 * SECOND).await;
    until("all are at work", || one.now.load(SeqCst) == 4).await;
    let second = slow(&cluster, protocol, &other, OrderBy::Partition, SECOND).await;
    until("it drains", || first.status().partitions.values().any(|partition| partition.draining)).await;
    let draining = first.status().partitions.values().filter(|partition| partition.draining).count();
    // An eager member of the classic protocol gives up everything.
    assert_eq!(draining, if protocol == GroupProtocol::Classic { 4 } else { 2 });
    until("all is done", || one.count() + other.count() == 80).await;
    assert!(!other.done.lock().unwrap().is_empty());
    assert_eq!((first.metrics().records_abandoned, second.metrics().records_abandoned), (0, 0));
    close(&first).await;
    close(&second).await;
    for partition in 0..4 {
        let done = [one.of(partition), other.of(partition)].concat();
        assert_eq!(done, numbers(0..20), "partition {partition}");
        assert_eq!(cluster.committed("g", "t", partition), Some(20));
    }
    assert!(cluster.group("g").is_none_or(|group| group.members.is_empty()), "they have left");
}

async fn partition_loss_cancels_running_handlers(protocol: GroupProtocol) {
    let fenced = match protocol {
        GroupProtocol::Classic => ErrorCode::ILLEGAL_GENERATION,
        GroupProtocol::Consumer => ErrorCode::FENCED_MEMBER_EPOCH,
    };
    for code in [ErrorCode::UNKNOWN_MEMBER_ID, fenced] {
        let cluster = filled(1, 5).await;
        let seen = Seen::default();
        let worker = slow(&cluster, protocol, &seen, OrderBy::Partition, 100 * SECOND).await;
        until("it is at work", || seen.now.load(SeqCst) == 1).await;
        let began = Instant::now();
        cluster.fault(on(heartbeat(protocol)).error(code)).reached(1).await;
        until("the handler was ended", || worker.metrics().records_abandoned == 1).await;
        assert!(began.elapsed() < 10 * SECOND);
        // It joins again, and begins with the same record.
        seen.reaches(1).await;
        assert_eq!(seen.of(0), [0]);
        close(&worker).await;
    }
}

async fn pending_retry_moves_with_its_partition(protocol: GroupProtocol) {
    let cluster = filled(1, 3).await;
    let builder = worker_by(&cluster, protocol).await.retry_backoff(3600 * SECOND, 3600 * SECOND);
    let first = builder.start(|_| async { Err::<(), _>("no") }).unwrap();
    until("it waits to try again", || first.metrics().retries_waiting == 1).await;
    let began = Instant::now();
    let seen = Seen::default();
    let second = slow(&cluster, protocol, &seen, OrderBy::Partition, Duration::from_millis(10)).await;
    sleep(15 * SECOND).await;
    close(&first).await;
    seen.reaches(3).await;
    assert!(began.elapsed() < 60 * SECOND);
    assert_eq!(seen.of(0), numbers(0..3));
    close(&second).await;
}

async fn coordinator_change_and_loss_lose_no_records(protocol: GroupProtocol) {
    let cluster = cluster(3).await;
    cluster.create_topic("t", 3).unwrap();
    for partition in 0..3 {
        append(&cluster, partition, 0..60);
    }
    let seen = Seen::default();
    let worker = slow(&cluster, protocol, &seen, OrderBy::Partition, SECOND).await;
    seen.reaches(10).await;
    let coordinator = cluster.coordinator("g").unwrap();
    cluster.move_coordinator("g", coordinator % 3 + 1).unwrap();
    seen.reaches(40).await;
    cluster.kill(cluster.coordinator("g").unwrap()).await.unwrap();
    seen.reaches(180).await;
    sleep(5 * SECOND).await;
    close(&worker).await;
    for partition in 0..3 {
        let mut done = seen.of(partition);
        done.dedup();
        assert_eq!(cluster.committed("g", "t", partition), Some(60));
        let mut all = done.clone();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all, numbers(0..60), "none is lost");
    }
}

async fn close_is_bounded_during_rebalance_without_coordinator(protocol: GroupProtocol) {
    for dies in [true, false] {
        let cluster = filled(2, 5).await;
        let seen = Seen::default();
        let first = slow(&cluster, protocol, &seen, OrderBy::Partition, 25 * SECOND).await;
        until("both are at work", || seen.now.load(SeqCst) == 2).await;
        let second = slow(&cluster, protocol, &seen, OrderBy::Partition, SECOND).await;
        until("it drains", || first.status().partitions.values().any(|partition| partition.draining)).await;
        if dies {
            cluster.kill(1).await.unwrap();
        } else {
            cluster.fault(on_any_of([]).forever().hang());
        }
        for worker in [first, second] {
            let began = Instant::now();
            assert!(worker.close(10 * SECOND).await.is_err(), "it could not be said");
            assert!(began.elapsed() <= 10 * SECOND, "{:?}", began.elapsed());
        }
        assert_eq!(seen.now.load(SeqCst), 0);
    }
}

/// All partitions are given up, so that what was committed can be compared with what was done.
#[tokio::test(start_paused = true)]
async fn revocation_waits_only_for_running_handlers() {
    let cluster = filled(2, 20).await;
    let seen = Seen::default();
    let first = slow(&cluster, GroupProtocol::Classic, &seen, OrderBy::Partition, 8 * SECOND).await;
    until("both are at work", || seen.now.load(SeqCst) == 2).await;
    let second = slow(&cluster, GroupProtocol::Classic, &Seen::default(), OrderBy::Partition, 8 * SECOND).await;
    until("it drains", || first.status().partitions.values().any(|partition| partition.draining)).await;
    let at_work = first.metrics().records_in_flight;
    assert!(at_work >= 1);
    until("it is drained", || first.status().partitions.values().all(|partition| !partition.draining)).await;
    assert_eq!(first.metrics().records_abandoned, 0);
    let done = seen.count();
    let committed: i64 = (0..2).map(|partition| cluster.committed("g", "t", partition).unwrap_or(0)).sum();
    assert_eq!(committed, done as i64, "all that was done, and nothing else");
    close(&first).await;
    close(&second).await;
}
