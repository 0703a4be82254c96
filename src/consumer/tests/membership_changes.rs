//! Lets members of a group come and go while records are written; with clean closes every record is
//! read exactly once, in order.

use std::{collections::BTreeMap, sync::Arc};

use tokio::{sync::mpsc, task::JoinHandle};

use super::*;

/// Receives the partition and number of each record that is read.
pub(super) type Seen = mpsc::UnboundedSender<(i32, i64)>;

/// Runs the test: `join` returns a member that reads topic `t` (its argument is true for the first
/// one), `work` reads it to its end.
pub(super) async fn each_record_is_read_once(
    join: impl AsyncFn(&Cluster, bool) -> Arc<Consumer>,
    work: impl Fn(Arc<Consumer>, Seen) -> JoinHandle<()>,
) {
    let cluster = Arc::new(cluster(2).await);
    cluster.create_topic("t", 6).unwrap();
    let (seen, mut records) = mpsc::unbounded_channel();
    let writer = cluster.clone();
    let writing = tokio::spawn(async move {
        for n in 0..150 {
            for partition in 0..6 {
                append(&writer, "t", partition, n..n + 1);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let mut members = vec![join(&cluster, true).await];
    let mut tasks = vec![work(members[0].clone(), seen.clone())];
    for round in 0..6 {
        tokio::time::sleep(4 * SECOND).await;
        if round % 3 == 2 {
            members.remove(0).close(30 * SECOND).await.unwrap();
        } else {
            members.push(join(&cluster, false).await);
            tasks.push(work(members.last().unwrap().clone(), seen.clone()));
        }
    }
    writing.await.unwrap();
    let mut read: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
    for _ in 0..900 {
        let (partition, n) =
            tokio::time::timeout(120 * SECOND, records.recv()).await.expect("no record missing").unwrap();
        read.entry(partition).or_default().push(n);
    }
    tokio::time::sleep(5 * SECOND).await;
    for member in members {
        member.close(30 * SECOND).await.unwrap();
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert!(records.try_recv().is_err(), "no record twice");
    for (partition, numbers) in read {
        assert_eq!(numbers, (0..150).collect::<Vec<_>>(), "partition {partition}");
        assert_eq!(cluster.committed("g", "t", partition), Some(150));
    }
}

/// Reads record by record, with a pause for each.
pub(super) fn one_by_one(consumer: Arc<Consumer>, seen: Seen) -> JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(record) = consumer.recv().await {
            let record = record.unwrap();
            seen.send((record.partition, number(&record))).unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
}
