//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, Command, builder::RangedU64ValueParser, error::ErrorKind, value_parser};

use crate::plan::{self, Case, Client, Work};

const CASES: &str = "\
these cases: produce-100 produce-1k produce-100-1p produce-100-64p produce-100-keyed
             produce-{100,1k}-{gzip,snappy,lz4,zstd} latency-2000
             produce-{100,1k}-tls
             consume-100 consume-1k consume-100-1p consume-100-64p consume-{100,1k}-{gzip,snappy,lz4,zstd}
             consume-1k-tls
             transact-100 transact-10000
             or produce, consume, transact: all cases of that kind";

fn command() -> Command {
    let option = |name, value, help| Arg::new(name).long(name).value_name(value).help(help);
    Command::new("peers")
        .about("compares Kafka clients: every client in turn, round after round, against a sink that answers at once")
        .after_help(
            "exit code: 0 if all was measured; 1 if nothing could be measured; 2 if something was left out or failed",
        )
        .args([
            option("rounds", "N", "number of runs of every client in every case [default: 7]")
                .value_parser(RangedU64ValueParser::<usize>::new().range(1..)),
            option("only", "CASE[,CASE]...", CASES)
                .value_parser(|list: &str| cases(list).map(|cases| (list.to_owned(), cases))),
            option(
                "clients",
                "NAME[,NAME]...",
                "these clients: ottla ottla-recv ottla-batch rdkafka krafka franz-go java limit",
            )
            .value_parser(|list: &str| named(plan::CLIENTS.to_vec(), |client| client.name, list)),
            option(
                "real",
                "ADDRESS",
                "a real Kafka at this address (producing only); without an address, one is started for each case",
            )
            .num_args(0..=1),
            option("seconds", "S", "timed part of each run, after a warm-up of a fifth of it [default: 1.5]")
                .value_parser(seconds),
            option("out", "DIR", "directory for results.json, results.svg and results.md [default: target/peers]")
                .value_parser(value_parser!(PathBuf)),
            Arg::new("quick")
                .long("quick")
                .help("two rounds of 0.4 s, as a check that everything works")
                .action(ArgAction::SetTrue),
        ])
}

/// The broker that the clients use.
#[derive(Debug, PartialEq)]
pub enum Broker {
    Sink,
    /// A Kafka that this program starts.
    Launched,
    At(String),
}

#[derive(Debug)]
pub struct Args {
    pub rounds: usize,
    pub timed: Duration,
    pub cases: Vec<Case>,
    pub clients: Vec<Client>,
    pub broker: Broker,
    /// `None` stands for a folder below cargo's target directory.
    pub out: Option<PathBuf>,
}

impl Args {
    /// # Errors
    /// The help, which was asked for, or a mistake in the arguments.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, clap::Error> {
        let mut command = command().no_binary_name(true);
        let mut given = command.try_get_matches_from_mut(args)?;
        let quick = given.get_flag("quick");
        let only = given.remove_one::<(String, Vec<Case>)>("only");
        let named = |case: &Case| only.iter().flat_map(|(list, _)| list.split(',')).any(|name| name == case.name);
        let mut cases = only.as_ref().map_or_else(plan::cases, |(_, cases)| cases.clone());
        let real = given.contains_id("real");
        let address: Option<String> = given.remove_one("real");
        if real {
            let mut invalid = |why| Err(command.error(ErrorKind::ArgumentConflict, why));
            // A real Kafka has another certificate, if any: the runners know only that of the sink.
            if cases.iter().any(|case| case.tls && named(case)) {
                return invalid("the cases over TLS are measured at the sink only, without --real");
            }
            // The consume cases first fill a topic, which would be unwelcome on a user's own
            // broker.
            if address.is_some() && only.is_some() && cases.iter().any(|case| case.work == Work::Consume) {
                return invalid("the consume cases are measured at a Kafka that is started for them");
            }
            cases.retain(|case| !(case.tls || address.is_some() && case.work == Work::Consume));
        }
        Ok(Self {
            rounds: given.remove_one("rounds").unwrap_or(if quick { 2 } else { 7 }),
            timed: given.remove_one("seconds").unwrap_or(Duration::from_millis(if quick { 400 } else { 1_500 })),
            cases,
            clients: given.remove_one("clients").unwrap_or_else(|| plan::CLIENTS.to_vec()),
            broker: match address {
                Some(address) => Broker::At(address),
                None if real => Broker::Launched,
                None => Broker::Sink,
            },
            out: given.remove_one("out"),
        })
    }

    pub fn warmup(&self) -> Duration {
        self.timed / 5
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.05..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected 0.05 to 3600".to_owned())
}

