//! Tests of callers that wait for buffer memory: the time, the order, and the memory after they are
//! cancelled.

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::{DeliveryStatus, ErrorKind, testkit::on, wire::ApiKey};

fn record(size: usize) -> Record<'static> {
    Record::to(TOPIC).with_partition(0).with_value(vec![b'x'; size])
}

fn numbered(number: u64) -> Record<'static> {
    Record::to(TOPIC).with_partition(0).with_value(format!("{number:>800}"))
}

/// Returns the numbers in the log.
fn written(cluster: &Cluster) -> Vec<u64> {
    log(cluster, 0).iter().map(|value| value.trim().parse().unwrap()).collect()
}

/// Returns a producer of a cluster that is down, with a full buffer, and the deliveries of the
/// records in it.
async fn full_before_a_dead_broker(cluster: &Cluster) -> (Producer, Vec<Delivery>) {
    let builder = builder(cluster).buffer_memory(3000).max_block(ms(2000));
    let producer = builder.request_timeout(ms(5000)).delivery_timeout(ms(20_000)).build().await.unwrap();
    producer.partitions_for(TOPIC).await.unwrap();
    cluster.kill(1).await.unwrap();
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(producer.try_send(record(800)).unwrap());
    }
    (producer, deliveries)
}

#[tokio::test(start_paused = true)]
async fn send_blocks_exactly_for_max_block() {
    let cluster = cluster(1).await;
    let (producer, deliveries) = full_before_a_dead_broker(&cluster).await;
    let mut senders = tokio::task::JoinSet::new();
    for late in 0..20 {
        let producer = producer.clone();
        senders.spawn(async move {
            tokio::time::sleep(ms(late * 10)).await;
            let before = Instant::now();
            (producer.send(record(800)).await.unwrap_err(), before.elapsed())
        });
    }
    while let Some(sent) = senders.join_next().await {
        let (error, waited) = sent.unwrap();
        assert_eq!(error.kind(), ErrorKind::BufferFull, "{error}");
        assert!(error.is_retriable());
        // The clock of tests counts whole milliseconds.
        assert!((ms(2000)..=ms(2002)).contains(&waited), "{waited:?}");
    }
    let refused = producer.try_send(record(800)).unwrap_err();
    assert_eq!((refused.error().kind(), refused.into_record()), (ErrorKind::BufferFull, record(800)));
    for result in results(deliveries).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.delivery_status()), (ErrorKind::Timeout, Some(DeliveryStatus::NotPersisted)));
    }
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 3000);
}

#[tokio::test(start_paused = true)]
async fn many_blocked_senders_are_served_in_order() {
    let cluster = cluster(1).await;
    let hold = cluster.fault(on(ApiKey::Produce).forever().delay(ms(10)));
    let producer = builder(&cluster).buffer_memory(1000).build().await.unwrap();
    let mut senders = tokio::task::JoinSet::new();
    for number in 0..201 {
        let producer = producer.clone();
        senders.spawn(async move { producer.send(numbered(number)).await.map(drop) });
        tokio::task::yield_now().await;
    }
    hold.reached(1).await;
    while let Some(sent) = senders.join_next().await {
        sent.unwrap().unwrap();
    }
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
    assert_eq!(written(&cluster), (0..201).collect::<Vec<_>>());
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 1000);
}

/// A sender that is cancelled after that number of milliseconds.
#[derive(Clone, Copy, Debug)]
struct Sender {
    comes: u64,
    size: usize,
    records: usize,
    patience: Option<u64>,
}

fn sender() -> impl Strategy<Value = Sender> {
    let patience = proptest::option::of(0u64..60);
    (0u64..100, 1usize..1500, 0usize..6, patience).prop_map(|(comes, size, records, patience)| Sender {
        comes,
        size,
        records,
        patience,
    })
}

