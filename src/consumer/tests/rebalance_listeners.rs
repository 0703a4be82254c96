//! Tests of the rebalance listener.

use std::sync::{Arc, Mutex};

use super::{
    world::{World, rules},
    *,
};
use crate::{
    ApiKey, ErrorCode, ErrorKind,
    consumer::{
        Assigned, ListenerResult, RebalanceListener, Revoked, assignor::CooperativeStickyAssignor,
        state::ConsumerState, subscription::fetch_position::FetchState,
    },
    testkit::on,
};

for_each_group_protocol!(
    revocation_is_reported_despite_user_assignment,
    failed_revocation_listener_is_reported_and_bounded,
);

type Log = Arc<Mutex<Vec<String>>>;

/// Records its calls; sets the start offset and the commit that a test gives it; reacts to each
/// call as the test wants.
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

    async fn told(&self, what: &str, partitions: &[TopicPartition]) -> ListenerResult {
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
    async fn on_assigned(&self, assigned: &mut Assigned) -> ListenerResult {
        self.told("assigned", assigned.partitions()).await?;
        if let (Some(start), Some(first)) = (self.start, assigned.partitions().first().cloned()) {
            assigned.start_at(&first, start)?;
        }
        Ok(())
    }

    async fn on_revoked(&self, revoked: &Revoked) -> ListenerResult {
        self.told("revoked", revoked.partitions()).await?;
        if let Some(offset) = self.commits {
            revoked.commit_offsets(revoked.partitions().iter().map(|partition| (partition.clone(), offset))).await?;
        }
        Ok(())
    }

    async fn on_lost(&self, lost: &[TopicPartition]) -> ListenerResult {
        self.told("lost", lost).await
    }
}

fn said(log: &Log) -> Vec<String> {
    log.lock().unwrap().clone()
}

