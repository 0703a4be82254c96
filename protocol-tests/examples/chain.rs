//! Records pass through a chain of three groups on a real three-node Kafka, while members join,
//! leave, crash and freeze at random: some hang in their work, beyond `max.poll.interval.ms`, and
//! some freeze entirely, including heartbeats, for longer than their session timeout. To make this
//! possible each member has a thread and a runtime of its own. At the end every record has arrived:
//! once if all stops were clean (`--clean`), otherwise once or more; in order in each partition, by
//! first arrival; and no offset was ever committed beyond the records that its reader had
//! completed.
//!
//! ```sh
//! cargo run --release -p protocol-tests --example chain -- --strategy cooperative-sticky
//! cargo run --release -p protocol-tests --example chain -- --strategy range --static --clean \
//!     --seed 7 --seconds 120
//! cargo run --release -p protocol-tests --example chain -- --strategy consumer
//! ```

use std::{
    collections::BTreeSet,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::{Command, value_parser};
use ottla::{Consumer, ErrorKind, Offset, Producer, Record, TopicPartition, consumer::OffsetReset};
use protocol_tests::{
    Kafka,
    arguments::{self, flag, option, value, version},
    unique,
};
use tokio::{
    runtime,
    sync::{oneshot, watch},
    time::sleep,
};

const STAGES: usize = 3;
const PARTITIONS: i32 = 6;
const SESSION: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_secs(20);

/// The coordinator's assignor (KIP-848), used instead of one of Ottla's.
const CONSUMER_PROTOCOL: &str = "consumer";

/// A member's next action: continue, hang in its work, or freeze altogether.
const GO_ON: u8 = 0;
const HANG: u8 = 1;
const FREEZE: u8 = 2;

type Failure = Box<dyn std::error::Error + Send + Sync>;

struct Plan {
    version: String,
    records: i64,
    strategy: String,
    fixed: bool,
    clean: bool,
    seed: u64,
    seconds: u64,
}

fn plan() -> Result<Plan, clap::Error> {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let command = Command::new("chain").args([
        version(),
        option("records", "N", "number of records").default_value("500000").value_parser(value_parser!(i64)),
        option("strategy", "NAME", "the assignor; consumer is the protocol of KIP-848").default_value("range"),
        flag("static", "gives each member a group.instance.id"),
        flag("clean", "stops members cleanly only"),
        option("seed", "N", "seed of a run to repeat; random if not given").value_parser(value_parser!(u64)),
        option("seconds", "SECONDS", "seconds for which members join, leave and fail")
            .default_value("60")
            .value_parser(value_parser!(u64)),
    ]);
    let given = &command.try_get_matches()?;
    Ok(Plan {
        version: value(given, "version"),
        records: value(given, "records"),
        strategy: value(given, "strategy"),
        fixed: given.get_flag("static"),
        clean: given.get_flag("clean"),
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

/// The offsets up to which the records of each stage's partitions were passed on.
type Finished = Arc<Mutex<Vec<Vec<i64>>>>;

struct Member {
    stage: usize,
    stop: watch::Sender<bool>,
    freeze: Arc<AtomicU8>,
    /// True if it hung or was frozen, and may no longer have its partitions when it closes.
    ghost: bool,
    /// Drops its runtime with all of its tasks, as when a process dies.
    crash: oneshot::Sender<()>,
    ended: oneshot::Receiver<Result<(), Failure>>,
    instance: Option<String>,
}

struct Chain {
    plan: Plan,
    bootstrap: String,
    name: String,
    dice: Dice,
    members: Vec<Member>,
    finished: Finished,
    happened: [u32; 5],
}

async fn run(plan: Plan) -> Result<(), Failure> {
    println!(
        "seed {}: {}, {} members, {} stops",
        plan.seed,
        plan.strategy,
        if plan.fixed { "static" } else { "dynamic" },
        if plan.clean { "clean" } else { "hard" }
    );
    let kafka = Kafka::builder()
        .version(&plan.version)
        .nodes(3)
        .config("group.consumer.min.session.timeout.ms", "6000")
        .config("group.consumer.session.timeout.ms", &SESSION.as_millis().to_string())
        .config("group.consumer.min.heartbeat.interval.ms", "500")
        .config("group.consumer.heartbeat.interval.ms", "1000");
    let kafka = kafka.start().await?;
    let mut chain = Chain {
        bootstrap: kafka.bootstrap(),
        name: unique("chain"),
        dice: Dice(plan.seed),
        members: Vec::new(),
        finished: Arc::new(Mutex::new(vec![vec![0; usize::try_from(PARTITIONS)?]; STAGES])),
        happened: [0; 5],
        plan,
    };
    for stage in 0..=STAGES {
        kafka.create_topic(&chain.topic(stage), PARTITIONS, 3, &[("min.insync.replicas", "2")]).await?;
    }
    for stage in 0..STAGES {
        chain.join(stage).await?;
    }
    let writing = tokio::spawn(write(chain.bootstrap.clone(), chain.topic(0), chain.plan.records));
    let end = Instant::now() + Duration::from_secs(chain.plan.seconds);
    while Instant::now() < end {
        chain.something_happens().await?;
        sleep(Duration::from_millis(200 + chain.dice.below(2_800))).await;
        chain.nothing_was_committed_too_early().await?;
    }
    writing.await??;
    let [joins, leaves, crashes, hangs, freezes] = chain.happened;
    println!("{joins} joined, {leaves} left, {crashes} crashed, {hangs} hung, {freezes} were frozen");
    let (there, doubled) = chain.verify().await?;
    while !chain.members.is_empty() {
        chain.leave(0).await?;
    }
    chain.nothing_was_committed_too_early().await?;
    println!("PASSED: {there} records passed through three groups, in order, none lost, {doubled} more than once");
    Ok(())
}

async fn write(bootstrap: String, topic: String, records: i64) -> Result<(), Failure> {
    let producer = Producer::builder(&bootstrap).build().await?;
    for n in 0..records {
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

    async fn join(&mut self, stage: usize) -> Result<(), Failure> {
        let taken: BTreeSet<&String> = self.members.iter().filter_map(|member| member.instance.as_ref()).collect();
        let mut names = (0..).map(|n| format!("i{stage}-{n}"));
        let instance = names.find(|name| !taken.contains(name)).filter(|_| self.plan.fixed);
        let mut builder = Consumer::builder(&self.bootstrap)
            .group(self.topic(stage))
            .auto_offset_reset(OffsetReset::Earliest)
            .auto_commit_interval(Duration::from_secs(1))
            .max_poll_interval(POLL_INTERVAL);
        builder = if self.plan.strategy == CONSUMER_PROTOCOL {
            builder.property("group.protocol", CONSUMER_PROTOCOL)
        } else {
            builder
                .session_timeout(SESSION)
                .heartbeat_interval(Duration::from_secs(1))
                .property("partition.assignment.strategy", &self.plan.strategy)
        };
        if let Some(instance) = &instance {
            builder = builder.group_instance_id(instance);
        }
        let producer = Producer::builder(&self.bootstrap).linger(Duration::from_millis(5));
        let (stop, stopped) = watch::channel(false);
        let freeze = Arc::new(AtomicU8::new(GO_ON));
        let (topic, next) = (self.topic(stage), self.topic(stage + 1));
        let (finished, frozen) = (self.finished.clone(), freeze.clone());
        let work = async move {
            let consumer = builder.build().await?;
            consumer.subscribe([topic])?;
            pass_on(consumer, producer.build().await?, stage, next, finished, stopped, frozen).await
        };
        let (crash, crashed) = oneshot::channel();
        let (tell, ended) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name(format!("member of {stage}")).spawn(move || {
            let ended = runtime.block_on(async {
                tokio::select! {
                    ended = work => ended,
                    _ = crashed => Ok(()),
                }
            });
            runtime.shutdown_background();
            // If the member crashed, the result is not awaited.
            let _ = tell.send(ended);
        })?;
        self.members.push(Member { stage, stop, freeze, ghost: false, crash, ended, instance });
        self.happened[0] += 1;
        Ok(())
    }

    async fn leave(&mut self, at: usize) -> Result<(), Failure> {
        let member = self.members.remove(at);
        member.stop.send(true)?;
        self.happened[1] += 1;
        match member.ended.await? {
            Err(error) if member.ghost && is_not_its_own(&*error) => Ok(()),
            ended => ended,
        }
    }

    async fn something_happens(&mut self) -> Result<(), Failure> {
        let what = self.dice.below(if self.plan.clean { 4 } else { 8 });
        let stage = usize::try_from(self.dice.below(STAGES as u64))?;
        if what < 2 {
            return if self.of(stage) < 4 { self.join(stage).await } else { Ok(()) };
        }
        let at = usize::try_from(self.dice.below(self.members.len() as u64))?;
        // At least one member of each group stays.
        if self.of(self.members[at].stage) < 2 {
            return Ok(());
        }
        match what {
            2 | 3 => self.leave(at).await?,
            4 | 5 => {
                // A member that failed by itself has dropped the receiver; the failure shows as
                // missing records.
                let _ = self.members.remove(at).crash.send(());
                self.happened[2] += 1;
            }
            6 => {
                self.members[at].freeze.store(HANG, SeqCst);
                self.members[at].ghost = true;
                self.happened[3] += 1;
            }
            _ => {
                self.members[at].freeze.store(FREEZE, SeqCst);
                self.members[at].ghost = true;
                self.happened[4] += 1;
            }
        }
        Ok(())
    }

    async fn nothing_was_committed_too_early(&self) -> Result<(), Failure> {
        for stage in 0..STAGES {
            let onlooker = Consumer::builder(&self.bootstrap).group(self.topic(stage)).build().await?;
            let partitions = (0..PARTITIONS).map(|partition| TopicPartition::new(self.topic(stage), partition));
            let committed = onlooker.committed(partitions).await?;
            onlooker.close(Duration::from_secs(5)).await?;
            let finished = self.finished.lock().unwrap_or_else(PoisonError::into_inner);
            for (partition, committed) in committed {
                let done = finished[stage][usize::try_from(partition.partition)?];
                let committed = committed.map_or(0, |committed| committed.offset);
                if committed > done {
                    return Err(format!("{partition}: {committed} was committed, but only {done} was completed").into());
                }
            }
        }
        Ok(())
    }

    /// Waits until all records have passed through, and reads them. Returns the number of records,
    /// and the number of repetitions.
    async fn verify(&self) -> Result<(i64, i64), Failure> {
        let last = self.topic(STAGES);
        let reader = Consumer::builder(&self.bootstrap).build().await?;
        reader.assign((0..PARTITIONS).map(|partition| (TopicPartition::new(&*last, partition), Offset::Beginning)))?;
        let each = |partition: i64| {
            self.plan.records / i64::from(PARTITIONS) + i64::from(partition < self.plan.records % i64::from(PARTITIONS))
        };
        let mut seen: Vec<BTreeSet<i64>> = vec![BTreeSet::new(); usize::try_from(PARTITIONS)?];
        let (mut there, mut doubled) = (0, 0);
        let patience = Duration::from_secs(300);
        let mut progress = Instant::now();
        while there < self.plan.records {
            for record in reader.poll(Duration::from_secs(1)).await?.iter() {
                let number: i64 = std::str::from_utf8(record.value().unwrap_or_default())?.parse()?;
                let seen = &mut seen[usize::try_from(record.partition())?];
                if seen.contains(&number) {
                    doubled += 1;
                    continue;
                }
                if seen.last().map_or(0, |last| last + 1) != number {
                    return Err(
                        format!("{last}[{}]: {number} arrived after {:?}", record.partition(), seen.last()).into()
                    );
                }
                seen.insert(number);
                there += 1;
                progress = Instant::now();
            }
            if progress.elapsed() > patience {
                let lacking = (0..).zip(&seen).map(|(partition, seen)| each(partition) - seen.len() as i64);
                return Err(format!("records are missing by partition: {:?}", lacking.collect::<Vec<_>>()).into());
            }
        }
        // Repetitions arrive soon after.
        for record in reader.poll(Duration::from_secs(10)).await?.iter() {
            doubled += i64::from(record.offset() >= 0);
        }
        reader.close(Duration::from_secs(5)).await?;
        if self.plan.clean && doubled > 0 {
            return Err(format!("all stops were clean, and {doubled} records arrived more than once").into());
        }
        Ok((there, doubled))
    }
}

/// Returns true for the error of a commit for a partition that another member owns by now.
fn is_not_its_own(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<ottla::Error>().is_some_and(|error| error.kind() == ErrorKind::NotAssigned)
}

/// Runs a member: each record that it reads is sent to the same partition of the next topic, and is
/// completed when it is acknowledged there.
async fn pass_on(
    consumer: Consumer,
    producer: Producer,
    stage: usize,
    next: String,
    finished: Finished,
    mut stopped: watch::Receiver<bool>,
    freeze: Arc<AtomicU8>,
) -> Result<(), Failure> {
    loop {
        let records = tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => break,
            records = consumer.poll(Duration::from_secs(1)) => records,
        };
        let records = match records {
            Ok(records) => records,
            // A member that was frozen gets an error and continues all the same.
            Err(error) if !error.is_fatal() => continue,
            Err(error) => return Err(error.into()),
        };
        let (mut deliveries, mut done) = (Vec::new(), Vec::new());
        for record in records.iter() {
            let copy =
                Record::to(&next).with_partition(record.partition()).with_value(record.value().unwrap_or_default());
            deliveries.push(producer.send(copy).await?);
            done.push((record.partition(), record.offset() + 1));
        }
        for delivery in deliveries {
            delivery.await?;
        }
        {
            let mut finished = finished.lock().unwrap_or_else(PoisonError::into_inner);
            for (partition, offset) in done {
                let known = &mut finished[stage][usize::try_from(partition)?];
                *known = (*known).max(offset);
            }
        }
        match freeze.swap(GO_ON, SeqCst) {
            HANG => sleep(POLL_INTERVAL + Duration::from_secs(10)).await,
            // The member has no other thread, so this freezes all of it.
            FREEZE => thread::sleep(SESSION + Duration::from_secs(5)),
            _ => {}
        }
    }
    consumer.close(Duration::from_secs(30)).await?;
    producer.close(Duration::from_secs(30)).await?;
    Ok(())
}
