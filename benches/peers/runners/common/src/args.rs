//! The command line of a runner.

use std::{path::PathBuf, str::FromStr, time::Duration};

use clap::{ArgAction, Parser, ValueEnum, builder::RangedU64ValueParser};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Sends as fast as possible.
    Produce,
    /// Sends at a fixed rate.
    Latency,
    /// Reads as fast as possible.
    Consume,
    /// Sends as fast as possible, in transactions that are committed one after the other.
    Transact,
}

/// Measures one client. The last value of an option counts, as in the runners in Go and Java.
#[derive(Debug, Parser)]
#[command(args_override_self = true)]
pub(crate) struct Args {
    pub(crate) mode: Mode,
    /// addresses of the brokers
    #[arg(long, default_value = "")]
    pub(crate) bootstrap_server: String,
    #[arg(long, default_value = "perf")]
    pub(crate) topic: String,
    /// file of the values, one after the other
    #[arg(long)]
    pub(crate) values: PathBuf,
    /// bytes of a value
    #[arg(long, default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) size: usize,
    /// number of the topic's partitions
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub(crate) partitions: usize,
    #[arg(long, default_value = "none")]
    pub(crate) compression: String,
    /// level of the codec, or `default` for the client's own
    #[arg(long, default_value = "default", allow_negative_numbers = true)]
    pub(crate) level: Setting<i32>,
    /// batch.size, or `default` for the client's own
    #[arg(long, default_value = "default")]
    pub(crate) batch_size: Setting<usize>,
    /// sends keys
    #[arg(long, default_value_t = false, action = ArgAction::Set)]
    pub(crate) keyed: bool,
    /// records per second of `latency`
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rate: u64,
    /// records of each transaction of `transact`
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) transaction: u64,
    /// seconds before the clock starts
    #[arg(long, default_value = "0.3", value_parser = seconds)]
    pub(crate) warmup: Duration,
    /// seconds that are measured
    #[arg(long, default_value = "1.5", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// maximum number of records that are sent in the timed part, or read in all
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    pub(crate) records: u64,
    /// name of the way to send or to read, if the client has several
    #[arg(long)]
    pub(crate) api: Option<String>,
    /// PEM file of the authority that issued the broker's certificate; without it, there is no TLS
    #[arg(long)]
    pub(crate) ca: Option<String>,
}

/// A value, or `None` for the client's own default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting<T>(pub(crate) Option<T>);

impl<T: FromStr> FromStr for Setting<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        if text == "default" { Ok(Self(None)) } else { text.parse().map(|value| Self(Some(value))) }
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "expected a number of seconds".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(["runner"].into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn mode_and_values_suffice() {
        let args = parse("produce --values v").unwrap();
        assert_eq!((args.mode, args.size, args.partitions, args.rate), (Mode::Produce, 100, 1, 2_000));
        assert_eq!((args.topic.as_str(), args.compression.as_str(), args.keyed), ("perf", "none", false));
        assert_eq!((args.warmup, args.seconds), (Duration::from_millis(300), Duration::from_millis(1_500)));
        assert_eq!((args.level, args.batch_size, args.records), (Setting(None), Setting(None), u64::MAX));
        assert_eq!((args.bootstrap_server.as_str(), args.api, args.ca), ("", None, None));
    }

    #[test]
    fn last_value_of_option_counts() {
        let line = "latency --values v --batch-size 16384 --keyed true --level -5 --warmup 0 --batch-size 65536";
        let args = parse(line).unwrap();
        assert_eq!((args.mode, args.batch_size, args.level), (Mode::Latency, Setting(Some(65_536)), Setting(Some(-5))));
        assert_eq!((args.keyed, args.warmup), (true, Duration::ZERO));
        assert_eq!(parse("transact --values v --transaction 10000").unwrap().transaction, 10_000);
        assert_eq!(parse("consume --values v --level 3 --level default").unwrap().level, Setting(None));
    }

    #[test]
    fn rejects_missing_and_impossible_values() {
        for line in [
            "",
            "produce",
            "read --values v",
            "produce --values v --size 0",
            "produce --values v --partitions 0",
            "produce --values v --rate 0",
            "transact --values v --transaction 0",
            "produce --values v --keyed",
            "produce --values v --warmup -1",
            "produce --values v --seconds NaN",
            "produce --values v --level best",
            "produce --values v --what 1",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
