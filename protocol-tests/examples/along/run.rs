//! The rounds, one after the other.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{ArgAction, Command, builder::RangedU64ValueParser, value_parser};
use protocol_tests::arguments::{self, one_of, option, pair, value, values, version};
use protocol_tests::{Kafka, unique};

use crate::Failure;
use crate::hurt::Surgeon;
use crate::load::Load;
use crate::plan::Round;
use crate::reader::{Orders, Reader};

/// Time within which a consumer has to reach the end of the log once the cluster is whole.
const PATIENCE: Duration = Duration::from_secs(120);

struct Args {
    rounds: u64,
    seed: u64,
    rate: u64,
    partitions: usize,
    version: String,
    transactions: bool,
    configs: Vec<(String, String)>,
    properties: Vec<(String, String)>,
}

fn parse() -> Result<Args, clap::Error> {
    let repeated = |name, value, help| option(name, value, help).action(ArgAction::Append).value_parser(pair);
    let command = Command::new("along").args([
        option("rounds", "N", "number of rounds").default_value("10").value_parser(value_parser!(u64)),
        option("seed", "N", "seed of a run to repeat; random if not given, and always printed")
            .value_parser(value_parser!(u64)),
        option("rate", "N", "records per second, if there are no transactions")
            .default_value("5000")
            .value_parser(value_parser!(u64)),
        option("partitions", "N", "number of the topic's partitions")
            .default_value("6")
            .value_parser(RangedU64ValueParser::<usize>::new().range(1..=1_000)),
        version(),
        option("transactions", "no|yes", "yes: Kafka's own client writes transactions")
            .default_value("no")
            .value_parser(one_of([false, true], |yes| if *yes { "yes" } else { "no" })),
        repeated("config", "KEY=VALUE", "a setting of the brokers"),
        repeated("property", "PROPERTY=VALUE", "a property of the consumers").long(None).short('X'),
    ]);
    let given = &command.try_get_matches()?;
    let random = || RandomState::new().build_hasher().finish() % 1_000_000_000;
    Ok(Args {
        rounds: value(given, "rounds"),
        seed: given.get_one("seed").copied().unwrap_or_else(random),
        rate: value(given, "rate"),
        partitions: value(given, "partitions"),
        version: value(given, "version"),
        transactions: value(given, "transactions"),
        configs: values(given, "config"),
        properties: values(given, "property"),
    })
}

pub(crate) async fn main() -> ExitCode {
    let args = match parse() {
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
        .version(&args.version)
        .nodes(3)
        .config("broker.rack", "rack-{id}")
        .config("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector")
        // Lets leaders move soon, and return to their preferred brokers.
        .config("broker.session.timeout.ms", "3000")
        .config("broker.heartbeat.interval.ms", "500")
        .config("replica.lag.time.max.ms", "2500")
        .config("leader.imbalance.check.interval.seconds", "7");
    for (key, value) in &args.configs {
        builder = builder.config(key, value);
    }
    let mut kafka = builder.start().await?;
    println!("Kafka {} with 3 nodes at {}", kafka.version().as_str(), kafka.bootstrap());
    let ended = rounds(args, &kafka).await;
    if ended.is_err() {
        // Keeps the logs for inspection.
        kafka.keep_files();
    }
    ended
}

async fn rounds(args: &Args, kafka: &Kafka) -> Result<(), Failure> {
    let started = Instant::now();
    let topic = unique("along");
    kafka.create_topic(&topic, i32::try_from(args.partitions)?, 3, &[("min.insync.replicas", "2")]).await?;
    let orders = Orders {
        bootstrap: kafka.bootstrap(),
        topic: topic.clone(),
        partitions: args.partitions,
        committed: args.transactions,
        // A short metadata age, so that leaders are regularly asked again for the replica to read
        // from.
        properties: [vec![("metadata.max.age.ms".to_owned(), "10000".to_owned())], args.properties.clone()].concat(),
    };
    let readers: Vec<Reader> =
        [Some(0), Some(1), Some(2), None].into_iter().map(|node| Reader::start(node, &orders)).collect();
    let mut load = match args.transactions {
        true => Load::transactions(kafka, &topic, args.partitions, args.seed)?,
        false => Load::plain(kafka, &topic, args.partitions, args.rate).await?,
    };
    for number in 1..=args.rounds {
        let round = Round::new(args.seed, number, 3);
        let begun = Instant::now();
        readers.iter().for_each(|reader| _ = reader.take_silence());
        tokio::time::sleep(round.quiet).await;
        let restarted = &readers[number as usize % readers.len()];
        restarted.restart();
        let mut surgeon = Surgeon::new(kafka, &topic);
        surgeon.hurt(&round.deed).await.map_err(|error| format!("round {number}, {}: {error}", round.deed))?;
        surgeon.healed().await.map_err(|error| format!("round {number}, after {}: {error}", round.deed))?;
        for reader in &readers {
            reader
                .caught_up(PATIENCE)
                .await
                .map_err(|error| format!("round {number}, after {}: {error}", round.deed))?;
        }
        let silence = readers.iter().map(Reader::take_silence).max().unwrap_or_default();
        let records = readers.iter().map(|reader| reader.notes().seen.records).min().unwrap_or_default();
        println!(
            "round {number}: {} ({}), {} restarted, in {:.0} s; no record for {:.1} s at most; {records} records each{}",
            round.deed,
            surgeon.done.join(", "),
            restarted.name,
            begun.elapsed().as_secs_f64(),
            silence.as_secs_f64(),
            load.so_far()?,
        );
        if let Some(wrong) = readers.iter().find(|reader| reader.notes().seen.wrong > 0) {
            return Err(format!("{}: {}", wrong.name, wrong.notes().seen.examples.join("; ")).into());
        }
    }
    let ended = load.finish().await?;
    for reader in &readers {
        reader.caught_up(PATIENCE).await?;
    }
    let mut digests = Vec::new();
    for reader in readers {
        let (name, mut notes) = reader.finish().await?;
        if args.transactions {
            notes.seen.judge(&ended);
        }
        println!(
            "{name}: {} records; read nearby {} times of {}; {} errors that passed; {} wrong",
            notes.seen.records, notes.near, notes.looks, notes.told, notes.seen.wrong
        );
        if notes.seen.wrong > 0 {
            return Err(format!("{name}: {}", notes.seen.examples.join("; ")).into());
        }
        digests.push((name, notes.seen.digest(), notes.seen.records));
    }
    if let [first, others @ ..] = &digests[..]
        && let Some(other) = others.iter().find(|other| other.1 != first.1)
    {
        return Err(format!("{} and {} did not receive the same records", first.0, other.0).into());
    }
    println!(
        "PASSED (seed {}): {} rounds in {:.0} s; each of {} records was delivered once and in order, to each of {} consumers{}",
        args.seed,
        args.rounds,
        started.elapsed().as_secs_f64(),
        digests.first().map_or(0, |(_, _, records)| *records),
        digests.len(),
        if ended.is_empty() { String::new() } else { format!("; {} transactions", ended.len()) },
    );
    Ok(())
}
