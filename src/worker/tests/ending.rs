use super::*;
use crate::{
    ApiKey, ErrorKind,
    testkit::on,
    worker::{OrderBy, WorkerState},
};

async fn sleeping(cluster: &Cluster, seen: &Seen, time: Duration) -> Worker {
    seen.started(worker(cluster).await, time)
}

#[tokio::test(start_paused = true)]
async fn close_finishes_running_handlers_and_starts_none() {
    let cluster = filled(2, 20).await;
    let seen = Seen::default();
    let worker = sleeping(&cluster, &seen, 10 * SECOND).await;
    until("both are at work", || seen.now.load(SeqCst) == 2).await;
    sleep(5 * SECOND).await;
    let (closed, ()) = tokio::join!(worker.close(60 * SECOND), async {
        sleep(SECOND).await;
        assert!(matches!(worker.status().state, WorkerState::Closing));
    });
    closed.unwrap();
    assert_eq!((seen.of(0), seen.of(1)), (vec![0], vec![0]));
    for partition in 0..2 {
        assert_eq!(cluster.committed("g", "t", partition), Some(1));
    }
    assert!(cluster.group("g").is_none_or(|group| group.members.is_empty()));
    assert!(matches!(worker.status().state, WorkerState::Ended(None)));
    worker.wait().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn close_cancels_handlers_after_its_timeout() {
    let cluster = filled(2, 5).await;
    let seen = Seen::default();
    let worker = seen.started_with(worker(&cluster).await, |record| {
        let hangs = (record.partition, record.offset) == (0, 3);
        if hangs { 3600 * SECOND } else { Duration::from_millis(10) }
    });
    seen.reaches(8).await;
    let began = Instant::now();
    worker.close(10 * SECOND).await.unwrap();
    assert!(began.elapsed() <= 10 * SECOND, "{:?}", began.elapsed());
    assert_eq!(seen.now.load(SeqCst), 0, "it was dropped");
    assert_eq!((cluster.committed("g", "t", 0), cluster.committed("g", "t", 1)), (Some(3), Some(5)));
    assert_eq!(worker.metrics().records_abandoned, 1);
}

/// The worker ends in any case, with any reaction of the coordinator or none.
#[tokio::test(start_paused = true)]
async fn close_respects_timeout_when_coordinator_fails() {
    for trouble in ["dead", "silent", "rebalancing"] {
        let cluster = cluster(3).await;
        cluster.create_topic("t", 3).unwrap();
        (0..3).for_each(|partition| append(&cluster, partition, 0..5));
        let seen = Seen::default();
        let worker = sleeping(&cluster, &seen, Duration::from_millis(10)).await;
        seen.reaches(15).await;
        let mut other = None;
        match trouble {
            "dead" => {
                for broker in cluster.brokers() {
                    cluster.kill(broker).await.unwrap();
                }
            }
            "silent" => {
                cluster.fault(crate::testkit::on_any_of([]).forever().hang());
            }
            _ => {
                cluster.fault(on(ApiKey::JoinGroup).forever().delay(100 * SECOND));
                other = Some(sleeping(&cluster, &seen, SECOND).await);
                sleep(5 * SECOND).await;
            }
        }
        let began = Instant::now();
        // The close may or may not complete in time, but it returns.
        let _ = worker.close(10 * SECOND).await;
        assert!(began.elapsed() <= 10 * SECOND, "{trouble}: {:?}", began.elapsed());
        drop(other);
    }
}

#[tokio::test(start_paused = true)]
async fn shutdown_signal_ends_run_and_commits() {
    let cluster = filled(1, 20).await;
    let seen = Seen::default();
    let handler = seen.clone();
    let builder = worker(&cluster).await.shutdown(sleep(10 * SECOND));
    let run = builder.run(move |record| {
        let seen = handler.clone();
        async move { seen.work(record, 3 * SECOND).await }
    });
    timeout(60 * SECOND, run).await.expect("it ends").unwrap();
    assert!(seen.count() >= 2);
    assert_eq!(cluster.committed("g", "t", 0), Some(seen.count() as i64));
}

#[tokio::test(start_paused = true)]
async fn dropped_worker_cancels_handlers_without_committing() {
    let cluster = filled(2, 20).await;
    let seen = Seen::default();
    let worker = sleeping(&cluster, &seen, 100 * SECOND).await;
    until("both are at work", || seen.now.load(SeqCst) == 2).await;
    drop(worker);
    sleep(SECOND).await;
    assert_eq!((seen.now.load(SeqCst), seen.count()), (0, 0));
    let consumer = subscribed(member(&cluster)).await;
    let run = consumer.run({
        let seen = seen.clone();
        move |record| {
            let seen = seen.clone();
            async move { seen.work(record, 100 * SECOND).await }
        }
    });
    assert!(timeout(80 * SECOND, run).await.is_err());
    sleep(SECOND).await;
    assert_eq!((seen.now.load(SeqCst), seen.count()), (0, 0), "so does a run that is dropped");
    sleep(60 * SECOND).await;
    assert!(cluster.group("g").is_none_or(|group| group.members.is_empty()), "and the sessions lapse");
}

#[tokio::test(start_paused = true)]
async fn closed_consumer_ends_worker_after_running_handler() {
    let cluster = filled(1, 5).await;
    let consumer = subscribed(member(&cluster)).await;
    let seen = Seen::default();
    let worker = seen.started(consumer.clone().worker(), 4 * SECOND);
    until("it is at work", || seen.now.load(SeqCst) == 1).await;
    consumer.close(20 * SECOND).await.unwrap();
    worker.wait().await.unwrap();
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (vec![0], Some(1)));
}

