use super::*;
use crate::{
    Compression, ErrorKind,
    consumer::test_batches::{Sort, built, noise},
};

fn used(consumer: &Consumer) -> usize {
    consumer.shared.buffer.with_state(|state| state.connections.budget().used())
}

fn fill(cluster: &Cluster, topic: &str, partition: i32, batches: usize, size: usize) {
    let value = vec![7; size];
    for _ in 0..batches {
        cluster.append(topic, partition, &[Record::to(topic).with_value(&value[..])]).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn buffered_bytes_stay_within_queued_max_bytes() {
    let cluster = cluster(2).await;
    cluster.create_topic("t", 8).unwrap();
    for partition in 0..8 {
        fill(&cluster, "t", partition, 40, 10_000);
    }
    let bound = 300_000;
    let consumer = builder(&cluster)
        .queued_max_bytes(bound)
        .max_partition_fetch_bytes(50_000)
        .max_poll_records(5)
        .build()
        .await
        .unwrap();
    consumer.assign((0..8).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    let mut count = 0;
    let mut most = 0;
    while count < 8 * 40 {
        tokio::time::sleep(SECOND).await;
        // A broker may return one batch more than requested, in each of its two sessions.
        assert!(used(&consumer) <= bound + 2 * 10_200, "{}", used(&consumer));
        most = most.max(used(&consumer));
        count += consumer.poll(60 * SECOND).await.unwrap().iter().count();
    }
    assert!(most > bound / 2, "it does read ahead: {most}");
    drop(consumer.poll(SECOND).await.unwrap());
    tokio::time::sleep(SECOND).await;
    assert!(used(&consumer) <= 2 * 50_000 * 4, "what waits for an answer is reserved, nothing else is charged");
}

#[tokio::test(start_paused = true)]
async fn batch_larger_than_every_limit_is_delivered() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    for partition in 0..2 {
        fill(&cluster, "t", partition, 3, 300_000);
    }
    let consumer = builder(&cluster)
        .queued_max_bytes(1000)
        .fetch_max_bytes(2000)
        .max_partition_fetch_bytes(100)
        .build()
        .await
        .unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    let mut seen = Vec::new();
    for _ in 0..6 {
        let record = next(&consumer).await;
        assert_eq!(record.value.as_ref().map(|value| value.len()), Some(300_000));
        seen.push((record.partition, record.offset));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
}

#[tokio::test(start_paused = true)]
async fn paused_partition_does_not_block_others() {
    let cluster = cluster(1).await;
    cluster.create_topic("t", 2).unwrap();
    for partition in 0..2 {
        fill(&cluster, "t", partition, 50, 10_000);
    }
    let consumer = builder(&cluster).queued_max_bytes(120_000).max_partition_fetch_bytes(60_000).build().await.unwrap();
    consumer.assign([(tp("t", 0), Offset::Beginning), (tp("t", 1), Offset::Beginning)]).unwrap();
    let first = next(&consumer).await;
    tokio::time::sleep(SECOND).await;
    let paused = first.topic_partition();
    consumer.pause([&paused]).unwrap();
    for offset in 0..50 {
        let record = next(&consumer).await;
        assert_eq!((record.partition, record.offset), (1 - paused.partition, offset));
    }
    consumer.resume([&paused]).unwrap();
    for offset in 1..50 {
        let record = next(&consumer).await;
        assert_eq!((record.partition, record.offset), (paused.partition, offset), "none skipped, none twice");
    }
}

#[tokio::test(start_paused = true)]
async fn compressed_batches_of_any_size_keep_order() {
    let text = "some text that repeats itself ".repeat(50);
    let noise = noise(60_000);
    for compression in [Compression::Gzip(-1), Compression::Snappy, Compression::Lz4, Compression::Zstd(1)] {
        let batches = vec![
            built(0, 4, Sort::Plain, compression, &noise),
            built(0, 300, Sort::Plain, compression, &text),
            built(0, 200, Sort::Plain, Compression::None, "x"),
            built(0, 7, Sort::Plain, compression, &noise),
        ];
        assert!(
            batches.iter().any(|batch| batch.len() > crate::consumer::buffer::fetched_batch::HEAVY),
            "{compression:?}"
        );
        let options = Options::new().brokers(1).in_memory().sink(true).prepared("t", batches).default_partitions(2);
        let cluster = Cluster::start(options).await.unwrap();
        let consumer = consumer(&cluster).await;
        consumer.assign([(tp("t", 0), 2), (tp("t", 1), 150)]).unwrap();
        let mut expected = [2, 150];
        for _ in 0..40 {
            let records = consumer.poll(60 * SECOND).await.unwrap();
            for record in &records {
                let at = &mut expected[usize::try_from(record.partition()).unwrap()];
                assert_eq!(record.offset(), *at, "{compression:?}");
                *at += 1;
            }
        }
        assert!(expected.iter().all(|at| *at > 2 * 511), "some rounds of all batches: {expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn decompression_bomb_is_reported_as_corrupt() {
    let zeros = "0".repeat(100_000);
    let bomb = built(0, 50, Sort::Plain, Compression::Gzip(9), &zeros);
    assert!(bomb.len() < 50_000);
    let options = Options::new().brokers(1).in_memory().sink(true).prepared("t", vec![bomb]);
    let cluster = Cluster::start(options).await.unwrap();
    let consumer = builder(&cluster).max_decompressed_batch_bytes(1_000_000).build().await.unwrap();
    consumer.assign([(tp("t", 0), 0)]).unwrap();
    let error = next_error(&consumer, 60).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("t[0]"), "{error}");
    assert!(used(&consumer) < 1_000_000);
}
