//! The command line arguments.

use std::fmt::Display;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::str::FromStr;
use std::time::Duration;

use protocol_tests::default_version;

use crate::profile::{PROFILES, Profile};

pub(crate) const USAGE: &str = "usage: chaos [--rounds 20] [--seed N] [--rate 20000] [--partitions 6] [--nodes 3]
             [--version 4.4.0] [--compression mixed|none|gzip|snappy|lz4|zstd] [--size 100]
             [--producers default,packed,...] [--stall 120] [--keep-mb 512] [--config key=value]...
             [--topic-config key=value]... [-X property=value]...
  --seed          of a run to repeat; random if not given, and always printed
  --rate          records per second, of all producers together
  --size          bytes of a value; some producers send several times as many
  --producers     some of default, packed, small, short, impatient, hasty, keyed; all of them if not given
  --stall         seconds after which a partition without acknowledgements is a failure
  --keep-mb       MiB that the log keeps of each partition, so that a run of hours does not fill the disk
  --config        a setting of the brokers
  --topic-config  a setting of the topic, such as a max.message.bytes that makes producers split their batches
  -X              a property of all producers; -X enable.idempotence=false shows what a failure looks like";

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

impl Args {
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut args = protocol_tests::given_once(args, &["--config", "--topic-config"])?;
        let mut parsed = Self {
            rounds: 20,
            // Different in each process, by the system's randomness.
            seed: RandomState::new().build_hasher().finish() % 1_000_000_000,
            rate: 20_000,
            partitions: 6,
            nodes: 3,
            version: default_version(),
            codec: None,
            size: 100,
            profiles: PROFILES.to_vec(),
            stall: Duration::from_secs(120),
            keep_mb: 512,
            configs: Vec::new(),
            topic_configs: Vec::new(),
            properties: Vec::new(),
        };
        while let Some(arg) = args.next() {
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--rounds" => parsed.rounds = within(&arg, &value, 1, u64::MAX)?,
                "--seed" => parsed.seed = within(&arg, &value, 0, u64::MAX)?,
                "--rate" => parsed.rate = within(&arg, &value, 1, 10_000_000)?,
                "--partitions" => parsed.partitions = within(&arg, &value, 1, 1_000)?,
                "--nodes" => parsed.nodes = within(&arg, &value, 3, 5)?,
                "--version" => parsed.version = value,
                "--compression" => parsed.codec = (value != "mixed").then_some(value),
                "--size" => parsed.size = within(&arg, &value, 1, 100_000)?,
                "--producers" => parsed.profiles = profiles(&value)?,
                "--stall" => parsed.stall = Duration::from_secs(within(&arg, &value, 1, 1_000_000)?),
                "--keep-mb" => parsed.keep_mb = within(&arg, &value, 64, 1_000_000)?,
                "--config" => parsed.configs.push(pair(&arg, &value)?),
                "--topic-config" => parsed.topic_configs.push(pair(&arg, &value)?),
                "-X" => parsed.properties.push(pair(&arg, &value)?),
                _ => return Err(format!("{arg} is unknown")),
            }
        }
        Ok(parsed)
    }
}

fn within<T: FromStr + PartialOrd + Display>(arg: &str, value: &str, least: T, most: T) -> Result<T, String> {
    let number: Option<T> = value.parse().ok();
    number
        .filter(|number| *number >= least && *number <= most)
        .ok_or_else(|| format!("{arg} {value}: expected a number from {least} to {most}"))
}

fn pair(arg: &str, text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{arg} {text}: expected name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn profiles(names: &str) -> Result<Vec<Profile>, String> {
    let find = |name| {
        let found = PROFILES.into_iter().find(|profile| profile.name == name);
        found.ok_or_else(|| format!("{name} is not one of the producers"))
    };
    names.split(',').map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, String> {
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
