//! The rebalance listener.

use std::sync::{Arc, Mutex};

use super::*;
use crate::{Assigned, CooperativeStickyAssignor, ErrorKind, OffsetReset, RebalanceListener, Revoked, Told};

type Log = Arc<Mutex<Vec<String>>>;

/// Writes down what it is told; starts where it is told to; does with each call what the test wants.
struct Recorder {
    log: Log,
    start: Option<i64>,
    commits: Option<i64>,
    trouble: fn(&str) -> Trouble,
}

enum Trouble {
    None,
    Waits(Duration),
    Fails,
    Panics,
}

impl Recorder {
    fn new(log: &Log) -> Self {
        Self { log: log.clone(), start: None, commits: None, trouble: |_| Trouble::None }
    }

    async fn told(&self, what: &str, partitions: &[TopicPartition]) -> Told {
        let shown: Vec<String> = partitions.iter().map(|partition| partition.partition.to_string()).collect();
        self.log.lock().unwrap().push(format!("{what} {}", shown.join(",")));
        match (self.trouble)(what) {
            Trouble::None => {}
            Trouble::Waits(time) => tokio::time::sleep(time).await,
            Trouble::Fails => return Err("the database is away".into()),
            Trouble::Panics => panic!("on purpose"),
        }
        Ok(())
    }
}

impl RebalanceListener for Recorder {
    async fn on_assigned(&self, assigned: &mut Assigned) -> Told {
        self.told("assigned", assigned.partitions()).await?;
        if let (Some(start), Some(first)) = (self.start, assigned.partitions().first().cloned()) {
            assigned.start_at(&first, start)?;
        }
        Ok(())
    }

    async fn on_revoked(&self, revoked: &Revoked) -> Told {
        self.told("revoked", revoked.partitions()).await?;
        if let Some(offset) = self.commits {
            revoked.commit_offsets(revoked.partitions().iter().map(|partition| (partition.clone(), offset))).await?;
        }
        Ok(())
    }

    async fn on_lost(&self, lost: &[TopicPartition]) -> Told {
        self.told("lost", lost).await
    }
}

