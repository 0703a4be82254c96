//! Records pass through a chain of three groups while members join, leave, crash and freeze at random.
//!
//! At the end every record is there: once where all stops were clean, else once or more; in order in each partition (by
//! where each came first), and no offset was ever committed past what its reader was done with. The seed is printed;
//! `OTTLA_CHAIN_SEED` and `OTTLA_CHAIN_RECORDS` choose another one, and more.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::watch, task::JoinHandle, time::sleep};

use super::*;
use crate::OffsetReset;

const STAGES: usize = 3;
const PARTITIONS: i32 = 4;

fn chosen(name: &str, otherwise: i64) -> i64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

fn topic(stage: usize) -> String {
    format!("c{stage}")
}

fn group(stage: usize) -> String {
    format!("g{stage}")
}

/// How far the records of each stage's partitions were passed on.
type Finished = Arc<Mutex<Vec<Vec<i64>>>>;

struct Worker {
    stage: usize,
    stop: watch::Sender<bool>,
    freeze: Arc<AtomicBool>,
    task: JoinHandle<()>,
    instance: Option<String>,
}

struct Chain {
    cluster: Arc<Cluster>,
    strategy: &'static str,
    fixed: bool,
    rng: StdRng,
    workers: Vec<Worker>,
    finished: Finished,
}

impl Chain {
    async fn join(&mut self, stage: usize) {
        let instance = self.fixed.then(|| {
            let taken: BTreeSet<&String> = self.workers.iter().filter_map(|worker| worker.instance.as_ref()).collect();
            let names = (0..).map(|n| format!("i{stage}-{n}"));
            names.into_iter().find(|name| !taken.contains(name)).unwrap()
        });
        let mut builder = builder(&self.cluster)
            .group(group(stage))
            .auto_offset_reset(OffsetReset::Earliest)
            .auto_commit_interval(SECOND)
            .session_timeout(10 * SECOND)
            .heartbeat_interval(SECOND)
            .max_poll_interval(20 * SECOND)
            .property("partition.assignment.strategy", self.strategy);
        if let Some(instance) = &instance {
            builder = builder.group_instance_id(instance.clone());
        }
        let consumer = builder.build().await.unwrap();
        consumer.subscribe([topic(stage)]).unwrap();
        let (stop, stopped) = watch::channel(false);
        let freeze = Arc::new(AtomicBool::new(false));
        let pace = StdRng::seed_from_u64(self.rng.random());
        let work = pass_on(self.cluster.clone(), consumer, stage, self.finished.clone(), stopped, freeze.clone(), pace);
        self.workers.push(Worker { stage, stop, freeze, task: tokio::spawn(work), instance });
    }

    /// Somebody who is not the last one of its stage.
    fn anyone(&mut self) -> Option<usize> {
        let at = self.rng.random_range(0..self.workers.len());
        let stage = self.workers[at].stage;
        (self.workers.iter().filter(|worker| worker.stage == stage).count() > 1).then_some(at)
    }

    async fn leave(&mut self, at: usize) {
        let worker = self.workers.remove(at);
        worker.stop.send(true).unwrap();
        worker.task.await.unwrap();
    }

    async fn something_happens(&mut self, clean: bool) {
        let what = self.rng.random_range(0..if clean { 4 } else { 8 });
        let stage = self.rng.random_range(0..STAGES);
        match (what, self.anyone()) {
            (0 | 1, _) if self.workers.iter().filter(|worker| worker.stage == stage).count() < 4 => {
                self.join(stage).await;
            }
            (2 | 3, Some(at)) => self.leave(at).await,
            (4 | 5, Some(at)) => self.workers.remove(at).task.abort(),
            (6, Some(at)) => self.workers[at].freeze.store(true, SeqCst),
            (7, _) => {
                let (brokers, group) = (self.cluster.brokers(), group(stage));
                let to = brokers[self.rng.random_range(0..brokers.len())];
                self.cluster.move_coordinator(&group, to).unwrap();
            }
            _ => {}
        }
    }

