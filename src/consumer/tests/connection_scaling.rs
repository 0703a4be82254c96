//! Tests of additional connections to a broker, for throughput that one connection cannot reach.

use std::{collections::BTreeSet, time::Duration};

use super::*;
use crate::{ApiKey, consumer::test_batches::batch_of, testkit::on};

const MIB: usize = 1 << 20;
const ROUND_TRIP: Duration = Duration::from_millis(50);
const PARTITIONS: i32 = 6;
const RECORD: usize = 100_000;
/// Memory limit; enough for responses of 1 MiB.
const BOUND: usize = 8 * MIB;

/// Starts one broker with partitions that serve records of 100 kB for ever. It answers a fetch
/// after a round trip, in which a connection carries only one response.
async fn far_away(options: Options) -> Cluster {
    let options = options.brokers(1).in_memory().sink(true).prepared("t", vec![batch_of(0, 1, RECORD)]);
    let cluster = Cluster::start(options.default_partitions(PARTITIONS)).await.unwrap();
    cluster.fault(on(ApiKey::Fetch).forever().delay(ROUND_TRIP));
    cluster
}

/// A reader of some of its partitions, and the next offset of each.
struct Reading {
    consumer: Consumer,
    next_of: Vec<i64>,
}

impl Reading {
    async fn begin(builder: ConsumerBuilder, partitions: i32) -> Self {
        let consumer = builder.queued_max_bytes(BOUND).check_crcs(false).build().await.unwrap();
        consumer.assign((0..partitions).map(|partition| (tp("t", partition), Offset::Beginning))).unwrap();
        Self { consumer, next_of: vec![0; partitions as usize] }
    }

    async fn poll(&mut self) -> usize {
        let records = self.consumer.poll(60 * SECOND).await.unwrap();
        assert!(!records.is_empty(), "it never stalls");
        for record in &records {
            let next = &mut self.next_of[record.partition() as usize];
            assert_eq!(record.offset(), *next, "none skipped, none twice");
            *next += 1;
        }
        records.len()
    }

    /// Reads `count` records as fast as possible.
    async fn read(&mut self, count: usize) {
        let mut read = 0;
        while read < count {
            read += self.poll().await;
        }
    }

    /// Returns the bytes per round trip in the steady state.
    async fn bytes_in_a_round_trip(&mut self) -> f64 {
        self.read(3000).await;
        let begun = tokio::time::Instant::now();
        self.read(2000).await;
        (2000 * RECORD) as f64 / begun.elapsed().div_duration_f64(ROUND_TRIP)
    }

    fn peak(&self) -> usize {
        self.consumer.shared.buffer.with_state(|state| state.connections.budget().peak())
    }

    fn connections(&self) -> u8 {
        self.consumer.shared.buffer.with_state(|state| state.connections.scaling[&1].open())
    }

    /// Asserts that all partitions make progress.
    async fn all_go_on(&mut self) {
        let before = self.next_of.clone();
        self.read(500).await;
        let goes = before.iter().zip(&self.next_of).all(|(before, now)| before < now);
        assert!(goes, "{before:?} {:?}", self.next_of);
    }
}

/// Returns the connections of the last `last` fetches that named partitions.
fn connections(cluster: &Cluster, last: usize) -> BTreeSet<u64> {
    let journal = cluster.journal();
    let fetches = journal.iter().rev().filter(|request| request.key == ApiKey::Fetch && !request.partitions.is_empty());
    fetches.take(last).map(|request| request.connection).collect()
}

#[tokio::test(start_paused = true)]
async fn throughput_grows_with_fetch_connections() {
    let mib = MIB as f64;
    for (connections, expected) in [(1, 0.8..1.1), (2, 1.6..2.2), (4, 2.8..4.4)] {
        let cluster = far_away(Options::new()).await;
        let builder = builder(&cluster).fetch_max_connections(connections);
        let mut reading = Reading::begin(builder, PARTITIONS).await;
        let bytes = reading.bytes_in_a_round_trip().await;
        assert!(expected.contains(&(bytes / mib)), "{bytes} bytes over {connections} connections");
        assert!(reading.peak() <= BOUND, "{} bytes", reading.peak());
        assert_eq!(cluster.fetch_sessions(1), usize::from(connections), "each has a session");
        reading.all_go_on().await;
        reading.consumer.close(10 * SECOND).await.unwrap();
        assert_eq!(cluster.fetch_sessions(1), 0, "and each is closed");
    }
}