/// Returns the cases by name, or all cases of one kind of work.
fn cases(list: &str) -> Result<Vec<Case>, String> {
    let all = plan::cases();
    let names = list.split(',').flat_map(|name| {
        let of_kind = |case: &&Case| match name {
            "produce" => case.work == Work::Produce,
            "consume" => case.work == Work::Consume,
            "transact" => case.transaction().is_some(),
            _ => case.name == name,
        };
        let names: Vec<String> = all.iter().filter(of_kind).map(|case| case.name.clone()).collect();
        if names.is_empty() { vec![name.to_owned()] } else { names }
    });
    let names: Vec<String> = names.collect();
    named(plan::cases(), |case| &case.name, &names.join(","))
}

/// Returns the elements of `all` with a name in the list, in the order of `all`.
fn named<T>(all: Vec<T>, name: impl Fn(&T) -> &str, list: &str) -> Result<Vec<T>, String> {
    let wanted: Vec<&str> = list.split(',').collect();
    if let Some(unknown) = wanted.iter().find(|wanted| all.iter().all(|one| name(one) != **wanted)) {
        let known: Vec<&str> = all.iter().map(&name).collect();
        return Err(format!("{unknown:?} is not one of {}", known.join(", ")));
    }
    Ok(all.into_iter().filter(|one| wanted.contains(&name(one))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn defaults_to_every_case_and_client() {
        let args = parse("").unwrap();
        assert_eq!((args.rounds, args.timed), (7, Duration::from_millis(1_500)));
        assert_eq!((args.cases.len(), args.clients.len()), (plan::cases().len(), plan::CLIENTS.len()));
        assert_eq!(args.broker, Broker::Sink);
    }

    #[test]
    fn explicit_option_overrides_quick() {
        let args = parse("--rounds 3 --quick").unwrap();
        assert_eq!((args.rounds, args.timed), (3, Duration::from_millis(400)));
        assert_eq!(args.warmup(), Duration::from_millis(80));
    }

    #[test]
    fn selected_cases_and_clients_keep_order() {
        let args = parse("--only latency-2000,produce-100 --clients java,ottla").unwrap();
        assert_eq!(
            args.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(),
            ["produce-100", "latency-2000"]
        );
        assert_eq!(args.clients.iter().map(|client| client.name).collect::<Vec<_>>(), ["ottla", "java"]);
    }

    #[test]
    fn workload_name_selects_all_its_cases() {
        let args = parse("--only latency-2000,consume").unwrap();
        assert!(args.cases.len() > 8 && args.cases.iter().all(|case| case.work != Work::Produce));
        assert_eq!(parse("--only transact").unwrap().cases.len(), 2);
        let real = parse("--real").unwrap().cases;
        assert!(real.iter().any(|case| case.work == Work::Consume) && real.iter().all(|case| !case.tls));
        assert!(parse("--real b:1").unwrap().cases.iter().all(|case| case.work != Work::Consume && !case.tls));
        assert!(parse("--real --only produce").unwrap().cases.iter().all(|case| !case.tls));
    }

    #[test]
    fn real_broker_is_launched_or_given_address() {
        assert_eq!(parse("--real --quick").unwrap().broker, Broker::Launched);
        assert_eq!(parse("--real").unwrap().broker, Broker::Launched);
        assert_eq!(parse("--real localhost:9092").unwrap().broker, Broker::At("localhost:9092".to_owned()));
    }

    #[test]
    fn rejects_invalid_values_and_combinations() {
        for line in [
            "--only reading",
            "--real b:1 --only consume",
            "--real --only produce-1k-tls",
            "--clients",
            "--rounds 0",
            "--rounds x",
            "--seconds NaN",
            "--seconds -1",
            "quick",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
