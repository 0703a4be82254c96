//! Records pass through a chain of three groups while members join, leave, crash, hang and freeze
//! at random.
//!
//! At the end every record has arrived: once if all stops were clean, otherwise once or more; in
//! order in each partition (by first arrival; a member that wakes from a freeze may overtake its
//! successors). No offset was ever committed beyond the records that its reader had completed, or
//! taken back. The seed is printed; it is random if `CI` is set. `OTTLA_CHAIN_SEED` and
//! `OTTLA_CHAIN_RECORDS` select another seed, and more records.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::{freezing::Freezer, *};
use crate::{
    ErrorKind,
    consumer::{GroupProtocol, OffsetReset},
    testkit::Options,
};

const STAGES: usize = 3;
const PARTITIONS: i32 = 4;

/// The assignment of partitions: a strategy of the classic protocol, or the consumer protocol.
const KIP_848: &str = "consumer";

/// The ways in which members stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stops {
    /// Members close.
    Clean,
    /// Members also crash and hang longer than the poll interval, and their coordinators move.
    Hard,
    /// Members crash, and are frozen for longer than their session timeout, with the records that
    /// they process and the requests that they sent.
    Frozen,
}

fn chosen(name: &str) -> Option<i64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seed() -> u64 {
    let drawn = || if std::env::var_os("CI").is_some() { rand::random::<u32>().into() } else { 7 };
    chosen("OTTLA_CHAIN_SEED").map_or_else(drawn, |seed| seed as u64)
}

fn topic(stage: usize) -> String {
    format!("c{stage}")
}

fn group(stage: usize) -> String {
    format!("g{stage}")
}

/// The offsets up to which the records of each stage's partitions were passed on.
type Finished = Arc<Mutex<Vec<Vec<i64>>>>;

struct Worker {
    stage: usize,
    stop: watch::Sender<bool>,
    /// Number of seconds for which the member has to hang.
    hang: Arc<AtomicU64>,
    freezer: Freezer,
    /// True if it was frozen, and may no longer have its partitions when it closes.
    ghost: bool,
    task: JoinHandle<crate::Result<()>>,
    instance: Option<String>,
}

struct Chain {
    cluster: Arc<Cluster>,
    strategy: &'static str,
    fixed: bool,
    rng: StdRng,
    workers: Vec<Worker>,
    finished: Finished,
    /// Committed offsets at the last check.
    committed: BTreeMap<(usize, i32), i64>,
}

impl Chain {
    async fn join(&mut self, stage: usize) {
        let instance = self.fixed.then(|| {
            let taken: BTreeSet<&String> = self.workers.iter().filter_map(|worker| worker.instance.as_ref()).collect();
            let mut names = (0..).map(|n| format!("i{stage}-{n}"));
            names.find(|name| !taken.contains(name)).unwrap()
        });
        let freezer = Freezer::default();
        let builder = builder(&self.cluster)
            .network(freezer.network(self.cluster.network()))
            .group(group(stage))
            .auto_offset_reset(OffsetReset::Earliest)
            .auto_commit_interval(SECOND)
            .max_poll_interval(20 * SECOND);
        let mut builder = if self.strategy == KIP_848 {
            builder.group_protocol(GroupProtocol::Consumer)
        } else {
            let builder = builder.session_timeout(10 * SECOND).heartbeat_interval(SECOND);
            builder.property("partition.assignment.strategy", self.strategy)
        };
        if let Some(instance) = &instance {
            builder = builder.group_instance_id(instance.clone());
        }
        let consumer = subscribed(builder, &[&topic(stage)]).await;
        let (stop, stopped) = watch::channel(false);
        let hang = Arc::new(AtomicU64::new(0));
        let pace = StdRng::seed_from_u64(self.rng.random());
        let work = pass_on(self.cluster.clone(), consumer, stage, self.finished.clone(), stopped, hang.clone(), pace);
        let task = tokio::spawn(work);
        self.workers.push(Worker { stage, stop, hang, freezer, ghost: false, task, instance });
    }