#[tokio::test(start_paused = true)]
async fn uses_one_connection_when_one_suffices() {
    let cluster = far_away(Options::new()).await;
    let mut alone = Reading::begin(builder(&cluster), 1).await;
    alone.read(500).await;
    assert_eq!((alone.connections(), cluster.fetch_sessions(1)), (1, 1));
    alone.consumer.close(10 * SECOND).await.unwrap();
    let mut slow = Reading::begin(builder(&cluster).max_poll_records(10), PARTITIONS).await;
    for _ in 0..100 {
        slow.poll().await;
        tokio::time::sleep(4 * ROUND_TRIP).await;
        assert_eq!((slow.connections(), cluster.fetch_sessions(1)), (1, 1), "the line is not what takes its time");
    }
}

#[tokio::test(start_paused = true)]
async fn closes_connections_for_slow_reader_then_reopens() {
    let cluster = far_away(Options::new()).await;
    let mut reading = Reading::begin(builder(&cluster).max_poll_records(10), PARTITIONS).await;
    reading.read(3000).await;
    assert_eq!(cluster.fetch_sessions(1), 4);
    for _ in 0..600 {
        reading.poll().await;
        tokio::time::sleep(4 * ROUND_TRIP).await;
    }
    assert_eq!((reading.connections(), cluster.fetch_sessions(1)), (1, 1));
    reading.all_go_on().await;
    reading.read(3000).await;
    assert!(cluster.fetch_sessions(1) > 1);
    // Without a reader more connections bring nothing.
    reading.consumer.pause(&reading.consumer.assignment()).unwrap();
    tokio::time::sleep(60 * SECOND).await;
    reading.consumer.resume(&reading.consumer.assignment()).unwrap();
    reading.all_go_on().await;
}

#[tokio::test(start_paused = true)]
async fn uses_one_connection_when_sessions_are_exhausted() {
    let cluster = far_away(Options::new().fetch_sessions(1)).await;
    let mut reading = Reading::begin(builder(&cluster), PARTITIONS).await;
    reading.read(3000).await;
    assert_eq!((reading.connections(), cluster.fetch_sessions(1)), (1, 1));
    assert_eq!(connections(&cluster, 100).len(), 1, "nor is another one tried over and over");
    let asked: BTreeSet<_> = cluster.journal().iter().map(|request| request.connection).collect();
    assert!(asked.len() > 2, "it was tried");
    reading.all_go_on().await;
}

#[tokio::test(start_paused = true)]
async fn partitions_continue_after_connection_failure() {
    let cluster = far_away(Options::new()).await;
    let mut reading = Reading::begin(builder(&cluster), PARTITIONS).await;
    reading.read(10).await;
    let [first] = connections(&cluster, 1).into_iter().collect::<Vec<_>>()[..] else { panic!("one at first") };
    reading.read(3000).await;
    assert!(connections(&cluster, 20).len() > 2);
    // Without the requests that close sessions.
    let others = move |request: &crate::testkit::Request| request.connection != first && !request.partitions.is_empty();
    let dies = cluster.fault(on(ApiKey::Fetch).when(others).times(20).drop_connection());
    for _ in 0..20 {
        reading.all_go_on().await;
    }
    assert!(dies.hits() > 2, "{}", dies.hits());
    dies.clear();
    tokio::time::sleep(SECOND).await;
    assert_eq!(cluster.fetch_sessions(1), usize::from(reading.connections()), "those that died are not left there");
    // Now the first connection fails, while others are open.
    reading.read(6000).await;
    assert!(reading.connections() > 1);
    let dies = cluster.fault(on(ApiKey::Fetch).when(move |request| !others(request)).times(1).act_then_drop());
    reading.read(3000).await;
    assert_eq!(dies.hits(), 1);
    reading.all_go_on().await;
    // And now all of them fail.
    let dies = cluster.fault(on(ApiKey::Fetch).times(10).drop_connection());
    reading.read(3000).await;
    assert_eq!(dies.hits(), 10);
    reading.all_go_on().await;
}

