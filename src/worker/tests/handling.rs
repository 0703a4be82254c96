use std::collections::HashSet;

use super::*;
use crate::{
    BoxError, ErrorKind,
    worker::{Handler, OrderBy},
};

#[tokio::test(start_paused = true)]
async fn handles_each_record_once_and_commits() {
    let cluster = filled(4, 50).await;
    let seen = Seen::default();
    let worker = seen.started(worker(&cluster).await, Duration::from_millis(10));
    seen.reaches(200).await;
    sleep(2 * SECOND).await;
    for partition in 0..4 {
        assert_eq!(seen.of(partition), numbers(0..50));
        assert_eq!(cluster.committed("g", "t", partition), Some(50), "by the interval");
    }
    append(&cluster, 2, 50..55);
    seen.reaches(205).await;
    close(&worker).await;
    assert_eq!((seen.of(2), cluster.committed("g", "t", 2)), (numbers(0..55), Some(55)));
    let metrics = worker.metrics();
    assert_eq!((metrics.records_processed, metrics.attempts_failed, metrics.buffered_bytes), (205, 0, 0));
    assert_eq!(metrics.handler_micros.count(), 205);
    assert_eq!(seen.most.load(SeqCst), 4, "partitions are worked on side by side");
}

#[tokio::test(start_paused = true)]
async fn concurrency_limits_number_of_running_handlers() {
    let cluster = filled(8, 10).await;
    let seen = Seen::default();
    let worker = seen.started(worker(&cluster).await.concurrency(3), SECOND);
    seen.reaches(80).await;
    close(&worker).await;
    assert_eq!(seen.most.load(SeqCst), 3);
    assert!((0..8).all(|partition| seen.of(partition) == numbers(0..10)), "in fair turns, each in order");
}

#[tokio::test(start_paused = true)]
async fn slow_key_delays_commit_but_not_others() {
    let cluster = filled(1, 40).await;
    let seen = Seen::default();
    let builder = worker(&cluster).await.order_by(OrderBy::Key).concurrency(32);
    let worker = seen.started_with(builder, |record| {
        let slow = record.offset == 3;
        if slow { 100 * SECOND } else { SECOND }
    });
    seen.reaches(32).await;
    sleep(5 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(3), "what is behind the slow one is done, and not committed");
    assert_eq!(seen.count(), 32, "its seven followers wait");
    let status = worker.status();
    assert_eq!(status.running.iter().map(|job| job.offset).collect::<Vec<_>>(), [3]);
    seen.reaches(40).await;
    close(&worker).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(40));
    let done = seen.of(0);
    for key in 0..5 {
        let of_key: Vec<_> = done.iter().copied().filter(|offset| offset % 5 == key).collect();
        assert_eq!(of_key, (0..8).map(|n| n * 5 + key).collect::<Vec<_>>());
    }
    assert!(seen.most.load(SeqCst) > 1);
}

#[tokio::test(start_paused = true)]
async fn keyless_records_are_handled_concurrently() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let records: Vec<_> = (0..20).map(|n: i32| Record::to("t").with_value(n.to_string())).collect();
    cluster.append("t", 0, &records).unwrap();
    let seen = Seen::default();
    let builder = worker(&cluster).await.order_by(OrderBy::Key).concurrency(20);
    let worker = seen.started(builder, SECOND);
    seen.reaches(20).await;
    assert_eq!(seen.most.load(SeqCst), 20);
    close(&worker).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(20));
}

#[tokio::test(start_paused = true)]
async fn batches_are_ordered_and_filled_to_maximum() {
    let cluster = filled(2, 25).await;
    let seen = Seen::default();
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let (handler, handed) = (seen.clone(), sizes.clone());
    let worker = worker(&cluster).await.max_batch(10).start_batches(move |records: Arc<[ConsumerRecord]>| {
        let (seen, sizes) = (handler.clone(), handed.clone());
        async move {
            sleep(SECOND).await;
            sizes.lock().unwrap().push(records.len());
            records.iter().for_each(|record| seen.done(record));
        }
    });
    let worker = worker.unwrap();
    seen.reaches(50).await;
    close(&worker).await;
    assert_eq!(*sizes.lock().unwrap(), [10, 10, 10, 10, 5, 5]);
    for partition in 0..2 {
        assert_eq!((seen.of(partition), cluster.committed("g", "t", partition)), (numbers(0..25), Some(25)));
    }
}

