//! Tests of the buffer's limits, and of records that `send` rejects.

use super::*;
use crate::{ErrorKind, testkit::on, wire::ApiKey};

#[tokio::test(start_paused = true)]
async fn full_buffer_returns_record_or_blocks() {
    let cluster = cluster(1).await;
    let hang = cluster.fault(on(ApiKey::Produce).forever().delay(ms(1000)));
    let producer = builder(&cluster).buffer_memory(5000).max_block(ms(300)).build().await.unwrap();
    let value = vec![b'x'; 500];
    let mut taken = Vec::new();
    let refused = loop {
        match producer.try_send(Record::to(TOPIC).with_value(&value).with_header("n", taken.len().to_string())) {
            Ok(delivery) => taken.push(delivery),
            Err(refused) => break refused,
        }
        assert!(taken.len() < 10, "the buffer has no bound");
    };
    assert_eq!(refused.error().kind(), ErrorKind::BufferFull);
    assert!(refused.error().is_retriable());
    let record = refused.into_record();
    assert_eq!(record.topic(), TOPIC);
    let error = producer.send(record.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BufferFull);
    assert!(error.to_string().contains("max.block.ms"), "{error}");
    hang.clear();
    // Memory becomes free as results arrive.
    delivered(taken).await;
    producer.send(record).await.unwrap().await.unwrap();
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 5000);
}

#[tokio::test(start_paused = true)]
async fn blocked_senders_end_linger_and_keep_order() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster)
        .linger(Duration::from_secs(30))
        .buffer_memory(2000)
        .max_request_size(1000)
        .build()
        .await
        .unwrap();
    producer.partitions_for(TOPIC).await.unwrap();
    let before = tokio::time::Instant::now();
    let value = "x".repeat(300);
    for number in 0..40 {
        drop(producer.send(Record::to(TOPIC).with_partition(0).with_value(format!("{number} {value}"))).await.unwrap());
    }
    assert!(before.elapsed() < Duration::from_secs(10), "the full buffer waited for the linger");
    assert_eq!(producer.flush(ms(5000)).await, 0);
    let order: Vec<String> = log(&cluster, 0).iter().map(|value| value.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(order, numbers(0..40));
}

#[tokio::test(start_paused = true)]
async fn blocked_senders_do_not_wait_for_linger() {
    let cluster = cluster(1).await;
    let hour = Duration::from_secs(3600);
    let producer = builder(&cluster).linger(hour).delivery_timeout(hour * 2).buffer_memory(1000).build().await.unwrap();
    producer.partitions_for(TOPIC).await.unwrap();
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..5 {
        let producer = producer.clone();
        senders.spawn(async move { producer.send(Record::to(TOPIC).with_value("x".repeat(800))).await.map(drop) });
    }
    // All but the last have a caller that waits after them.
    for _ in 0..5 {
        let sent = tokio::time::timeout(Duration::from_secs(5), senders.join_next()).await;
        sent.expect("a sender waits for another's linger").unwrap().unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn cancelled_send_releases_its_buffer_memory() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).buffer_memory(1000).build().await.unwrap();
    let value = vec![b'x'; 800];
    cluster.fault(on(ApiKey::Produce).delay(ms(500)));
    let first = producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap();
    let waiting = producer.send(Record::to(TOPIC).with_value(&value));
    assert!(tokio::time::timeout(ms(50), waiting).await.is_err());
    first.await.unwrap();
    producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap().await.unwrap();
    assert_eq!(cluster.log_end(TOPIC, 0).unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn dead_broker_times_out_buffered_records() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster)
        .buffer_memory(3000)
        .request_timeout(ms(500))
        .delivery_timeout(ms(3000))
        .max_block(ms(1000))
        .build()
        .await
        .unwrap();
    producer.partitions_for(TOPIC).await.unwrap();
    cluster.kill(1).await.unwrap();
    let value = vec![b'x'; 900];
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap());
    }
    assert_eq!(producer.send(Record::to(TOPIC).with_value(&value)).await.unwrap_err().kind(), ErrorKind::BufferFull);
    for result in results(deliveries).await {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.delivery_status(), Some(crate::DeliveryStatus::NotPersisted), "nothing was ever written");
    }
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 3000);
}

#[tokio::test(start_paused = true)]
async fn rejects_unsendable_record_without_harming_others() {
    let cluster = cluster(1).await;
    let producer = builder(&cluster).max_request_size(1000).build().await.unwrap();
    let large = vec![b'x'; 1000];
    let delivery = producer.send(Record::to(TOPIC).with_value("before")).await.unwrap();
    for (record, kind) in [
        (Record::to(TOPIC).with_value(&large), ErrorKind::RecordTooLarge),
        (Record::to("no/topic").with_value("x"), ErrorKind::InvalidArgument),
        (Record::to("").with_value("x"), ErrorKind::InvalidArgument),
        (Record::to(TOPIC).with_partition(-1).with_value("x"), ErrorKind::InvalidArgument),
    ] {
        let error = producer.send(record.clone()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        let refused = producer.try_send(record.clone()).unwrap_err();
        assert_eq!(refused.error().kind(), kind);
        assert_eq!(refused.into_record(), record);
    }
    delivery.await.unwrap();
    producer.send(Record::to(TOPIC).with_value("after")).await.unwrap().await.unwrap();
    assert_eq!(log(&cluster, 0), ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn build_error_names_unusable_setting() {
    let error = Producer::builder("a:1").property("linger.ms", "soon").build().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    let error = Producer::builder("").build().await.unwrap_err();
    assert!(error.to_string().contains("bootstrap.servers"), "{error}");
    let pairs = [("bootstrap.servers", "a:1"), ("acks", "1"), ("enable.idempotence", "true")];
    let error = Producer::from_properties(pairs).await.unwrap_err();
    assert!(error.to_string().contains("needs acks=all"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn small_buffer_keeps_order_across_many_tasks() {
    const TASKS: u64 = 8;
    const RECORDS: u64 = 1500;
    let cluster = cluster(1).await;
    // Memory for about forty records, and a linger that is too long to be waited for each time.
    let producer = builder(&cluster).buffer_memory(6000).batch_size(500).linger(ms(20)).build().await.unwrap();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let producer = producer.clone();
        tasks.push(tokio::spawn(async move {
            let mut last = None;
            for number in 0..RECORDS {
                let record = Record::to(TOPIC).with_partition(0).with_value(format!("{task} {number:>60}"));
                last = Some(producer.send(record).await.unwrap());
            }
            last.unwrap().await.unwrap()
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    producer.close(Duration::from_secs(60)).await.unwrap();
    let mut next = [0u64; TASKS as usize];
    for value in log(&cluster, 0) {
        let mut parts = value.split_whitespace().map(|part| part.parse::<u64>().unwrap());
        let (task, number) = (parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(number, next[task as usize], "of task {task}");
        next[task as usize] += 1;
    }
    assert_eq!(next, [RECORDS; TASKS as usize]);
    assert_eq!(producer.0.shared.batch_shared.buffer.free(), 6000);
}
