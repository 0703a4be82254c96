//! The judgement of a history, for people and as JSON.
//!
//! Sans-IO.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// The number of anomalies of a kind that are described; all are counted.
const EXAMPLES: usize = 10;

/// A kind of anomaly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A record was acknowledged (in a transaction: committed) and is not there, although a later
    /// offset of its partition was seen.
    Lost,
    /// A record was acknowledged (in a transaction: committed), and neither it nor a later offset
    /// of its partition was seen until the end.
    Unseen,
    /// A value is at two offsets of its topic.
    Duplicated,
    /// A record was seen that was never sent, or that was acknowledged at another offset.
    Unwritten,
    /// An offset has two values.
    TwoValues,
    /// A committed read saw a record of a transaction that did not commit, or a record that failed
    /// (G1a).
    AbortedRead,
    /// Only a part of a transaction is visible at the end (G1b).
    IntermediateRead,
    /// Transactions wrote keys in an order that is a cycle (G0).
    WriteCycle,
    /// Transactions wrote and read in an order that is a cycle (G1c).
    ReadCycle,
    /// A producer's records of a partition are in another order than they were sent in.
    Reordered,
    /// A consumer passed over a record.
    SkippedPoll,
    /// A consumer received an offset again, or an earlier one, without a seek.
    NonmonotonicPoll,
    /// A log has a transaction that never ends: its last stable offset is before its end.
    Hanging,
    /// A record of the input has no copy.
    MissingCopy,
    /// The output has a record that is not in the input, or a second copy of one.
    ExtraCopy,
    /// Copies are in another order than their originals.
    ReorderedCopy,
    /// A committed transaction moved a group's offset over records whose copies it did not write.
    OffsetsWithoutOutputs,
    /// A group's final offset does not match the copies: it is behind records that have copies, or
    /// ahead of records that have none.
    CommittedOffset,
}

impl Kind {
    /// The name in the verdict.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Unseen => "unseen",
            Self::Duplicated => "duplicated",
            Self::Unwritten => "unwritten",
            Self::TwoValues => "two values",
            Self::AbortedRead => "aborted read (G1a)",
            Self::IntermediateRead => "intermediate read (G1b)",
            Self::WriteCycle => "write cycle (G0)",
            Self::ReadCycle => "read cycle (G1c)",
            Self::Reordered => "reordered",
            Self::SkippedPoll => "skipped poll",
            Self::NonmonotonicPoll => "nonmonotonic poll",
            Self::Hanging => "hanging transaction",
            Self::MissingCopy => "missing copy",
            Self::ExtraCopy => "extra copy",
            Self::ReorderedCopy => "reordered copy",
            Self::OffsetsWithoutOutputs => "offsets without outputs",
            Self::CommittedOffset => "committed offset",
        }
    }
}

/// One anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Anomaly {
    /// Its kind.
    pub kind: Kind,
    /// The line of the history that shows it.
    pub line: u64,
    /// The description.
    pub message: String,
}

/// The contents of a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statistics {
    /// Number of lines.
    pub events: u64,
    /// Number of records that were sent.
    pub sent: u64,
    /// Number of records that were acknowledged.
    pub acknowledged: u64,
    /// Number of transactions.
    pub transactions: u64,
    /// Number of transactions that were committed.
    pub committed: u64,
    /// Number of transactions that were aborted, or ended without a commit.
    pub aborted: u64,
    /// Number of transactions with an unknown outcome.
    pub unknown: u64,
    /// Number of records that polls returned.
    pub polled: u64,
    /// Number of records in the final logs.
    pub logged: u64,
}

/// The judgement of a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// True if there is no anomaly.
    pub valid: bool,
    /// The contents of the history.
    pub statistics: Statistics,
    /// The number of anomalies of each kind.
    pub counts: BTreeMap<Kind, u64>,
    /// The first anomalies of each kind.
    pub anomalies: Vec<Anomaly>,
}

impl Verdict {
    /// Returns the number of anomalies of a kind.
    pub fn count(&self, kind: Kind) -> u64 {
        self.counts.get(&kind).copied().unwrap_or(0)
    }

    pub(crate) fn blame(&mut self, kind: Kind, line: u64, message: impl FnOnce() -> String) {
        self.valid = false;
        let count = self.counts.entry(kind).or_insert(0);
        *count += 1;
        if *count <= EXAMPLES as u64 {
            self.anomalies.push(Anomaly { kind, line, message: message() });
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = &self.statistics;
        if self.valid {
            writeln!(f, "VALID: no anomaly")?;
        } else {
            let counts: Vec<String> =
                self.counts.iter().map(|(kind, count)| format!("{count} {}", kind.name())).collect();
            writeln!(f, "INVALID: {}", counts.join(", "))?;
        }
        writeln!(
            f,
            "{} events: {} records sent, {} acknowledged; {} transactions, {} committed, {} aborted, {} unknown; \
             {} records polled, {} in logs",
            of.events,
            of.sent,
            of.acknowledged,
            of.transactions,
            of.committed,
            of.aborted,
            of.unknown,
            of.polled,
            of.logged
        )?;
        for (kind, count) in &self.counts {
            let examples = self.anomalies.iter().filter(|anomaly| anomaly.kind == *kind);
            let mut described = 0;
            for anomaly in examples {
                writeln!(f, "{}: {} (line {})", kind.name(), anomaly.message, anomaly.line)?;
                described += 1;
            }
            if *count > described {
                writeln!(f, "{}: {} more", kind.name(), count - described)?;
            }
        }
        Ok(())
    }
}