    /// Returns a member that is not the last one of its stage.
    fn anyone(&mut self) -> Option<usize> {
        let at = self.rng.random_range(0..self.workers.len());
        let stage = self.workers[at].stage;
        (self.workers.iter().filter(|worker| worker.stage == stage).count() > 1).then_some(at)
    }

    async fn leave(&mut self, at: usize) {
        let worker = self.workers.remove(at);
        worker.stop.send(true).unwrap();
        let closed = worker.task.await.unwrap();
        if !worker.ghost {
            closed.unwrap();
        }
    }

    /// Freezes a member, with the record that it processes, and its requests and their responses in
    /// flight.
    fn freeze(&mut self, at: usize) {
        let seconds = self.rng.random_range(12..25);
        let worker = &mut self.workers[at];
        worker.ghost = true;
        worker.hang.store(seconds, SeqCst);
        let freezer = worker.freezer.clone();
        freezer.freeze();
        tokio::spawn(async move {
            sleep(Duration::from_secs(seconds)).await;
            freezer.thaw();
        });
    }

    async fn something_happens(&mut self, stops: Stops) {
        let what = self.rng.random_range(0..if stops == Stops::Clean { 4 } else { 8 });
        let stage = self.rng.random_range(0..STAGES);
        match (what, self.anyone()) {
            (0 | 1, _) if self.workers.iter().filter(|worker| worker.stage == stage).count() < 4 => {
                self.join(stage).await;
            }
            (2 | 3, Some(at)) => self.leave(at).await,
            (4 | 5, Some(at)) => self.workers.remove(at).task.abort(),
            (6 | 7, Some(at)) if stops == Stops::Frozen => self.freeze(at),
            (6, Some(at)) => self.workers[at].hang.store(30, SeqCst),
            (7, _) => {
                let (brokers, group) = (self.cluster.brokers(), group(stage));
                let to = brokers[self.rng.random_range(0..brokers.len())];
                self.cluster.move_coordinator(&group, to).unwrap();
            }
            _ => {}
        }
    }

    fn nothing_was_committed_too_early(&mut self) {
        let finished = self.finished.lock().unwrap();
        for (stage, finished) in finished.iter().enumerate() {
            for (partition, finished) in (0..).zip(finished) {
                let committed = self.cluster.committed(&group(stage), &topic(stage), partition).unwrap_or(0);
                assert!(committed <= *finished, "{}[{partition}]: {committed} > {finished}", topic(stage));
                let before = self.committed.insert((stage, partition), committed).unwrap_or(0);
                assert!(committed >= before, "{}[{partition}]: {committed} after {before}", topic(stage));
            }
        }
    }
}

/// Runs a member: each record that it reads is sent to the same partition of the next topic.
async fn pass_on(
    cluster: Arc<Cluster>,
    consumer: Consumer,
    stage: usize,
    finished: Finished,
    mut stopped: watch::Receiver<bool>,
    hang: Arc<AtomicU64>,
    mut pace: StdRng,
) -> crate::Result<()> {
    loop {
        let records = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            records = consumer.poll(SECOND) => records,
        };
        let records = match records {
            Ok(records) => records,
            Err(error) if error.is_fatal() || error.kind() == ErrorKind::Closed => return Err(error),
            // A member that hung gets an error, and continues all the same.
            Err(_) => continue,
        };
        for record in records.iter() {
            let partition = record.partition();
            let value = String::from_utf8_lossy(record.value().unwrap()).into_owned();
            cluster.append(&topic(stage + 1), partition, &[Record::to("c").with_value(value)]).unwrap();
            let done = record.offset() + 1;
            {
                let mut finished = finished.lock().unwrap();
                let known = &mut finished[stage][partition as usize];
                *known = (*known).max(done);
            }
            stand_still(&hang).await;
        }
        stand_still(&hang).await;
        sleep(Duration::from_millis(pace.random_range(0..200))).await;
    }
    consumer.close(30 * SECOND).await
}

async fn stand_still(hang: &AtomicU64) {
    let seconds = hang.swap(0, SeqCst);
    if seconds > 0 {
        sleep(Duration::from_secs(seconds)).await;
    }
}

