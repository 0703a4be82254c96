//! Tests of a worker in a group of the consumer protocol (KIP-848): it behaves as in a classic
//! group, except that only partitions that move are drained.

use super::*;
use crate::{
    ApiKey, ErrorCode,
    consumer::{GroupProtocol, GroupState},
    testkit::on,
};

async fn working(
    cluster: &Cluster,
    seen: &Seen,
    time: impl Fn(&ConsumerRecord) -> Duration + Send + Sync + 'static,
) -> Worker {
    let seen = seen.clone();
    let consumer = subscribed(member(cluster).group_protocol(GroupProtocol::Consumer)).await;
    let worker = consumer.worker().seed(1).start(move |record: ConsumerRecord| {
        let (seen, time) = (seen.clone(), time(&record));
        async move { seen.work(record, time).await }
    });
    worker.unwrap()
}

fn stable(worker: &Worker) -> bool {
    matches!(worker.status().consumer.group.unwrap().state, GroupState::Stable { .. })
}

#[tokio::test(start_paused = true)]
async fn revoked_partitions_drain_without_repeating_records() {
    let cluster = filled(4, 20).await;
    let (one, other) = (Seen::default(), Seen::default());
    let first = working(&cluster, &one, |_| 8 * SECOND).await;
    until("all are at work", || one.now.load(SeqCst) == 4).await;
    let second = working(&cluster, &other, |_| SECOND).await;
    until("it drains", || first.status().partitions.values().any(|partition| partition.draining)).await;
    let draining = first.status().partitions.values().filter(|partition| partition.draining).count();
    assert_eq!(draining, 2, "the others go on");
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
    assert!(cluster.consumer_group("g").is_none_or(|group| group.members.is_empty()), "they have left");
}

#[tokio::test(start_paused = true)]
async fn hanging_handler_causes_rejoin_after_poll_interval() {
    let cluster = filled(2, 5).await;
    let seen = Seen::default();
    let hangs = |record: &ConsumerRecord| (record.partition, record.offset) == (0, 2);
    let time = move |record: &ConsumerRecord| if hangs(record) { 600 * SECOND } else { Duration::from_millis(10) };
    let worker = working(&cluster, &seen, time).await;
    seen.reaches(7).await;
    let began = Instant::now();
    sleep(290 * SECOND).await;
    assert!(stable(&worker));
    assert_eq!(worker.status().running[0].offset, 2);
    until("its handler was ended", || worker.metrics().records_abandoned == 1).await;
    let out = began.elapsed().as_secs();
    assert!((299..=301).contains(&out), "{out}");
    until("it is back", || stable(&worker) && !worker.status().running.is_empty()).await;
    assert_eq!((seen.now.load(SeqCst), worker.status().running[0].offset), (1, 2), "the record comes again");
    assert_eq!((cluster.committed("g", "t", 0), cluster.committed("g", "t", 1)), (Some(2), Some(5)));
    assert_eq!(cluster.consumer_group("g").unwrap().members.len(), 1);
    worker.close(10 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn partition_loss_cancels_running_handlers() {
    for code in [ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::FENCED_MEMBER_EPOCH] {
        let cluster = filled(1, 5).await;
        let seen = Seen::default();
        let worker = working(&cluster, &seen, |_| 100 * SECOND).await;
        until("it is at work", || seen.now.load(SeqCst) == 1).await;
        cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).error(code)).reached(1).await;
        until("the handler was ended", || worker.metrics().records_abandoned == 1).await;
        // It joins again, and begins with the same record.
        seen.reaches(1).await;
        assert_eq!(seen.of(0), [0]);
        close(&worker).await;
    }
}

#[tokio::test(start_paused = true)]
async fn close_is_bounded_during_rebalance_without_coordinator() {
    for dies in [true, false] {
        let cluster = filled(2, 5).await;
        let seen = Seen::default();
        let first = working(&cluster, &seen, |_| 25 * SECOND).await;
        until("both are at work", || seen.now.load(SeqCst) == 2).await;
        let second = working(&cluster, &seen, |_| SECOND).await;
        until("it drains", || first.status().partitions.values().any(|partition| partition.draining)).await;
        if dies {
            cluster.kill(1).await.unwrap();
        } else {
            cluster.fault(crate::testkit::on_any_of([]).forever().hang());
        }
        for worker in [first, second] {
            let began = Instant::now();
            assert!(worker.close(10 * SECOND).await.is_err(), "it could not be said");
            assert!(began.elapsed() <= 10 * SECOND, "{:?}", began.elapsed());
        }
        assert_eq!(seen.now.load(SeqCst), 0);
    }
}