#[tokio::test(start_paused = true)]
async fn closed_consumer_commits_only_handled_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let keyed = |key: &'static str| Record::to("t").with_key(key).with_value("x");
    cluster.append("t", 0, &[keyed("a"), keyed("a"), keyed("b")]).unwrap();
    let consumer = subscribed(member(&cluster)).await;
    let seen = Seen::default();
    let worker = seen.started(consumer.clone().worker().order_by(OrderBy::Key).concurrency(2), 4 * SECOND);
    until("both keys are at work", || seen.now.load(SeqCst) == 2).await;
    consumer.close(30 * SECOND).await.unwrap();
    worker.wait().await.unwrap();
    let (handled, committed) = (seen.of(0), cluster.committed("g", "t", 0).unwrap());
    assert!((0..committed).all(|offset| handled.contains(&offset)), "{committed} committed, {handled:?} handled");
}

#[tokio::test(start_paused = true)]
async fn dropped_worker_closes_its_shared_consumer() {
    let cluster = filled(1, 20).await;
    let consumer = subscribed(member(&cluster)).await;
    let seen = Seen::default();
    let worker = seen.started(consumer.clone().worker(), 100 * SECOND);
    until("it is at work", || seen.now.load(SeqCst) == 1).await;
    drop(worker);
    sleep(SECOND).await;
    assert_eq!(seen.now.load(SeqCst), 0);
    assert!(consumer.recv().await.is_none(), "whoever read on would skip what the worker had taken");
    assert_eq!(consumer.worker().start(|_| async {}).unwrap_err().kind(), ErrorKind::Closed);
    assert_ne!(cluster.committed("g", "t", 0), Some(20));
}

#[tokio::test(start_paused = true)]
async fn fatal_error_is_returned_by_wait() {
    let cluster = filled(1, 5).await;
    let fenced = subscribed(member(&cluster).group_instance_id("i")).await;
    let seen = Seen::default();
    let worker = seen.started(fenced.worker(), SECOND);
    seen.reaches(1).await;
    let other = subscribed(member(&cluster).group_instance_id("i")).await;
    let next = timeout(60 * SECOND, other.recv()).await.expect("a record").unwrap();
    drop(next);
    let error = timeout(120 * SECOND, worker.wait()).await.expect("an end").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

#[test]
fn dropped_runtime_ends_worker_with_error() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (inner, outer) = (runtime(), runtime());
    let worker = inner.block_on(async {
        let cluster = filled(1, 5).await;
        let worker = sleeping(&cluster, &Seen::default(), SECOND).await;
        sleep(Duration::from_millis(1)).await;
        worker
    });
    drop(inner);
    assert_eq!(outer.block_on(worker.wait()).unwrap_err().kind(), ErrorKind::Closed);
    assert!(outer.block_on(worker.close(SECOND)).is_err());
}

/// Its thread stays blocked, but the worker ends all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn blocking_handler_does_not_delay_close() {
    let cluster = filled(1, 5).await;
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    let blocked = Arc::new(Mutex::new(blocked));
    let calls = Arc::new(AtomicUsize::new(0));
    let called = calls.clone();
    let worker = worker(&cluster).await.start(move |_| {
        called.fetch_add(1, SeqCst);
        let blocked = blocked.clone();
        async move {
            // Until the other end is gone.
            let _ = blocked.lock().unwrap().recv();
        }
    });
    let worker = worker.unwrap();
    until("it is called", || calls.load(SeqCst) == 1).await;
    let closed = worker.close(2 * SECOND).await;
    assert!(matches!(worker.status().state, WorkerState::Ended(_)), "{closed:?}");
    assert_eq!(calls.load(SeqCst), 1);
    assert!(worker.status().running[0].cancelled, "it is named still");
    drop(release);
    assert_eq!(cluster.committed("g", "t", 0).unwrap_or(0), 0, "and not done");
}

#[tokio::test(start_paused = true)]
async fn dropped_worker_leaves_its_group() {
    let cluster = filled(1, 10).await;
    let consumer = member(&cluster).auto_commit_interval(3600 * SECOND).build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    let worker = consumer.worker().start(|record| async move {
        if record.offset >= 4 {
            std::future::pending::<()>().await;
        }
        Ok::<_, crate::Error>(())
    });
    let worker = worker.unwrap();
    sleep(10 * SECOND).await;
    drop(worker);
    sleep(2 * SECOND).await;
    assert_eq!(cluster.group("g").map_or(0, |group| group.members.len()), 0);
    assert_eq!(cluster.committed("g", "t", 0), Some(4), "what was handled, and not what was in hand");
}

#[tokio::test(start_paused = true)]
async fn missing_topic_does_not_end_the_worker() {
    let cluster = Cluster::start(Options::new().auto_create(false).in_memory()).await.unwrap();
    let consumer = member(&cluster).build().await.unwrap();
    consumer.subscribe(["t"]).unwrap();
    let (handled, mut records) = tokio::sync::mpsc::unbounded_channel();
    let worker = consumer.worker().start(move |record| {
        let handled = handled.clone();
        async move { handled.send(record.offset) }
    });
    let worker = worker.unwrap();
    sleep(60 * SECOND).await;
    let status = worker.status();
    assert!(matches!(status.state, crate::worker::WorkerState::Running), "{:?}", status.state);
    let error = status.last_error.expect("the worker's status has it");
    assert_eq!(error.kind(), crate::ErrorKind::UnknownTopicOrPartition);
    cluster.create_topic("t", 1).unwrap();
    append(&cluster, 0, 0..1);
    assert_eq!(timeout(60 * SECOND, records.recv()).await.unwrap(), Some(0));
}
