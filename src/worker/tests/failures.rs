use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    record::KafkaFormats,
    testkit::on,
    worker::{NonRetriable, OrderBy, WorkerState},
};

type Fails = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// Fails `times` times at that offset of partition 0.
fn failing(
    seen: &Seen,
    offset: i64,
    times: usize,
) -> impl Fn(ConsumerRecord) -> std::pin::Pin<Box<dyn Future<Output = Fails> + Send>> + Send + Sync + 'static {
    let (seen, left) = (seen.clone(), Arc::new(AtomicUsize::new(times)));
    move |record| {
        let (seen, left) = (seen.clone(), left.clone());
        Box::pin(async move {
            let bad = (record.partition, record.offset) == (0, offset);
            if bad && left.load(SeqCst) > 0 {
                left.fetch_sub(1, SeqCst);
                return Err(format!("cannot do {}", record.offset).into());
            }
            seen.work(record, Duration::from_millis(10)).await;
            Ok(())
        })
    }
}

#[tokio::test(start_paused = true)]
async fn failed_record_is_retried_without_blocking_partitions() {
    let cluster = filled(2, 10).await;
    let seen = Seen::default();
    let worker = worker(&cluster).await.retries(4).start(failing(&seen, 4, 4)).unwrap();
    until("the other partition is through", || seen.of(1).len() == 10).await;
    assert_eq!(seen.of(0), numbers(0..4));
    let status = worker.status();
    assert_eq!(status.partitions[&TopicPartition::new("t", 0)].retrying, 1);
    seen.reaches(20).await;
    close(&worker).await;
    assert_eq!(seen.of(0), numbers(0..10));
    let metrics = worker.metrics();
    assert_eq!((metrics.attempts_failed, metrics.retries, metrics.records_processed), (4, 4, 20));
    assert_eq!(cluster.committed("g", "t", 0), Some(10));
}

#[tokio::test(start_paused = true)]
async fn exhausted_retries_end_worker_without_commit() {
    let cluster = filled(2, 10).await;
    let seen = Seen::default();
    let worker = worker(&cluster).await.retries(1).start(failing(&seen, 4, 2)).unwrap();
    let error = worker.wait().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
        (ErrorKind::Handler, Some(("t", 0, 4)))
    );
    assert_eq!(error.to_string(), "t[0], offset 4: attempt 2 of the handler failed: cannot do 4");
    assert!(std::error::Error::source(&error).is_some());
    assert_eq!(seen.of(0), numbers(0..4));
    assert_eq!(cluster.committed("g", "t", 0), Some(4));
    assert!(matches!(worker.status().state, WorkerState::Ended(Some(_))));
    assert!(cluster.group("g").is_none_or(|group| group.members.is_empty()), "it left the group");
    assert_eq!(worker.close(SECOND).await.unwrap_err().kind(), ErrorKind::Handler, "and says so whoever asks");
}

#[tokio::test(start_paused = true)]
async fn permanent_error_skips_record_without_retry() {
    let cluster = filled(1, 3).await;
    cluster.append("t", 0, &[Record::to("t").with_value("no number")]).unwrap();
    let seen = Seen::default();
    let handler = seen.clone();
    let worker = worker(&cluster).await.skip_failed().start(move |record: ConsumerRecord| {
        let seen = handler.clone();
        async move {
            if record.offset == 1 {
                return Err::<(), crate::BoxError>(NonRetriable::new("never").into());
            }
            let text: &str = record.value_as(&KafkaFormats)?.unwrap_or_default();
            let parse = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap_or_default().parse::<i64>();
            record.value_as(&parse)?;
            assert!(!text.is_empty());
            seen.work(record, Duration::from_millis(1)).await;
            Ok(())
        }
    });
    let worker = worker.unwrap();
    until("two were passed over", || worker.metrics().records_skipped == 2).await;
    close(&worker).await;
    let metrics = worker.metrics();
    assert_eq!((metrics.attempts_failed, metrics.retries), (2, 0));
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (vec![0, 2], Some(4)));
}

