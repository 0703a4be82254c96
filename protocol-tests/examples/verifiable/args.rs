//! The command line arguments.

use std::fmt;

use protocol_tests::default_version;

use crate::scenarios::Scenario;

pub(crate) const USAGE: &str = "usage: verifiable [--clients ottla,java,mixed] [--scenarios NAME,...] [--version 4.4.0]
                  [--settings range,roundrobin,sticky,cooperative-sticky,consumer]
  --clients    the programs that take part; mixed: a group of both, with Ottla's producer. Default: all three
  --scenarios  member-clean, member-hard, member-frozen, broker-clean, broker-hard, static-bounce, fencing. Default: all of them
  --settings   the assignment of partitions; consumer is the protocol of KIP-848. Default: range";

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    fn named(name: &str) -> Result<Self, String> {
        if name == "consumer" {
            return Ok(Self::Consumer);
        }
        let found = STRATEGIES.iter().find(|(known, _)| *known == name);
        found.map(|(_, class)| Self::Classic(class)).ok_or_else(|| format!("{name} is not a setting"))
    }

    /// Returns true if a classic group keeps the partitions that do not move during a rebalance.
    pub(crate) fn is_cooperative(&self) -> bool {
        *self == Self::Classic(STRATEGIES[3].1)
    }

    /// Returns the options of a verifiable consumer for this setting.
    pub(crate) fn options(&self) -> Vec<String> {
        match self {
            Self::Classic(class) => vec!["--assignment-strategy".to_owned(), (*class).to_owned()],
            Self::Consumer => vec!["--group-protocol".to_owned(), "consumer".to_owned()],
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classic(class) => {
                let known = STRATEGIES.iter().find(|(_, known)| known == class);
                f.write_str(known.map_or(*class, |(name, _)| *name))
            }
            Self::Consumer => f.write_str("consumer"),
        }
    }
}

/// The settings of a run.
pub(crate) struct Args {
    pub(crate) clients: Vec<Clients>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) version: String,
}

impl Args {
    /// Parses the arguments; `None` if only the usage has to be printed.
    pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut args = protocol_tests::given_once(args, &[])?;
        let mut parsed = Self {
            clients: Clients::ALL.to_vec(),
            scenarios: Scenario::ALL.to_vec(),
            settings: vec![Setting::Classic(STRATEGIES[0].1)],
            version: default_version(),
        };
        while let Some(arg) = args.next() {
            if arg == "--help" || arg == "-h" {
                return Ok(None);
            }
            let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
            match arg.as_str() {
                "--clients" => {
                    parsed.clients = each(&value, |name| Clients::ALL.into_iter().find(|one| one.name() == name))?
                }
                "--scenarios" => {
                    parsed.scenarios = each(&value, |name| Scenario::ALL.into_iter().find(|one| one.name() == name))?;
                }
                "--settings" => parsed.settings = value.split(',').map(Setting::named).collect::<Result<_, _>>()?,
                "--version" => parsed.version = value,
                _ => return Err(format!("{arg} is unknown\n{USAGE}")),
            }
        }
        Ok(Some(parsed))
    }
}

fn each<T>(names: &str, find: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, String> {
    names.split(',').map(|name| find(name).ok_or_else(|| format!("{name} is unknown\n{USAGE}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Option<Args>, String> {
        Args::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn parses_valid_options_and_rejects_others() {
        let args = parse("--clients java,mixed --scenarios fencing --settings sticky,consumer").unwrap().unwrap();
        assert_eq!(args.clients, [Clients::Java, Clients::Mixed]);
        assert_eq!(args.scenarios, [Scenario::Fencing]);
        assert_eq!(args.settings, [Setting::Classic(STRATEGIES[2].1), Setting::Consumer]);
        assert_eq!(args.settings[0].to_string(), "sticky");
        assert!(parse("--help").unwrap().is_none());
        for line in
            ["--clients", "--clients c", "--scenarios x", "--settings best", "--what 1", "--version 1 --version 2"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
