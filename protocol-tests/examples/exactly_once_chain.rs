//! Records pass through two exactly-once workers, one behind the other, on a real three-node Kafka or
//! on the testkit, while members join, leave, crash and freeze at random: some hang in their work,
//! beyond their handler's time, and some freeze entirely, including heartbeats, for longer than their
//! session or their transaction may last. To make this possible each member has a thread and a runtime
//! of its own. At the end each record has arrived once, in order in each partition.
//!
//! ```sh
//! cargo run --release -p protocol-tests --example exactly_once_chain -- --testkit --records 50000
//! cargo run --release -p protocol-tests --example exactly_once_chain -- --seconds 120
//! cargo run --release -p protocol-tests --example exactly_once_chain -- --protocol consumer --seed 7
//! ```

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::{Arg, ArgAction, Command, value_parser};
use ottla::{
    Consumer, ConsumerRecord, Offset, Producer, Record, TopicPartition, TransactionalProducer, Worker,
    consumer::{IsolationLevel, OffsetReset},
    testkit,
    worker::Outputs,
};
use protocol_tests::{
    Kafka,
    arguments::{self, option, value, version},
    unique,
};
use tokio::{
    runtime,
    sync::{oneshot, watch},
    time::sleep,
};

const STAGES: usize = 2;
const PARTITIONS: i32 = 6;
const SESSION: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_secs(60);
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(16);

/// A member's next action: continue, hang in its handler, or freeze altogether, for shorter or for
/// longer than a transaction may last.
const GO_ON: u8 = 0;
const HANG: u8 = 1;
const FREEZE: u8 = 2;
const FREEZE_LONG: u8 = 3;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Plan {
    version: String,
    testkit: bool,
    records: i64,
    protocol: String,
    seed: u64,
    seconds: u64,
}

fn plan() -> Result<Plan, clap::Error> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let command = Command::new("exactly_once_chain").args([
        version(),
        Arg::new("testkit").long("testkit").help("uses brokers in the process").action(ArgAction::SetTrue),
        option("records", "N", "number of records").default_value("500000").value_parser(value_parser!(i64)),
        option("protocol", "NAME", "group.protocol: classic or consumer").default_value("classic"),
        option("seed", "N", "seed of a run to repeat; random if not given").value_parser(value_parser!(u64)),
        option("seconds", "SECONDS", "seconds for which members join, leave and fail")
            .default_value("60")
            .value_parser(value_parser!(u64)),
    ]);
    let given = &command.try_get_matches()?;
    Ok(Plan {
        version: value(given, "version"),
        testkit: given.get_flag("testkit"),
        records: value(given, "records"),
        protocol: value(given, "protocol"),
        seed: given.get_one("seed").copied().unwrap_or_else(|| clock.subsec_nanos().into()),
        seconds: value(given, "seconds"),
    })
}

/// Pseudo-random numbers that are determined by the seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let plan = match plan() {
        Ok(plan) => plan,
        Err(why) => return arguments::exit(&why, 1),
    };
    match run(plan).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Member {
    stage: usize,
    stop: watch::Sender<bool>,
    freeze: Arc<AtomicU8>,
    /// Drops its runtime with all of its tasks, as when a process dies.
    crash: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), Failure>>,
    transactional_id: String,
}

struct Chain {
    plan: Plan,
    bootstrap: String,
    name: String,
    dice: Dice,
    members: Vec<Member>,
    /// Joins, leaves, crashes, hangs, freezes.
    happened: [u32; 5],
}

/// Either kind of brokers, until it is dropped.
enum Brokers {
    Real(Kafka),
    Testkit(testkit::Cluster),
}

impl Brokers {
    async fn start(plan: &Plan) -> Result<Self, Failure> {
        if plan.testkit {
            return Ok(Self::Testkit(testkit::Cluster::start(testkit::Options::new().brokers(3)).await?));
        }
        let kafka = Kafka::builder()
            .version(&plan.version)
            .nodes(3)
            .config("group.consumer.min.session.timeout.ms", "6000")
            .config("group.consumer.session.timeout.ms", &SESSION.as_millis().to_string())
            .config("group.consumer.min.heartbeat.interval.ms", "500")
            .config("group.consumer.heartbeat.interval.ms", "1000");
        Ok(Self::Real(kafka.start().await?))
    }

    fn bootstrap(&self) -> String {
        match self {
            Self::Real(kafka) => kafka.bootstrap(),
            Self::Testkit(cluster) => cluster.bootstrap(),
        }
    }

