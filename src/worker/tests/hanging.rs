//! Scenarios of handlers that take long or hang.

use super::*;
use crate::consumer::GroupState;

for_each_group_protocol!(
    hanging_handler_causes_rejoin_after_poll_interval,
    constantly_busy_worker_stays_group_member,
    waiting_for_retry_keeps_group_membership,
    hanging_partition_moves_after_drain_timeout,
);

fn stable(worker: &Worker) -> bool {
    matches!(worker.status().consumer.group.unwrap().state, GroupState::Stable { .. })
}

/// A member of the classic protocol comes back under another id: a handler that blocks for ten
/// minutes does not lose its membership before
/// `max.poll.interval.ms`, and loses it then.
#[tokio::test(start_paused = true)]
async fn hanging_handler_loses_membership_after_poll_interval() {
    let cluster = filled(2, 5).await;
    let seen = Seen::default();
    let worker = seen.started_with(worker(&cluster).await, |record| {
        let hangs = (record.partition, record.offset) == (0, 2);
        if hangs { 600 * SECOND } else { Duration::from_millis(10) }
    });
    seen.reaches(7).await;
    let began = Instant::now();
    let member_id = |cluster: &Cluster| cluster.group("g").unwrap().members[0].member_id.clone();
    let first = member_id(&cluster);
    for minute in 1..5 {
        sleep(60 * SECOND).await;
        let job = &worker.status().running[0];
        assert_eq!((&job.partition, job.offset, job.attempt), (&TopicPartition::new("t", 0), 2, 1));
        assert!(job.for_how_long >= minute * 59 * SECOND, "{:?}", job.for_how_long);
        assert!(stable(&worker));
        assert_eq!(member_id(&cluster), first);
        // The other partition continues meanwhile.
        append(&cluster, 1, 4 + i64::from(minute)..5 + i64::from(minute));
        seen.reaches(7 + minute as usize).await;
    }
    // The handler was ended, so the member works again and joins at once, as another member; the
    // record is delivered again.
    until("it was put out", || {
        cluster.group("g").is_some_and(|group| group.members.iter().all(|of| of.member_id != first))
    })
    .await;
    let out = began.elapsed().as_secs();
    assert!((299..=301).contains(&out), "{out}");
    until("it is back", || stable(&worker)).await;
    assert_ne!(member_id(&cluster), first);
    until("the record is with the handler again", || !worker.status().running.is_empty()).await;
    assert_eq!((seen.now.load(SeqCst), worker.status().running[0].offset), (1, 2));
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (numbers(0..2), Some(2)));
    assert_eq!(cluster.committed("g", "t", 1), Some(9), "what was done of the other one stays done");
    worker.close(10 * SECOND).await.unwrap();
}

async fn hanging_handler_causes_rejoin_after_poll_interval(protocol: GroupProtocol) {
    let cluster = filled(2, 5).await;
    let seen = Seen::default();
    let worker = seen.started_with(worker_by(&cluster, protocol).await, |record| {
        let hangs = (record.partition, record.offset) == (0, 2);
        if hangs { 600 * SECOND } else { Duration::from_millis(10) }
    });
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
    assert_eq!(cluster.group("g").unwrap().members.len(), 1);
    worker.close(10 * SECOND).await.unwrap();
}

/// Many handlers that each take long, one after the other, do not count as a member that hangs.
async fn constantly_busy_worker_stays_group_member(protocol: GroupProtocol) {
    let cluster = filled(3, 6).await;
    let seen = Seen::default();
    let consumer = subscribed(member_by(&cluster, protocol).max_poll_interval(60 * SECOND)).await;
    let worker = seen.started(consumer.worker(), 55 * SECOND);
    until("it is a member", || stable(&worker)).await;
    while seen.count() < 18 {
        assert!(stable(&worker));
        sleep(SECOND).await;
    }
    close(&worker).await;
    assert!((0..3).all(|partition| seen.of(partition) == numbers(0..6)));
}

async fn waiting_for_retry_keeps_group_membership(protocol: GroupProtocol) {
    let cluster = filled(1, 1).await;
    let consumer = subscribed(member_by(&cluster, protocol).max_poll_interval(60 * SECOND)).await;
    let builder = consumer.worker().retries(u32::MAX).retry_backoff(SECOND, 100 * SECOND);
    let worker = builder.start(|_| async { Err::<(), _>("not yet") }).unwrap();
    until("it is a member", || stable(&worker)).await;
    for _ in 0..600 {
        sleep(SECOND).await;
        assert!(stable(&worker));
    }
    assert!(worker.metrics().retries > 5);
    worker.close(10 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(0));
}

/// A member that hangs delays the group no longer than `max.poll.interval.ms`: then the other one
/// gets its partitions.
async fn hanging_partition_moves_after_drain_timeout(protocol: GroupProtocol) {
    let cluster = filled(2, 5).await;
    let (first, second) = (Seen::default(), Seen::default());
    let builder = worker_by(&cluster, protocol).await.drain_timeout(20 * SECOND);
    let hanging = first.started_with(builder, |record| {
        let hangs = record.offset == 2;
        if hangs { 3600 * SECOND } else { Duration::from_millis(10) }
    });
    first.reaches(4).await;
    let began = Instant::now();
    let helping = second.started(worker_by(&cluster, protocol).await, Duration::from_millis(10));
    second.reaches(3).await;
    assert!(began.elapsed() < 40 * SECOND, "{:?}", began.elapsed());
    let partition = if second.of(0).is_empty() { 1 } else { 0 };
    assert_eq!(second.of(partition), numbers(2..5), "what was done was committed, the rest is handled there");
    hanging.close(10 * SECOND).await.unwrap();
    second.reaches(6).await;
    close(&helping).await;
    assert_eq!((second.of(0), second.of(1)), (numbers(2..5), numbers(2..5)));
}