#[tokio::test(start_paused = true)]
async fn handler_panic_counts_as_failed_attempt() {
    let cluster = filled(2, 6).await;
    let seen = Seen::default();
    let (handler, panics) = (seen.clone(), Arc::new(AtomicUsize::new(0)));
    let worker = worker(&cluster).await.retries(2).start(move |record: ConsumerRecord| {
        let bad = (record.partition, record.offset) == (0, 2);
        let count = if bad { panics.fetch_add(1, SeqCst) } else { 9 };
        // Once before the future exists, once inside of it.
        assert!(count != 0, "at once");
        let seen = handler.clone();
        async move {
            sleep(Duration::from_millis(1)).await;
            assert!(count != 1, "later");
            seen.work(record, Duration::from_millis(1)).await;
        }
    });
    let worker = worker.unwrap();
    seen.reaches(12).await;
    close(&worker).await;
    let metrics = worker.metrics();
    assert_eq!((metrics.handler_panics, metrics.attempts_failed, metrics.records_processed), (2, 2, 12));
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (numbers(0..6), Some(6)));
}

#[tokio::test(start_paused = true)]
async fn repeated_panic_is_returned_as_error() {
    let cluster = filled(1, 1).await;
    let consumer = subscribed(member(&cluster)).await;
    let error = consumer
        .worker()
        .retries(0)
        .run(|record| async move { assert!(record.offset > 0, "on purpose") })
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
    assert!(error.to_string().ends_with("panicked: on purpose"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn handler_timeout_cancels_and_retries_record() {
    let cluster = filled(1, 3).await;
    let seen = Seen::default();
    let (handler, calls) = (seen.clone(), Arc::new(AtomicUsize::new(0)));
    let builder = worker(&cluster).await.handler_timeout(5 * SECOND);
    let worker = builder.start(move |record: ConsumerRecord| {
        let (seen, call) = (handler.clone(), calls.fetch_add(1, SeqCst));
        async move { seen.work(record, if call == 1 { 3600 * SECOND } else { SECOND }).await }
    });
    let worker = worker.unwrap();
    seen.reaches(3).await;
    assert_eq!(seen.now.load(SeqCst), 0, "the one that took too long was dropped");
    close(&worker).await;
    let metrics = worker.metrics();
    assert_eq!((metrics.handler_timeouts, metrics.retries), (1, 1));
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (numbers(0..3), Some(3)));
}

#[tokio::test(start_paused = true)]
async fn dead_letter_has_headers_and_delays_commit() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    cluster.create_topic("dead", 1).unwrap();
    let record = Record::to("t")
        .with_key("k")
        .with_value("v")
        .with_header("h", "1")
        .with_null_header("n")
        .with_timestamp_millis(77);
    cluster.append("t", 0, &[record]).unwrap();
    append(&cluster, 0, 1..4);
    let producer = producer(&cluster).await;
    // As long as the broker refuses the dead letter, the record is not completed.
    let refusal = on(ApiKey::Produce).topic("dead").times(3).error(ErrorCode::NOT_ENOUGH_REPLICAS).delay(5 * SECOND);
    let refused = cluster.fault(refusal);
    let seen = Seen::default();
    let builder = worker(&cluster).await.retries(1).dead_letter(&producer, "dead");
    let worker = builder.start(failing(&seen, 0, 2)).unwrap();
    refused.reached(1).await;
    sleep(3 * SECOND).await;
    assert_eq!((cluster.committed("g", "t", 0).unwrap_or(0), seen.count()), (0, 0));
    assert!(worker.status().running[0].dead_lettering);
    seen.reaches(3).await;
    close(&worker).await;
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (numbers(1..4), Some(4)));
    let letters = cluster.records("dead", 0).unwrap();
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.key.as_deref(), letter.value.as_deref()), (Some(&b"k"[..]), Some(&b"v"[..])));
    assert_eq!(letter.timestamp_millis, 77);
    let headers: Vec<_> = letter
        .headers
        .iter()
        .map(|header| (&*header.name, header.value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned())))
        .collect();
    let expected = [
        ("h", Some("1")),
        ("n", None),
        ("__ottla.errors.topic", Some("t")),
        ("__ottla.errors.partition", Some("0")),
        ("__ottla.errors.offset", Some("0")),
        ("__ottla.errors.message", Some("t[0], offset 0: attempt 2 of the handler failed: cannot do 0")),
        ("__ottla.errors.attempts", Some("2")),
        ("__ottla.errors.group", Some("g")),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name, value.map(str::to_owned))));
    assert_eq!(worker.metrics().records_dead_lettered, 1);
}

