//! The results of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::ledger::{Counts, Wrong, Wrongs};

/// One completed round.
pub(crate) struct Done {
    pub(crate) number: u64,
    pub(crate) planned: String,
    pub(crate) did: Vec<String>,
    pub(crate) took: Duration,
    pub(crate) silent: Silence,
    pub(crate) counts: Counts,
    pub(crate) wrongs: u64,
}

/// The longest times without an acknowledgement in a round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    /// For all partitions together, over all producers.
    pub(crate) all: Duration,
    /// For one partition, over all producers.
    pub(crate) partition: Duration,
    /// For one partition and this producer.
    pub(crate) one: Duration,
    pub(crate) producer: &'static str,
}

impl Silence {
    pub(crate) fn longest(&self) -> Duration {
        self.all.max(self.partition).max(self.one)
    }
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [all, partition, one] = [self.all, self.partition, self.one].map(|time| time.as_secs_f64());
        write!(f, "silent for {all:.1} s, one partition for {partition:.1} s")?;
        if self.producer.is_empty() {
            return Ok(());
        }
        write!(f, ", to {} for {one:.1} s", self.producer)
    }
}

/// A producer's name, the numbers of its records by result, and its errors.
type ProducerResults = (&'static str, Counts, BTreeMap<String, u64>);

/// The whole run so far.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) version: String,
    pub(crate) rounds: Vec<Done>,
    pub(crate) producers: Vec<ProducerResults>,
    pub(crate) wrongs: BTreeMap<&'static str, u64>,
    pub(crate) examples: Vec<String>,
    /// Number of records that were read again at the end.
    pub(crate) read_again: u64,
    pub(crate) took: Duration,
    /// The reason for which the run ended early.
    pub(crate) broken: Option<String>,
}

impl Report {
    pub(crate) fn blame(&mut self, wrongs: &Wrongs) {
        for wrong in Wrong::ALL {
            *self.wrongs.entry(wrong.name()).or_default() += wrongs.count(wrong);
        }
        self.examples.extend(wrongs.examples.iter().cloned());
    }

    pub(crate) fn passed(&self) -> bool {
        self.broken.is_none() && self.wrongs.values().all(|count| *count == 0)
    }

    fn total(&self) -> Counts {
        let mut total = Counts::default();
        self.producers.iter().for_each(|(_, counts, _)| total.add(counts));
        total
    }

    /// Returns a summary for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = String::new();
        for (name, counts, errors) in &self.producers {
            let _ = writeln!(text, "{name:>10}: {}", counts_in_words(counts));
            for (error, count) in errors {
                let _ = writeln!(text, "{:>12}{count} × {error}", "");
            }
        }
        let longest = self.rounds.iter().map(|round| round.silent);
        let longest = longest.reduce(|a, b| {
            let of_one = if a.one >= b.one { a } else { b };
            Silence { all: a.all.max(b.all), partition: a.partition.max(b.partition), ..of_one }
        });
        let longest = longest.unwrap_or_default();
        let _ = writeln!(text, "{} rounds in {:.0} s; at most {longest}", self.rounds.len(), self.took.as_secs_f64());
        let _ = writeln!(text, "{}; {} read again", counts_in_words(&self.total()), self.read_again);
        for (name, count) in self.wrongs.iter().filter(|(_, count)| **count > 0) {
            let _ = writeln!(text, "WRONG: {count} {name}");
        }
        for example in &self.examples {
            let _ = writeln!(text, "  {example}");
        }
        if let Some(why) = &self.broken {
            let _ = writeln!(text, "BROKEN OFF: {why}");
        }
        let _ = match self.passed() {
            true => {
                writeln!(text, "PASSED (seed {}): each acknowledged record once, in order, at its place", self.seed)
            }
            false => writeln!(text, "FAILED (seed {})", self.seed),
        };
        text
    }

    /// Returns one line of JSON for programs.
    pub(crate) fn json(&self) -> String {
        let line = Line {
            name: "chaos",
            passed: self.passed(),
            seed: self.seed,
            version: &self.version,
            seconds: tenths(self.took),
            counts: &self.total(),
            read_again: self.read_again,
            wrong: &self.wrongs,
            producers: &self.producers,
            broken: self.broken.as_deref(),
            rounds: self.rounds.iter().map(RoundLine::of).collect(),
        };
        serde_json::to_string(&line).expect("every key is text")
    }
}

/// The run's line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    passed: bool,
    seed: u64,
    version: &'a str,
    seconds: f64,
    #[serde(flatten)]
    counts: &'a Counts,
    read_again: u64,
    wrong: &'a BTreeMap<&'static str, u64>,
    #[serde(serialize_with = "by_name")]
    producers: &'a [ProducerResults],
    broken: Option<&'a str>,
    rounds: Vec<RoundLine<'a>>,
}

