//! Futures may be dropped at any point: later calls work, and every record arrives exactly once.

use ottla::{Record, consumer::OffsetReset};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::common::*;

const SEEDS: u64 = 8;

#[tokio::test(start_paused = true)]
async fn producer_with_dropped_futures_sends_records_once() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let cluster = cluster().await;
        cluster.create_topic("t", 1).unwrap();
        let builder = producer(&cluster).buffer_memory(400).max_request_size(200).batch_size(100);
        let producer = builder.build().await.unwrap();
        let mut expected = Vec::new();
        for n in 0..200_i64 {
            // A dropped `send` has not sent its record.
            loop {
                let sent =
                    polled(producer.send(Record::to("t").with_value(n.to_string())), rng.random_range(1..6)).await;
                if let Some(sent) = sent {
                    let delivery = sent.unwrap();
                    if rng.random_bool(0.5) {
                        polled(delivery, rng.random_range(0..4)).await.map(Result::unwrap);
                    }
                    break;
                }
            }
            expected.push(n);
            if rng.random_bool(0.1) {
                polled(producer.flush(SECOND), rng.random_range(0..4)).await;
            }
        }
        for _ in 0..3 {
            polled(producer.close(10 * SECOND), rng.random_range(0..4)).await;
        }
        in_time(producer.close(10 * SECOND)).await.unwrap();
        assert_eq!(log(&cluster, "t", 0), expected, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn consumer_with_dropped_futures_reads_records_once() {
    for seed in 0..SEEDS {
        let mut rng = StdRng::seed_from_u64(seed);
        let cluster = cluster().await;
        cluster.create_topic("t", 1).unwrap();
        let member = || consumer(&cluster).group("g").auto_offset_reset(OffsetReset::Earliest).max_poll_records(3);
        let first = member().build().await.unwrap();
        first.subscribe(["t"]).unwrap();
        let (mut seen, mut written) = (Vec::new(), 0);
        while seen.len() < 150 {
            if written < 200 && rng.random_bool(0.2) {
                append(&cluster, "t", 0, written..written + 10);
                written += 10;
            }
            let polls = rng.random_range(0..5);
            if rng.random_bool(0.5) {
                seen.extend(polled(first.recv(), polls).await.map(|next| number(&next.unwrap().unwrap())));
            } else if let Some(records) = polled(first.poll(SECOND), polls).await {
                // Some of the records are not read: they are returned again.
                let records = records.unwrap();
                let some = records.iter().take(rng.random_range(0..4)).map(|record| number(&record.to_owned()));
                seen.extend(some);
            }
            match rng.random_range(0..20) {
                0 => _ = polled(first.commit(), rng.random_range(0..4)).await,
                1 => _ = polled(first.committed([tp("t", 0)]), rng.random_range(0..4)).await,
                2 => _ = polled(first.end_offsets([tp("t", 0)]), rng.random_range(0..4)).await,
                3 => tokio::time::sleep(SECOND).await,
                _ => {}
            }
        }
        in_time(first.commit()).await.unwrap();
        for _ in 0..3 {
            polled(first.close(10 * SECOND), rng.random_range(0..4)).await;
        }
        in_time(first.close(10 * SECOND)).await.unwrap();
        let second = member().build().await.unwrap();
        second.subscribe(["t"]).unwrap();
        append(&cluster, "t", 0, written..written + 10);
        let rest = usize::try_from(written).unwrap() + 10 - seen.len();
        seen.extend(numbers(&second, rest).await);
        assert_eq!(seen, (0..written + 10).collect::<Vec<_>>(), "seed {seed}");
    }
}
