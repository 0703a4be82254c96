//! The command line arguments.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Command, builder::RangedU64ValueParser, value_parser};
use protocol_tests::arguments::{flag, one_of, option, pair, value, values};
use protocol_tests::default_version;

/// The programs that copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    Ottla,
    Java,
    /// Both in one chain, one after the other.
    Mixed,
}

impl Clients {
    const ALL: [Self; 3] = [Self::Ottla, Self::Java, Self::Mixed];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ottla => "ottla",
            Self::Java => "java",
            Self::Mixed => "mixed",
        }
    }

    /// Returns true if the copier of that stage and partition is Kafka's own.
    pub(crate) fn is_java(self, stage: usize, partition: usize) -> bool {
        match self {
            Self::Ottla => false,
            Self::Java => true,
            Self::Mixed => (stage + partition) % 2 == 1,
        }
    }
}

/// The settings of a run.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) clients: Vec<Clients>,
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
    pub(crate) kafka: String,
    /// The level of the feature `transaction.version` that the nodes are formatted with.
    pub(crate) transaction_version: Option<u64>,
    pub(crate) stages: usize,
    pub(crate) partitions: usize,
    pub(crate) rate: u64,
    pub(crate) transaction_size: u64,
    pub(crate) group_mode: bool,
    /// Time within which another copy has to arrive once the cluster is whole.
    pub(crate) patience: Duration,
    pub(crate) histories: Option<PathBuf>,
    pub(crate) configs: Vec<(String, String)>,
}

fn command() -> Command {
    let number = |name, value, help, default| option(name, value, help).default_value(default);
    let few = || RangedU64ValueParser::<usize>::new().range(1..=12);
    Command::new("copiers").args([
        option("clients", "NAME,...", "the programs that copy, one run after the other; mixed: both in one chain")
            .default_value("ottla,java,mixed")
            .value_delimiter(',')
            .value_parser(one_of(Clients::ALL, |clients| clients.name())),
        number("rounds", "N", "number of rounds of each run", "10").value_parser(value_parser!(u64)),
        option("seed", "N", "seed of a run to repeat; random if not given, and always printed")
            .value_parser(value_parser!(u64)),
        // clap takes texts that live as long as the program.
        option("kafka", "V", "version of Kafka").default_value(&*default_version().leak()),
        option("transaction-version", "0|1|2", "the level of transaction.version that the nodes are formatted with")
            .value_parser(value_parser!(u64).range(0..=2)),
        number("stages", "N", "number of copies, one after the other", "2").value_parser(few()),
        number("partitions", "N", "number of partitions, each with a copier of its own", "2").value_parser(few()),
        number("rate", "N", "records per second that are written to the first topic", "100")
            .value_parser(value_parser!(u64)),
        number("transaction-size", "N", "most records of a transaction", "100")
            .value_parser(value_parser!(u64).range(1..)),
        number("patience", "SECONDS", "time within which another copy has to arrive once the cluster is whole", "240")
            .value_parser(value_parser!(u64)),
        flag("group-mode", "copiers are members of one group for each stage, and partitions move between them"),
        option("histories", "DIR", "directory that keeps the histories; only those of failed runs are kept otherwise")
            .value_parser(value_parser!(PathBuf)),
        option("config", "KEY=VALUE", "a setting of the brokers").action(ArgAction::Append).value_parser(pair),
    ])
}

impl Args {
    /// # Errors
    /// The help, which was asked for, or a mistake in the arguments.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, clap::Error> {
        let given = &command().no_binary_name(true).try_get_matches_from(args)?;
        let random = || RandomState::new().build_hasher().finish() % 1_000_000_000;
        Ok(Self {
            clients: values(given, "clients"),
            rounds: value(given, "rounds"),
            seed: given.get_one("seed").copied().unwrap_or_else(random),
            kafka: value(given, "kafka"),
            transaction_version: given.get_one("transaction-version").copied(),
            stages: value(given, "stages"),
            partitions: value(given, "partitions"),
            rate: value::<u64>(given, "rate").max(1),
            transaction_size: value(given, "transaction-size"),
            patience: Duration::from_secs(value(given, "patience")),
            group_mode: given.get_flag("group-mode"),
            histories: given.get_one("histories").cloned(),
            configs: values(given, "config"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn parses_valid_options_and_rejects_others() {
        let args = parse("--clients java,mixed --kafka 4.3.1 --transaction-version 1 --seed 7 --group-mode").unwrap();
        assert_eq!(args.clients, [Clients::Java, Clients::Mixed]);
        assert_eq!((args.kafka.as_str(), args.transaction_version, args.seed), ("4.3.1", Some(1), 7));
        assert!(args.group_mode && parse("").unwrap().transaction_version.is_none());
        for line in ["--clients c", "--transaction-version 3", "--stages 0", "--transaction-size 0", "--version 1"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn mixed_chains_change_client_at_each_stage() {
        let of =
            |clients: Clients| [(0, 0), (1, 0), (0, 1)].map(|(stage, partition)| clients.is_java(stage, partition));
        assert_eq!(of(Clients::Mixed), [false, true, true]);
        assert_eq!(of(Clients::Ottla), [false; 3]);
        assert_eq!(of(Clients::Java), [true; 3]);
    }
}
