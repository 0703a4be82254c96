//! The command line arguments.

use std::fmt;

use clap::Command;
use protocol_tests::arguments::{one_of, option, value, values, version};

use crate::scenarios::Scenario;

/// The programs that take part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    Ottla,
    Java,
    /// Members of both kinds in one group.
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
}

/// The assignment of partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setting {
    /// The classic protocol, with this strategy of Java's client.
    Classic(&'static str),
    /// The consumer protocol (KIP-848).
    Consumer,
}

const STRATEGIES: [(&str, &str); 4] = [
    ("range", "org.apache.kafka.clients.consumer.RangeAssignor"),
    ("roundrobin", "org.apache.kafka.clients.consumer.RoundRobinAssignor"),
    ("sticky", "org.apache.kafka.clients.consumer.StickyAssignor"),
    ("cooperative-sticky", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor"),
];

impl Setting {
    fn all() -> Vec<Self> {
        STRATEGIES.iter().map(|(_, class)| Self::Classic(class)).chain([Self::Consumer]).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Classic(class) => {
                STRATEGIES.iter().find(|(_, known)| *known == class).map_or(class, |(name, _)| name)
            }
            Self::Consumer => "consumer",
        }
    }

    /// Returns true if a classic group keeps the partitions that do not move during a rebalance.
    pub(crate) fn is_cooperative(self) -> bool {
        self == Self::Classic(STRATEGIES[3].1)
    }

    /// Returns the options of a verifiable consumer for this setting.
    pub(crate) fn options(self) -> Vec<String> {
        match self {
            Self::Classic(class) => vec!["--assignment-strategy".to_owned(), class.to_owned()],
            Self::Consumer => vec!["--group-protocol".to_owned(), "consumer".to_owned()],
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The settings of a run.
pub(crate) struct Args {
    pub(crate) clients: Vec<Clients>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) version: String,
}

fn command() -> Command {
    Command::new("verifiable").args([
        option("clients", "NAME,...", "the programs that take part; mixed: a group of both, with Ottla's producer")
            .default_value("ottla,java,mixed")
            .value_delimiter(',')
            .value_parser(one_of(Clients::ALL, |clients| clients.name())),
        option("scenarios", "NAME,...", "the scenarios that are run; all of them if not given")
            .value_delimiter(',')
            .value_parser(one_of(Scenario::ALL, |scenario| scenario.name())),
        version(),
        option("settings", "NAME,...", "the assignment of partitions; consumer is the protocol of KIP-848")
            .default_value("range")
            .value_delimiter(',')
            .value_parser(one_of(Setting::all(), |setting| setting.name())),
    ])
}

impl Args {
    /// # Errors
    /// The help, which was asked for, or a mistake in the arguments.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Self, clap::Error> {
        let given = &command().no_binary_name(true).try_get_matches_from(args)?;
        let scenarios = values(given, "scenarios");
        Ok(Self {
            clients: values(given, "clients"),
            scenarios: if scenarios.is_empty() { Scenario::ALL.to_vec() } else { scenarios },
            settings: values(given, "settings"),
            version: value(given, "version"),
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
        let args = parse("--clients java,mixed --scenarios fencing --settings sticky,consumer").unwrap();
        assert_eq!(args.clients, [Clients::Java, Clients::Mixed]);
        assert_eq!(args.scenarios, [Scenario::Fencing]);
        assert_eq!(args.settings, [Setting::Classic(STRATEGIES[2].1), Setting::Consumer]);
        assert_eq!(args.settings[0].to_string(), "sticky");
        assert_eq!(parse("").unwrap().clients, Clients::ALL);
        assert_eq!(parse("--help").err().map(|why| why.kind()), Some(clap::error::ErrorKind::DisplayHelp));
        for line in
            ["--clients", "--clients c", "--scenarios x", "--settings best", "--what 1", "--version 1 --version 2"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
