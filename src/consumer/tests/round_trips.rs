//! Tests of the bytes per round trip with a long round-trip time, and of the memory limit in that
//! case.

use std::time::Duration;

use super::*;
use crate::{ApiKey, consumer::test_batches::batch_of, testkit::on};

const MIB: usize = 1 << 20;
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// Starts one distant broker with partitions that serve records of 100 kB for ever.
async fn far_away(partitions: i32) -> Cluster {
    let options = Options::new().brokers(1).in_memory().sink(true).prepared("t", vec![batch_of(0, 1, 100_000)]);
    let cluster = Cluster::start(options.default_partitions(partitions)).await.unwrap();
    cluster.fault(on(ApiKey::Fetch).forever().delay(ROUND_TRIP));
    cluster
}

async fn reading(builder: ConsumerBuilder, partitions: i32) -> Consumer {
    let consumer = builder.check_crcs(false).build().await.unwrap();
    consumer.assign((0..partitions).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
    consumer
}

/// Reads `count` records as fast as possible.
async fn read(consumer: &Consumer, next_of: &mut [i64], mut count: usize) {
    while count > 0 {
        let records = consumer.poll(60 * SECOND).await.unwrap();
        assert!(!records.is_empty(), "it never stalls");
        for record in &records {
            let next = &mut next_of[record.partition() as usize];
            assert_eq!(record.offset(), *next, "none skipped, none twice");
            *next += 1;
            count = count.saturating_sub(1);
        }
    }
}

/// Returns the mean size of a response in the steady state.
async fn settled(consumer: &Consumer, partitions: i32) -> f64 {
    let mut next_of = vec![0; partitions as usize];
    read(consumer, &mut next_of, 2000).await;
    let before = consumer.metrics().fetch_bytes;
    read(consumer, &mut next_of, 2000).await;
    consumer.metrics().fetch_bytes.since(&before).mean()
}

fn peak(consumer: &Consumer) -> usize {
    consumer.shared.buffer.with_state(|state| state.connections.budget().peak())
}

#[tokio::test(start_paused = true)]
async fn single_partition_uses_large_responses_unless_limited() {
    let cluster = far_away(1).await;
    let consumer = reading(builder(&cluster), 1).await;
    let mean = settled(&consumer, 1).await;
    assert!(mean > 6.0 * MIB as f64, "{mean} bytes in a round trip");
    assert!(peak(&consumer) <= 64 * MIB, "{}", peak(&consumer));
    // The user's limit applies.
    let consumer = reading(builder(&cluster).max_partition_fetch_bytes(1 << 20), 1).await;
    let mean = settled(&consumer, 1).await;
    assert!(mean <= 1.1 * MIB as f64, "{mean} bytes in a round trip");
    let consumer = reading(builder(&cluster).fetch_max_bytes(3 << 20), 1).await;
    let mean = settled(&consumer, 1).await;
    assert!((2.0 * MIB as f64..3.1 * MIB as f64).contains(&mean), "{mean} bytes in a round trip");
    // The memory limit applies too: a response has at most an eighth of it.
    let consumer = reading(builder(&cluster).queued_max_bytes(16 * MIB), 1).await;
    let mean = settled(&consumer, 1).await;
    assert!((1.5 * MIB as f64..2.1 * MIB as f64).contains(&mean), "{mean} bytes in a round trip");
    assert!(peak(&consumer) <= 16 * MIB, "{}", peak(&consumer));
}

#[tokio::test(start_paused = true)]
async fn few_partitions_share_large_responses_evenly() {
    let cluster = far_away(3).await;
    let builder = builder(&cluster).queued_max_bytes(32 * MIB);
    let consumer = reading(builder, 3).await;
    let mut next_of = [0; 3];
    read(&consumer, &mut next_of, 4000).await;
    let [least, most] = [next_of.iter().min(), next_of.iter().max()].map(|offset| *offset.unwrap());
    assert!(least > 1000, "all have their turns: {next_of:?}");
    assert!(most < 2 * least, "{next_of:?}");
    assert!(consumer.metrics().fetch_bytes.quantile(0.9) > 3 << 20);
    assert!(peak(&consumer) <= 32 * MIB, "{}", peak(&consumer));
}