    async fn create_topic(&self, name: &str) -> Result<(), Failure> {
        match self {
            Self::Real(kafka) => kafka.create_topic(name, PARTITIONS, 3, &[("min.insync.replicas", "2")]).await?,
            Self::Testkit(cluster) => cluster.create_topic(name, PARTITIONS)?,
        }
        Ok(())
    }
}

async fn run(plan: Plan) -> Result<(), Failure> {
    println!("seed {}: {} records, protocol {}", plan.seed, plan.records, plan.protocol);
    let brokers = Brokers::start(&plan).await?;
    let mut chain = Chain {
        bootstrap: brokers.bootstrap(),
        name: unique("exactly-once"),
        dice: Dice(plan.seed),
        members: Vec::new(),
        happened: [0; 5],
        plan,
    };
    for stage in 0..=STAGES {
        brokers.create_topic(&chain.topic(stage)).await?;
    }
    for stage in 0..STAGES {
        chain.join(stage)?;
    }
    let writing = tokio::spawn(write(chain.bootstrap.clone(), chain.topic(0), chain.plan.records, chain.plan.seconds));
    let end = Instant::now() + Duration::from_secs(chain.plan.seconds);
    while Instant::now() < end {
        chain.something_happens().await?;
        sleep(Duration::from_millis(200 + chain.dice.below(2_800))).await;
    }
    writing.await??;
    let [joins, leaves, crashes, hangs, freezes] = chain.happened;
    println!("{joins} joined, {leaves} left, {crashes} crashed, {hangs} hung, {freezes} were frozen");
    let seen = chain.verify().await?;
    while !chain.members.is_empty() {
        chain.leave(0).await?;
    }
    println!("PASSED: {seen} records passed through two exactly-once stages, each once and in order");
    Ok(())
}

/// Writes the records, a few at a time over those seconds, so that members fail while records pass.
async fn write(bootstrap: String, topic: String, records: i64, seconds: u64) -> Result<(), Failure> {
    let producer = Producer::builder(&bootstrap).build().await?;
    let mut tick = tokio::time::interval(Duration::from_millis(100));
    let each = (records / i64::try_from(seconds.max(1) * 10)?).max(1);
    for n in 0..records {
        if n % each == 0 {
            tick.tick().await;
        }
        let record = Record::to(&topic).with_partition(i32::try_from(n % i64::from(PARTITIONS))?);
        // Delivery is checked at the end, for all records at once.
        drop(producer.send(record.with_value((n / i64::from(PARTITIONS)).to_string())).await?);
    }
    producer.close(Duration::from_secs(120)).await?;
    Ok(())
}

impl Chain {
    fn topic(&self, stage: usize) -> String {
        format!("{}-{stage}", self.name)
    }

    fn of(&self, stage: usize) -> usize {
        self.members.iter().filter(|member| member.stage == stage).count()
    }