#[tokio::test(start_paused = true)]
async fn refused_connection_is_retried_with_backoff() {
    let cluster = far_away(Options::new()).await;
    let mut reading = Reading::begin(builder(&cluster), PARTITIONS).await;
    reading.read(10).await;
    let refused = cluster.fault(on(ApiKey::ApiVersions).forever().drop_connection());
    reading.read(6000).await;
    assert!((1..4).contains(&refused.hits()), "{}", refused.hits());
    assert_eq!(reading.connections(), 1);
    refused.clear();
    reading.all_go_on().await;
    reading.read(20_000).await;
    assert!(reading.connections() > 1);
}

#[tokio::test(start_paused = true)]
async fn connections_with_paused_partitions_take_over_others() {
    let cluster = far_away(Options::new()).await;
    let mut reading = Reading::begin(builder(&cluster), PARTITIONS).await;
    reading.read(3000).await;
    assert_eq!(reading.connections(), 4);
    let connection_of = |reading: &Reading, partition: &TopicPartition| {
        reading.consumer.shared.buffer.with_state(|state| state.partitions.get(partition).unwrap().connection)
    };
    let all = reading.consumer.assignment();
    let shared = (0..4)
        .find(|connection| all.iter().filter(|one| connection_of(&reading, one) == *connection).count() == 2)
        .unwrap();
    let (pair, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| connection_of(&reading, one) == shared);
    reading.consumer.pause(&others).unwrap();
    reading.read(3000).await;
    assert_ne!(connection_of(&reading, &pair[0]), connection_of(&reading, &pair[1]), "each has one for itself");
    reading.consumer.resume(&others).unwrap();
    reading.all_go_on().await;
}

#[tokio::test(start_paused = true)]
async fn closes_unused_connections_after_unsubscribing() {
    let cluster = far_away(Options::new()).await;
    let mut reading = Reading::begin(builder(&cluster), PARTITIONS).await;
    reading.read(3000).await;
    assert_eq!((reading.connections(), cluster.fetch_sessions(1)), (4, 4));
    reading.consumer.unsubscribe().unwrap();
    tokio::time::sleep(SECOND).await;
    assert_eq!((reading.connections(), cluster.fetch_sessions(1)), (1, 0));
    let next = (0..PARTITIONS).zip(&reading.next_of);
    let next: Vec<_> = next.map(|(partition, next)| (tp("t", partition), Offset::At(*next))).collect();
    reading.consumer.assign(next).unwrap();
    reading.read(10).await;
    assert_eq!((reading.connections(), cluster.fetch_sessions(1)), (1, 1), "it begins again with one connection");
    reading.all_go_on().await;
}

#[tokio::test(start_paused = true)]
async fn resumes_all_partitions_after_broker_restart() {
    const RECORDS: i64 = 150;
    let cluster = cluster(1).await;
    cluster.create_topic("t", 4).unwrap();
    let value = vec![7; RECORD];
    for partition in 0..4 {
        for _ in 0..RECORDS {
            cluster.append("t", partition, &[Record::to("t").with_value(&value[..])]).unwrap();
        }
    }
    cluster.fault(on(ApiKey::Fetch).forever().delay(ROUND_TRIP));
    let mut reading = Reading::begin(builder(&cluster), 4).await;
    reading.read(300).await;
    assert!(cluster.fetch_sessions(1) > 1);
    cluster.kill(1).await.unwrap();
    tokio::time::sleep(5 * SECOND).await;
    cluster.restart(1).await.unwrap();
    let left = 4 * RECORDS - reading.next_of.iter().sum::<i64>();
    reading.read(left as usize).await;
    assert_eq!(reading.next_of, [RECORDS; 4]);
    assert!(is_quiet(&reading.consumer).await);
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!(cluster.fetch_sessions(1), 1, "where there is nothing to read one connection does");
}