fn group(cluster: &Cluster) -> ConsumerBuilder {
    let builder = group_builder(cluster, GroupProtocol::Classic);
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
async fn listener_sets_start_and_sees_revocation() {
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
async fn reads_only_after_listener_ends_while_heartbeating() {
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
async fn failed_listener_is_reported_and_blocks_partitions() {
    type Fails = fn(&str) -> Trouble;
    let troubles: [(Fails, &str); 3] = [
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
async fn revocation_waits_for_reader_and_listener_commits() {
    let cluster = topic(2).await;
    let log = Log::default();
    let first = group(&cluster).auto_commit(false).build().await.unwrap();
    first.subscribe_with(["t"], Recorder { commits: Some(5), ..Recorder::new(&log) }).unwrap();
    next(&first).await;
    let second = subscribed(group(&cluster), &["t"]).await;
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
    assert_eq!(said(&log).len(), 3, "and the remaining partitions were assigned again");
}

#[tokio::test(start_paused = true)]
async fn cooperative_rebalance_reports_only_moving_partitions() {
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
        read_on(&first).await;
        read_on(&second).await;
    }
    assert_eq!(said(&log)[1..3], ["assigned ", "revoked 2,3"], "the rest was never away");
    assert!(said(&others).ends_with(&["assigned 2,3".to_owned()]), "{:?}", said(&others));
    second.close(10 * SECOND).await.unwrap();
    assert!(said(&others).ends_with(&["revoked 2,3".to_owned()]), "{:?}", said(&others));
    while first.assignment().len() < 4 {
        read_on(&first).await;
    }
    assert!(said(&log).ends_with(&["assigned 2,3".to_owned()]), "{:?}", said(&log));
}

#[tokio::test(start_paused = true)]
async fn reports_lost_partitions_and_revoked_on_unsubscribe() {
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
async fn repeated_close_waits_for_running_listener() {
    let cluster = topic(1).await;
    let log = Log::default();
    let consumer = group(&cluster).build().await.unwrap();
    let trouble: fn(&str) -> Trouble =
        |what| if what == "revoked" { Trouble::Waits(5 * SECOND) } else { Trouble::None };
    let listener = Recorder { trouble, commits: Some(7), ..Recorder::new(&log) };
    consumer.subscribe_with(["t"], listener).unwrap();
    next(&consumer).await;
    assert!(tokio::time::timeout(SECOND, consumer.close(30 * SECOND)).await.is_err(), "dropped");
    assert_eq!(said(&log), ["assigned 0", "revoked 0"]);
    consumer.close(30 * SECOND).await.unwrap();
    assert_eq!(cluster.committed("g", "t", 0), Some(7), "what it says in the end");
    assert_eq!(said(&log).len(), 2);
    assert_eq!(cluster.group("g").map_or(0, |group| group.members.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn rebalance_waits_for_listener_called_by_close() {
    let cluster = topic(2).await;
    let log = Log::default();
    let consumer = group(&cluster).build().await.unwrap();
    let trouble: fn(&str) -> Trouble =
        |what| if what == "revoked" { Trouble::Waits(8 * SECOND) } else { Trouble::None };
    consumer.subscribe_with(["t"], Recorder { trouble, commits: Some(7), ..Recorder::new(&log) }).unwrap();
    next(&consumer).await;
    assert!(tokio::time::timeout(SECOND, consumer.close(60 * SECOND)).await.is_err(), "dropped");
    assert_eq!(said(&log), ["assigned 0,1", "revoked 0,1"]);
    // It has to release the partitions that it has announced as revoked.
    let second = subscribed(group(&cluster), &["t"]).await;
    let record = tokio::time::timeout(60 * SECOND, second.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(number(&record), 7, "where the listener said");
    consumer.close(10 * SECOND).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn each_subscription_has_its_own_listener() {
    let cluster = topic(1).await;
    cluster.create_topic("u", 1).unwrap();
    let (log, consumer) = (Log::default(), group(&cluster).build().await.unwrap());
    let listener = Arc::new(Recorder::new(&log));
    consumer.subscribe_with(["t"], listener.clone()).unwrap();
    next(&consumer).await;
    consumer.subscribe_with(["t", "u"], listener).unwrap();
    while consumer.assignment().len() < 2 {
        read_on(&consumer).await;
    }
    assert_eq!(said(&log), ["assigned 0", "revoked 0", "assigned 0,0"]);
    consumer.subscribe(["u"]).unwrap();
    while consumer.assignment() != [tp("u", 0)] {
        read_on(&consumer).await;
    }
    assert_eq!(said(&log).len(), 3, "the last subscription has none");
}

async fn revocation_is_reported_despite_user_assignment(protocol: GroupProtocol) {
    let cluster = topic(2).await;
    let log = Log::default();
    let builder = group_builder(&cluster, protocol);
    let consumer = builder.build().await.unwrap();
    consumer.subscribe_with(["t"], Recorder { commits: Some(7), ..Recorder::new(&log) }).unwrap();
    next(&consumer).await;
    next(&consumer).await;
    consumer.unsubscribe().unwrap();
    consumer.assign([(tp("t", 0), Offset::At(9))]).unwrap();
    assert_eq!(number(&next(&consumer).await), 9);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(said(&log), ["assigned 0,1", "revoked 0,1"], "{protocol:?}");
    assert_eq!(cluster.committed("g", "t", 1), Some(7), "{protocol:?}: the listener had the last word");
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(said(&log).len(), 2, "what was assigned by hand goes without a word");
}

/// The revocation is decided by ownership epoch, and not by name.
#[test]
fn revocation_affects_only_its_ownership_epoch() {
    let world = World::new(rules());
    let (t, metadata, now) = (tp("t", 0), world.metadata(), world.now);
    world.buffer.with_state_and_readers(|state| {
        let hand = state.partitions.ownerships(std::slice::from_ref(&t));
        assert!(hand.is_empty(), "the user's is not the group's to take");
        let give = |state: &mut ConsumerState| {
            state.assign_by_group(&t, FetchState::at(Offset::At(0)), &metadata, now);
            state.partitions.ownerships(std::slice::from_ref(&t))
        };
        let first = give(state);
        // The partition is lost, and assigned again.
        assert_eq!(state.partitions.announce_revocation(Some(&first)), std::slice::from_ref(&t));
        state.remove_all(&first);
        let second = give(state);
        // The effect of the first ownership's revocation when it is finally processed.
        assert!(state.partitions.still_owned(&first).is_empty());
        assert!(state.partitions.announce_revocation(Some(&first)).is_empty());
        state.revoke(&first);
        state.remove_all(&first);
        assert!(state.partitions.is_owned(&t));
        // The user assigns something else instead: the revocation still has to be reported, once.
        state.clear();
        state.assign(t.clone(), FetchState::at(Offset::At(3)), &metadata, now);
        assert_eq!(state.partitions.ownerships(std::slice::from_ref(&t)), second);
        state.revoke(&second);
        assert_eq!(state.partitions.announce_revocation(Some(&second)), std::slice::from_ref(&t));
        state.remove_all(&second);
        assert!(state.partitions.is_owned(&t) && state.partitions.announce_revocation(None).is_empty());
    });
}

/// The commit of a revocation waits for its retry while the partition is lost and assigned again.
#[tokio::test(start_paused = true)]
async fn outlived_revocation_does_not_report_next_ownership() {
    let cluster = topic(1).await;
    cluster.create_topic("u", 1).unwrap();
    let builder = group(&cluster).property("retry.backoff.ms", "8000").property("retry.backoff.max.ms", "8000");
    let builder = builder.auto_commit_interval(600 * SECOND);
    let (log, consumer) = (Log::default(), builder.build().await.unwrap());
    let listener = Arc::new(Recorder::new(&log));
    consumer.subscribe_with(["t"], listener.clone()).unwrap();
    next(&consumer).await;
    let waits = cluster.fault(on(ApiKey::OffsetCommit).error(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    consumer.subscribe_with(["t", "u"], listener).unwrap();
    tokio::time::sleep(SECOND).await;
    tokio::join!(next(&consumer), async {
        waits.reached(1).await;
        cluster.fault(on(ApiKey::Heartbeat).error(ErrorCode::UNKNOWN_MEMBER_ID)).reached(1).await;
    });
    for _ in 0..30 {
        read_on(&consumer).await;
    }
    assert_eq!(said(&log), ["assigned 0", "lost 0", "assigned 0,0"]);
    consumer.close(10 * SECOND).await.unwrap();
    assert_eq!(said(&log)[3..], ["revoked 0,0"]);
}

fn by(cluster: &Cluster, protocol: GroupProtocol) -> ConsumerBuilder {
    let builder = group_builder(cluster, protocol);
    builder.auto_commit_interval(SECOND).max_poll_interval(120 * SECOND)
}

#[tokio::test(start_paused = true)]
async fn consumer_protocol_reports_moved_and_lost_partitions() {
    let cluster = topic(4).await;
    let (log, others) = (Log::default(), Log::default());
    let first = by(&cluster, GroupProtocol::Consumer).build().await.unwrap();
    first.subscribe_with(["t"], Recorder { start: Some(8), ..Recorder::new(&log) }).unwrap();
    next(&first).await;
    assert_eq!(said(&log), ["assigned 0,1,2,3"]);
    let second = by(&cluster, GroupProtocol::Consumer).build().await.unwrap();
    second.subscribe_with(["t"], Recorder::new(&others)).unwrap();
    while second.assignment().len() < 2 {
        read_on(&first).await;
        read_on(&second).await;
    }
    let moved = said(&log).into_iter().find_map(|told| told.strip_prefix("revoked ").map(str::to_owned)).unwrap();
    assert_eq!(moved.len(), "2,3".len(), "the rest was never away: {:?}", said(&log));
    assert_eq!(said(&others).last(), Some(&format!("assigned {moved}")));
    second.close(10 * SECOND).await.unwrap();
    assert_eq!(said(&others).last(), Some(&format!("revoked {moved}")));
    while first.assignment().len() < 4 {
        read_on(&first).await;
    }
    assert_eq!(said(&log).last(), Some(&format!("assigned {moved}")));
    let before = said(&log).len();
    cluster.fault(on(ApiKey::ConsumerGroupHeartbeat).error(ErrorCode::UNKNOWN_MEMBER_ID)).reached(1).await;
    for _ in 0..10 {
        read_on(&first).await;
    }
    assert_eq!(said(&log)[before..], ["lost 0,1,2,3", "assigned 0,1,2,3"]);
}

/// In spite of any fault of the listener, the group continues, the reader gets an error, and no
/// member waits longer than the poll interval.
async fn failed_revocation_listener_is_reported_and_bounded(protocol: GroupProtocol) {
    type Fails = fn(&str) -> Trouble;
    let troubles: [(Fails, &str); 3] = [
        (|what| if what == "assigned" { Trouble::None } else { Trouble::Fails }, "the database is away"),
        (|what| if what == "assigned" { Trouble::None } else { Trouble::Panics }, "panicked"),
        (|what| if what == "assigned" { Trouble::None } else { Trouble::Waits(1000 * SECOND) }, "max.poll.interval.ms"),
    ];
    for (trouble, what) in troubles {
        let cluster = topic(2).await;
        let log = Log::default();
        let first = by(&cluster, protocol).build().await.unwrap();
        first.subscribe_with(["t"], Recorder { trouble, ..Recorder::new(&log) }).unwrap();
        next(&first).await;
        let errors = Mutex::new(Vec::new());
        let read = async |seconds: u64| {
            for _ in 0..seconds {
                match first.poll(SECOND).await {
                    Ok(records) => assert!(records.iter().count() <= 500),
                    Err(error) => errors.lock().unwrap().push(error),
                }
            }
        };
        let named = |call: &str| {
            let errors = errors.lock().unwrap();
            errors.iter().any(|error| {
                let shown = error.to_string();
                error.kind() == ErrorKind::Callback && shown.contains(call) && shown.contains(what)
            })
        };
        let second = subscribed(by(&cluster, protocol), &["t"]).await;
        let second = Arc::new(second);
        let reader = second.clone();
        let other = tokio::spawn(async move {
            loop {
                read_on(&reader).await;
            }
        });
        read(150).await;
        assert!(named("on_revoked"), "{what}: {errors:?}");
        let shares = (first.assignment().len(), second.assignment().len());
        assert_eq!(shares, (1, 1), "{what}");
        other.abort();
        drop(second);
        // The other member's session times out; this member's partitions are revoked once more,
        // and assigned again.
        read(200).await;
        assert_eq!(first.assignment().len(), 2, "{what}");
        cluster.fault(on(heartbeat(protocol)).error(ErrorCode::UNKNOWN_MEMBER_ID)).reached(1).await;
        read(150).await;
        assert!(named("on_lost"), "{what}: {errors:?}");
        append(&cluster, "t", 0, 10..11);
        append(&cluster, "t", 1, 10..11);
        let (mut state, mut tries) = (std::collections::BTreeSet::new(), 0);
        while state.len() < 2 {
            let records = first.poll(SECOND).await.unwrap();
            state.extend(records.iter().filter(|record| record.offset() == 10).map(|record| record.partition()));
            tries += 1;
            assert!(tries < 60, "{what}: it is read on");
        }
    }
}