async fn chain(strategy: &'static str, fixed: bool, stops: Stops) {
    let seed = seed();
    let each = chosen("OTTLA_CHAIN_RECORDS").unwrap_or(4_000) / i64::from(PARTITIONS);
    println!("OTTLA_CHAIN_SEED={seed}: {strategy}, {}, {stops:?}", if fixed { "static" } else { "dynamic" });
    let clean = stops == Stops::Clean;
    let options = Options::new().brokers(3).consumer_group_timeouts(SECOND, 10 * SECOND).in_memory();
    let cluster = Arc::new(Cluster::start(options).await.unwrap());
    for stage in 0..=STAGES {
        cluster.create_topic(&topic(stage), PARTITIONS).unwrap();
    }
    let mut chain = Chain {
        cluster: cluster.clone(),
        strategy,
        fixed,
        rng: StdRng::seed_from_u64(seed),
        workers: Vec::new(),
        finished: Arc::new(Mutex::new(vec![vec![0; PARTITIONS as usize]; STAGES])),
        committed: BTreeMap::new(),
    };
    for stage in 0..STAGES {
        chain.join(stage).await;
    }
    let rounds = 40;
    for round in 0..rounds {
        for partition in 0..PARTITIONS {
            append(&cluster, "c0", partition, round * each / rounds..(round + 1) * each / rounds);
        }
        chain.something_happens(stops).await;
        sleep(Duration::from_millis(chain.rng.random_range(100..3_000))).await;
        chain.nothing_was_committed_too_early();
    }
    let all: BTreeSet<i64> = (0..each).collect();
    for partition in 0..PARTITIONS {
        for waited in 0.. {
            // Records are decoded only once there can be enough of them.
            if cluster.log_end("c3", partition).unwrap() >= each || waited >= 600 {
                let there: Vec<i64> = cluster.records("c3", partition).unwrap().iter().map(number).collect();
                let mut first: Vec<i64> = Vec::new();
                let mut seen = BTreeSet::new();
                first.extend(there.iter().filter(|n| seen.insert(**n)));
                assert!(stops == Stops::Frozen || first.is_sorted(), "c3[{partition}] is out of order");
                if seen == all {
                    assert!(!clean || there.len() == all.len(), "c3[{partition}] has some twice");
                    break;
                }
                assert!(waited < 600, "c3[{partition}] lacks {:?}", all.difference(&seen).collect::<Vec<_>>());
            }
            sleep(SECOND).await;
        }
    }
    while !chain.workers.is_empty() {
        chain.leave(0).await;
    }
    chain.nothing_was_committed_too_early();
    for partition in 0..PARTITIONS {
        let (end, committed) = (cluster.log_end("c2", partition).unwrap(), cluster.committed("g2", "c2", partition));
        assert_eq!(committed, Some(end), "all of c2[{partition}] was done, and committed by the last close");
    }
}

macro_rules! chains {
    ($($name:ident: $strategy:expr, $fixed:literal;)*) => { $(
        mod $name {
            use super::{Stops, chain};

            #[tokio::test(start_paused = true)]
            async fn forwards_each_record_once_on_clean_stops() {
                chain($strategy, $fixed, Stops::Clean).await;
            }

            #[tokio::test(start_paused = true)]
            async fn crashing_and_hanging_members_lose_nothing() {
                chain($strategy, $fixed, Stops::Hard).await;
            }

            #[tokio::test(start_paused = true)]
            async fn frozen_members_lose_nothing_after_waking() {
                chain($strategy, $fixed, Stops::Frozen).await;
            }
        }
    )* };
}

chains! {
    range_dynamic: "range", false;
    range_static: "range", true;
    roundrobin_dynamic: "roundrobin", false;
    roundrobin_static: "roundrobin", true;
    sticky_dynamic: "sticky", false;
    sticky_static: "sticky", true;
    cooperative_sticky_dynamic: "cooperative-sticky", false;
    cooperative_sticky_static: "cooperative-sticky", true;
    consumer_protocol_dynamic: super::KIP_848, false;
    consumer_protocol_static: super::KIP_848, true;
}