#[derive(Serialize)]
struct ProducerLine<'a> {
    #[serde(flatten)]
    counts: &'a Counts,
    errors: &'a BTreeMap<String, u64>,
}

#[derive(Serialize)]
struct RoundLine<'a> {
    round: u64,
    planned: &'a str,
    did: &'a [String],
    seconds: f64,
    silent_s: f64,
    partition_silent_s: f64,
    producer_silent_s: f64,
    #[serde(flatten)]
    counts: &'a Counts,
    wrong: u64,
}

impl<'a> RoundLine<'a> {
    fn of(done: &'a Done) -> Self {
        Self {
            round: done.number,
            planned: &done.planned,
            did: &done.did,
            seconds: tenths(done.took),
            silent_s: tenths(done.silent.all),
            partition_silent_s: tenths(done.silent.partition),
            producer_silent_s: tenths(done.silent.one),
            counts: &done.counts,
            wrong: done.wrongs,
        }
    }
}

/// Serializes an object with a field for each producer, in the order of the producers.
fn by_name<S: Serializer>(producers: &[ProducerResults], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(producers.iter().map(|(name, counts, errors)| (name, ProducerLine { counts, errors })))
}

/// Returns the seconds, rounded to a tenth.
fn tenths(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

impl Done {
    /// Returns one line for people.
    pub(crate) fn line(&self) -> String {
        format!(
            "round {}: {} ({}) in {:.0} s; {}; {}{}",
            self.number,
            self.planned,
            self.did.join(", "),
            self.took.as_secs_f64(),
            self.silent,
            counts_in_words(&self.counts),
            if self.wrongs == 0 { String::new() } else { format!("; {} WRONG", self.wrongs) },
        )
    }
}

fn counts_in_words(counts: &Counts) -> String {
    format!(
        "{} sent, {} acknowledged, {} not persisted, {} possibly persisted ({} of them there), {} in the log",
        counts.sent,
        counts.acknowledged,
        counts.not_persisted,
        counts.possibly_persisted,
        counts.turned_up,
        counts.found
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_violation_fails_run_and_is_printed() {
        let mut report = Report { seed: 7, ..Report::default() };
        assert!(report.passed());
        let mut wrongs = Wrongs::default();
        wrongs.add(Wrong::Lost, "p 3");
        report.blame(&wrongs);
        assert!(!report.passed());
        assert!(report.summary().contains("WRONG: 1 lost\n  lost: p 3\nFAILED (seed 7)"), "{}", report.summary());
        assert!(report.json().starts_with(r#"{"name":"chaos","passed":false,"seed":7,"#), "{}", report.json());
        report.broken = Some("a \"b\"\n".to_owned());
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["wrong"]["lost"], &json["broken"]), (&1.into(), &"a \"b\"\n".into()));
    }

    #[test]
    fn json_holds_producers_and_rounds() {
        let counts = Counts { sent: 3, acknowledged: 2, turned_up: 1, ..Counts::default() };
        let mut report = Report { seed: 7, version: "4.4.0".to_owned(), ..Report::default() };
        report.producers.push(("plain", counts, BTreeMap::from([("a \"b\"".to_owned(), 1)])));
        report.producers.push(("keyed", counts, BTreeMap::new()));
        report.rounds.push(Done {
            number: 1,
            planned: "kill".to_owned(),
            did: vec!["kill 1".to_owned(), "start 1".to_owned()],
            took: Duration::from_millis(1_960),
            silent: Silence { all: Duration::from_secs(1), one: Duration::from_millis(1_449), ..Silence::default() },
            counts,
            wrongs: 0,
        });
        let one = r#""sent":3,"acknowledged":2,"not_persisted":0,"possibly_persisted":0,"turned_up":1,"found":0"#;
        let two = one.replace('3', "6").replace('2', "4").replace(":1", ":2");
        let expected = [
            r#"{"name":"chaos","passed":true,"seed":7,"version":"4.4.0","seconds":0.0,"#,
            &two,
            r#","read_again":0,"wrong":{},"producers":{"plain":{"#,
            one,
            r#","errors":{"a \"b\"":1}},"keyed":{"#,
            one,
            r#","errors":{}}},"broken":null,"rounds":[{"round":1,"planned":"kill","did":["kill 1","start 1"],"#,
            r#""seconds":2.0,"silent_s":1.0,"partition_silent_s":0.0,"producer_silent_s":1.4,"#,
            one,
            r#","wrong":0}]}"#,
        ];
        assert_eq!(report.json(), expected.concat());
    }
}