struct Counting(Seen);

impl Handler for Counting {
    async fn handle(&self, record: &ConsumerRecord) -> Result<(), BoxError> {
        let _at_work = self.0.begin();
        sleep(Duration::from_millis(1)).await;
        self.0.done(record);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn handler_may_be_custom_type() {
    let cluster = filled(2, 10).await;
    let seen = Seen::default();
    let worker = worker(&cluster).await.start_handler(Counting(seen.clone())).unwrap();
    seen.reaches(20).await;
    close(&worker).await;
    assert_eq!((seen.of(0), seen.of(1)), (numbers(0..10), numbers(0..10)));
}

#[tokio::test(start_paused = true)]
async fn buffer_records_limits_records_in_memory() {
    let cluster = filled(1, 100).await;
    let builder = worker(&cluster).await.buffer_records(10);
    let worker = builder.start(|_| async { sleep(1000 * SECOND).await }).unwrap();
    sleep(20 * SECOND).await;
    let metrics = worker.metrics();
    assert_eq!((metrics.records_in_flight, metrics.records_waiting), (1, 9));
    worker.close(SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(0));
}

#[tokio::test(start_paused = true)]
async fn worker_follows_seek_pause_and_resume() {
    let cluster = filled(1, 20).await;
    let consumer = subscribed(member(&cluster)).await;
    let seen = Seen::default();
    let worker = seen.started(consumer.clone().worker(), SECOND);
    let partition = TopicPartition::new("t", 0);
    seen.reaches(3).await;
    consumer.seek(&partition, 15).unwrap();
    seen.reaches(9).await;
    assert_eq!(seen.of(0), [0, 1, 2, 3, 15, 16, 17, 18, 19], "the one in hand, then those behind the seek");
    consumer.pause([&partition]).unwrap();
    append(&cluster, 0, 20..25);
    sleep(10 * SECOND).await;
    assert_eq!(seen.count(), 9);
    consumer.resume([&partition]).unwrap();
    seen.reaches(14).await;
    close(&worker).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(25));
}

#[tokio::test(start_paused = true)]
async fn worker_without_auto_commit_commits_no_offsets() {
    let cluster = filled(2, 5).await;
    let alone = cluster.consumer().build().await.unwrap();
    alone.assign([(TopicPartition::new("t", 1), crate::Offset::At(2))]).unwrap();
    let seen = Seen::default();
    let worker = seen.started(alone.worker(), SECOND);
    seen.reaches(3).await;
    close(&worker).await;
    assert_eq!(seen.of(1), [2, 3, 4]);
    let by_hand = subscribed(member(&cluster).auto_commit(false)).await;
    let seen = Seen::default();
    let worker = seen.started(by_hand.worker(), SECOND);
    seen.reaches(10).await;
    close(&worker).await;
    assert_eq!(cluster.committed("g", "t", 0), None);
}

#[tokio::test(start_paused = true)]
async fn rejects_zero_limits_and_second_reader() {
    let cluster = filled(1, 1).await;
    type Change = fn(WorkerBuilder) -> WorkerBuilder;
    let wrong: [(&str, Change); 5] = [
        ("concurrency", |builder| builder.concurrency(0)),
        ("buffer_records", |builder| builder.buffer_records(0)),
        ("buffer_bytes", |builder| builder.buffer_bytes(0)),
        ("max_batch", |builder| builder.max_batch(0)),
        ("handler_timeout", |builder| builder.handler_timeout(Duration::ZERO)),
    ];
    for (name, change) in wrong {
        let error = change(worker(&cluster).await).start(|_| async {}).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().starts_with(name), "{error}");
    }
    let keyed = worker(&cluster).await.order_by(OrderBy::Key).start_batches(|_| async {}).unwrap_err();
    assert_eq!(keyed.kind(), ErrorKind::Configuration);
    let producer = producer(&cluster).await;
    let forbidden = worker(&cluster).await.dead_letter(&producer, "no such name").start(|_| async {}).unwrap_err();
    assert_eq!(forbidden.kind(), ErrorKind::InvalidArgument);