    fn join(&mut self, stage: usize) -> Result<(), Failure> {
        let taken: BTreeSet<&String> = self.members.iter().map(|member| &member.transactional_id).collect();
        // A name of a member that crashed is used again, as when it is started again.
        let mut names = (0..).map(|n| format!("{}-{stage}-{n}", self.name));
        let transactional_id = names.find(|name| !taken.contains(name)).unwrap_or_default();
        let mut builder = Consumer::builder(&self.bootstrap)
            .group(self.topic(stage))
            .auto_offset_reset(OffsetReset::Earliest)
            .max_poll_interval(POLL_INTERVAL)
            .property("group.protocol", &self.plan.protocol);
        if self.plan.protocol == "classic" {
            builder = builder.session_timeout(SESSION).heartbeat_interval(Duration::from_secs(1));
        }
        let producer = TransactionalProducer::builder(&self.bootstrap, &transactional_id);
        let producer = producer.transaction_timeout(TRANSACTION_TIMEOUT);
        let (stop, mut stopped) = watch::channel(false);
        let freeze = Arc::new(AtomicU8::new(GO_ON));
        let (topic, next, frozen) = (self.topic(stage), self.topic(stage + 1), freeze.clone());
        let work = async move {
            let consumer = builder.build().await?;
            consumer.subscribe([topic])?;
            let worker = consumer.worker().retries(u32::MAX).exactly_once(producer);
            let worker: Worker = worker.start(move |record, outputs| {
                let (next, frozen) = (next.clone(), frozen.clone());
                async move { pass_on(record, outputs, &next, &frozen).await }
            })?;
            let is_stopped = tokio::select! {
                ended = worker.wait() => return Ok(ended?),
                stopped = stopped.wait_for(|stopped| *stopped) => stopped.is_ok(),
            };
            if is_stopped {
                worker.close(Duration::from_secs(60)).await?;
            }
            Ok(())
        };
        let (crash, crashed) = oneshot::channel();
        let (tell, ended) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("member of {stage}")).spawn(move || {
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = work => ended,
                    _ = crashed => std::future::pending().await,
                }
            });
            // The result of a member that crashed is not awaited.
            let _ = tell.send(ended);
        })?;
        self.members.push(Member { stage, stop, freeze, crash, ended, transactional_id });
        self.happened[0] += 1;
        Ok(())
    }

    async fn leave(&mut self, at: usize) -> Result<(), Failure> {
        let member = self.members.remove(at);
        member.stop.send(true)?;
        self.happened[1] += 1;
        member.ended.await?
    }

    async fn something_happens(&mut self) -> Result<(), Failure> {
        let what = self.dice.below(9);
        let stage = usize::try_from(self.dice.below(STAGES as u64))?;
        if what < 2 {
            return if self.of(stage) < 3 { self.join(stage) } else { Ok(()) };
        }
        let at = usize::try_from(self.dice.below(self.members.len() as u64))?;
        // At least one member of each group stays.
        if self.of(self.members[at].stage) < 2 {
            return Ok(());
        }
        let order = |freeze: &AtomicU8, action: u8| freeze.store(action, SeqCst);
        match what {
            2 | 3 => self.leave(at).await?,
            4 | 5 => {
                // A member that failed by itself has dropped the receiver; the failure shows as
                // missing records.
                let _ = self.members.remove(at).crash.send(());
                self.happened[2] += 1;
            }
            6 => {
                order(&self.members[at].freeze, HANG);
                self.happened[3] += 1;
            }
            what => {
                order(&self.members[at].freeze, if what == 7 { FREEZE } else { FREEZE_LONG });
                self.happened[4] += 1;
            }
        }
        Ok(())
    }

    /// Waits until all records have passed through, and reads the committed ones. Returns their number.
    async fn verify(&self) -> Result<i64, Failure> {
        let last = self.topic(STAGES);
        let reader = Consumer::builder(&self.bootstrap).isolation_level(IsolationLevel::ReadCommitted).build().await?;
        reader.assign((0..PARTITIONS).map(|partition| (TopicPartition::new(&*last, partition), Offset::Beginning)))?;
        let mut next = vec![0_i64; usize::try_from(PARTITIONS)?];
        let mut seen = 0;
        let patience = Duration::from_secs(300);
        let mut progress = Instant::now();
        let mut after_all = 0;
        // Repetitions would arrive soon after.
        while seen < self.plan.records || after_all < 10 {
            after_all += u32::from(seen == self.plan.records);
            for record in reader.poll(Duration::from_secs(1)).await?.iter() {
                let number: i64 = std::str::from_utf8(record.value().unwrap_or_default())?.parse()?;
                let expected = &mut next[usize::try_from(record.partition())?];
                if *expected != number {
                    let partition = record.partition();
                    return Err(format!("{last}[{partition}]: {number} arrived instead of {expected}").into());
                }
                *expected += 1;
                seen += 1;
                progress = Instant::now();
            }
            if seen < self.plan.records && progress.elapsed() > patience {
                return Err(format!(
                    "{} records are missing; there are by partition: {next:?}",
                    self.plan.records - seen
                )
                .into());
            }
        }
        reader.close(Duration::from_secs(5)).await?;
        Ok(seen)
    }
}

/// Sends a record to the same partition of the next topic.
async fn pass_on(record: ConsumerRecord, outputs: Outputs, next: &str, freeze: &AtomicU8) -> ottla::Result<()> {
    let copy =
        Record::to(next).with_partition(record.partition).with_value(record.value.as_deref().unwrap_or_default());
    outputs.send(copy).await?;
    match freeze.swap(GO_ON, SeqCst) {
        HANG => sleep(TRANSACTION_TIMEOUT).await,
        // The member has no other thread, so this freezes all of it.
        FREEZE => thread::sleep(SESSION + Duration::from_secs(2)),
        FREEZE_LONG => thread::sleep(TRANSACTION_TIMEOUT + Duration::from_secs(8)),
        _ => {}
    }
    Ok(())
}
