//! Scenarios of workers that handle records exactly once.

use super::*;
use crate::{
    ApiKey, ErrorCode, ErrorKind, Offset, TransactionalProducer,
    consumer::IsolationLevel,
    producer::TransactionalProducerBuilder,
    testkit::on,
    worker::{ExactlyOnceBuilder, NonRetriable, OrderBy, Outputs, TransactionPhase, WorkerState},
};

for_each_group_protocol!(
    outputs_and_offsets_commit_together,
    failed_handler_aborts_and_records_come_again,
    revoked_partition_commits_before_it_goes,
    crash_before_commit_repeats_no_output,
    members_come_go_and_crash_without_duplicates,
);

type Fails = Result<(), crate::BoxError>;

/// A cluster with topic `t` as in [`filled`], and the outputs' topic `out` with as many partitions.
async fn with_outputs(partitions: i32, records: i64) -> Cluster {
    let cluster = filled(partitions, records).await;
    cluster.create_topic("out", partitions).unwrap();
    cluster
}

fn transactional(cluster: &Cluster, id: &str) -> TransactionalProducerBuilder {
    cluster.producer().transactional_id(id)
}

async fn builder(cluster: &Cluster, protocol: GroupProtocol) -> WorkerBuilder {
    let consumer = cluster.consumer().seed(1).group("g").group_protocol(protocol);
    subscribed(consumer.auto_offset_reset(OffsetReset::Earliest)).await.worker().seed(1)
}

async fn exactly_once(cluster: &Cluster, protocol: GroupProtocol, id: &str) -> ExactlyOnceBuilder {
    builder(cluster, protocol).await.exactly_once(transactional(cluster, id))
}

/// Sends a copy of a record to the same partition of `out`.
async fn copy(record: &ConsumerRecord, outputs: &Outputs) -> crate::Result<()> {
    outputs.send(Record::forward("out", record).with_partition(record.partition)).await
}

/// Starts a worker that copies records, each after that time.
fn copying(builder: ExactlyOnceBuilder, time: Duration) -> Worker {
    let started = builder.start(move |record: ConsumerRecord, outputs: Outputs| async move {
        sleep(time).await;
        copy(&record, &outputs).await
    });
    started.unwrap()
}

/// Returns the values of committed records of a topic, by partition.
async fn committed_values(cluster: &Cluster, topic: &str, partitions: i32) -> Vec<Vec<i64>> {
    let mut values = Vec::new();
    for partition in 0..partitions {
        let consumer = cluster.consumer().isolation_level(IsolationLevel::ReadCommitted).build().await.unwrap();
        let name = TopicPartition::new(topic, partition);
        consumer.assign([(name, Offset::Beginning)]).unwrap();
        let mut of = Vec::new();
        while let Ok(record) = timeout(3 * SECOND, consumer.recv()).await {
            let record = record.unwrap().unwrap();
            of.push(String::from_utf8_lossy(record.value.as_ref().unwrap()).parse().unwrap());
        }
        values.push(of);
    }
    values
}

async fn assert_copied(cluster: &Cluster, partitions: i32, records: i64) {
    for (partition, values) in committed_values(cluster, "out", partitions).await.into_iter().enumerate() {
        assert_eq!(values, numbers(0..records), "partition {partition}");
    }
    for partition in 0..partitions {
        assert_eq!(cluster.last_stable_offset("out", partition).unwrap(), cluster.log_end("out", partition).unwrap());
    }
}

async fn all_committed(cluster: &Cluster, partitions: i32, records: i64) {
    let is_committed = |partition| cluster.committed("g", "t", partition) >= Some(records);
    until("all is committed", || (0..partitions).all(is_committed)).await;
}

async fn outputs_and_offsets_commit_together(protocol: GroupProtocol) {
    let cluster = with_outputs(2, 50).await;
    let worker = copying(exactly_once(&cluster, protocol, "w").await, Duration::from_millis(1));
    all_committed(&cluster, 2, 50).await;
    let status = worker.status().exactly_once.unwrap();
    assert_eq!((status.recent_failures, status.producer.unwrap().producer_epoch.is_some()), (0, true));
    close(&worker).await;
    assert_copied(&cluster, 2, 50).await;
    let metrics = worker.metrics();
    assert_eq!((metrics.records_processed, metrics.transactions_aborted), (100, 0));
    assert_eq!(metrics.transaction_records.sum(), 100);
    assert_eq!(metrics.commit_micros.count(), metrics.transactions_committed);
    assert!(metrics.transactions_committed < 20, "many records share a transaction");
    assert_eq!(worker.producer_metrics().unwrap().records_acknowledged, 100);
}