    let consumer = subscribed(member(&cluster)).await;
    let first = consumer.clone().worker().start(|_| async {}).unwrap();
    let second = consumer.clone().worker().start(|_| async {}).unwrap_err();
    assert_eq!(second.kind(), ErrorKind::InvalidArgument);
    assert_eq!(consumer.recv().await.unwrap().unwrap_err().kind(), ErrorKind::InvalidArgument);
    close(&first).await;
    let late = consumer.worker().start(|_| async {}).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn batches_linger_until_full_or_expired() {
    let cluster = filled(1, 4).await;
    let sizes: Arc<Mutex<Vec<(usize, Duration)>>> = Arc::default();
    let (began, handler) = (Instant::now(), sizes.clone());
    let builder = worker(&cluster).await.max_batch(10).buffer_records(20).batch_linger(30 * SECOND);
    let worker = builder.start_batches(move |records: Arc<[ConsumerRecord]>| {
        handler.lock().unwrap().push((records.len(), began.elapsed()));
        async {}
    });
    let worker = worker.unwrap();
    let count = || sizes.lock().unwrap().iter().map(|(size, _)| size).sum::<usize>();
    sleep(10 * SECOND).await;
    assert_eq!(count(), 0, "four of ten");
    append(&cluster, 0, 4..10);
    until("the batch is full", || count() == 10).await;
    append(&cluster, 0, 10..13);
    until("its time is up", || count() == 13).await;
    let seen = sizes.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|(size, _)| *size).collect::<Vec<_>>(), [10, 3]);
    assert!(seen[0].1 < 15 * SECOND, "{seen:?}");
    assert!(seen[1].1 - seen[0].1 >= 29 * SECOND && seen[1].1 < 50 * SECOND, "{seen:?}");
    // A batch that lingers when the worker ends is left to the next reader.
    append(&cluster, 0, 13..15);
    sleep(5 * SECOND).await;
    let closing = Instant::now();
    close(&worker).await;
    assert!(closing.elapsed() < 5 * SECOND, "{:?}", closing.elapsed());
    assert_eq!((count(), cluster.committed("g", "t", 0)), (13, Some(13)));
}

#[tokio::test(start_paused = true)]
async fn rejects_batch_linger_without_effect() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let single = worker(&cluster).await.batch_linger(SECOND).start(|_| async {}).unwrap_err();
    assert_eq!(single.kind(), ErrorKind::Configuration);
    let small = worker(&cluster).await.batch_linger(SECOND).max_batch(20).buffer_records(19);
    let small = small.start_batches(|_| async {}).unwrap_err();
    assert!(small.to_string().contains("max_batch (20)") && small.to_string().contains("(19)"), "{small}");
}

/// If a handler never waits, it costs nothing but its own work, and all the same others get their
/// turn.
#[tokio::test(start_paused = true)]
async fn handlers_without_await_do_not_starve_others() {
    let cluster = filled(2, 5000).await;
    let seen: Arc<Mutex<HashSet<(i32, i64)>>> = Arc::default();
    let handler = seen.clone();
    let worker = worker(&cluster).await.start(move |record| {
        handler.lock().unwrap().insert((record.partition, record.offset));
        async {}
    });
    let worker = worker.unwrap();
    until("all were handled", || seen.lock().unwrap().len() == 10_000).await;
    close(&worker).await;
    assert_eq!(worker.metrics().records_processed, 10_000);
}

#[tokio::test(start_paused = true)]
async fn seek_takes_effect_with_full_buffer() {
    let cluster = filled(1, 100).await;
    let consumer = subscribed(member(&cluster).auto_commit(false)).await;
    let seen = Seen::default();
    let worker = seen.started(consumer.clone().worker().buffer_records(10), 5 * SECOND);
    until("it is at work", || seen.now.load(SeqCst) == 1).await;
    consumer.seek(&TopicPartition::new("t", 0), 90).unwrap();
    timeout(100 * SECOND, seen.reaches(11)).await.expect("it reads on");
    assert_eq!(seen.of(0), [vec![0], (90..100).collect()].concat());
    close(&worker).await;
}
