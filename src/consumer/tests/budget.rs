//! Tests of the memory limit for prefetched data, with any number and size of partitions.

use super::*;
use crate::{
    Compression,
    consumer::{
        buffer::fetched_batch::HEAVY,
        test_batches::{Sort, batch_of, built, noise},
    },
};

const MIB: usize = 1 << 20;
const PARTITIONS: i32 = 200;

/// Starts a cluster with partitions that serve these batches for ever.
async fn serving(batches: Vec<bytes::Bytes>, partitions: i32) -> Cluster {
    let options = Options::new().brokers(2).in_memory().sink(true).prepared("t", batches);
    Cluster::start(options.default_partitions(partitions)).await.unwrap()
}

async fn reading_all(builder: ConsumerBuilder, partitions: i32) -> Consumer {
    let consumer = builder.check_crcs(false).build().await.unwrap();
    consumer.assign((0..partitions).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    consumer
}

fn peak(consumer: &Consumer) -> usize {
    consumer.shared.buffer.with_state(|state| state.connections.budget().peak())
}

/// Reads until each partition has delivered `at_least` records, and waits at times so that
/// everything that can be fetched is fetched; returns the number of records of the partition that
/// delivered most.
async fn read_from_all(consumer: &Consumer, partitions: i32, at_least: i64) -> i64 {
    let mut counts = vec![0_i64; partitions as usize];
    let mut polls = 0;
    while counts.iter().any(|count| *count < at_least) {
        polls += 1;
        if polls % 20 == 1 {
            tokio::time::sleep(5 * SECOND).await;
        }
        let records = consumer.poll(60 * SECOND).await.unwrap();
        assert!(!records.is_empty(), "it never stalls");
        for record in &records {
            let count = &mut counts[record.partition() as usize];
            assert_eq!(record.offset(), *count, "in order");
            *count += 1;
        }
    }
    counts.into_iter().max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn large_batches_of_many_partitions_stay_bounded() {
    let big = batch_of(0, 4, 256 * 1024);
    assert!(big.len() > MIB);
    let cluster = serving(vec![big], PARTITIONS).await;
    for bound in [8 * MIB, 48 * MIB] {
        let consumer = reading_all(builder(&cluster).queued_max_bytes(bound).max_poll_records(4), PARTITIONS).await;
        let most = read_from_all(&consumer, PARTITIONS, 4).await;
        assert!(peak(&consumer) <= bound, "{} of {bound} bytes", peak(&consumer));
        assert!(peak(&consumer) > bound / 2, "it does read ahead: {} of {bound}", peak(&consumer));
        assert!(most <= 4 * 4, "all have their turns: one gave {most} records while another gave 4");
    }
}

#[tokio::test(start_paused = true)]
async fn decompressed_batches_stay_within_memory_budget() {
    let text = "some text that repeats itself and another one ".repeat(400);
    for compression in [Compression::Lz4, Compression::Zstd(1)] {
        let noise = noise(80_000);
        let batch = built(0, 20, Sort::Plain, compression, &(noise + &text));
        let opened = 20 * (80_000 + text.len());
        assert!(batch.len() > HEAVY && batch.len() < opened, "{compression:?}: {} of {opened}", batch.len());
        let cluster = serving(vec![batch.clone()], 20).await;
        let bound = 16 * batch.len() + 8 * opened;
        let consumer = reading_all(builder(&cluster).queued_max_bytes(bound).max_poll_records(20), 20).await;
        read_from_all(&consumer, 20, 20).await;
        // For each broker one batch may be decompressed beyond the limit, so that reading
        // continues, and the expected size of a batch is charged while it is being decompressed.
        let slack = 2 * 2 * 4 * opened;
        assert!(peak(&consumer) <= bound + slack, "{compression:?}: {} of {bound} bytes", peak(&consumer));
    }
}

#[tokio::test(start_paused = true)]
async fn oversized_batches_are_decompressed_one_by_one() {
    let text = "0123456789".repeat(10_000);
    let noise = noise(60_000);
    let batch = built(0, 10, Sort::Plain, Compression::Lz4, &(noise + &text));
    assert!(batch.len() > HEAVY);
    let cluster = serving(vec![batch.clone()], 10).await;
    let consumer = reading_all(builder(&cluster).queued_max_bytes(2 * batch.len()).max_poll_records(10), 10).await;
    read_from_all(&consumer, 10, 30).await;
    let opened = 10 * 160_000;
    assert!(peak(&consumer) < 2 * (3 * opened), "{} bytes where one batch has {opened}", peak(&consumer));
}

#[tokio::test(start_paused = true)]
async fn paused_full_partitions_do_not_block_others() {
    let big = batch_of(0, 1, MIB);
    let cluster = serving(vec![big], 8).await;
    let consumer = reading_all(builder(&cluster).queued_max_bytes(16 * MIB).max_poll_records(1), 8).await;
    tokio::time::sleep(10 * SECOND).await;
    // All but one are full and paused: they do not stop fetches from the broker.
    let others: Vec<_> = (1..8).map(|partition| tp("t", partition)).collect();
    consumer.pause(&others).unwrap();
    for offset in 0..50 {
        let record = next(&consumer).await;
        assert_eq!((record.partition, record.offset), (0, offset));
    }
    consumer.resume(&others).unwrap();
    let mut next_of = [50, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..80 {
        let record = next(&consumer).await;
        assert_eq!(record.offset, next_of[record.partition as usize], "kept or fetched again, but never twice");
        next_of[record.partition as usize] += 1;
    }
    assert!(next_of.iter().all(|offset| *offset > 5), "{next_of:?}");
}

#[tokio::test(start_paused = true)]
async fn records_kept_by_user_stall_nothing() {
    let cluster = serving(vec![batch_of(0, 1, MIB / 4)], 2).await;
    let consumer = reading_all(builder(&cluster).queued_max_bytes(2 * MIB), 2).await;
    let mut kept = Vec::new();
    for _ in 0..40 {
        kept.push(next(&consumer).await);
    }
    let bytes: usize = kept.iter().filter_map(|record| record.value.as_ref()).map(|value| value.len()).sum();
    assert!(bytes > 4 * peak(&consumer), "{bytes} bytes kept where {} were charged", peak(&consumer));
}

#[test]
fn fetches_ahead_while_partition_is_read() {
    use super::world::{World, rules};
    let mut world =
        World::new(crate::consumer::subscription::rules::ConsumerRules { queued_bytes: 1 << 20, ..rules() });
    for round in 0..50 {
        assert!(world.send(1).is_some(), "round {round}: the line is never idle");
        world.answer(1, 1);
        if round > 0 {
            for _ in 0..4 {
                assert!(world.take().is_some());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn paused_remainder_does_not_block_other_partitions() {
    // Each batch takes most of the limit, and a paused partition keeps half of one.
    let options = Options::new().brokers(1).in_memory().sink(true).default_partitions(2);
    let cluster = Cluster::start(options.prepared("t", vec![batch_of(0, 2, 400_000)])).await.unwrap();
    let consumer = reading_all(builder(&cluster).queued_max_bytes(1_000_000), 2).await;
    let first = next(&consumer).await;
    let paused = first.topic_partition();
    consumer.pause([&paused]).unwrap();
    for offset in 0..20 {
        let record = next(&consumer).await;
        assert_eq!((record.partition, record.offset), (1 - paused.partition, offset));
    }
    consumer.resume([&paused]).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let record = next(&consumer).await;
        if record.partition == paused.partition {
            seen.push(record.offset);
        }
    }
    assert_eq!(seen, [1, 2, 3, 4], "none skipped, none twice");
}

#[tokio::test(start_paused = true)]
async fn poll_decompresses_only_within_memory_budget() {
    let text = r#"{"some":"text","that":"repeats itself"},"#.repeat(5_000);
    for compression in [Compression::Gzip(1), Compression::Snappy, Compression::Lz4, Compression::Zstd(1)] {
        let batch = built(0, 1, Sort::Plain, compression, &text);
        assert!(batch.len() < HEAVY, "{compression:?}: opened by the reader");
        let cluster = serving(vec![batch], 2).await;
        let bound = 4 * MIB;
        let consumer = reading_all(builder(&cluster).queued_max_bytes(bound), 2).await;
        let mut stream = consumer.split_partition(&tp("t", 1)).unwrap();
        let mut next = [0, 0];
        for round in 0..10 {
            if round % 3 == 0 {
                tokio::time::sleep(5 * SECOND).await;
            }
            let of_both = consumer.poll(60 * SECOND).await.unwrap();
            let of_one = stream.poll(60 * SECOND).await.unwrap().unwrap();
            for record in of_both.iter().chain(&of_one) {
                let at = &mut next[record.partition() as usize];
                assert_eq!(record.offset(), *at, "{compression:?}");
                *at += 1;
            }
            assert!(!of_both.is_empty() && !of_one.is_empty(), "each goes on by one batch at least");
        }
        // A batch's decompressed size is known only after decompression.
        let most = bound + 2 * text.len();
        assert!(peak(&consumer) <= most, "{compression:?}: {} of {most} bytes", peak(&consumer));
    }
}

#[tokio::test(start_paused = true)]
async fn buffered_bytes_stay_bounded_when_leaders_move() {
    // Without an epoch, because a sink keeps no log from which the end of one could be read.
    let mut batch = batch_of(0, 1, 100_000).to_vec();
    batch[12..16].copy_from_slice(&(-1_i32).to_be_bytes());
    let options = Options::new().brokers(3).in_memory().sink(true).prepared("t", vec![batch.into()]);
    let cluster = Cluster::start(options.default_partitions(60)).await.unwrap();
    let gather = |broker| (0..60).for_each(|partition| cluster.move_leader("t", partition, broker).unwrap());
    let bound = 8 * MIB;
    gather(1);
    let builder = builder(&cluster).queued_max_bytes(bound).max_poll_records(5);
    let consumer = builder.check_crcs(false).build().await.unwrap();
    consumer.assign((0..60).map(|partition| (tp("t", partition), 0))).unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert!(peak(&consumer) > bound / 2);
    let mut next = [0_i64; 60];
    let mut read = async || {
        let records = consumer.poll(60 * SECOND).await.unwrap();
        assert!(!records.is_empty(), "it goes on");
        for record in &records {
            let at = &mut next[record.partition() as usize];
            assert_eq!(record.offset(), *at);
            *at += 1;
        }
        next.iter().all(|at| *at > 0)
    };
    for broker in [2, 3, 1, 2] {
        gather(broker);
        tokio::time::sleep(400 * SECOND).await;
        let kept = consumer.metrics().buffered_bytes as usize;
        assert!(kept > bound / 2, "what came from the last one is kept: {kept} bytes at broker {broker}");
        assert!(peak(&consumer) <= bound, "{} of {bound} bytes at broker {broker}", peak(&consumer));
        for _ in 0..40 {
            read().await;
        }
    }
    // A new session begins with the first partition, so that the last ones get their first turns
    // here.
    let mut polls = 0;
    while !read().await {
        polls += 1;
        assert!(polls < 2000, "each has its turn");
    }
    assert!(peak(&consumer) <= bound, "{} of {bound} bytes", peak(&consumer));
}