async fn failed_handler_aborts_and_records_come_again(protocol: GroupProtocol) {
    let cluster = with_outputs(2, 20).await;
    let left = Arc::new(AtomicUsize::new(2));
    let handler = left.clone();
    let worker = exactly_once(&cluster, protocol, "w").await.start(move |record: ConsumerRecord, outputs: Outputs| {
        let left = handler.clone();
        async move {
            copy(&record, &outputs).await?;
            let fails = (record.partition, record.offset) == (0, 4) && left.load(SeqCst) > 0;
            if fails {
                left.fetch_sub(1, SeqCst);
                sleep(SECOND).await;
                return Err("not yet".into());
            }
            Fails::Ok(())
        }
    });
    let worker = worker.unwrap();
    all_committed(&cluster, 2, 20).await;
    close(&worker).await;
    assert_copied(&cluster, 2, 20).await;
    let metrics = worker.metrics();
    assert_eq!((metrics.attempts_failed, metrics.retries, metrics.transactions_aborted), (2, 2, 2));
    assert_eq!((metrics.records_processed, metrics.records_abandoned), (40, 0));
    assert!(cluster.log_end("out", 0).unwrap() > 22, "aborted copies are in the log");
}

async fn revoked_partition_commits_before_it_goes(protocol: GroupProtocol) {
    let cluster = with_outputs(4, 20).await;
    let builder = exactly_once(&cluster, protocol, "w1").await.transaction_interval(60 * SECOND);
    let first = copying(builder, SECOND);
    until("it has an open transaction", || first.status().exactly_once.is_some_and(|status| status.records >= 8)).await;
    assert_eq!(first.metrics().transactions_committed, 0);
    let second = copying(exactly_once(&cluster, protocol, "w2").await, Duration::from_millis(10));
    until("the other member works", || second.metrics().records_processed > 0).await;
    let metrics = first.metrics();
    assert!(metrics.transactions_committed >= 1 && metrics.records_processed >= 8, "{metrics:?}");
    assert_eq!((metrics.transactions_aborted, metrics.records_abandoned), (0, 0));
    close(&first).await;
    all_committed(&cluster, 4, 20).await;
    close(&second).await;
    assert_copied(&cluster, 4, 20).await;
}

async fn crash_before_commit_repeats_no_output(protocol: GroupProtocol) {
    let cluster = with_outputs(2, 20).await;
    let builder = exactly_once(&cluster, protocol, "w").await.transaction_interval(20 * SECOND);
    let worker = copying(builder, SECOND);
    until("outputs are in the log", || cluster.log_end("out", 0).unwrap() >= 3).await;
    assert_eq!(cluster.committed("g", "t", 0), None);
    drop(worker);
    let worker = copying(exactly_once(&cluster, protocol, "w").await, Duration::from_millis(1));
    all_committed(&cluster, 2, 20).await;
    close(&worker).await;
    assert_copied(&cluster, 2, 20).await;
}

async fn members_come_go_and_crash_without_duplicates(protocol: GroupProtocol) {
    let cluster = Arc::new(cluster(2).await);
    for topic in ["t", "out"] {
        cluster.create_topic(topic, 4).unwrap();
    }
    let writer = cluster.clone();
    let writing = tokio::spawn(async move {
        for n in 0..5 {
            (0..4).for_each(|partition| append(&writer, partition, n * 30..n * 30 + 30));
            sleep(6 * SECOND).await;
        }
    });
    let mut members = Vec::new();
    for round in 0..9 {
        match round % 3 {
            2 if round == 5 => drop(members.remove(0)),
            2 => close(&members.remove(0)).await,
            _ => {
                let order = if round % 2 == 0 { OrderBy::Key } else { OrderBy::Partition };
                let builder = builder(&cluster, protocol).await.order_by(order);
                let builder = builder.exactly_once(transactional(&cluster, &format!("w{round}")));
                members.push(copying(builder, Duration::from_millis(70)));
            }
        }
        sleep(4 * SECOND).await;
    }
    writing.await.unwrap();
    all_committed(&cluster, 4, 150).await;
    for member in &members {
        close(member).await;
    }
    for mut values in committed_values(&cluster, "out", 4).await {
        // Different keys may overtake each other.
        values.sort_unstable();
        assert_eq!(values, numbers(0..150));
    }
}

