//! The rounds, one after the other.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol_tests::{Kafka, unique};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::Failure;
use crate::args::Args;
use crate::hurt::Surgeon;
use crate::ledger::{Counts, Wrong, Wrongs};
use crate::load::{Load, Orders, PATIENCE};
use crate::plan::Round;
use crate::pulse::Pulse;
use crate::report::{Done, Report, Silence};
use crate::verify::Reader;

/// Time between the cluster being whole and the reading of the log, so that late records are
/// included.
const CALM: Duration = Duration::from_secs(2);

pub(crate) async fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(why) => return protocol_tests::arguments::exit(&why, 2),
    };
    println!("seed {}", args.seed);
    let started = Instant::now();
    let mut report = Report { seed: args.seed, version: args.version.clone(), ..Report::default() };
    report.broken = run(&args, &mut report).await.err().map(|error| error.to_string());
    report.took = started.elapsed();
    print!("{}", report.summary());
    println!("{}", report.json());
    if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Waits for a signal that ends the program.
async fn interrupted() -> Failure {
    let wait = async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        Ok::<_, std::io::Error>("interrupted".into())
    };
    wait.await.unwrap_or_else(Into::into)
}

async fn run(args: &Args, report: &mut Report) -> Result<(), Failure> {
    let mut builder = Kafka::builder()
        .version(&args.version)
        .nodes(args.nodes)
        .config("log.retention.check.interval.ms", "30000")
        .config("log.initial.task.delay.ms", "30000")
        // Leaders also move without a fault, back to their preferred brokers.
        .config("leader.imbalance.check.interval.seconds", "7");
    for (key, value) in &args.configs {
        builder = builder.config(key, value);
    }
    let mut kafka = builder.start().await?;
    println!("Kafka {} with {} nodes at {}", kafka.version().as_str(), args.nodes, kafka.bootstrap());
    let topic = unique("chaos");
    // A sixteenth of it, so that records that were judged are deleted soon.
    let (keep, segment) = ((args.keep_mb << 20).to_string(), ((args.keep_mb << 20) / 16).min(1 << 30).to_string());
    let own = [("min.insync.replicas", "2"), ("retention.bytes", &keep), ("segment.bytes", &segment)];
    let given = args.topic_configs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let configs: BTreeMap<&str, &str> = own.into_iter().chain(given).collect();
    let configs: Vec<(&str, &str)> = configs.into_iter().collect();
    kafka.create_topic(&topic, i32::try_from(args.partitions)?, 3, &configs).await?;

    let pulse = Arc::new(Pulse::new(args.partitions));
    let (stop, stopped) = watch::channel(false);
    let orders = Orders {
        bootstrap: kafka.bootstrap(),
        topic: topic.clone(),
        partitions: args.partitions,
        size: args.size,
        rate: (args.rate / args.profiles.len() as u64).max(1),
        codec: args.codec.clone(),
        properties: args.properties.clone(),
    };
    let mut loads = Vec::new();
    for (index, profile) in args.profiles.iter().enumerate() {
        loads.push(Load::start(index, *profile, &orders, pulse.clone(), stopped.clone()).await?);
    }
    let mut reader = Reader::new(kafka.bootstrap(), topic.clone(), args.partitions);
    let mut silences = Wrongs::default();
    pulse.restart();
    let work = async {
        rounds(args, &kafka, &topic, &loads, &pulse, &mut reader, &mut silences, report).await?;
        finish(&mut loads, &stop, &mut reader, report).await
    };
    // A run that is ended early still prints its results; before this point, a signal ends the
    // program at once.
    let ended = tokio::select! {
        ended = work => ended,
        interrupted = interrupted() => Err(interrupted),
    };
    report.blame(&silences);
    report.blame(&reader.wrongs);
    for load in &loads {
        let book = load.book();
        report.blame(&book.wrongs);
        report.producers.push((load.profile.name, book.counts, load.errors()));
    }
    if ended.is_err() || !report.passed() {
        // Keeps the logs for inspection.
        kafka.keep_files();
    }
    ended
}

#[allow(clippy::too_many_arguments, reason = "they are what a run consists of")]
async fn rounds(
    args: &Args,
    kafka: &Kafka,
    topic: &str,
    loads: &[Load],
    pulse: &Pulse,
    reader: &mut Reader,
    silences: &mut Wrongs,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut before = (Counts::default(), 0);
    for number in 1..=args.rounds {
        let round = Round::new(args.seed, number, args.nodes);
        let started = Instant::now();
        tokio::time::sleep(round.quiet).await;
        let mut surgeon = Surgeon::new(kafka, topic);
        surgeon.hurt(&round.deed).await.map_err(|error| format!("round {number}, {}: {error}", round.deed))?;
        surgeon.healed().await.map_err(|error| format!("round {number}, after {}: {error}", round.deed))?;
        tokio::time::sleep(CALM).await;
        judge(loads, reader).await?;
        let (all, partition) = pulse.take_longest();
        let silent = Silence { all, partition, ..longest_of_one(loads) };
        if silent.longest() > args.stall {
            silences.add(Wrong::StoodStill, format_args!("round {number}: {silent}"));
        }
        let (counts, wrongs) = state(loads, reader, silences);
        let done = Done {
            number,
            planned: round.deed.to_string(),
            did: surgeon.done,
            took: started.elapsed(),
            silent,
            counts: counts.since(&before.0),
            wrongs: wrongs - before.1,
        };
        before = (counts, wrongs);
        println!("{}", done.line());
        report.rounds.push(done);
    }
    Ok(())
}

/// Waits for the results of all records that were sent so far, reads the log past them, and
/// compares.
async fn judge(loads: &[Load], reader: &mut Reader) -> Result<(), Failure> {
    let cuts: Vec<u64> = loads.iter().map(|load| load.book().next()).collect();
    let deadline = Instant::now() + PATIENCE;
    for (load, cut) in loads.iter().zip(&cuts) {
        load.answered(*cut, deadline.saturating_duration_since(Instant::now())).await;
    }
    reader.read_on(loads).await?;
    for (load, cut) in loads.iter().zip(cuts) {
        load.book().judge(cut);
    }
    Ok(())
}

/// Ends the producers, judges the remaining records, and reads everything again.
async fn finish(
    loads: &mut [Load],
    stop: &watch::Sender<bool>,
    reader: &mut Reader,
    report: &mut Report,
) -> Result<(), Failure> {
    stop.send_replace(true);
    for load in loads.iter_mut() {
        load.finish().await;
    }
    judge(loads, reader).await?;
    report.read_again = reader.read_again(loads.len()).await?;
    Ok(())
}

/// Returns the longest time without an acknowledgement of one partition for one producer.
fn longest_of_one(loads: &[Load]) -> Silence {
    let each = loads.iter().filter_map(|load| Some((load.take_longest()?, load.profile.name)));
    let (one, producer) = each.max().unwrap_or_default();
    Silence { one, producer, ..Silence::default() }
}

fn state(loads: &[Load], reader: &Reader, silences: &Wrongs) -> (Counts, u64) {
    let mut counts = Counts::default();
    let mut wrongs = reader.wrongs.total() + silences.total();
    for load in loads {
        let book = load.book();
        counts.add(&book.counts);
        wrongs += book.wrongs.total();
    }
    (counts, wrongs)
}