/// The producer gives up; the worker does not, and no offset behind the record is committed.
#[tokio::test(start_paused = true)]
async fn expired_dead_letter_is_sent_again() {
    let cluster = filled(1, 3).await;
    cluster.create_topic("dead", 1).unwrap();
    let short = cluster.producer();
    let short = short.request_timeout(SECOND).delivery_timeout(2 * SECOND);
    let producer = short.build().await.unwrap();
    let broken = cluster.fault(on(ApiKey::Produce).topic("dead").forever().drop_connection());
    let seen = Seen::default();
    let builder = worker(&cluster).await.retries(0).dead_letter(&producer, "dead");
    let worker = builder.start(failing(&seen, 1, 1)).unwrap();
    until("it was tried three times", || worker.metrics().dead_letters_retried >= 3).await;
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (vec![0], Some(1)));
    assert!(worker.status().last_error.is_some());
    broken.clear();
    seen.reaches(2).await;
    close(&worker).await;
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (vec![0, 2], Some(3)));
    assert!(!cluster.records("dead", 0).unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rejected_dead_letter_ends_worker() {
    let cluster = filled(1, 3).await;
    cluster.create_topic("dead", 1).unwrap();
    let producer = producer(&cluster).await;
    cluster.fault(on(ApiKey::Produce).topic("dead").forever().error(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    let seen = Seen::default();
    let builder = worker(&cluster).await.retries(0).dead_letter(&producer, "dead");
    let worker = builder.start(failing(&seen, 1, 1)).unwrap();
    let error = worker.wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authorization);
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (vec![0], Some(1)));
}

#[tokio::test(start_paused = true)]
async fn failed_batch_goes_to_dead_letters_whole() {
    let cluster = filled(1, 6).await;
    cluster.create_topic("dead", 1).unwrap();
    let producer = producer(&cluster).await;
    let seen = Seen::default();
    let handler = seen.clone();
    let builder = worker(&cluster).await.retries(1).max_batch(3).dead_letter(&producer, "dead");
    let worker = builder.start_batches(move |records: Arc<[ConsumerRecord]>| {
        let seen = handler.clone();
        async move {
            if records[0].offset == 0 {
                return Err("not these");
            }
            records.iter().for_each(|record| seen.done(record));
            Ok(())
        }
    });
    let worker = worker.unwrap();
    seen.reaches(3).await;
    close(&worker).await;
    assert_eq!((seen.of(0), cluster.committed("g", "t", 0)), (numbers(3..6), Some(6)));
    let letters = cluster.records("dead", 0).unwrap();
    let values: Vec<_> = letters.iter().map(|letter| letter.value.clone().unwrap()).collect();
    assert_eq!(values, ["0", "1", "2"]);
    assert_eq!(worker.metrics().records_dead_lettered, 3);
}

#[tokio::test(start_paused = true)]
async fn corrupt_record_ends_worker_or_is_skipped() {
    let cluster = filled(2, 3).await;
    let mut damaged =
        crate::testkit::batch(&[Record::to("t").with_value("x")], crate::Compression::None).unwrap().to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    cluster.append_raw("t", 0, damaged, 1).unwrap();
    append(&cluster, 0, 4..6);
    let seen = Seen::default();
    let first = worker(&cluster).await.start(failing(&seen, 99, 0)).unwrap();
    let error = first.wait().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.location().map(|at| (&*at.topic, at.partition, at.offset))),
        (ErrorKind::Corrupt, Some(("t", 0, 3)))
    );
    assert_eq!(cluster.committed("g", "t", 0), Some(3));
    let second = worker(&cluster).await.skip_corrupt(true).start(failing(&seen, 99, 0)).unwrap();
    until("what is behind it was handled", || seen.of(0).len() == 5).await;
    close(&second).await;
    assert_eq!((seen.of(0), second.metrics().corrupt_skipped), (vec![0, 1, 2, 4, 5], 1));
    assert_eq!(cluster.committed("g", "t", 0), Some(6));
}