    fn nothing_was_committed_too_early(&self) {
        let finished = self.finished.lock().unwrap();
        for (stage, finished) in finished.iter().enumerate() {
            for (partition, finished) in (0..).zip(finished) {
                let committed = self.cluster.committed(&group(stage), &topic(stage), partition).unwrap_or(0);
                assert!(committed <= *finished, "{}[{partition}]: {committed} > {finished}", topic(stage));
            }
        }
    }
}

/// A member: what it reads goes to the same partition of the next topic.
async fn pass_on(
    cluster: Arc<Cluster>,
    consumer: Consumer,
    stage: usize,
    finished: Finished,
    mut stopped: watch::Receiver<bool>,
    freeze: Arc<AtomicBool>,
    mut pace: StdRng,
) {
    loop {
        let records = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            records = consumer.poll(SECOND) => records,
        };
        // A member that was frozen is told; it comes back all the same.
        let Ok(records) = records else { continue };
        let mut iter = records.iter().peekable();
        while let Some(record) = iter.next() {
            let partition = record.partition();
            let value = String::from_utf8_lossy(record.value().unwrap()).into_owned();
            cluster.append(&topic(stage + 1), partition, &[Record::to("c").value(value)]).unwrap();
            let mut finished = finished.lock().unwrap();
            let done = &mut finished[stage][partition as usize];
            *done = (*done).max(record.offset() + 1);
        }
        if freeze.swap(false, SeqCst) {
            sleep(30 * SECOND).await;
        }
        sleep(Duration::from_millis(pace.random_range(0..200))).await;
    }
    consumer.close(30 * SECOND).await.unwrap();
}

async fn chain(strategy: &'static str, fixed: bool, clean: bool) {
    let seed = chosen("OTTLA_CHAIN_SEED", 7) as u64;
    let each = chosen("OTTLA_CHAIN_RECORDS", 4_000) / i64::from(PARTITIONS);
    println!(
        "seed {seed}: {strategy}, {}, {}",
        if fixed { "static" } else { "dynamic" },
        if clean { "clean" } else { "hard" }
    );
    let cluster = Arc::new(cluster(3).await);
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
    };
    for stage in 0..STAGES {
        chain.join(stage).await;
    }
    let rounds = 40;
    for round in 0..rounds {
        for partition in 0..PARTITIONS {
            append(&cluster, "c0", partition, round * each / rounds..(round + 1) * each / rounds);
        }
        chain.something_happens(clean).await;
        sleep(Duration::from_millis(chain.rng.random_range(100..3_000))).await;
        chain.nothing_was_committed_too_early();
    }
    let all: BTreeSet<i64> = (0..each).collect();
    for partition in 0..PARTITIONS {
        let mut waited = 0;
        loop {
            let there: Vec<i64> = cluster.records("c3", partition).unwrap().iter().map(number).collect();
            let mut first: Vec<i64> = Vec::new();
            let mut seen = BTreeSet::new();
            first.extend(there.iter().filter(|n| seen.insert(**n)));
            assert!(first.is_sorted(), "c3[{partition}] is out of order");
            if seen == all {
                assert!(!clean || there.len() == all.len(), "c3[{partition}] has some twice");
                break;
            }
            waited += 1;
            assert!(waited < 600, "c3[{partition}] lacks {:?}", all.difference(&seen).collect::<Vec<_>>());
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
    ($($name:ident: $strategy:literal, $fixed:literal;)*) => { $(
        mod $name {
            use super::chain;

            #[tokio::test(start_paused = true)]
            async fn passes_each_record_on_once_where_stops_are_clean() {
                chain($strategy, $fixed, true).await;
            }

            #[tokio::test(start_paused = true)]
            async fn loses_nothing_where_members_crash_and_freeze() {
                chain($strategy, $fixed, false).await;
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
}
