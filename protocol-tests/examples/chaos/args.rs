//! The command line arguments.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use clap::{ArgAction, Command, builder::RangedU64ValueParser, value_parser};
use protocol_tests::arguments::{one_of, option, pair, value, values, version};

use crate::profile::{PROFILES, Profile};

/// The settings of a run.
pub(crate) struct Args {
    pub(crate) rounds: u64,
    pub(crate) seed: u64,
    pub(crate) rate: u64,
    pub(crate) partitions: usize,
    pub(crate) nodes: usize,
    pub(crate) version: String,
    /// `None`: each producer uses its own.
    pub(crate) codec: Option<String>,
    pub(crate) size: usize,
    pub(crate) profiles: Vec<Profile>,
    pub(crate) stall: Duration,
    pub(crate) keep_mb: u64,
    pub(crate) configs: Vec<(String, String)>,
    pub(crate) topic_configs: Vec<(String, String)>,
    pub(crate) properties: Vec<(String, String)>,
}

fn command() -> Command {
    let repeated = |name, value, help| option(name, value, help).action(ArgAction::Append).value_parser(pair);
    Command::new("chaos").args([
        option("rounds", "N", "number of rounds").default_value("20").value_parser(value_parser!(u64).range(1..)),
        option("seed", "N", "seed of a run to repeat; random if not given, and always printed")
            .value_parser(value_parser!(u64)),
        option("rate", "N", "records per second, of all producers together")
            .default_value("20000")
            .value_parser(value_parser!(u64).range(1..=10_000_000)),
        option("partitions", "N", "number of the topic's partitions")
            .default_value("6")
            .value_parser(RangedU64ValueParser::<usize>::new().range(1..=1_000)),
        option("nodes", "N", "number of nodes")
            .default_value("3")
            .value_parser(RangedU64ValueParser::<usize>::new().range(3..=5)),
        version(),
        option("compression", "CODEC", "codec of all producers; mixed: each producer has its own")
            .default_value("mixed")
            .value_parser(["mixed", "none", "gzip", "snappy", "lz4", "zstd"]),
        option("size", "BYTES", "bytes of a value; some producers send several times as many")
            .default_value("100")
            .value_parser(RangedU64ValueParser::<usize>::new().range(1..=100_000)),
        option("producers", "NAME,...", "the producers that take part; all of them if not given")
            .value_delimiter(',')
            .value_parser(one_of(PROFILES, |profile| profile.name)),
        option("stall", "SECONDS", "seconds after which a partition without acknowledgements is a failure")
            .default_value("120")
            .value_parser(value_parser!(u64).range(1..=1_000_000)),
        option(
            "keep-mb",
            "MIB",
            "MiB that the log keeps of each partition, so that a run of hours does not fill the disk",
        )
        .default_value("512")
        .value_parser(value_parser!(u64).range(64..=1_000_000)),
        repeated("config", "KEY=VALUE", "a setting of the brokers"),
        repeated(
            "topic-config",
            "KEY=VALUE",
            "a setting of the topic, such as a max.message.bytes that makes producers split their batches",
        ),
        repeated(
            "property",
            "PROPERTY=VALUE",
            "a property of all producers; -X enable.idempotence=false shows what a failure looks like",
        )
        .long(None)
        .short('X'),
    ])
}

impl Args {
    /// # Errors
    /// The help, which was asked for, or a mistake in the arguments.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, clap::Error> {
        let given = &command().no_binary_name(true).try_get_matches_from(args)?;
        // Different in each process, by the system's randomness.
        let random = || RandomState::new().build_hasher().finish() % 1_000_000_000;
        let profiles = values(given, "producers");
        Ok(Self {
            rounds: value(given, "rounds"),
            seed: given.get_one("seed").copied().unwrap_or_else(random),
            rate: value(given, "rate"),
            partitions: value(given, "partitions"),
            nodes: value(given, "nodes"),
            version: value(given, "version"),
            codec: Some(value(given, "compression")).filter(|codec| codec != "mixed"),
            size: value(given, "size"),
            profiles: if profiles.is_empty() { PROFILES.to_vec() } else { profiles },
            stall: Duration::from_secs(value(given, "stall")),
            keep_mb: value(given, "keep-mb"),
            configs: values(given, "config"),
            topic_configs: values(given, "topic-config"),
            properties: values(given, "property"),
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
        let args = parse("--rounds 3 --seed 9 --compression lz4 --producers keyed,short").unwrap();
        assert_eq!((args.rounds, args.seed, args.codec.as_deref()), (3, 9, Some("lz4")));
        assert_eq!(args.profiles.iter().map(|profile| profile.name).collect::<Vec<_>>(), ["keyed", "short"]);
        assert_eq!(parse("--config a=1 --config b=2 -X c=3 -X d=4").unwrap().configs.len(), 2);
        assert_eq!(parse("--compression mixed").unwrap().codec, None);
        for line in
            ["--rounds", "--rounds 0", "--nodes 2", "--producers best", "--config x", "--what 1", "--seed 1 --seed 2"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
