//! The command line.

use std::{path::PathBuf, time::Duration};

use crate::plan::{self, Case, Client, Work};

pub const HELP: &str = "\
usage: peers [--rounds 7] [--only CASE[,CASE]...] [--clients NAME[,NAME]...] [--real [ADDRESS]] [--seconds 1.5]
             [--quick] [--out DIR]

compares Kafka clients: every client in turn, round after round, against a sink that answers at once
--rounds   number of runs of every client in every case
--only     these cases:   produce-100 produce-1k produce-100-1p produce-100-64p produce-100-keyed
                          produce-{100,1k}-{gzip,snappy,lz4,zstd} latency-2000
                          produce-{100,1k}-tls
                          consume-100 consume-1k consume-100-1p consume-100-64p consume-{100,1k}-{gzip,snappy,lz4,zstd}
                          consume-1k-tls
                          or produce, consume: all cases of that kind
--clients  these clients: ottla ottla-recv ottla-batch rdkafka krafka franz-go java limit
--real     a real Kafka at this address (producing only); without an address, one is started for each case
--seconds  timed part of each run, after a warm-up of a fifth of it
--quick    two rounds of 0.4 s, as a check that everything works
--out      directory for results.json, results.svg and results.md (target/peers)
exit code: 0 if all was measured; 1 if nothing could be measured; 2 if something was left out or failed";

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
    pub help: bool,
}

impl Args {
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let (mut rounds, mut seconds, mut only, mut quick) = (None, None, None, false);
        let mut parsed = Self {
            rounds: 0,
            timed: Duration::ZERO,
            cases: plan::cases(),
            clients: plan::CLIENTS.to_vec(),
            broker: Broker::Sink,
            out: None,
            help: false,
        };
        let mut args = args.into_iter().peekable();
        while let Some(name) = args.next() {
            match name.as_str() {
                "--quick" => quick = true,
                "-h" | "--help" => parsed.help = true,
                "--real" => {
                    let address = args.next_if(|next| !next.starts_with("--"));
                    parsed.broker = address.map_or(Broker::Launched, Broker::At);
                }
                "--rounds" | "--seconds" | "--only" | "--clients" | "--out" => {
                    let value = args.next().ok_or_else(|| format!("{name} requires a value"))?;
                    match name.as_str() {
                        "--rounds" => rounds = Some(number::<usize>(&name, &value)?),
                        "--seconds" => seconds = Some(number::<f64>(&name, &value)?),
                        "--only" => parsed.cases = cases(only.insert(value))?,
                        "--clients" => parsed.clients = named(plan::CLIENTS.to_vec(), |client| client.name, &value)?,
                        _ => parsed.out = Some(PathBuf::from(value)),
                    }
                }
                other => return Err(format!("unknown option {other}")),
            }
        }
        parsed.rounds = rounds.unwrap_or(if quick { 2 } else { 7 });
        let seconds = seconds.unwrap_or(if quick { 0.4 } else { 1.5 });
        if parsed.rounds == 0 || !(0.05..=3_600.0).contains(&seconds) {
            return Err("--rounds requires 1 or more, --seconds 0.05 to 3600".to_owned());
        }
        parsed.timed = Duration::from_secs_f64(seconds);
        if parsed.broker != Broker::Sink {
            // A real Kafka has another certificate, if any: the runners know only that of the sink.
            let named = |case: &Case| only.iter().flat_map(|list| list.split(',')).any(|name| name == case.name);
            if parsed.cases.iter().any(|case| case.tls && named(case)) {
                return Err("the cases over TLS are measured at the sink only, without --real".to_owned());
            }
            // The consume cases first fill a topic, which would be unwelcome on a user's own
            // broker.
            let given = matches!(parsed.broker, Broker::At(_));
            if given && only.is_some() && parsed.cases.iter().any(|case| case.work == Work::Consume) {
                return Err("the consume cases are measured at a Kafka that is started for them".to_owned());
            }
            parsed.cases.retain(|case| !case.tls && !(given && case.work == Work::Consume));
        }
        Ok(parsed)
    }

    pub fn warmup(&self) -> Duration {
        self.timed / 5
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("{name} requires a number, not {value:?}"))
}

/// Returns the cases by name, or all cases of one kind of work.
fn cases(list: &str) -> Result<Vec<Case>, String> {
    let all = plan::cases();
    let work = |name: &str| match name {
        "produce" => Some(Work::Produce),
        "consume" => Some(Work::Consume),
        _ => None,
    };
    let names = list.split(',').flat_map(|name| match work(name) {
        Some(work) => all.iter().filter(|case| case.work == work).map(|case| case.name.clone()).collect(),
        None => vec![name.to_owned()],
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

    fn parse(line: &str) -> Result<Args, String> {
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