#[tokio::test(start_paused = true)]
async fn failed_commits_are_retried_until_close() {
    let cluster = filled(1, 3).await;
    let refused = cluster.fault(on(ApiKey::OffsetCommit).forever().error(ErrorCode::GROUP_AUTHORIZATION_FAILED));
    let seen = Seen::default();
    let worker = worker(&cluster).await.start(failing(&seen, 99, 0)).unwrap();
    seen.reaches(3).await;
    refused.reached(3).await;
    assert_eq!(cluster.committed("g", "t", 0), None);
    refused.clear();
    append(&cluster, 0, 3..5);
    seen.reaches(5).await;
    sleep(3 * SECOND).await;
    assert_eq!(cluster.committed("g", "t", 0), Some(5));
    append(&cluster, 0, 5..6);
    seen.reaches(6).await;
    cluster.fault(on(ApiKey::OffsetCommit).forever().error(ErrorCode::GROUP_AUTHORIZATION_FAILED));
    assert_eq!(worker.close(60 * SECOND).await.unwrap_err().kind(), ErrorKind::Authorization);
}

#[tokio::test(start_paused = true)]
async fn handler_failure_ends_worker_despite_queued_records() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 1).unwrap();
    let keyed = |key: &'static str| Record::to("t").with_key(key).with_value("x");
    cluster.append("t", 0, &[keyed("a"), keyed("a"), keyed("b")]).unwrap();
    let forever = Duration::MAX;
    let builder = worker(&cluster).await.order_by(OrderBy::Key).concurrency(2).retries(0).drain_timeout(forever);
    let worker = builder.start(|record: ConsumerRecord| async move {
        sleep(if record.offset == 0 { SECOND } else { 3 * SECOND }).await;
        if record.offset == 0 { Err("no") } else { Ok(()) }
    });
    let worker = worker.unwrap();
    let error = timeout(10 * SECOND, worker.wait()).await.expect("nothing more is waited for").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler);
}

#[tokio::test(start_paused = true)]
async fn missing_offset_without_reset_ends_worker() {
    let cluster = filled(1, 3).await;
    let consumer = subscribed(member(&cluster).auto_offset_reset(OffsetReset::None)).await;
    let seen = Seen::default();
    let handler = seen.clone();
    let worker = consumer.worker().seed(1).start(move |record: ConsumerRecord| {
        let seen = handler.clone();
        async move {
            seen.work(record, SECOND).await;
            Fails::Ok(())
        }
    });
    let error = worker.unwrap().wait().await.unwrap_err();
    assert_eq!((error.kind(), seen.count()), (ErrorKind::NoOffset, 0));
    assert_eq!(error.location().map(|at| (&*at.topic, at.partition)), Some(("t", 0)));
    assert!(cluster.group("g").is_none_or(|group| group.members.is_empty()), "it left the group");
}

#[tokio::test(start_paused = true)]
async fn unauthorized_partition_is_reported_and_retried() {
    let cluster = filled(2, 5).await;
    let refused = on(ApiKey::Fetch).partition("t", 0).forever().error(ErrorCode::TOPIC_AUTHORIZATION_FAILED);
    let refused = cluster.fault(refused);
    let seen = Seen::default();
    let worker = worker(&cluster).await.start(failing(&seen, 0, 0)).unwrap();
    until("the other partition is through", || seen.of(1).len() == 5).await;
    until("it is told what is in the way", || worker.status().last_error.is_some()).await;
    let error = worker.status().last_error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Authorization, "{error}");
    assert!(error.to_string().contains("t[0]"), "{error}");
    assert!(seen.of(0).is_empty() && matches!(worker.status().state, WorkerState::Running));
    refused.clear();
    seen.reaches(10).await;
    close(&worker).await;
    assert_eq!((cluster.committed("g", "t", 0), cluster.committed("g", "t", 1)), (Some(5), Some(5)));
}