async fn lose_patience(senders: Vec<Sender>) {
    let cluster = cluster(1).await;
    cluster.fault(on(ApiKey::Produce).forever().delay(ms(7)));
    let producer = builder(&cluster).buffer_memory(2000).batch_size(600).build().await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    let patient = senders.iter().filter(|sender| sender.patience.is_none()).map(|sender| sender.records.max(1) as i64);
    let (all, at_least) = (senders.iter().map(|sender| sender.records.max(1) as i64).sum(), patient.sum());
    for Sender { comes, size, records, patience } in senders {
        let producer = producer.clone();
        tasks.spawn(async move {
            tokio::time::sleep(ms(comes)).await;
            let patience = patience.map_or(Duration::from_secs(30), ms);
            match records {
                // No batch: a single record.
                0 => {
                    if let Ok(sent) = tokio::time::timeout(patience, producer.send(record(size))).await {
                        sent.unwrap().await.unwrap();
                    }
                }
                _ => {
                    let batch = (0..records).map(|_| record(size));
                    if let Ok(sent) = tokio::time::timeout(patience, producer.send_batch(batch)).await {
                        let results = sent.await;
                        assert_eq!(results.len(), records);
                        results.iter().for_each(|result| drop(result.unwrap()));
                    }
                }
            }
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!(producer.flush(Duration::from_secs(60)).await, 0);
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 2000, "room was lost, or made out of nothing");
    let end = cluster.log_end(TOPIC, 0).unwrap();
    assert!((at_least..=all).contains(&end), "{end} of {at_least} to {all}");
    // The whole buffer is available at once.
    producer.try_send(record(1800)).unwrap().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cancelled_senders_release_their_buffer_memory(senders in proptest::collection::vec(sender(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(lose_patience(senders));
    }
}

#[tokio::test(start_paused = true)]
async fn send_batch_rejects_records_without_memory() {
    let cluster = cluster(1).await;
    let (producer, deliveries) = full_before_a_dead_broker(&cluster).await;
    for result in results(deliveries).await {
        result.unwrap_err();
    }
    let before = Instant::now();
    let batch = producer.send_batch((0..10).map(|_| record(800))).await;
    let waited = before.elapsed();
    assert!((ms(2000)..=ms(2002)).contains(&waited), "not max.block.ms for all together: {waited:?}");
    assert_eq!(batch.len(), 10);
    let kinds: Vec<_> = batch.await.iter().map(|result| result.unwrap_err().kind()).collect();
    assert_eq!(kinds[..3], [ErrorKind::Timeout; 3]);
    assert_eq!(kinds[3..], [ErrorKind::BufferFull; 7]);
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 3000);
}

#[tokio::test(start_paused = true)]
async fn rejected_batch_records_keep_their_positions() {
    let cluster = cluster(1).await;
    // The first responses are late, so that the batch also waits in the middle.
    cluster.fault(on(ApiKey::Produce).times(3).delay(ms(50)));
    let producer = builder(&cluster).buffer_memory(2000).max_request_size(1500).build().await.unwrap();
    let wrong = |number: u64| match number % 5 {
        1 => Some((Record::to(TOPIC).with_value(vec![0; 1500]), ErrorKind::RecordTooLarge)),
        2 => Some((Record::to("no/topic").with_value("x"), ErrorKind::InvalidArgument)),
        4 => Some((Record::to(TOPIC).with_partition(-1).with_value("x"), ErrorKind::InvalidArgument)),
        _ => None,
    };
    let records = (0..200).map(|number| wrong(number).map_or_else(|| numbered(number), |(record, _)| record));
    let results = producer.send_batch(records).await.await;
    assert_eq!(results.len(), 200);
    for (number, result) in (0..).zip(results.iter()) {
        match (wrong(number), result) {
            (None, result) => drop(result.unwrap()),
            (Some((_, kind)), result) => {
                let error = result.unwrap_err();
                let expected = (kind, Some(DeliveryStatus::NotPersisted));
                assert_eq!((error.kind(), error.delivery_status()), expected, "{number}: {error}");
            }
        }
    }
    assert_eq!(written(&cluster), (0..200).filter(|number| wrong(*number).is_none()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn cancelled_send_batch_delivers_only_its_prefix() {
    for patience in [0, 1, 20, 55, 130] {
        let cluster = cluster(1).await;
        cluster.fault(on(ApiKey::Produce).forever().delay(ms(20)));
        let producer = builder(&cluster).buffer_memory(2000).build().await.unwrap();
        producer.partitions_for(TOPIC).await.unwrap();
        let batch = producer.send_batch((0..50).map(numbered));
        assert!(tokio::time::timeout(ms(patience), batch).await.is_err());
        producer.send(numbered(1000)).await.unwrap().await.unwrap();
        let mut written = written(&cluster);
        assert_eq!(written.pop(), Some(1000));
        assert!((2..50).contains(&written.len()), "{written:?}");
        assert_eq!(written, (0..written.len() as u64).collect::<Vec<_>>());
        assert_eq!(producer.0.shared.batch_shared.buffer.free(), 2000);
    }
}
