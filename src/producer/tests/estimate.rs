#![cfg(feature = "lz4")]

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::Compression;

const BATCH: usize = 8192;
const VALUE: usize = 400;

/// Returns values with `random` random bytes and zeros for the rest, so that a batch of one
/// compresses as well as one of many. The first bytes are the value's number.
fn values(rng: &mut StdRng, numbers: std::ops::Range<u32>, random: usize) -> Vec<Vec<u8>> {
    let value = |number: u32| {
        let mut value = vec![0; VALUE];
        rng.fill(&mut value[..random]);
        value[..4].copy_from_slice(&number.to_be_bytes());
        value
    };
    numbers.map(value).collect()
}

async fn start(cluster: &Cluster) -> Producer {
    builder(cluster).compression(Compression::Lz4).batch_size(BATCH).build().await.unwrap()
}

/// Sends all values before the first is answered, and waits for the results.
async fn burst(producer: &Producer, values: &[Vec<u8>]) {
    let mut deliveries = Vec::new();
    for value in values {
        deliveries.push(producer.send(Record::to(TOPIC).with_partition(0).with_value(value)).await.unwrap());
    }
    delivered(deliveries).await;
}

/// Sends enough bursts of compressible values for the ratio to be learned; returns their number.
async fn learn(producer: &Producer, rng: &mut StdRng) -> u32 {
    let mut sent = 0;
    for _ in 0..24 {
        burst(producer, &values(rng, sent..sent + 400, VALUE / 4)).await;
        sent += 400;
    }
    sent
}

fn stored(cluster: &Cluster) -> Vec<u32> {
    let number = |value: &[u8]| u32::from_be_bytes(value[..4].try_into().unwrap());
    cluster.records(TOPIC, 0).unwrap().iter().map(|record| number(record.value.as_deref().unwrap())).collect()
}

#[tokio::test(start_paused = true)]
async fn compressible_records_fill_batches_on_wire() {
    let cluster = cluster_with(Options::new().sink(true), 1).await;
    let producer = start(&cluster).await;
    let mut rng = StdRng::seed_from_u64(1);
    let mut before = cluster.received();
    let mut average = || {
        let now = cluster.received();
        let average = (now.record_bytes - before.record_bytes) / (now.batches - before.batches);
        before = now;
        average as usize
    };
    burst(&producer, &values(&mut rng, 0..400, VALUE / 4)).await;
    let at_first = average();
    assert!(at_first < BATCH / 2, "nothing is known yet: {at_first}");
    learn(&producer, &mut rng).await;
    average();
    burst(&producer, &values(&mut rng, 0..2000, VALUE / 4)).await;
    let learnt = average();
    assert!((BATCH * 4 / 5..=BATCH).contains(&learnt), "{learnt}");
}

#[tokio::test(start_paused = true)]
async fn incompressible_records_shrink_batches_again() {
    let cluster = cluster(1).await;
    let producer = start(&cluster).await;
    let mut rng = StdRng::seed_from_u64(2);
    let mut sent = learn(&producer, &mut rng).await;
    let mut averages = Vec::new();
    for _ in 0..2 {
        let before = producer.metrics().batch_bytes;
        burst(&producer, &values(&mut rng, sent..sent + 1000, VALUE)).await;
        sent += 1000;
        averages.push(producer.metrics().batch_bytes.since(&before).mean() as usize);
    }
    assert!(averages[0] > BATCH * 2, "begun before it was known: {averages:?}");
    assert!((BATCH * 4 / 5..=BATCH + BATCH / 50).contains(&averages[1]), "{averages:?}");
    assert_eq!(stored(&cluster), (0..sent).collect::<Vec<_>>(), "all of them, once, in order");
}

#[tokio::test(start_paused = true)]
async fn splits_oversized_batches_and_reduces_later_ones() {
    let cluster = Cluster::start(Options::new().in_memory()).await.unwrap();
    let most = (BATCH + BATCH / 4).to_string();
    cluster.create_topic_with(TOPIC, 1, [("max.message.bytes", most.as_str())]).unwrap();
    let producer = start(&cluster).await;
    let mut rng = StdRng::seed_from_u64(3);
    let mut sent = learn(&producer, &mut rng).await;
    assert_eq!(producer.metrics().batches_split, 0);
    let mut splits = Vec::new();
    for _ in 0..2 {
        burst(&producer, &values(&mut rng, sent..sent + 300, VALUE)).await;
        sent += 300;
        splits.push(producer.metrics().batches_split);
    }
    assert!(splits[0] > 0 && splits[1] == splits[0], "{splits:?}");
    assert_eq!(stored(&cluster), (0..sent).collect::<Vec<_>>(), "all of them, once, in order");
}