#[tokio::test(start_paused = true)]
async fn first_protocol_commits_each_record_once() {
    let cluster =
        Cluster::start(Options::new().brokers(1).in_memory().feature("transaction.version", 0)).await.unwrap();
    for topic in ["t", "out"] {
        cluster.create_topic(topic, 2).unwrap();
    }
    (0..2).for_each(|partition| append(&cluster, partition, 0..60));
    let builder = exactly_once(&cluster, GroupProtocol::Classic, "w").await.transaction_records(7);
    let worker = copying(builder, Duration::from_millis(5));
    all_committed(&cluster, 2, 60).await;
    close(&worker).await;
    assert_copied(&cluster, 2, 60).await;
    assert!(worker.metrics().transaction_records.max() <= 8, "two partitions may pass the limit together");
}

#[tokio::test(start_paused = true)]
async fn fenced_producer_is_replaced_without_duplicates() {
    let cluster = with_outputs(1, 60).await;
    let builder = exactly_once(&cluster, GroupProtocol::Classic, "w").await;
    let worker = copying(builder, Duration::from_millis(50));
    until("it works", || worker.metrics().transactions_committed >= 2).await;
    let mut other = transactional(&cluster, "w").build().await.unwrap();
    other.init().await.unwrap();
    all_committed(&cluster, 1, 60).await;
    let status = worker.status();
    let transactions = status.exactly_once.unwrap();
    assert_eq!(transactions.last_failure.unwrap().kind(), ErrorKind::Fenced);
    assert!(matches!(status.state, WorkerState::Running));
    assert_eq!(worker.metrics().producers_replaced, 1);
    close(&worker).await;
    assert_copied(&cluster, 1, 60).await;
}

#[tokio::test(start_paused = true)]
async fn workers_with_one_id_fail_by_name() {
    let cluster = with_outputs(2, 4000).await;
    let mut workers = Vec::new();
    for _ in 0..2 {
        let builder = exactly_once(&cluster, GroupProtocol::Classic, "shared").await;
        workers.push(copying(builder, Duration::from_millis(20)));
        sleep(5 * SECOND).await;
    }
    let (first, second) = (workers.pop().unwrap(), workers.pop().unwrap());
    let ended = timeout(300 * SECOND, async {
        tokio::select! {
            ended = first.wait() => ended,
            ended = second.wait() => ended,
        }
    });
    let error = ended.await.expect("the fight is bounded").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert!(error.to_string().contains("\"shared\""), "{error}");
    all_committed(&cluster, 2, 4000).await;
    for worker in [first, second] {
        let _ended: crate::Result<()> = worker.close(60 * SECOND).await;
    }
    assert_copied(&cluster, 2, 4000).await;
}

#[tokio::test(start_paused = true)]
async fn transaction_over_its_timeout_is_done_again() {
    let cluster = with_outputs(1, 20).await;
    let producer = transactional(&cluster, "w").transaction_timeout(2 * SECOND);
    let worker = builder(&cluster, GroupProtocol::Classic).await.exactly_once(producer);
    let late = cluster.fault(on(ApiKey::TxnOffsetCommit).delay(10 * SECOND));
    let worker = copying(worker, Duration::from_millis(10));
    all_committed(&cluster, 1, 20).await;
    assert_eq!(late.hits(), 1);
    let metrics = worker.metrics();
    assert!(metrics.transactions_aborted + metrics.transactions_unknown >= 1, "{metrics:?}");
    close(&worker).await;
    assert_copied(&cluster, 1, 20).await;
}

#[tokio::test(start_paused = true)]
async fn lost_answer_of_commit_repeats_nothing() {
    let cluster = with_outputs(1, 40).await;
    let lost = cluster.fault(on(ApiKey::EndTxn).skip(1).times(2).act_then_drop());
    let worker = copying(exactly_once(&cluster, GroupProtocol::Classic, "w").await, Duration::from_millis(20));
    all_committed(&cluster, 1, 40).await;
    assert_eq!(lost.hits(), 2);
    close(&worker).await;
    assert_copied(&cluster, 1, 40).await;
}

#[tokio::test(start_paused = true)]
async fn unknown_outcome_is_told_by_committed_offsets() {
    for commits in [true, false] {
        let cluster = with_outputs(1, 40).await;
        let fault = on(ApiKey::EndTxn).forever();
        // The first commit has an effect or not; no answer arrives until the producer is fenced.
        let lost = cluster.fault(if commits { fault.act_then_drop() } else { fault.drop_connection() });
        let worker = copying(exactly_once(&cluster, GroupProtocol::Classic, "w").await, Duration::from_millis(20));
        lost.reached(1).await;
        let mut other = transactional(&cluster, "w").build().await.unwrap();
        other.init().await.unwrap();
        lost.clear();
        all_committed(&cluster, 1, 40).await;
        let metrics = worker.metrics();
        assert_eq!((metrics.transactions_unknown, metrics.producers_replaced), (1, 1), "{commits}");
        close(&worker).await;
        assert_copied(&cluster, 1, 40).await;
    }
}

