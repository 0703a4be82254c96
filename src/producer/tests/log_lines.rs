//! Tests of the log lines about records that failed: one line for each cause, also for records
//! without a partition.

use tracing::Level;

use super::*;
use crate::{ErrorCode, ErrorKind, log::capture::Lines, testkit::on, wire::ApiKey};

#[tokio::test(start_paused = true)]
async fn record_whose_topic_is_missing_is_logged() {
    let lines = Lines::capture();
    let cluster = cluster_with(Options::new().auto_create(false), 1).await;
    let producer = builder(&cluster).client_id("p1").max_block(ms(5_000)).build().await.unwrap();
    let mut deliveries = Vec::new();
    for _ in 0..100 {
        deliveries.push(producer.send(Record::to("nowhere").with_value("x")).await.unwrap());
    }
    for delivery in deliveries {
        assert_eq!(delivery.await.unwrap_err().kind(), ErrorKind::UnknownTopicOrPartition);
    }
    tokio::time::sleep(ms(30_000)).await;
    let told = lines.with(Level::WARN, "records failed");
    assert!((1..=2).contains(&told.len()), "{told:#?}");
    assert!(told.iter().all(|line| line.contains("nowhere") && line.contains("status=NotPersisted")), "{told:#?}");
    lines.assert_origin("client_id=p1 role=producer");
    let counted: u64 = told.iter().map(|line| records(line)).sum();
    assert_eq!(counted, 100, "no record is missing: {told:#?}");
}

/// Returns the number after ` records=`.
fn records(line: &str) -> u64 {
    let behind = line.split(" records=").nth(1).expect("a count");
    behind.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn refused_records_are_one_line_per_cause() {
    let lines = Lines::capture();
    let cluster = cluster(1).await;
    let producer = builder(&cluster).build().await.unwrap();
    let large = vec![0; 2_000_000];
    for _ in 0..50 {
        let error = producer.send(Record::to(TOPIC).with_value(&large[..])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
        tokio::time::sleep(ms(100)).await;
    }
    let told = lines.with(Level::WARN, "records failed");
    assert!(told.len() == 1 && told[0].contains("max.request.size"), "{told:#?}");
    tokio::time::sleep(ms(30_000)).await;
    let told = lines.with(Level::WARN, "records failed");
    assert_eq!(told.iter().map(|line| records(line)).sum::<u64>(), 50, "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn failed_batches_of_partitions_share_one_line() {
    let lines = Lines::capture();
    let cluster = cluster(200).await;
    cluster.fault(on(ApiKey::Produce).error(ErrorCode::TOPIC_AUTHORIZATION_FAILED).forever());
    let producer = builder(&cluster).build().await.unwrap();
    let mut deliveries = Vec::new();
    for partition in 0..200 {
        deliveries.push(producer.send(Record::to(TOPIC).with_partition(partition).with_value("x")).await.unwrap());
    }
    for delivery in deliveries {
        assert_eq!(delivery.await.unwrap_err().code(), Some(ErrorCode::TOPIC_AUTHORIZATION_FAILED));
    }
    producer.close(ms(60_000)).await.unwrap();
    let told = lines.with(Level::WARN, "records failed");
    assert!((1..=2).contains(&told.len()), "{told:#?}");
    assert_eq!(told.iter().map(|line| records(line)).sum::<u64>(), 200, "{told:#?}");
}
