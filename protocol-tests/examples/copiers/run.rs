//! The rounds, one after the other.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use history::Event;
use protocol_tests::{Jars, Kafka, arguments, unique};
use tokio::sync::watch;

use crate::Failure;
use crate::args::{Args, Clients};
use crate::fleet::Fleet;
use crate::hurt::Surgeon;
use crate::judge::{final_events, judge, write_history};
use crate::plan::Round;
use crate::seat::Orders;
use crate::tail::Tail;
use crate::writer::write;

pub(crate) async fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => return arguments::exit(&why, 2),
    };
    println!("seed {}", args.seed);
    match run(&args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            println!("FAILED (seed {}): {why}", args.seed);
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<(), Failure> {
    let mut builder = Kafka::builder()
        .version(&args.kafka)
        .nodes(3)
        // Lets leaders move soon, and return to their preferred brokers.
        .config("broker.session.timeout.ms", "3000")
        .config("broker.heartbeat.interval.ms", "500")
        .config("replica.lag.time.max.ms", "2500")
        .config("leader.imbalance.check.interval.seconds", "7")
        // Lets the coordinator notice transactions that are over their time soon.
        .config("transaction.abort.timed.out.transaction.cleanup.interval.ms", "1000");
    for (key, value) in &args.configs {
        builder = builder.config(key, value);
    }
    if let Some(level) = args.transaction_version {
        builder = builder.format_arg("--feature").format_arg(&format!("transaction.version={level}"));
    }
    let mut kafka = builder.start().await?;
    let level = args.transaction_version.map_or_else(|| "its own".to_owned(), |level| level.to_string());
    println!("Kafka {}, transaction.version {level}, 3 nodes at {}", kafka.version().as_str(), kafka.bootstrap());
    for clients in &args.clients {
        let chain = Chain::new(&kafka, Args { clients: vec![*clients], ..args.clone() }).await?;
        if let Err(why) = chain.run(*clients).await {
            // Keeps the logs for inspection.
            kafka.keep_files();
            return Err(format!("{}: {why}", clients.name()).into());
        }
    }
    Ok(())
}

/// A chain of topics, and its copiers.
struct Chain<'k> {
    kafka: &'k Kafka,
    orders: Orders,
    history: PathBuf,
}

impl<'k> Chain<'k> {
    async fn new(kafka: &'k Kafka, args: Args) -> Result<Self, Failure> {
        let name = unique(&format!("copiers-{}", args.clients[0].name()));
        let topics: Vec<String> = (0..=args.stages).map(|stage| format!("{name}-{stage}")).collect();
        for topic in &topics {
            kafka.create_topic(topic, i32::try_from(args.partitions)?, 3, &[("min.insync.replicas", "2")]).await?;
        }
        let dir = args.histories.clone().unwrap_or_else(|| std::env::temp_dir().join("ottla-histories"));
        let histories = dir.join(&name);
        fs::create_dir_all(&histories)?;
        let orders = Orders {
            bootstrap: kafka.bootstrap(),
            groups: (0..args.stages).map(|stage| format!("{name}-group-{stage}")).collect(),
            topics,
            jars: Jars::get(kafka.version().clone()).await?,
            histories,
            args,
        };
        Ok(Self { kafka, orders, history: dir.join(format!("{name}.jsonl")) })
    }

    async fn run(self, clients: Clients) -> Result<(), Failure> {
        let (orders, started) = (&self.orders, Instant::now());
        let (harm, stop) = (Arc::new(AtomicBool::new(false)), watch::channel(false));
        let fleet = Fleet::new(orders.clone(), orders.args.seed, harm.clone());
        let running = tokio::spawn(fleet.run(stop.1));
        let stop_writer = watch::channel(false);
        let (bootstrap, first) = (orders.bootstrap.clone(), orders.topics[0].clone());
        let writer = tokio::spawn(write(bootstrap, first, orders.args.partitions, orders.args.rate, stop_writer.1));
        let last = &orders.topics[orders.args.stages];
        let mut tail = Tail::follow(&orders.bootstrap, last, orders.args.partitions, orders.args.patience).await?;
        let (mut notes, mut stalled) = (Vec::new(), None);
        for number in 1..=orders.args.rounds {
            let round = match self.round(number, &harm, &mut tail).await {
                Ok(round) => round,
                // The history shows the reason.
                Err(why) => {
                    stalled = Some(why);
                    break;
                }
            };
            if running.is_finished() {
                running.await??;
                return Err("the copiers have ended".into());
            }
            println!("{}, {round}", clients.name());
            notes.push(Event::Note { text: round });
        }
        stop_writer.0.send_replace(true);
        let mut events = writer.await??;
        let written = events.iter().filter(|event| matches!(event, Event::Send { .. })).count();
        if stalled.is_none() {
            stalled = tail.reaches(written as u64).await.err();
        }
        stop.0.send_replace(true);
        let fleet = running.await??;
        notes.extend(fleet.notes.iter().map(|text| Event::Note { text: text.clone() }));
        events.splice(0..0, notes);
        write_history(&self.history, &orders.histories, &events, &final_events(orders).await?)?;
        let verdict = judge(&self.history)?;
        println!("{}: {}", clients.name(), fleet.happened);
        if !verdict.valid {
            let stalled = stalled.map_or(String::new(), |why| format!("{why}; "));
            return Err(format!("{stalled}the history {} is {verdict}", self.history.display()).into());
        }
        if let Some(why) = stalled {
            return Err(why);
        }
        println!("{}: {}", clients.name(), verdict.to_string().lines().nth(1).unwrap_or_default());
        println!(
            "PASSED: {} (seed {}): {} rounds in {:.0} s; each of {written} records passed through {} copies once and in order",
            clients.name(),
            orders.args.seed,
            orders.args.rounds,
            started.elapsed().as_secs_f64(),
            orders.args.stages,
        );
        fs::remove_dir_all(&orders.histories)?;
        if orders.args.histories.is_none() {
            fs::remove_file(&self.history)?;
        }
        Ok(())
    }

    /// Harms nodes and copiers, and waits until copies arrive again. Returns a description.
    async fn round(&self, number: u64, harm: &AtomicBool, tail: &mut Tail) -> Result<String, Failure> {
        let round = Round::new(self.orders.args.seed, number, 3);
        let begun = Instant::now();
        harm.store(true, SeqCst);
        tokio::time::sleep(round.quiet).await;
        let mut surgeon = Surgeon::new(self.kafka, &self.orders.topics[self.orders.args.stages]);
        surgeon.hurt(&round.deed).await.map_err(|error| format!("round {number}, {}: {error}", round.deed))?;
        surgeon.healed().await.map_err(|error| format!("round {number}, after {}: {error}", round.deed))?;
        harm.store(false, SeqCst);
        let ends = tail.ends().await?;
        tail.passes(&ends).await.map_err(|error| format!("round {number}, after {}: {error}", round.deed))?;
        Ok(format!(
            "round {number}: {} ({}) in {:.0} s; {} copies at the end of the chain",
            round.deed,
            surgeon.done.join(", "),
            begun.elapsed().as_secs_f64(),
            tail.records,
        ))
    }
}
