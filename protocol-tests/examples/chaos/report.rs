//! The results of a run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

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

    fn json(&self) -> String {
        format!(
            "\"silent_s\":{:.1},\"partition_silent_s\":{:.1},\"producer_silent_s\":{:.1}",
            self.all.as_secs_f64(),
            self.partition.as_secs_f64(),
            self.one.as_secs_f64()
        )
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

/// The whole run so far.
#[derive(Default)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) version: String,
    pub(crate) rounds: Vec<Done>,
    /// By producer: numbers of records by result, and its errors.
    pub(crate) producers: Vec<(&'static str, Counts, BTreeMap<String, u64>)>,
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
        let rounds: Vec<String> = self.rounds.iter().map(Done::json).collect();
        let producers: Vec<String> = self
            .producers
            .iter()
            .map(|(name, counts, errors)| {
                let errors: Vec<String> = errors.iter().map(|(error, n)| format!("{}:{n}", quoted(error))).collect();
                format!("{}:{{{},\"errors\":{{{}}}}}", quoted(name), counts_as_json(counts), errors.join(","))
            })
            .collect();
        let wrongs: Vec<String> = self.wrongs.iter().map(|(name, count)| format!("{}:{count}", quoted(name))).collect();
        format!(
            "{{\"name\":\"chaos\",\"passed\":{},\"seed\":{},\"version\":{},\"seconds\":{:.1},{},\"read_again\":{},\
             \"wrong\":{{{}}},\"producers\":{{{}}},\"broken\":{},\"rounds\":[{}]}}",
            self.passed(),
            self.seed,
            quoted(&self.version),
            self.took.as_secs_f64(),
            counts_as_json(&self.total()),
            self.read_again,
            wrongs.join(","),
            producers.join(","),
            self.broken.as_deref().map_or("null".to_owned(), quoted),
            rounds.join(","),
        )
    }
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

    fn json(&self) -> String {
        let did: Vec<String> = self.did.iter().map(|step| quoted(step)).collect();
        format!(
            "{{\"round\":{},\"planned\":{},\"did\":[{}],\"seconds\":{:.1},{},{},\"wrong\":{}}}",
            self.number,
            quoted(&self.planned),
            did.join(","),
            self.took.as_secs_f64(),
            self.silent.json(),
            counts_as_json(&self.counts),
            self.wrongs,
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

fn counts_as_json(counts: &Counts) -> String {
    format!(
        "\"sent\":{},\"acknowledged\":{},\"not_persisted\":{},\"possibly_persisted\":{},\"turned_up\":{},\"found\":{}",
        counts.sent,
        counts.acknowledged,
        counts.not_persisted,
        counts.possibly_persisted,
        counts.turned_up,
        counts.found
    )
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
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
}