#[tokio::test(start_paused = true)]
async fn generation_change_aborts_and_repeats_records() {
    let cluster = with_outputs(1, 20).await;
    let refused = on(ApiKey::TxnOffsetCommit).error(ErrorCode::ILLEGAL_GENERATION);
    let refused = cluster.fault(refused);
    let worker = copying(exactly_once(&cluster, GroupProtocol::Classic, "w").await, Duration::from_millis(10));
    all_committed(&cluster, 1, 20).await;
    assert_eq!(refused.hits(), 1);
    let status = worker.status().exactly_once.unwrap();
    assert_eq!((worker.metrics().transactions_aborted, status.recent_failures), (1, 0));
    close(&worker).await;
    assert_copied(&cluster, 1, 20).await;
}

#[tokio::test(start_paused = true)]
async fn dead_letter_commits_with_its_offset() {
    let cluster = with_outputs(2, 10).await;
    cluster.create_topic("dead", 1).unwrap();
    let refused = cluster.fault(on(ApiKey::Produce).topic("dead").error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let builder = exactly_once(&cluster, GroupProtocol::Classic, "w").await.dead_letter("dead");
    let worker = builder.start(|record: ConsumerRecord, outputs: Outputs| async move {
        copy(&record, &outputs).await?;
        match (record.partition, record.offset) {
            (0, 4) => Err(NonRetriable::new("never").into()),
            (1, 9) => panic!("never"),
            _ => Fails::Ok(()),
        }
    });
    let worker = worker.unwrap();
    all_committed(&cluster, 2, 10).await;
    close(&worker).await;
    let mut dead = committed_values(&cluster, "dead", 1).await.remove(0);
    dead.sort_unstable();
    assert_eq!(dead, [4, 9]);
    let copied = committed_values(&cluster, "out", 2).await;
    assert_eq!(copied, [[numbers(0..4), numbers(5..10)].concat(), numbers(0..9)]);
    let metrics = worker.metrics();
    assert_eq!((metrics.records_processed, metrics.records_dead_lettered), (18, 2));
    assert_eq!(refused.hits(), 1);
}

#[tokio::test(start_paused = true)]
async fn skipped_record_leaves_no_output() {
    let cluster = with_outputs(1, 10).await;
    let builder = builder(&cluster, GroupProtocol::Classic).await.retries(1).skip_failed();
    let worker = builder.exactly_once(transactional(&cluster, "w")).start(
        |record: ConsumerRecord, outputs: Outputs| async move {
            copy(&record, &outputs).await?;
            if record.offset == 3 { Err("never".into()) } else { Fails::Ok(()) }
        },
    );
    let worker = worker.unwrap();
    all_committed(&cluster, 1, 10).await;
    close(&worker).await;
    assert_eq!(committed_values(&cluster, "out", 1).await, [[numbers(0..3), numbers(4..10)].concat()]);
    assert_eq!((worker.metrics().records_skipped, worker.metrics().attempts_failed), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn exhausted_retries_end_worker_and_abort() {
    let cluster = with_outputs(1, 10).await;
    let builder = builder(&cluster, GroupProtocol::Classic).await.retries(1);
    let worker = builder.exactly_once(transactional(&cluster, "w")).start(
        |record: ConsumerRecord, outputs: Outputs| async move {
            copy(&record, &outputs).await?;
            if record.offset == 3 { Err("never".into()) } else { Fails::Ok(()) }
        },
    );
    let error = worker.unwrap().wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Handler, "{error}");
    let committed = cluster.committed("g", "t", 0).unwrap_or(0);
    assert_eq!(committed_values(&cluster, "out", 1).await, [numbers(0..committed)]);
    assert!(committed <= 3);
}

#[tokio::test(start_paused = true)]
async fn hidden_output_error_does_not_commit() {
    let cluster = with_outputs(1, 10).await;
    let worker = exactly_once(&cluster, GroupProtocol::Classic, "w").await.start(
        |record: ConsumerRecord, outputs: Outputs| async move {
            copy(&record, &outputs).await?;
            if record.offset == 5 {
                let large = vec![0; 3_000_000];
                let _hidden = outputs.send(Record::to("out").with_value(&large)).await;
            }
            Fails::Ok(())
        },
    );
    let error = worker.unwrap().wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TransactionFailed, "{error}");
    assert!(cluster.committed("g", "t", 0).unwrap_or(0) <= 5);
}

#[tokio::test(start_paused = true)]
async fn close_commits_what_was_handled() {
    let cluster = with_outputs(2, 20).await;
    let builder = exactly_once(&cluster, GroupProtocol::Classic, "w").await.transaction_interval(20 * SECOND);
    let worker = copying(builder, SECOND);
    let records = || worker.status().exactly_once.map_or(0, |status| status.records);
    until("a transaction is open", || records() >= 6).await;
    assert_eq!(worker.status().exactly_once.unwrap().phase, TransactionPhase::Open);
    close(&worker).await;
    let committed: Vec<_> = (0..2).map(|partition| cluster.committed("g", "t", partition).unwrap()).collect();
    assert!(committed.iter().all(|offset| *offset >= 3), "{committed:?}");
    let copied = committed_values(&cluster, "out", 2).await;
    assert_eq!(copied, committed.into_iter().map(|offset| numbers(0..offset)).collect::<Vec<_>>());
    assert_eq!(worker.metrics().transactions_aborted, 0);
}

#[tokio::test(start_paused = true)]
async fn aborted_inputs_are_not_handled() {
    let cluster = with_outputs(1, 5).await;
    let more: Vec<_> = (100..105).map(|n| Record::to("t").with_value(n.to_string())).collect();
    cluster.append_in_transaction("t", 0, 77, &more).unwrap();
    cluster.end_transaction("t", 0, 77, false).unwrap();
    let last = [Record::to("t").with_value("5")];
    cluster.append("t", 0, &last).unwrap();
    let worker = exactly_once(&cluster, GroupProtocol::Classic, "w").await;
    // Some records are fetched before the worker raises the isolation level.
    sleep(SECOND).await;
    let worker = copying(worker, Duration::from_millis(1));
    all_committed(&cluster, 1, cluster.log_end("t", 0).unwrap()).await;
    close(&worker).await;
    assert_copied(&cluster, 1, 6).await;
}

#[tokio::test(start_paused = true)]
async fn contradicting_settings_are_refused() {
    let cluster = with_outputs(1, 1).await;
    let refusal = async |consumer: ConsumerBuilder, change: fn(WorkerBuilder) -> WorkerBuilder| {
        let consumer = subscribed(consumer).await;
        let builder = change(consumer.worker()).exactly_once(transactional(&cluster, "w"));
        let error = builder.start(|_: ConsumerRecord, _: Outputs| async {}).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        error.to_string()
    };
    let group = || cluster.consumer().group("g");
    let uncommitted = group().isolation_level(IsolationLevel::ReadUncommitted);
    assert!(refusal(uncommitted, |worker| worker).await.contains("isolation.level"));
    assert!(refusal(group().auto_commit(true), |worker| worker).await.contains("enable.auto.commit"));
    let slow = refusal(group(), |worker| worker.handler_timeout(50 * SECOND)).await;
    assert!(slow.contains("handler_timeout (50000 ms)") && slow.contains("transaction.timeout.ms"), "{slow}");
    let other = cluster.producer().build().await.unwrap();
    let consumer = subscribed(group()).await;
    let builder = consumer.worker().dead_letter(&other, "dead").exactly_once(transactional(&cluster, "w"));
    let error = builder.start(|_: ConsumerRecord, _: Outputs| async {}).map(drop).unwrap_err();
    assert!(error.to_string().contains("ExactlyOnceBuilder::dead_letter"), "{error}");
    let alone = cluster.consumer().build().await.unwrap();
    let name = TopicPartition::new("t", 0);
    alone.assign([(name, Offset::Beginning)]).unwrap();
    let builder = alone.worker().exactly_once(transactional(&cluster, "w"));
    let error = builder.start(|_: ConsumerRecord, _: Outputs| async {}).map(drop).unwrap_err();
    assert!(error.to_string().contains("group.id"), "{error}");
    let nameless = TransactionalProducer::builder(cluster.bootstrap(), "");
    let builder = subscribed(group()).await.worker().exactly_once(nameless);
    let error = builder.start(|_: ConsumerRecord, _: Outputs| async {}).map(drop).unwrap_err();
    assert!(error.to_string().contains("transactional.id"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn refused_transaction_timeout_ends_worker() {
    let options = Options::new().brokers(1).in_memory().max_transaction_timeout(10 * SECOND);
    let cluster = Cluster::start(options).await.unwrap();
    cluster.create_topic("t", 1).unwrap();
    let worker = copying(exactly_once(&cluster, GroupProtocol::Classic, "w").await, SECOND);
    let error = worker.wait().await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::INVALID_TRANSACTION_TIMEOUT), "{error}");
}