fn said(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

fn group(cluster: &Cluster) -> ConsumerBuilder {
    let builder = builder(cluster).group("g").auto_offset_reset(OffsetReset::Earliest);
    builder.auto_commit_interval(SECOND).session_timeout(10 * SECOND).heartbeat_interval(SECOND)
}

async fn topic(partitions: i32) -> Cluster {
    let cluster = cluster(1).await;
    cluster.create_topic("t", partitions).unwrap();
    for partition in 0..partitions {
        append(&cluster, "t", partition, 0..10);
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_listener_says_from_where_and_hears_of_the_end() {
    let cluster = topic(2).await;
    let (log, consumer) = (Log::default(), group(&cluster).build().await.unwrap());
    consumer.subscribe_with(["t"], Recorder { start: Some(7), ..Recorder::new(&log) }).unwrap();
    let mut read = Vec::new();
    for _ in 0..13 {
        let record = next(&consumer).await;
        read.push((record.partition, number(&record)));
    }
    read.sort_unstable();
    let expected = (7..10).map(|n| (0, n)).chain((0..10).map(|n| (1, n)));
    assert_eq!(read, expected.collect::<Vec<_>>());
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(said(&log), ["assigned 0,1", "revoked 0,1"]);
    assert_eq!(cluster.committed("g", "t", 0), Some(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_before_the_listener_is_done_and_heartbeats_go_on() {
    let cluster = topic(1).await;
    let (log, consumer) = (Log::default(), group(&cluster).build().await.unwrap());
    let slow = Recorder { trouble: |_| Trouble::Waits(60 * SECOND), ..Recorder::new(&log) };
    consumer.subscribe_with(["t"], slow).unwrap();
    assert!(consumer.poll(50 * SECOND).await.unwrap().is_empty());
    assert_eq!(consumer.status().partitions[&tp("t", 0)].waiting.name(), "listener");
    assert_eq!(cluster.group("g").unwrap().members.len(), 1, "longer than its session, and still in");
    assert_eq!(number(&next(&consumer).await), 0);
    assert_eq!(said(&log), ["assigned 0"]);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_fails_panics_or_hangs_is_told_and_its_partitions_wait_for_a_seek() {
    let troubles: [(fn(&str) -> Trouble, &str); 3] = [
        (|_| Trouble::Fails, "the database is away"),
        (|_| Trouble::Panics, "panicked"),
        (|_| Trouble::Waits(1000 * SECOND), "max.poll.interval.ms"),
    ];
    for (trouble, what) in troubles {
        let cluster = topic(1).await;
        let log = Log::default();
        let consumer = group(&cluster).max_poll_interval(120 * SECOND).build().await.unwrap();
        consumer.subscribe_with(["t"], Recorder { trouble, ..Recorder::new(&log) }).unwrap();
        let error = next_error(&consumer, 200).await;
        assert_eq!(error.kind(), ErrorKind::Callback);
        assert!(error.to_string().contains("on_assigned") && error.to_string().contains(what), "{error}");
        assert!(is_quiet(&consumer).await);
        assert_eq!(consumer.status().partitions[&tp("t", 0)].waiting.name(), "no_offset");
        consumer.seek(&tp("t", 0), 4).unwrap();
        assert_eq!(number(&next(&consumer).await), 4);
        let closed = tokio::time::timeout(6 * SECOND, consumer.close(5 * SECOND)).await.expect("bounded");
        assert_eq!(closed.is_err(), what == "max.poll.interval.ms", "{closed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_revocation_is_told_when_the_reader_is_done_and_may_commit() {
    let cluster = topic(2).await;
    let log = Log::default();
    let first = group(&cluster).auto_commit(false).build().await.unwrap();
    first.subscribe_with(["t"], Recorder { commits: Some(5), ..Recorder::new(&log) }).unwrap();
    next(&first).await;
    let second = group(&cluster).build().await.unwrap();
    second.subscribe(["t"]).unwrap();
    tokio::time::sleep(10 * SECOND).await;
    assert_eq!(said(&log), ["assigned 0,1"], "the reader holds a record");
    let other = tokio::spawn(async move {
        let record = second.recv().await.unwrap().unwrap();
        (number(&record), second)
    });
    next(&first).await;
    let (number, _second) = tokio::time::timeout(60 * SECOND, other).await.unwrap().unwrap();
    assert_eq!(number, 5, "where the listener said");
    assert_eq!(said(&log)[..2], ["assigned 0,1", "revoked 0,1"]);
    assert_eq!(said(&log).len(), 3, "and what is left was assigned anew");
}

#[tokio::test(start_paused = true)]
async fn cooperative_members_are_told_only_of_what_moves() {
    let cluster = topic(4).await;
    let (log, others) = (Log::default(), Log::default());
    let cooperative = || group(&cluster).assignors(vec![Arc::new(CooperativeStickyAssignor)]);
    let first = cooperative().build().await.unwrap();
    first.subscribe_with(["t"], Recorder::new(&log)).unwrap();
    next(&first).await;
    assert_eq!(said(&log), ["assigned 0,1,2,3"]);
    let second = cooperative().build().await.unwrap();
    second.subscribe_with(["t"], Recorder::new(&others)).unwrap();
    while second.assignment().len() < 2 {
        let _ = first.poll(SECOND).await.unwrap();
        let _ = second.poll(SECOND).await.unwrap();
    }
    assert_eq!(said(&log)[1..3], ["assigned ", "revoked 2,3"], "the rest was never away");
    assert!(said(&others).ends_with(&["assigned 2,3".to_owned()]), "{:?}", said(&others));
    second.close(10 * SECOND).await.unwrap();
    assert!(said(&others).ends_with(&["revoked 2,3".to_owned()]), "{:?}", said(&others));
    while first.assignment().len() < 4 {
        let _ = first.poll(SECOND).await.unwrap();
    }
    assert!(said(&log).ends_with(&["assigned 2,3".to_owned()]), "{:?}", said(&log));
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_is_told_as_lost_and_unsubscribing_as_revoked() {
    let cluster = topic(1).await;
    let log = Log::default();
    let consumer = group(&cluster).max_poll_interval(20 * SECOND).build().await.unwrap();
    consumer.subscribe_with(["t"], Recorder::new(&log)).unwrap();
    next(&consumer).await;
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(said(&log), ["assigned 0", "lost 0"]);
    assert_eq!(next_error(&consumer, 10).await.kind(), ErrorKind::NotAssigned);
    assert_eq!(number(&next(&consumer).await), 0);
    consumer.unsubscribe().unwrap();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(said(&log), ["assigned 0", "lost 0", "assigned 0", "revoked 0"]);
    assert!(consumer.assignment().is_empty());
    consumer.close(SECOND).await.unwrap();
    assert_eq!(said(&log).len(), 4, "once each");
}

#[tokio::test(start_paused = true)]
async fn a_listener_is_given_with_each_subscription() {
    let cluster = topic(1).await;
    cluster.create_topic("u", 1).unwrap();
    let (log, consumer) = (Log::default(), group(&cluster).build().await.unwrap());
    let listener = Arc::new(Recorder::new(&log));
    consumer.subscribe_with(["t"], listener.clone()).unwrap();
    next(&consumer).await;
    consumer.subscribe_with(["t", "u"], listener).unwrap();
    while consumer.assignment().len() < 2 {
        let _ = consumer.poll(SECOND).await.unwrap();
    }
    assert_eq!(said(&log), ["assigned 0", "revoked 0", "assigned 0,0"]);
    consumer.subscribe(["u"]).unwrap();
    while consumer.assignment() != [tp("u", 0)] {
        let _ = consumer.poll(SECOND).await.unwrap();
    }
    assert_eq!(said(&log).len(), 3, "the last subscription has none");
}
